"""A tiny random model of csrm's real architecture, its tokenizer and its checkpoint folder.

Not the toy artifact (toy.py), whose graph is written by hand: here the Encoder of csrm.train.model
is what is tested, trained or exported. Weights are drawn wide, so that rewards differ.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from csrm import _core
from csrm.train.batch import BatchBuilder, Example, RuleText, TurnText
from csrm.train.calibration.platt import Calibration
from csrm.train.model import Encoder, ModelShape, backbone_names, save_checkpoint
from csrm.train.template import TEMPLATE, make_renderer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
FIRST_LETTER = 104
WORDS = [
    "[PAD]",
    *(f"[unused{i}]" for i in range(99)),
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    ",",
    ".",
]
# Matrices of 4096 bytes and more exist, so that the fused graph has weights to share.
SHAPE = ModelShape(vocab_size=len(WORDS), hidden=32, layers=2, heads=4, intermediate=128)
CALIBRATION = Calibration(a=1.25, b=-0.4, n=10, nll_before=0.7, nll_after=0.6)

RULES: tuple[RuleText, ...] = (
    ("no a", "a b c d e f"),
    ("", "g h"),
    ("x", "never say z , or y x w v u t s"),
)
CHAT: tuple[TurnText, ...] = (
    ("user", "hello a b"),
    ("assistant", "c d e f g h i j k"),
    ("assistant", "well , z y x w ."),
)


def tokenizer_json() -> bytes:
    """WordPiece over single letters, with BERT's control ids at their usual places."""
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {word: i for i, word in enumerate(WORDS)},
    }
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    }
    empty = dict.fromkeys(("truncation", "padding", "post_processor", "decoder"))
    return json.dumps(
        {
            "version": "1.0",
            **empty,
            "added_tokens": [],
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "model": model,
        }
    ).encode()


def renderer() -> _core.Renderer:
    return make_renderer(tokenizer_json())


def builder(row_group: int = 16) -> BatchBuilder:
    return BatchBuilder(renderer(), row_group)


def encoder(shape: ModelShape = SHAPE, seed: int = 0) -> Encoder:
    """A random Encoder in eval mode."""
    torch.manual_seed(seed)
    model = Encoder(shape).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
        model.verbalizers.weight.normal_(std=0.5)
    return model


def write_checkpoint(folder: Path, model: Encoder, calibration: Calibration = CALIBRATION) -> Path:
    """The files that `csrm export` reads."""
    save_checkpoint(model, folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    (folder / "calibration.json").write_text(json.dumps(asdict(calibration)))
    (folder / "provenance.json").write_text(json.dumps({"sources": ["rbr"], "seed": 0}))
    return folder


def write_backbone(folder: Path, shape: ModelShape = SHAPE) -> Path:
    """A random BERT-shaped model with the files of Hugging Face."""
    folder.mkdir(parents=True, exist_ok=True)
    model = encoder(shape)
    state = model.state_dict()
    tensors: dict[str, Tensor] = {
        theirs: state[ours].contiguous() for ours, theirs in backbone_names(shape).items()
    }
    tensors["embeddings.token_type_embeddings.weight"] = torch.randn(2, shape.hidden)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "hidden_act": "gelu",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.max_block_tokens,
        "layer_norm_eps": shape.norm_epsilon,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    return folder


def letters(n: int, start: int = 0) -> str:
    """`n` one-letter words."""
    return " ".join(LETTERS[(start + 7 * i + i * i // 3) % 26] for i in range(n))


def examples(n: int, seed: int = 0) -> list[Example]:
    """`n` examples of random lengths, with one to four of ten rules each."""
    rng = np.random.default_rng(seed)
    rules = [("n" if i % 3 else "", letters(3 + 5 * i, i)) for i in range(10)]
    roles = list(TEMPLATE["roles"])
    return [
        Example(
            tuple(rules[j] for j in rng.permutation(10)[: rng.integers(1, 5)]),
            tuple(
                (roles[rng.integers(4)], letters(int(rng.integers(1, 30)), i + t))
                for t in range(rng.integers(1, 5))
            ),
            float(i % 2),
        )
        for i in range(n)
    ]
