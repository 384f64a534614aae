"""The toy artifact as a fixture, a native Scorer on it, and the graph run directly as the oracle.

Not: a tokenizer oracle. Texts here are single letters between spaces, one id each, so the expected
token ids are written down below without any tokenizer.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from csrm import _core
from csrm.engine import engine_library

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import make_toy_model

Rules = list[tuple[str, str]]
Turns = list[tuple[str, str]]
MAX_CONTENT = make_toy_model.MAX_BLOCK_TOKENS - 3


@pytest.fixture(scope="session")
def toy_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy artifact; tests that change it work on a copy."""
    return make_toy_model.write_toy_artifact(tmp_path_factory.mktemp("toy"))


def without_finite_z(artifact: Path, folder: Path) -> Path:
    """A copy of the artifact in `folder`, portable only, for which the word "z" is infinite."""
    shutil.copytree(artifact, folder)
    model = onnx.load(folder / "model.onnx")
    embedding = numpy_helper.to_array(model.graph.initializer[0]).copy()
    embedding[make_toy_model.FIRST_LETTER + 25] = np.inf
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(embedding, model.graph.initializer[0].name)
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    make_toy_model.write_manifest(folder, ["model.onnx", "tokenizer.json"])
    return folder


@dataclass(frozen=True)
class ToyOptions:
    """Options of a native Scorer, small and single-threaded unless a test says otherwise."""

    cache_tokens: int = 4096
    batch_tokens: int = 4096
    variant: str = ""
    tenant_salt: str = ""
    n_threads: int = 1
    library: str = ""
    limits: dict[str, int] = field(default_factory=dict)


def open_scorer(artifact: Path | str, options: ToyOptions = ToyOptions()) -> _core.Scorer:
    return _core.Scorer(
        str(artifact),
        engine_library=options.library or str(engine_library()),
        n_threads=options.n_threads,
        cache_tokens=options.cache_tokens,
        batch_tokens=options.batch_tokens,
        variant=options.variant,
        tenant_salt=options.tenant_salt,
        allow_spinning=False,
        limits=options.limits,
    )


def letters(n: int, start: int = 0) -> str:
    """`n` one-letter words, a different sequence for every `start`."""
    alphabet = make_toy_model.LETTERS
    return " ".join(alphabet[(start + 7 * i + i * i // 3) % 26] for i in range(n))


def _ids(text: str) -> list[int]:
    return [make_toy_model.FIRST_LETTER + ord(word) - ord("a") for word in text.split()]


def turn_blocks(turn: tuple[str, str]) -> list[list[int]]:
    """Blocks of a turn of one-letter words: chunks of MAX_CONTENT ids, each with the controls."""
    t = make_toy_model.TEMPLATE
    ids = _ids(turn[1])
    chunks = [ids[i : i + MAX_CONTENT] for i in range(0, len(ids), MAX_CONTENT)]
    return [[t["cls"], t["roles"][turn[0]], *chunk, t["sep"]] for chunk in chunks]


def rule_block(rule: tuple[str, str]) -> list[int]:
    t = make_toy_model.TEMPLATE
    name = [*_ids(rule[0]), t["name_end"]] if rule[0] else []
    return [t["cls"], t["rule"], *name, *_ids(rule[1]), t["sep"]]


class Oracle:
    """The toy graph in Python's own onnxruntime, always with a whole conversation in one row."""

    def __init__(self, artifact: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(artifact / "model.onnx"))

    def rewards(self, rules: Rules, turns: Turns) -> list[float]:
        """The reward of every turn under `rules`: the lowest of its blocks."""
        caches = [self._run([rule_block(rule)], [0], None)[:2] for rule in rules]
        key = np.concatenate([k[0] for k, _ in caches], axis=2)
        value = np.concatenate([v[0] for _, v in caches], axis=2)
        blocks = [(i, block) for i, turn in enumerate(turns) for block in turn_blocks(turn)]
        segments = [1 + min(i, make_toy_model.N_TURN_INDICES - 1) for i, _ in blocks]
        rewards = self._run([block for _, block in blocks], segments, (key, value))[2][0]
        return [
            min(float(r) for r, (i, _) in zip(rewards, blocks, strict=True) if i == turn)
            for turn in range(len(turns))
        ]

    def _run(
        self,
        blocks: list[list[int]],
        segments: list[int],
        prefix: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    ) -> list[NDArray[np.float32]]:
        m = make_toy_model
        empty = np.zeros((m.LAYERS, m.HEADS, 0, m.DIM), dtype=np.float32)
        ends = np.cumsum([len(block) for block in blocks])

        def per_token(values: list[int]) -> NDArray[np.int64]:
            repeated = [[v] * len(b) for v, b in zip(values, blocks, strict=True)]
            return np.array([list(chain.from_iterable(repeated))], dtype=np.int64)

        feeds = {
            "input_ids": np.array([list(chain.from_iterable(blocks))], dtype=np.int64),
            "position_ids": np.array([[i for b in blocks for i in range(len(b))]], dtype=np.int64),
            "segment_ids": per_token(segments),
            "visible": per_token(ends.tolist()),
            "pooled_at": np.array([[0, *ends[:-1].tolist()]], dtype=np.int64),
            "prefix_key": empty if prefix is None else prefix[0],
            "prefix_value": empty if prefix is None else prefix[1],
        }
        outputs: list[NDArray[np.float32]] = self._session.run(["key", "value", "reward"], feeds)
        return outputs
