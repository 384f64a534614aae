"""The Llama-family decoder: `encode(block tokens, prefix) -> (block key/value, reward)`.

What it is: the PyTorch definition of csrm's second backbone (Llama 3, SmolLM2, Qwen2/2.5/3): RoPE,
grouped-query attention, RMSNorm, SwiGLU, and of the LM head only the verbalizer rows. The same
interface as csrm.train.model, so batches, losses and the trainer do not care which one they have.
Not: reading Hugging Face files (csrm.train.decoder_files), the prompt (csrm.train.chat_template)
or the ONNX graph (csrm.export.decoder_graph).

Rows are causal: `visible[t] = t + 1`, and positions run on from the end of the prefix. Keys are
kept with their rotation, so a prefix is valid at its own positions only, which is where it is used:
it always begins a sequence. The last layer computes only the tokens that the head reads.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from csrm.errors import BadArtifact
from csrm.train.model import (
    Encoded,
    Places,
    Prefix,
    Rows,
    attend,
    attention_bias,
    join,
    pooled_states,
)

Rotation = tuple[Tensor, Tensor]  # cosine, sine; float [N, head_dim / 2]


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's slowing of the low frequencies, which lengthens the usable context."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int


@dataclass(frozen=True)
class DecoderShape:
    """Sizes and variants of a decoder."""

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    max_positions: int
    n_safe: int
    n_unsafe: int
    norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    has_qkv_bias: bool = False  # Qwen2, and Llama with attention_bias
    has_output_bias: bool = False  # Llama with attention_bias
    has_mlp_bias: bool = False
    has_qk_norm: bool = False  # Qwen3

    def frequencies(self) -> Tensor:
        """Radians per position of each pair of a head's dimensions, fp32 [head_dim / 2]."""
        exponent = torch.arange(0, self.head_dim, 2, dtype=torch.int64).float() / self.head_dim
        plain = 1.0 / (self.rope_theta**exponent)
        scaling = self.rope_scaling
        if scaling is None:
            return plain
        turns = scaling.original_positions * plain / (2 * math.pi)
        spread = scaling.high_frequency_factor - scaling.low_frequency_factor
        # 1 where a pair turns often enough to be kept, 0 where it is slowed by the whole factor.
        kept = ((turns - scaling.low_frequency_factor) / spread).clamp(0, 1)
        return kept * plain + (1 - kept) * plain / scaling.factor


@dataclass(frozen=True)
class Pooled:
    """The tokens that the head reads: of the last layer no other state is computed."""

    at: Tensor  # int64 [B, J] into their rows; -1 = none
    rotation: Rotation  # theirs, [B * J, head_dim / 2]


