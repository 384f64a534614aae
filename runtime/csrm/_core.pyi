"""The native module: the renderer (which training calls too), the scorer and the scheduler.

Sources: runtime/src/bind_status.cc, bind_text.cc, bind_chat.cc, bind_scorer.cc,
bind_scheduler.cc, bind_tensorrt.cc and bind_peak.cc. Errors are raised as the classes of
csrm.errors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def int8_peak(isa: str, levels: int, seconds: float) -> float: ...
def devices(engine_library: str) -> list[tuple[str, bool, str]]: ...
def tensorrt_engines(
    manifest_json: bytes,
) -> list[tuple[str, str, str, str, tuple[str, ...], str]]: ...

STATUS_TABLE: tuple[tuple[int, str, str], ...]

class Renderer:
    """Text -> token ids and blocks, exactly as the scorer sees them. Thread-safe."""

    def __init__(
        self,
        tokenizer_json: bytes,
        *,
        cls: int,
        sep: int,
        rule: int,
        name_end: int,
        roles: dict[str, int],
        max_block_tokens: int,
        n_turn_indices: int,
    ) -> None: ...
    def encode(self, text: str | bytes) -> NDArray[np.int32]: ...
    def rule(self, name: str | bytes, text: str | bytes) -> list[tuple[NDArray[np.int32], int]]: ...
    def turn(
        self, role: str | bytes, content: str | bytes, index: int
    ) -> list[tuple[NDArray[np.int32], int]]: ...
    def id_of(self, literal: str | bytes) -> int | None: ...
    @property
    def vocab_size(self) -> int: ...

class ChatRenderer:
    """Text -> one causal sequence of ids, exactly as the scorer sees it. Thread-safe."""

    def __init__(
        self,
        tokenizer_json: bytes,
        *,
        config_head: list[int | str],
        config_end: list[int | str],
        roles: dict[str, list[int | str]],
        turn_end: list[int | str],
        cue: list[int | str],
        max_block_tokens: int,
    ) -> None: ...
    def encode(self, text: str | bytes) -> NDArray[np.int32]: ...
    def config(self, rules: Sequence[tuple[str | bytes, str | bytes]]) -> NDArray[np.int32]: ...
    def conversation(
        self, turns: Sequence[tuple[str | bytes, str | bytes]], judged: str = "last"
    ) -> list[tuple[NDArray[np.int32], int]]: ...

class Scorer:
    """One loaded model; csrm.scorer.Scorer is its public face. Thread-safe."""

    def __init__(
        self,
        artifact_dir: str,
        *,
        engine_library: str,
        n_threads: int,
        cache_tokens: int,
        batch_tokens: int,
        variant: str,
        tenant_salt: str,
        allow_spinning: bool,
        device: str = "cpu",
        limits: dict[str, int],
    ) -> None: ...
    def score_batch(
        self,
        rules: list[tuple[str, str]],
        threshold: float,
        conversations: list[list[tuple[str, str]]],
        judged: str,
        explain: bool | str,
        reuse_turns: bool = False,
    ) -> list[tuple[Any, ...]]: ...
    def info(self) -> dict[str, Any]: ...
    def cache_stats(self) -> dict[str, int]: ...
    def clear_cache(self) -> None: ...
    def check_integrity(self) -> None: ...

class Scheduler:
    """Queue and workers over a Scorer; csrm.scheduler.Scheduler is its public face. Thread-safe."""

    def __init__(
        self,
        scorer: Scorer,
        *,
        n_workers: int,
        max_requests: int,
        max_tokens: int,
        batch_tokens: int,
        patience_s: float,
        max_begun: int,
    ) -> None: ...
    def submit(
        self,
        rules: list[tuple[str, str]],
        threshold: float,
        turns: list[tuple[str, str]],
        judged: str,
        explain: bool | str,
        reuse_turns: bool,
        deadline_s: float | None,
        on_answer: Callable[[tuple[Any, ...]], object],
    ) -> int: ...
    def cancel(self, ticket: int) -> bool: ...
    def shutdown(self) -> bool: ...
    def stats(self) -> dict[str, Any]: ...

class ScoreStream:
    """One growing turn; csrm.stream.Stream is its public face. For one thread at a time."""

    def __init__(
        self,
        scorer: Scorer,
        rules: list[tuple[str, str]],
        threshold: float,
        turns: Sequence[tuple[str, str]],
        *,
        role: str,
        every_tokens: int,
        sentence_ends: bool,
        every_append: bool,
    ) -> None: ...
    def append(self, text: str) -> tuple[Any, ...] | None: ...
    def finish(self) -> tuple[Any, ...]: ...
    def verdict(self) -> str: ...
