"""The template of encoder artifacts: control ids and sizes, shared by training, export and tests.

The ids are rows of BERT's embedding table that WordPiece never produces from text: [CLS], [SEP] and
`[unused0..5]`. The manifest carries them to the runtime; this is their one definition in Python.
"""

from __future__ import annotations

from typing import Any

from csrm._core import Renderer

TEMPLATE: dict[str, Any] = {
    "id": "csrm-blocks-1",
    "cls": 101,
    "sep": 102,
    "rule": 1,
    "name_end": 2,
    "roles": {"system": 3, "user": 4, "assistant": 5, "tool": 6},
    "max_block_tokens": 512,
    "n_turn_indices": 32,
}


def make_renderer(tokenizer_json: bytes) -> Renderer:
    """The C++ renderer with `TEMPLATE` over the tokenizer in `tokenizer_json`."""
    sizes = {name: value for name, value in TEMPLATE.items() if name != "id"}
    return Renderer(tokenizer_json, **sizes)