class RmsNorm(nn.Module):
    """x / rms(x) * weight over the last axis; the mean is taken in fp32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalised `x`, in its dtype."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (self.weight * (wide * scale)).to(x.dtype)


class DecoderLayer(nn.Module):
    """One pre-norm layer whose queries may be fewer than its keys."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        query_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.attention_norm = RmsNorm(shape.hidden, shape.norm_epsilon)
        self.query = nn.Linear(shape.hidden, query_width, bias=shape.has_qkv_bias)
        self.key = nn.Linear(shape.hidden, kv_width, bias=shape.has_qkv_bias)
        self.value = nn.Linear(shape.hidden, kv_width, bias=shape.has_qkv_bias)
        self.attended = nn.Linear(query_width, shape.hidden, bias=shape.has_output_bias)
        if shape.has_qk_norm:
            self.query_norm = RmsNorm(shape.head_dim, shape.norm_epsilon)
            self.key_norm = RmsNorm(shape.head_dim, shape.norm_epsilon)
        self.mlp_norm = RmsNorm(shape.hidden, shape.norm_epsilon)
        self.gate = nn.Linear(shape.hidden, shape.intermediate, bias=shape.has_mlp_bias)
        self.up = nn.Linear(shape.hidden, shape.intermediate, bias=shape.has_mlp_bias)
        self.down = nn.Linear(shape.intermediate, shape.hidden, bias=shape.has_mlp_bias)

    def keys_values(self, states: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Rotated keys and values [N, kv_heads * head_dim] of states [N, hidden]."""
        normed = self.attention_norm(states)
        key = self.key(normed).view(len(states), self.shape.kv_heads, -1)
        if self.shape.has_qk_norm:
            key = self.key_norm(key)
        return rotate(key, rotation).reshape(len(states), -1), self.value(normed)

    def queries(self, states: Tensor, rotation: Rotation) -> Tensor:
        """Rotated queries [N, heads * head_dim] of states [N, hidden]."""
        query = self.query(self.attention_norm(states)).view(len(states), self.shape.heads, -1)
        if self.shape.has_qk_norm:
            query = self.query_norm(query)
        return rotate(query, rotation).reshape(len(states), -1)

    def forward(
        self,
        states: Tensor,
        rotation: Rotation,
        places: Places,
        before: tuple[Tensor, Tensor] | None,
        bias: Tensor,
        pooled: Pooled | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(new states [N, hidden], key, value [B, T, kv_heads * head_dim]) of states [N, hidden].

        `before` holds the prefix's keys and values. bias [B, 1, G * T, P + T], once per query head
        of a group of G. With `pooled`, the new states are those of its tokens alone, [B * J,
        hidden], and bias is [B, 1, T, P + T]. All of a layer is in one call: sharding gathers its
        weights for that long (csrm.train.sharding).
        """
        key, value = (places.pad(x) for x in self.keys_values(states, rotation))
        if pooled is not None:
            states, bias = pooled_states(places.pad(states), bias, pooled.at)
            bias = bias.repeat(1, 1, self.shape.heads // self.shape.kv_heads, 1)
            rotation = pooled.rotation
            places = Places.of(torch.ones_like(pooled.at, dtype=torch.bool))
        seen = (key, value)
        if before is not None:
            seen = (join(before[0], key), join(before[1], value))
        return self.new_states(states, rotation, places, *seen, bias), key, value

    def new_states(
        self,
        states: Tensor,
        rotation: Rotation,
        places: Places,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """New states [N, hidden] of the tokens at `places`, over keys [B, K, kv_heads * head_dim].

        bias [B, 1, G * Q, K] for the padded queries [B, Q], once per query head of a group of G:
        the queries of a group stand one after another, so that no key is copied.
        """
        shape = self.shape
        query = places.pad(self.queries(states, rotation))
        batch, length, _ = query.shape
        grouped = query.view(batch, length, shape.kv_heads, -1, shape.head_dim)
        grouped = grouped.permute(0, 2, 3, 1, 4)  # [B, kv_heads, G, Q, head_dim]
        context = attend(
            grouped.reshape(batch, shape.kv_heads, -1, shape.head_dim),
            self.split_heads(key),
            self.split_heads(value),
            bias.to(key.dtype),
        )
        context = context.view(grouped.shape).permute(0, 3, 1, 2, 4).reshape(query.shape)
        hidden = states + self.attended(places.take(context))
        normed = self.mlp_norm(hidden)
        output: Tensor = hidden + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return output

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, K, kv_heads * head_dim] -> [B, kv_heads, K, head_dim]."""
        return x.view(x.shape[0], x.shape[1], self.shape.kv_heads, -1).transpose(1, 2)


class Decoder(nn.Module):
    """The model. Rows in, keys, values and rewards out; see the module's docstring."""

    frequencies: Tensor

    def __init__(self, shape: DecoderShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.is_checkpointed = False  # recompute each layer in the backward pass: less memory
        self.tokens = nn.Embedding(shape.vocab_size, shape.hidden)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.output_norm = RmsNorm(shape.hidden, shape.norm_epsilon)
        self.verbalizers = nn.Linear(shape.hidden, shape.n_safe + shape.n_unsafe, bias=False)
        self.register_buffer("frequencies", shape.frequencies(), persistent=False)

    def forward(self, rows: Rows, prefix: Prefix | None = None) -> Encoded:
        """Keys and values [B, T, kv_heads * head_dim] per layer and rewards [B, J] of `rows`."""
        places = Places.of(rows.visible > 0)
        hidden = self.dropout(self.tokens(rows.input_ids.reshape(-1)[places.index]))
        rotation = self.rotation(rows.position_ids.reshape(-1)[places.index])
        bias = attention_bias(rows, prefix)
        n_group = self.shape.heads // self.shape.kv_heads
        bias_of_all = bias.repeat(1, 1, n_group, 1)
        keys, values = [], []
        for index, layer in enumerate(self.layers):
            before = None if prefix is None else (prefix.key[index], prefix.value[index])
            arguments = (hidden, rotation, places, before)
            if index == len(self.layers) - 1:
                hidden, key, value = layer(*arguments, bias, self.pooled(rows))
            elif self.is_checkpointed and self.training:
                hidden, key, value = checkpoint(layer, *arguments, bias_of_all, use_reentrant=False)
            else:
                hidden, key, value = layer(*arguments, bias_of_all)
            keys.append(key)
            values.append(value)
        states = hidden.view(*rows.pooled_at.shape, -1)
        return Encoded(keys, values, self.reward(states, rows.pooled_at))

    def pooled(self, rows: Rows) -> Pooled:
        """The tokens of `rows` that the head reads."""
        positions = rows.position_ids.gather(1, rows.pooled_at.clamp(min=0))
        return Pooled(rows.pooled_at, self.rotation(positions.reshape(-1)))

    def rotation(self, positions: Tensor) -> Rotation:
        """Cosine and sine [N, head_dim / 2] at positions [N], in fp32 whatever the precision."""
        angles = positions.float()[:, None] * self.frequencies
        return angles.cos(), angles.sin()

    def reward(self, hidden: Tensor, pooled_at: Tensor) -> Tensor:
        """Log-odds [B, J] of the pooled states [B, J, hidden] (arXiv 2605.30487, section 3)."""
        # In fp32 under mixed precision too: bf16 keeps 1/32 of a reward of 4 to 8, and ties pairs.
        with torch.autocast(hidden.device.type, enabled=False):
            normed = self.output_norm(hidden.float())
            logits = functional.linear(normed, self.verbalizers.weight.float())
        n_safe = self.shape.n_safe
        safe, unsafe = logits[..., :n_safe], logits[..., n_safe:]
        reward = safe.logsumexp(-1) - unsafe.logsumexp(-1)
        return reward.masked_fill(pooled_at < 0, torch.nan)


def decoder_of(shape: DecoderShape, state: dict[str, Tensor]) -> Decoder:
    """A Decoder that takes the tensors of `state` as they are: nothing is drawn at random first.

    Errors: RuntimeError when a tensor is missing or misshapen.
    """
    with torch.device("meta"):
        model = Decoder(shape)
    model.load_state_dict(state, assign=True)
    model.frequencies = shape.frequencies()
    return model


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """RoPE: the halves of x [N, heads, head_dim] are the parts of complex numbers, turned."""
    cosine, sine = (part[:, None].to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def save_decoder(model: Decoder, folder: Path) -> None:
    """Writes model.safetensors (fp32) and decoder.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.float().contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "decoder.json").write_text(json.dumps(asdict(model.shape), indent=1) + "\n")


def is_decoder_checkpoint(folder: Path) -> bool:
    """Whether `folder` was written by `save_decoder`."""
    return (folder / "decoder.json").is_file()


def load_decoder(folder: Path) -> Decoder:
    """The Decoder written by `save_decoder`, in eval mode. Errors: BadArtifact."""
    try:
        fields = json.loads((folder / "decoder.json").read_text())
        scaling = fields.pop("rope_scaling")
        shape = DecoderShape(**fields, rope_scaling=scaling and RopeScaling(**scaling))
        model = decoder_of(shape, load_file(folder / "model.safetensors"))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise BadArtifact(f"checkpoint folder cannot be read: {type(error).__name__}") from error
    return model.eval()
