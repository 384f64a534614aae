"""`BatchScorer`: scores a Ray Dataset of conversations, one Scorer in each actor of map_batches.

Not: serving (ray_serve.py). Data comes as Arrow tables with a column of messages, or of prompts and
completions; the same rows go out with csrm's columns. A row that cannot be scored stays, with the
verdict "unknown" and the kind of its error, and has no reward.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from csrm.errors import BadArgument, BadConversation, Error
from csrm.integrations.rewards import Rewarder, sample_conversation
from csrm.score import Score
from csrm.scorer import Judged, Scorer

# One type each, whatever a batch holds, so that the blocks of a data set have one schema.
_COLUMNS: dict[str, pa.DataType] = {
    "reward": pa.float64(),
    "compliance": pa.float64(),
    "verdict": pa.string(),
    "error": pa.string(),
    "scored_tokens": pa.int64(),
}


class BatchScorer:
    """A class for `Dataset.map_batches(BatchScorer, batch_format="pyarrow", ...)`.

    config, configs, model, judged: as of csrm.integrations.rewards.Rewarder; paths are read on the
    actor's machine, a SafetyConfig travels. messages: the column of conversations, each a list of
    messages or such a list as JSON text. prompt, completion: columns of texts or messages instead.
    config_column: the column in which rows state a config of their own. prefix: of the names of the
    new columns. n_threads: engine threads, None = the CPUs that Ray gave the actor.
    Errors: BadArgument, BadConfig and those of csrm.load, when the actor starts.
    """

    def __init__(
        self,
        config: object = None,
        *,
        configs: Mapping[str, object] | str | os.PathLike[str] | None = None,
        model: Scorer | str | os.PathLike[str] | None = None,
        judged: Judged = "last",
        messages: str = "messages",
        prompt: str | None = None,
        completion: str | None = None,
        config_column: str | None = None,
        prefix: str = "csrm_",
        n_threads: int | None = None,
    ) -> None:
        if (prompt is None) != (completion is None):
            raise BadArgument("name both columns, prompt and completion, or neither")
        if config is None and config_column is None:
            raise BadArgument("give a config for all rows, or name a config_column")
        self._rewarder = Rewarder(
            config=config,
            configs=configs,
            model=model,
            judged=judged,
            n_threads=_n_cpus() if n_threads is None else n_threads,
        )
        self._inputs = [messages] if prompt is None or completion is None else [prompt, completion]
        self._config_column = config_column
        self._prefix = prefix

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`batch` with the columns reward, compliance, verdict, error and scored_tokens.

        Rows and their order stay. Without a score the verdict is "unknown", error the name of a
        class of csrm.errors, and the others are null; with one, error is null.
        Errors: BadArgument for another batch_format, a column that is not there, or one of the new
        columns that is there already.
        """
        self._check(batch)
        columns = [batch.column(name).to_pylist() for name in self._inputs]
        stated: Sequence[object] = [None] * batch.num_rows
        if self._config_column is not None:
            stated = batch.column(self._config_column).to_pylist()
        conversations = [_conversation(*row) for row in zip(*columns, strict=True)]
        rows = [_fields(answer) for answer in self._rewarder.answers(conversations, stated)]
        for name, kind in _COLUMNS.items():
            values = pa.array([row[name] for row in rows], type=kind)
            batch = batch.append_column(self._prefix + name, values)
        return batch

    def _check(self, batch: object) -> None:
        if not isinstance(batch, pa.Table):
            raise BadArgument('give map_batches batch_format="pyarrow"')
        needed = [*self._inputs, *([self._config_column] if self._config_column else [])]
        present = Counter(batch.column_names)
        if any(present[name] != 1 for name in needed):
            raise BadArgument("the data set lacks a column that the BatchScorer was told to read")
        if any(self._prefix + name in present for name in _COLUMNS):
            raise BadArgument("the data set has csrm's columns already; choose another prefix")


def _n_cpus() -> int:
    """What Ray gave this actor, at least 1."""
    if not ray.is_initialized():
        return 1
    given = ray.get_runtime_context().get_assigned_resources()
    return max(1, int(given.get("CPU", 1)))


def _conversation(*parts: object) -> object:
    """A row's messages, or the Error in their place."""
    if len(parts) == 2:
        return sample_conversation(parts[0], parts[1])
    if not isinstance(parts[0], str):
        return parts[0]
    try:
        return json.loads(parts[0])
    except (ValueError, RecursionError):
        return BadConversation("the text in the column of messages is not JSON")


def _fields(answer: Score | Error) -> dict[str, Any]:
    if isinstance(answer, Error):
        return {**dict.fromkeys(_COLUMNS), "verdict": "unknown", "error": type(answer).__name__}
    return {
        "reward": answer.reward,
        "compliance": answer.compliance,
        "verdict": answer.verdict,
        "error": None,
        "scored_tokens": answer.scored_tokens,
    }
