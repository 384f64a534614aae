"""The block-attention encoder: `encode(block tokens, prefix) -> (block key/value, reward)`.

What it is: the PyTorch definition of the csrm model on a BERT-shaped backbone (MiniLM-L6 by
default). Not: batching (csrm.train.batch), losses (csrm.train.losses) or the ONNX graph, which
csrm.export.graph writes from the same weights and checks against this file.

Attention rule (docs/datapath.md): a token sees the whole prefix it is given and, in its own row,
the tokens before `visible[t]`. A rule block is encoded without a prefix; a turn sees every rule and
all earlier turns. The last layer computes only the tokens that the head reads.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from csrm.errors import BadArtifact

# Finite, so that a padding row (which sees nothing) gives no NaN, in fp16 too; large enough that
# exp() is 0.
MASKED = -3e4


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the encoder; defaults are MiniLM-L6's."""

    vocab_size: int = 30522
    hidden: int = 384
    layers: int = 6
    heads: int = 12
    intermediate: int = 1536
    max_block_tokens: int = 512
    n_turn_indices: int = 32
    n_safe: int = 1
    n_unsafe: int = 1
    norm_epsilon: float = 1e-12

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: as many as of queries."""
        return self.heads


@dataclass(frozen=True)
class Rows:
    """A padded batch of rows. All tensors int64; B rows of T tokens, J judged blocks a row."""

    input_ids: Tensor  # [B, T]
    position_ids: Tensor  # [B, T]
    segment_ids: Tensor  # [B, T]
    visible: Tensor  # [B, T] own-row tokens each token may see; 0 for padding
    pooled_at: Tensor  # [B, J] tokens the head reads; -1 = none


@dataclass(frozen=True)
class Prefix:
    """Keys and values that every row may see, per layer, and which of them exist."""

    key: list[Tensor]  # layers x [B or 1, P, hidden]
    value: list[Tensor]  # layers x [B or 1, P, hidden]
    present: Tensor  # bool [B or 1, P]


@dataclass(frozen=True)
class Encoded:
    """What `Encoder.forward` returns."""

    key: list[Tensor]  # layers x [B, T, hidden]
    value: list[Tensor]  # layers x [B, T, hidden]
    reward: Tensor  # [B, J] log-odds of compliance; NaN where pooled_at is -1


@dataclass(frozen=True)
class Places:
    """Where the real tokens of a padded [B, T] batch lie.

    Everything but attention runs on the real tokens alone: sorted by length, a batch of mixed
    families is still a third padding.
    """

    index: Tensor  # int64 [N] into the flattened batch, rising
    batch: int
    length: int

    @classmethod
    def of(cls, is_token: Tensor) -> Places:
        """The places where `is_token`, bool [B, T], is true."""
        return cls(is_token.reshape(-1).nonzero()[:, 0], *is_token.shape)

    def pad(self, states: Tensor) -> Tensor:
        """[N, hidden] -> [B, T, hidden], zeros elsewhere."""
        size = self.batch * self.length
        if len(self.index) < size:
            states = states.new_zeros(size, states.shape[-1]).index_copy(0, self.index, states)
        return states.view(self.batch, self.length, -1)

    def take(self, padded: Tensor) -> Tensor:
        """[B, T, hidden] -> [N, hidden]."""
        flat = padded.reshape(self.batch * self.length, -1)
        return flat if len(self.index) == len(flat) else flat.index_select(0, self.index)


class Layer(nn.Module):
    """One post-norm transformer layer whose queries may be fewer than its keys."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.hidden, shape.hidden)
        self.key = nn.Linear(shape.hidden, shape.hidden)
        self.value = nn.Linear(shape.hidden, shape.hidden)
        self.attended = nn.Linear(shape.hidden, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=shape.norm_epsilon)
        self.up = nn.Linear(shape.hidden, shape.intermediate)
        self.down = nn.Linear(shape.intermediate, shape.hidden)
        self.output_norm = nn.LayerNorm(shape.hidden, eps=shape.norm_epsilon)

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, N, hidden] -> [B, heads, N, head_dim]."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(
        self, states: Tensor, places: Places, key: Tensor, value: Tensor, bias: Tensor
    ) -> Tensor:
        """New states [N, hidden] of the tokens at `places`, over keys [B, K, hidden].

        bias [B, 1, Q, K] for the padded queries [B, Q].
        """
        query = places.pad(self.query(states))
        context = attend(
            self.split_heads(query),
            self.split_heads(key),
            self.split_heads(value),
            bias.to(key.dtype),
        )
        context = places.take(context.transpose(1, 2).reshape(query.shape))
        hidden = self.attention_norm(states + self.attended(context))
        output: Tensor = self.output_norm(hidden + self.down(functional.gelu(self.up(hidden))))
        return output


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(D) + bias) value, [B, heads, Q, D]; bias [B, 1, Q, K]."""
    if query.is_cuda or query.dtype == torch.float32:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    # On the CPU PyTorch's fused kernel is 1.5x slower than this, forward and backward, in bf16 at
    # the usual 100 queries over 400 keys (docs/log.md). Autocast would widen softmax to fp32.
    with torch.autocast("cpu", enabled=False):
        scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + bias
        return scores.softmax(-1) @ value


class Encoder(nn.Module):
    """The model. Rows in, keys, values and rewards out; see the module's docstring."""

    def __init__(self, shape: ModelShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocab_size, shape.hidden)
        self.positions = nn.Embedding(shape.max_block_tokens, shape.hidden)
        # Row 0: rules. Row 1 + i: turn i, all equal at the start, so turn order begins at zero.
        self.segments = nn.Embedding(1 + shape.n_turn_indices, shape.hidden)
        self.embedding_norm = nn.LayerNorm(shape.hidden, eps=shape.norm_epsilon)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.verbalizers = nn.Linear(shape.hidden, shape.n_safe + shape.n_unsafe)

    def forward(self, rows: Rows, prefix: Prefix | None = None) -> Encoded:
        """Keys and values [B, T, hidden] per layer and rewards [B, J] of `rows` over `prefix`."""
        places = Places.of(rows.visible > 0)
        hidden = self.embed(rows, places)
        bias = attention_bias(rows, prefix)
        keys, values = [], []
        for index, module in enumerate(self.layers):
            layer: Layer = module  # type: ignore[assignment]
            key, value = places.pad(layer.key(hidden)), places.pad(layer.value(hidden))
            keys.append(key)
            values.append(value)
            if prefix is not None:
                key = join(prefix.key[index], key)
                value = join(prefix.value[index], value)
            if index == len(self.layers) - 1:
                hidden, bias = pooled_states(places.pad(hidden), bias, rows.pooled_at)
                places = Places.of(torch.ones_like(rows.pooled_at, dtype=torch.bool))
            hidden = self.dropout(layer(hidden, places, key, value, bias))
        states = places.pad(hidden).float()
        return Encoded(keys, values, self.reward(states, rows.pooled_at))

    def embed(self, rows: Rows, places: Places) -> Tensor:
        """Token + position + segment embeddings of the real tokens, normalised: [N, hidden]."""
        ids, positions, segments = (
            ids.reshape(-1)[places.index]
            for ids in (rows.input_ids, rows.position_ids, rows.segment_ids)
        )
        total = self.tokens(ids) + self.positions(positions) + self.segments(segments)
        embedded: Tensor = self.dropout(self.embedding_norm(total))
        return embedded

    def reward(self, hidden: Tensor, pooled_at: Tensor) -> Tensor:
        """Log-odds [B, J] of the pooled states [B, J, hidden] (arXiv 2605.30487, section 3)."""
        # In fp32 under mixed precision too: bf16 keeps 1/32 of a reward of 4 to 8, and ties pairs.
        with torch.autocast(hidden.device.type, enabled=False):
            logits = functional.linear(hidden, self.verbalizers.weight, self.verbalizers.bias)
        n_safe = self.shape.n_safe
        safe, unsafe = logits[..., :n_safe], logits[..., n_safe:]
        reward = safe.logsumexp(-1) - unsafe.logsumexp(-1)
        return reward.masked_fill(pooled_at < 0, torch.nan)


