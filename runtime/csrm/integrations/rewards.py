"""`Rewarder`: the rewards of samples, each under a config of its own, for RL trainers.

Not: any trainer's signature (trl.py, openrlhf.py, verl.py), nor a judge that blocks (guard.py).
Data comes from a trainer's batch as prompts, completions and what each row says of its config; it
goes to Scorer.score_batch, one call for each config. What could not be scored has no reward, unless
the operator states one for it.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from csrm import errors
from csrm.config import SafetyConfig, config_from
from csrm.config_files import config_files
from csrm.conversation import Turn
from csrm.score import Score
from csrm.scorer import Judged, Scorer, load

Output = Literal["reward", "compliance"]
_LOG = logging.getLogger("csrm.rewards")
_CONFIG_KEYS = ("id", "version", "threshold", "description", "rules")
# No input causes these: a training run that goes on under them learns nothing.
_FATAL = (
    errors.BadArtifact,
    errors.DigestMismatch,
    errors.EngineFailed,
    errors.EngineUnavailable,
    errors.Internal,
    errors.Unsupported,
)


class Rewarder:
    """Scores samples under the configs that they state. Loads the model when it is made.

    config: of samples that state none; anything that `find_config` takes. configs: configs by name;
    a mapping of names to such values, or a folder (or file) of configs, named by their ids and by
    their files' stems. model: a Scorer, or an artifact's folder (None = the shipped csrm-mini).
    output: "reward" (log-odds, any number) or "compliance" (in [0, 1]). judged: as in Scorer.score.
    unscored: the reward of what could not be scored; None = it has none. n_threads: of a model that
    is loaded here, 0 = physical cores.
    Thread-safe; picklable (the copy loads the model again); not usable in the child of a fork.
    Errors: BadArgument, BadConfig and those of `csrm.load`.
    """

    def __init__(
        self,
        *,
        config: object = None,
        configs: Mapping[str, object] | str | os.PathLike[str] | None = None,
        model: Scorer | str | os.PathLike[str] | None = None,
        output: Output = "reward",
        judged: Judged = "last",
        unscored: float | None = None,
        n_threads: int = 0,
    ) -> None:
        if output not in ("reward", "compliance"):
            raise errors.BadArgument('output must be "reward" or "compliance"')
        if judged not in ("last", "assistant"):
            raise errors.BadArgument('judged must be "last" or "assistant"')
        self._named = _named_configs(configs)
        self._default = None if config is None else self._read(config)
        self._model = model
        self._output: Output = output
        self._judged: Judged = judged
        self._unscored = None if unscored is None else _finite(unscored)
        self._n_threads = n_threads
        self._scorer = model if isinstance(model, Scorer) else load(model, n_threads=n_threads)

    def __reduce__(self) -> tuple[Any, ...]:
        # Configs travel as they were read: their files need not be where the copy is.
        options = {
            "config": self._default,
            "configs": self._named,
            "model": self._model,
            "output": self._output,
            "judged": self._judged,
            "unscored": self._unscored,
            "n_threads": self._n_threads,
        }
        return (_rewarder, (options,))

    @property
    def has_default(self) -> bool:
        """Whether samples may state no config."""
        return self._default is not None

    def find_config(self, stated: object) -> SafetyConfig:
        """The config that a sample states; None or "" = the default.

        A SafetyConfig; a name of `configs`; the path of a file; the text of a config (of several
        lines, or JSON); {"rules": [...], "id"?, "threshold"?, ...}; or a list of rules. What was
        read is kept: a file that changes later does not change a running process. Errors: BadConfig
        and the others of SafetyConfig.load.
        """
        if stated is None or (isinstance(stated, str) and not stated):
            if self._default is None:
                raise errors.BadConfig("the sample states no config, and there is no default")
            return self._default
        try:
            return self._read(stated)
        except errors.Error as error:
            error.path = None  # whatever stood in the sample, a user's text perhaps
            raise

    def answers(
        self, conversations: Sequence[object], stated: Sequence[object]
    ) -> list[Score | errors.Error]:
        """A Score or the Error in its place for each of `conversations`, in order.

        stated: what each says of its config, as long as conversations. A conversation may be an
        Error, which is its answer. Errors: BadArgument when the lengths differ, and no others.
        """
        if len(conversations) != len(stated):
            raise errors.BadArgument(
                f"{len(stated):,} configs for {len(conversations):,} conversations"
            )
        answers: list[Score | errors.Error] = [errors.Internal("not scored")] * len(conversations)
        groups: dict[SafetyConfig, list[int]] = {}
        for i, (conversation, value) in enumerate(zip(conversations, stated, strict=True)):
            try:
                if isinstance(conversation, errors.Error):
                    raise conversation
                groups.setdefault(self.find_config(value), []).append(i)
            except errors.Error as error:
                answers[i] = error
        for config, places in groups.items():
            found = self._score(config, [conversations[i] for i in places])
            for i, answer in zip(places, found, strict=True):
                answers[i] = answer
        return answers

    def rewards(self, answers: Sequence[Score | errors.Error]) -> list[float | None]:
        """The reward of each answer; `unscored` for an Error that its sample caused.

        Logs how many have no score and why, without any text of theirs. Errors: the Error of an
        answer that no sample caused (the engine's, say): training must not go on without rewards.
        """
        failures = [answer for answer in answers if isinstance(answer, errors.Error)]
        for failure in failures:
            if isinstance(failure, _FATAL):
                raise failure
        if failures:
            kinds = Counter(type(failure).__name__ for failure in failures)
            counts = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
            _LOG.warning("%d of %d samples not scored: %s", len(failures), len(answers), counts)
        return [
            self._unscored if isinstance(answer, errors.Error) else getattr(answer, self._output)
            for answer in answers
        ]

    def required_rewards(self, answers: Sequence[Score | errors.Error]) -> list[float]:
        """The same for trainers that know no "None". Errors: that of the first without a reward."""
        rewards: list[float] = []
        for reward, answer in zip(self.rewards(answers), answers, strict=True):
            if reward is None and isinstance(answer, errors.Error):
                raise answer
            rewards.append(float(cast(float, reward)))
        return rewards

    def _read(self, stated: object) -> SafetyConfig:
        if isinstance(stated, str) and stated in self._named:
            return self._named[stated]
        return _read_config(stated)

    def _score(
        self, config: SafetyConfig, conversations: Sequence[object]
    ) -> Sequence[Score | errors.Error]:
        try:
            return self._scorer.score_batch(config, conversations, self._judged, errors="return")
        except errors.Error as error:
            return [error] * len(conversations)


def sample_conversation(prompt: object, completion: object) -> list[object]:
    """The messages of a sample whose parts are texts or lists of messages.

    A text is a user's turn in the prompt (none if it is empty), an assistant's in the completion.
    What is in a list is checked when it is scored.
    """
    turns: list[object] = []
    if isinstance(prompt, str):
        turns += [{"role": "user", "content": prompt}] if prompt else []
    else:
        turns += _messages(prompt)
    if isinstance(completion, str):
        return [*turns, {"role": "assistant", "content": completion}]
    return [*turns, *_messages(completion)]


def plain(value: object) -> Any:
    """`value` with the arrays, scalars, mappings and sequences of NumPy, Hydra and others as
    Python's own; what is none of these, a Turn or a Rule say, stays.
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | Turn):
        return [plain(item) for item in value]
    return value


