"""Hugging Face files -> Decoder: config.json with safetensors, or a GGUF file.

What it is: the map from a Llama, Qwen2 (2.5) or Qwen3 checkpoint to csrm.train.decoder, with a
typed error for every variant that it does not compute (sliding windows, other RoPE scalings, other
activations). Of the LM head only the rows of the verbalizers are read. Not: our own checkpoints
(csrm.train.decoder.load_decoder) and not the choice of verbalizers (csrm.train.chat_template).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from csrm.errors import BadArgument, BadArtifact
from csrm.train.decoder import Decoder, DecoderShape, RopeScaling, decoder_of

MODEL_TYPES = ("llama", "qwen2", "qwen3")
LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attended": "self_attn.o_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


@dataclass(frozen=True)
class Verbalizers:
    """Token ids whose rows of the LM head are the score: two sets without a common id."""

    safe: tuple[int, ...]
    unsafe: tuple[int, ...]


def is_decoder_folder(folder: Path) -> bool:
    """Whether `folder` holds a decoder's files: a GGUF, or a config.json that names a decoder."""
    if any(folder.glob("*.gguf")):
        return True
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "num_key_value_heads" in config


def load_decoder_backbone(folder: Path, verbalizers: Verbalizers) -> Decoder:
    """The Decoder in a folder of Hugging Face files, or in its one GGUF file, in fp32.

    Errors: BadArtifact when a file cannot be read, a tensor is missing or misshapen, or the model
    is of a kind that is not computed here; BadArgument when a GGUF needs missing packages.
    """
    files = sorted(folder.glob("*.gguf"))
    if files:
        config, tensors = read_gguf(files[0])
    else:
        config, tensors = read_config(folder), read_tensors(folder)
    shape = shape_of(config, verbalizers)
    return decoder_of(shape, weights_of(shape, tensors, verbalizers)).eval()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. Errors: BadArtifact."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadArtifact(
            f"config.json of the backbone cannot be read: {type(error).__name__}"
        ) from error
    if not isinstance(config, dict):
        raise BadArtifact("config.json of the backbone holds no object")
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors or of the parts in its index. Errors: BadArtifact."""
    index = folder / "model.safetensors.index.json"
    try:
        names = ["model.safetensors"]
        if index.is_file():
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensors |= load_file(folder / Path(name).name)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise BadArtifact(
            f"the backbone's safetensors cannot be read: {type(error).__name__}"
        ) from error
    return tensors


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and dequantised tensors of a GGUF file. Errors: BadArtifact, BadArgument."""
    try:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    except ImportError as error:
        raise BadArgument("a GGUF backbone needs transformers, gguf and accelerate") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadArtifact(f"the GGUF file cannot be read: {type(error).__name__}") from error
    return model.config.to_dict(), dict(model.state_dict())


def shape_of(config: Mapping[str, Any], verbalizers: Verbalizers) -> DecoderShape:
    """The sizes that a Hugging Face config states. Errors: BadArtifact."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise BadArtifact(f"the backbone's model_type must be one of {', '.join(MODEL_TYPES)}")
    check_variant(config)
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        theta, scaling = rope_of(config)
        has_bias = bool(config.get("attention_bias", False))
        shape = DecoderShape(
            vocab_size=int(config["vocab_size"]),
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            max_positions=int(config["max_position_embeddings"]),
            n_safe=len(verbalizers.safe),
            n_unsafe=len(verbalizers.unsafe),
            norm_epsilon=float(config["rms_norm_eps"]),
            rope_theta=theta,
            rope_scaling=scaling,
            has_qkv_bias=kind == "qwen2" or has_bias,
            has_output_bias=kind != "qwen2" and has_bias,
            has_mlp_bias=kind == "llama" and bool(config.get("mlp_bias", False)),
            has_qk_norm=kind == "qwen3",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadArtifact(
            f"config.json of the backbone lacks a size: {type(error).__name__}"
        ) from error
    if shape.heads % shape.kv_heads or shape.head_dim % 2:
        raise BadArtifact("the backbone's heads must be a multiple of its key heads, of even width")
    return shape


def check_variant(config: Mapping[str, Any]) -> None:
    """Errors: BadArtifact for a variant that would be computed wrongly."""
    if config.get("hidden_act", "silu") != "silu":
        raise BadArtifact("the backbone must use silu")
    kinds = set(config.get("layer_types") or ["full_attention"])
    if config.get("use_sliding_window") or kinds != {"full_attention"}:
        raise BadArtifact("the backbone uses a sliding window, which is not supported")


def rope_of(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling of RoPE, as transformers 4 or 5 writes them. Errors: BadArtifact."""
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = float(parameters.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise BadArtifact("the backbone's RoPE scaling must be none or llama3")
    return theta, RopeScaling(
        float(parameters["factor"]),
        float(parameters["low_freq_factor"]),
        float(parameters["high_freq_factor"]),
        int(parameters["original_max_position_embeddings"]),
    )


def weights_of(
    shape: DecoderShape, tensors: Mapping[str, Tensor], verbalizers: Verbalizers
) -> dict[str, Tensor]:
    """The state of a Decoder, fp32. Errors: BadArtifact."""
    state: dict[str, Tensor] = {}
    with torch.device("meta"):
        expected = Decoder(shape).state_dict()
    for ours, like in expected.items():
        if ours == "verbalizers.weight":
            continue
        theirs = source_name(ours)
        source = tensors.get(theirs)
        if source is None or source.shape != like.shape:
            raise BadArtifact(f"backbone tensor {theirs} is missing or misshapen; need {ours}")
        state[ours] = source.float()
    head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    ids: Sequence[int] = verbalizers.safe + verbalizers.unsafe
    if max(ids) >= len(head) or min(ids) < 0:
        raise BadArtifact("a verbalizer's id is outside the backbone's vocabulary")
    state["verbalizers.weight"] = head[list(ids)].float()
    return state


def source_name(ours: str) -> str:
    """The name of our parameter `ours` in a Hugging Face checkpoint."""
    if ours == "tokens.weight":
        return "model.embed_tokens.weight"
    if ours == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, kind = ours.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"