def pooled_states(states: Tensor, bias: Tensor, pooled_at: Tensor) -> tuple[Tensor, Tensor]:
    """Of states [B, T, hidden] and bias [B, 1, T, K], those of the pooled tokens [B, J].

    Returns [B * J, hidden] and [B, 1, J, K]; an absent token (-1) gets those of token 0.
    """
    pooled = pooled_at.clamp(min=0)
    taken = states.gather(1, pooled[..., None].expand(-1, -1, states.shape[-1]))
    seen = bias.gather(2, pooled[:, None, :, None].expand(-1, -1, -1, bias.shape[-1]))
    return taken.reshape(-1, states.shape[-1]), seen


def join(prefix: Tensor, own: Tensor) -> Tensor:
    """[B or 1, P, hidden] before [B, T, hidden]."""
    return torch.cat([prefix.expand(own.shape[0], -1, -1).to(own.dtype), own], dim=1)


def attention_bias(rows: Rows, prefix: Prefix | None) -> Tensor:
    """Additive attention bias [B, 1, T, P + T]: 0 where a token may look, MASKED elsewhere."""
    batch, length = rows.input_ids.shape
    columns = torch.arange(length, device=rows.visible.device)
    sees = columns[None, None, :] < rows.visible[:, :, None]  # [B, T, T]
    if prefix is not None:
        present = prefix.present.expand(batch, -1)[:, None, :].expand(-1, length, -1)
        sees = torch.cat([present, sees], dim=2)
    bias = torch.zeros(sees.shape, device=sees.device).masked_fill(~sees, MASKED)
    return bias[:, None]