def _messages(part: object) -> list[object]:
    try:
        part = plain(part)
    except RecursionError:
        part = None
    # One thing that is no message, so that the check says what is wrong with it.
    return part if isinstance(part, list) else [part]


def _finite(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise errors.BadArgument("unscored must be a finite number, or None")


def _rewarder(options: dict[str, Any]) -> Rewarder:
    return Rewarder(**options)


def _named_configs(
    given: Mapping[str, object] | str | os.PathLike[str] | None,
) -> dict[str, SafetyConfig]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {name: _read_config(value) for name, value in given.items()}
    place = Path(given)
    if not place.exists():
        raise errors.BadConfig("there is no such file or folder", path=str(place))
    named: dict[str, SafetyConfig] = {}
    for path in config_files(place):
        config = SafetyConfig.load(path)
        for name in {path.stem, config.id} - {""}:
            if name in named:
                raise errors.BadConfig("two configs have the same name", path=str(path))
            named[name] = config
    return named


def _read_config(stated: object) -> SafetyConfig:
    if isinstance(stated, SafetyConfig):
        return stated
    if isinstance(stated, str | os.PathLike):
        return _config_of_text(os.fspath(stated))
    try:
        canonical = json.dumps(plain(stated))
    except RecursionError:
        raise errors.BadConfig("the config is nested too deeply") from None
    except (TypeError, ValueError):  # holds Rules, say
        return _config_of_values(stated) if isinstance(stated, Mapping) else config_from(stated)
    return _config_of_json(canonical)


@lru_cache(maxsize=1024)
def _config_of_text(text: str) -> SafetyConfig:
    if "\n" in text or text.lstrip().startswith("{"):
        return SafetyConfig.parse(text)
    return SafetyConfig.load(text)


@lru_cache(maxsize=1024)
def _config_of_json(canonical: str) -> SafetyConfig:
    """Of a mapping or a list of rules; nulls are Arrow's for keys that other rows have."""
    value = json.loads(canonical, object_pairs_hook=_without_nulls)
    return _config_of_values(value) if isinstance(value, dict) else config_from(value)


def _config_of_values(stated: Mapping[str, Any]) -> SafetyConfig:
    if not stated.keys() <= set(_CONFIG_KEYS):
        raise errors.BadConfig(f"unknown key; the keys of a config are {', '.join(_CONFIG_KEYS)}")
    values = dict(stated)
    return SafetyConfig(SafetyConfig.from_rules(values.pop("rules", ())).rules, **values)


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if value is not None}
