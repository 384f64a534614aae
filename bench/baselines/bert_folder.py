"""The artifact's encoder as a Hugging Face BertModel folder, and csrm's head on top of its states.

For engines that take a BERT and nothing else (optimum_onnx.py, ctranslate2_encoder.py,
infinity_http.py). A BERT knows neither rules that see only themselves nor positions that restart:
these engines compute a plain bidirectional BERT of the same weights, tokens and length, which is
also what every other baseline is timed on (`interface.plain_rows`).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from csrm.bench.baselines.interface import Rewards
from csrm.export.unpack import encoder_of
from csrm.train.model import Encoder, backbone_names

States = NDArray[np.float32]
_SPECIAL = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}


class RewardHead:
    """The verbalizer rows of an encoder, in NumPy. Thread-safe."""

    def __init__(self, model: Encoder) -> None:
        self._n_safe = model.shape.n_safe
        self._weight = model.verbalizers.weight.detach().numpy()
        self._bias = model.verbalizers.bias.detach().numpy()
        norm = f"layers.{model.shape.layers - 1}.output_norm"
        self._norm_scale: States = model.state_dict()[f"{norm}.weight"].numpy()
        self._norm_shift: States = model.state_dict()[f"{norm}.bias"].numpy()

    def rewards(self, states: States) -> Rewards:
        """Log-odds [B] of the pooled tokens' last states [B, hidden]."""
        logits = states @ self._weight.T + self._bias
        safe, unsafe = logits[:, : self._n_safe], logits[:, self._n_safe :]
        reward = np.logaddexp.reduce(safe, axis=1) - np.logaddexp.reduce(unsafe, axis=1)
        return np.asarray(reward, np.float64)

    def unnormalised(self, directions: States) -> States:
        """States [B, hidden] of which a server returned only the direction, at length 1.

        The last norm makes a state scale * z + shift with z of mean square 1, so the length is a
        root of a quadratic equation. Where both are positive, z's mean of 0 tells which.
        """
        scale, moved = self._norm_scale.astype(np.float64), self._norm_shift.astype(np.float64)
        slope, shift = directions / scale, moved / scale
        a, b = np.sum(slope**2, axis=1), np.sum(slope * shift, axis=1)
        c = np.sum(shift**2) - len(shift)
        spread = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        roots = np.stack([b + spread, b - spread]) / a  # [2, B]
        off_mean = np.abs(roots * slope.sum(axis=1) - shift.sum())
        length = roots[np.where(roots > 0, off_mean, np.inf).argmin(axis=0), np.arange(len(a))]
        return np.asarray(directions * length[:, None], np.float32)


def write_bert(artifact: Path, folder: Path) -> RewardHead:
    """Writes config.json, model.safetensors and a fast tokenizer; returns the head.

    Errors: BadArtifact.
    """
    model = encoder_of(artifact)
    shape, state = model.shape, model.state_dict()
    tensors = {theirs: state[ours].contiguous() for ours, theirs in backbone_names(shape).items()}
    tensors["embeddings.token_type_embeddings.weight"] = state["segments.weight"].contiguous()
    # A BertModel has a pooler; nobody reads it here.
    tensors["pooler.dense.weight"] = torch.zeros(shape.hidden, shape.hidden)
    tensors["pooler.dense.bias"] = torch.zeros(shape.hidden)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.max_block_tokens,
        "type_vocab_size": 1 + shape.n_turn_indices,
        "layer_norm_eps": shape.norm_epsilon,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(artifact, folder, shape.max_block_tokens)
    return RewardHead(model)


def _write_tokenizer(artifact: Path, folder: Path, max_tokens: int) -> None:
    """The artifact's vocabulary with BERT's [CLS] ... [SEP] around a text."""
    tokenizer = json.loads((artifact / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    tokenizer["added_tokens"] = [
        {
            "id": vocab[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in _SPECIAL.values()
    ]
    tokenizer["truncation"] = tokenizer["padding"] = None  # a caller's business
    tokenizer["post_processor"] = {
        "type": "BertProcessing",
        "sep": ["[SEP]", vocab["[SEP]"]],
        "cls": ["[CLS]", vocab["[CLS]"]],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {f"{name}_token": token for name, token in _SPECIAL.items()}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                **settings,
                "tokenizer_class": "BertTokenizerFast",
                "do_lower_case": True,
                "model_max_length": max_tokens,
            }
        )
    )