def backbone_shape(folder: Path) -> ModelShape:
    """The sizes that the `config.json` of a BERT-shaped backbone states. Errors: BadArtifact."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = ModelShape(
            vocab_size=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            intermediate=int(config["intermediate_size"]),
            max_block_tokens=int(config["max_position_embeddings"]),
            norm_epsilon=float(config["layer_norm_eps"]),
        )
        activation = config["hidden_act"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadArtifact(
            f"config.json of the backbone cannot be read: {type(error).__name__}"
        ) from error
    if activation != "gelu" or shape.hidden % shape.heads:
        raise BadArtifact("the backbone must use gelu and a width that its heads divide")
    if shape.max_block_tokens < ModelShape.max_block_tokens:
        raise BadArtifact(
            f"the backbone has {shape.max_block_tokens} positions; a block needs"
            f" {ModelShape.max_block_tokens}"
        )
    return shape


def load_backbone(folder: Path) -> Encoder:
    """An Encoder with the weights of a BERT-shaped safetensors model; the head starts small.

    Errors: BadArtifact when a file cannot be read, or a tensor is missing or has another shape.
    """
    shape = backbone_shape(folder)
    try:
        source = load_file(folder / "model.safetensors")
        kinds = source["embeddings.token_type_embeddings.weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise BadArtifact(
            f"model.safetensors of the backbone cannot be read: {type(error).__name__}"
        ) from error
    model = Encoder(shape)
    names = backbone_names(shape)
    state = model.state_dict()
    for ours, theirs in names.items():
        if theirs not in source or source[theirs].shape != state[ours].shape:
            raise BadArtifact(f"backbone tensor {theirs} is missing or misshapen; need {ours}")
        state[ours] = source[theirs]
    if kinds.ndim != 2 or len(kinds) < 2:
        raise BadArtifact("the backbone has fewer than two token types; give a BERT-shaped model")
    # BERT's two sentence kinds tell rules from turns; turn order starts at zero.
    state["segments.weight"] = torch.cat([kinds[1:2], kinds[0].repeat(shape.n_turn_indices, 1)])
    model.load_state_dict(state)
    nn.init.normal_(model.verbalizers.weight, std=0.02)
    nn.init.zeros_(model.verbalizers.bias)
    return model


def backbone_names(shape: ModelShape) -> dict[str, str]:
    """Our parameter names -> the names in a BERT checkpoint."""
    names = {
        "tokens.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "embedding_norm.weight": "embeddings.LayerNorm.weight",
        "embedding_norm.bias": "embeddings.LayerNorm.bias",
    }
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attended": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "output_norm": "output.LayerNorm",
    }
    for index in range(shape.layers):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                names[f"layers.{index}.{ours}.{kind}"] = f"encoder.layer.{index}.{theirs}.{kind}"
    return names


def save_checkpoint(model: Encoder, folder: Path) -> None:
    """Writes model.safetensors (fp32) and shape.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "shape.json").write_text(json.dumps(asdict(model.shape), indent=1) + "\n")


def load_checkpoint(folder: Path) -> Encoder:
    """The Encoder written by `save_checkpoint`, in eval mode. Errors: BadArtifact."""
    try:
        shape = ModelShape(**json.loads((folder / "shape.json").read_text()))
        model = Encoder(shape)
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadArtifact(f"checkpoint folder cannot be read: {type(error).__name__}") from error
    return model.eval()
