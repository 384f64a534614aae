"""Tiny random decoders: as transformers defines them, and their files on disk.

Weights are drawn wide, so that rewards differ and a wrong rotation shows.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor

from csrm.train.decoder import Decoder, save_decoder
from csrm.train.decoder_files import Verbalizers, load_decoder_backbone

IM_START, IM_END = 7, 8
VERBALIZERS = Verbalizers((5, 17), (6, 18, 33))
SIZES: dict[str, Any] = {
    "vocab_size": 161,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# Name -> (model type, what differs from SIZES).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama3": ("llama", {"rope_theta": 50000.0, "rope_scaling": LLAMA3_SCALING}),
    "llama_bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {"rope_theta": 1e6, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 16, "rope_theta": 1e6}),
}


def reference(kind: str, **sizes: int) -> Any:
    """transformers' own model of `kind`, random, in eval mode."""
    import transformers

    model_type, changes = KINDS[kind]
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[model_type]
    changes = {"tie_word_embeddings": False, "attn_implementation": "eager", **changes}
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **changes, **sizes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in parameter_name else 0.0, std=0.2)
    return model


def write_files(folder: Path, model: Any) -> Path:
    """config.json and model.safetensors, as transformers writes them."""
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def decoder(folder: Path, kind: str = "llama", **sizes: int) -> Decoder:
    """Our model with the weights of `reference(kind)`, whose files go to `folder`."""
    return load_decoder_backbone(write_files(folder, reference(kind, **sizes)), VERBALIZERS)


def head_logits(model: Any, ids: Tensor, at: int) -> Tensor:
    """transformers' logits [verbalizers] after token `at` of one sequence [T]."""
    with torch.no_grad():
        logits: Tensor = model(ids[None]).logits[0, at]
    return logits[list(VERBALIZERS.safe + VERBALIZERS.unsafe)]


def edit_config(folder: Path, **changes: object) -> None:
    """Changes keys of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: v for key, v in config.items() if v is not None}))


def tokenizer_json() -> bytes:
    """tiny's WordPiece with ChatML's control tokens on two ids that no text yields."""
    tokenizer = json.loads(tiny.tokenizer_json())
    tokenizer["added_tokens"] = [
        {"id": IM_START, "content": "<|im_start|>", "special": True},
        {"id": IM_END, "content": "<|im_end|>", "special": True},
    ]
    return json.dumps(tokenizer).encode()


def write_backbone(folder: Path, kind: str = "llama", **sizes: int) -> Path:
    """The files that `csrm train` reads of a decoder's folder."""
    write_files(folder, reference(kind, **sizes))
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    return folder


def write_checkpoint(folder: Path, model: Decoder) -> Path:
    """The files that `csrm export` reads."""
    save_decoder(model, folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    (folder / "calibration.json").write_text(json.dumps(asdict(tiny.CALIBRATION)))
    (folder / "provenance.json").write_text(json.dumps({"sources": ["rbr"], "seed": 0}))
    return folder
