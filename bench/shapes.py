"""The shapes of well-known models, whose speed is measured with random weights.

What it is: sizes, by name. The vocabulary is that of the tokenizer shipped with csrm for all of
them, whatever the model's own: a smaller table changes nothing that is timed, which reads a row of
it per token, and of an LM head csrm reads the verbalizer rows alone. Not: weights
(random_artifact.py).
"""

from __future__ import annotations

from csrm.errors import BadArgument
from csrm.train.decoder import DecoderShape
from csrm.train.model import ModelShape

Sizes = ModelShape | DecoderShape
VOCABULARY = 30522
_POSITIONS = 8192


def _decoder(
    layers: int,
    hidden: int,
    heads: tuple[int, int, int],
    intermediate: int,
    rope_theta: float,
    *,
    epsilon: float = 1e-5,
    has_qkv_bias: bool = False,
) -> DecoderShape:
    """heads: of queries, of keys, and the width of one."""
    return DecoderShape(
        vocab_size=VOCABULARY,
        hidden=hidden,
        layers=layers,
        heads=heads[0],
        kv_heads=heads[1],
        head_dim=heads[2],
        intermediate=intermediate,
        max_positions=_POSITIONS,
        n_safe=3,
        n_unsafe=3,
        norm_epsilon=epsilon,
        rope_theta=rope_theta,
        has_qkv_bias=has_qkv_bias,
    )


def _qwen(layers: int, hidden: int, heads: tuple[int, int, int], intermediate: int) -> DecoderShape:
    return _decoder(layers, hidden, heads, intermediate, 1e6, epsilon=1e-6, has_qkv_bias=True)


SHAPES: dict[str, Sizes] = {
    "minilm-l6": ModelShape(vocab_size=VOCABULARY),
    "mpnet-base": ModelShape(VOCABULARY, hidden=768, layers=12, heads=12, intermediate=3072),
    "smollm2-135m": _decoder(30, 576, (9, 3, 64), 1536, 1e5),
    "qwen2.5-0.5b": _qwen(24, 896, (14, 2, 64), 4864),
    "qwen2.5-1.5b": _qwen(28, 1536, (12, 2, 128), 8960),
    "llama3-8b": _decoder(32, 4096, (32, 8, 128), 14336, 5e5),
}


def shape_named(name: str) -> Sizes:
    """The sizes of that name. Errors: BadArgument."""
    if name not in SHAPES:
        raise BadArgument(f"there is no such shape; known are {', '.join(SHAPES)}")
    return SHAPES[name]
