"""Tiny random decoders: as transformers defines them, and their files on disk.

Weights are drawn wide, so that rewards differ and a wrong rotation shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csrm.train.decoder import Decoder
from csrm.train.decoder_files import Verbalizers, load_decoder_backbone

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


def reference(kind: str) -> Any:
    """transformers' own model of `kind`, random, in eval mode."""
    import transformers

    model_type, changes = KINDS[kind]
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[model_type]
    changes = {"tie_word_embeddings": False, "attn_implementation": "eager", **changes}
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **changes})
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


def decoder(folder: Path, kind: str = "llama") -> Decoder:
    """Our model with the weights of `reference(kind)`, whose files go to `folder`."""
    return load_decoder_backbone(write_files(folder, reference(kind)), VERBALIZERS)


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
