"""`load` and `Scorer`: the Python face of the C++ runtime.

Not: the work itself (runtime/src) and not file formats. Configs and conversations are checked
here, go to `csrm._core.Scorer` as strings, and come back as `Score` or a typed `Error`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, overload

from csrm.config import SafetyConfig, config_from
from csrm.conversation import Conversation, conversation_from
from csrm.engine import engine_library
from csrm.errors import BadArgument, BadArtifact, Error, Internal, error_from_name
from csrm.operating_point import OperatingPoint, read_operating_points
from csrm.paths import default_artifact
from csrm.score import RuleScore, Score, TurnScore, Verdict
from csrm.stream import Stream

if TYPE_CHECKING:
    from csrm._core import Scorer as NativeScorer

Judged = Literal["last", "assistant"]
Explain = bool | Literal["fast"]
Device = Literal["auto", "cpu", "cuda", "tensorrt"]

_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True)
class LoadOptions:
    """What `load` was called with; see there."""

    n_threads: int = 0
    cache_tokens: int = 16384
    batch_tokens: int = 4096
    variant: str = ""
    tenant_salt: str = ""
    allow_spinning: bool = False
    device: str = "auto"


def load(
    artifact: str | os.PathLike[str] | None = None,
    *,
    n_threads: int = 0,
    cache_tokens: int = 16384,
    batch_tokens: int = 4096,
    variant: str = "",
    tenant_salt: str = "",
    allow_spinning: bool = False,
    device: Device = "auto",
) -> Scorer:
    """A Scorer for the model in the folder `artifact` (None = the shipped csrm-mini).

    n_threads: engine threads, 0 = physical cores. cache_tokens: bound of the prefix cache in
    tokens, 0 = no cache. batch_tokens: padded tokens encoded in one engine call. variant: ""
    (best available), "portable", "fused", "half" (half the memory a cached token), "int8" or
    "cuda". tenant_salt: keeps the cache entries of tenants apart. allow_spinning: engine
    threads spin, always: some 1 % faster alone, slower beside other calls and processes
    (docs/log.md). device: "cpu", "cuda" or "tensorrt" is taken or EngineUnavailable, which says
    what is missing; "auto" takes the GPU where the artifact has a graph for it and the machine can
    run it, else the CPU (docs/gpu.md).
    Errors: BadArtifact, DigestMismatch, Unsupported, EngineUnavailable, BadArgument.
    """
    return Scorer(
        artifact,
        LoadOptions(
            n_threads, cache_tokens, batch_tokens, variant, tenant_salt, allow_spinning, device
        ),
    )


class Scorer:
    """Scores conversations against configs with one loaded model.

    Thread-safe: share one between threads (scoring releases the GIL). Pickling sends the folder
    and the options; the copy loads the model again. Nothing is ever truncated.
    """

    def __init__(
        self,
        artifact: str | os.PathLike[str] | None = None,
        options: LoadOptions = LoadOptions(),
    ) -> None:
        _check_options(options)
        self._artifact = default_artifact() if artifact is None else _folder(artifact)
        self._options = options
        self._native = _open_native(self._artifact, options)

    def __reduce__(self) -> tuple[type[Scorer], tuple[Path, LoadOptions]]:
        return (Scorer, (self._artifact, self._options))

    def score(
        self,
        config: object,
        conversation: object,
        judged: Judged = "last",
        explain: Explain = False,
        reuse_turns: bool = False,
    ) -> Score:
        """The Score of one conversation under `config`.

        config: a SafetyConfig, the path of a config file, or a list of rules (kept config objects
        avoid reading the file again). conversation: a list of {"role", "content"}. judged: "last"
        judges the last turn, "assistant" every assistant turn (reward = minimum). explain: also
        score each rule alone; "fast" does so approximately, for a part of the cost (encoders only;
        docs/datapath.md has the agreement). reuse_turns: keep what is encoded of each turn, so that
        a call with the same leading turns costs its new turns only; the reward is the same up to
        float rounding and does not depend on what is kept. Errors: any of csrm.errors; never a
        guessed score.
        """
        answer = self._answers(config, [conversation], judged, explain, reuse_turns)[0]
        if isinstance(answer, Error):
            raise answer
        return answer

    @overload
    def score_batch(
        self,
        config: object,
        conversations: Sequence[object],
        judged: Judged = "last",
        explain: Explain = False,
        errors: Literal["raise"] = "raise",
        reuse_turns: bool = False,
    ) -> list[Score]: ...

    @overload
    def score_batch(
        self,
        config: object,
        conversations: Sequence[object],
        judged: Judged = "last",
        explain: Explain = False,
        *,
        errors: Literal["return"],
        reuse_turns: bool = False,
    ) -> list[Score | Error]: ...

    def score_batch(
        self,
        config: object,
        conversations: Sequence[object],
        judged: Judged = "last",
        explain: Explain = False,
        errors: Literal["raise", "return"] = "raise",
        reuse_turns: bool = False,
    ) -> list[Score] | list[Score | Error]:
        """The Scores of `conversations`, in order; each equals what `score` gives for it alone.

        errors: "raise" raises the first error, its message opening with the conversation's index;
        "return" puts each error in its conversation's place. An error of the whole call (config,
        option, engine) is always raised. reuse_turns: as in `score`; the conversations are then
        encoded one after another.
        """
        if errors not in ("raise", "return"):
            raise BadArgument('errors must be "raise" or "return"')
        answers = self._answers(config, conversations, judged, explain, reuse_turns)
        if errors == "return":
            return answers
        for index, answer in enumerate(answers):
            if isinstance(answer, Error):
                raise type(answer)(f"conversation {index}: {answer.message}") from answer
        return cast("list[Score]", answers)

    @property
    def native(self) -> NativeScorer:
        """The `csrm._core.Scorer` behind this one, for csrm.scheduler."""
        return self._native

    def stream(
        self,
        config: object,
        conversation: object = (),
        *,
        role: str = "assistant",
        every_tokens: int = 32,
        sentence_ends: bool = True,
        every_append: bool = False,
    ) -> Stream:
        """A Stream: the turn that follows `conversation`, scored while it is being written.

        config, conversation: as in `score`, but the conversation may be empty. role: who writes the
        turn. It is scored when its new text has `every_tokens` tokens (0 = not for this reason) or
        ends a sentence or line (`sentence_ends`), or at each `every_append`. Errors: BadConfig,
        BadConversation, UnknownRole, BadUtf8, BadArgument; of the model only when it is scored.
        """
        from csrm._core import ScoreStream

        if (
            not isinstance(every_tokens, int)
            or isinstance(every_tokens, bool)
            or not 0 <= every_tokens <= _MAX_COUNT
        ):
            raise BadArgument(f"every_tokens must be an integer from 0 to {_MAX_COUNT:,}")
        rules = config_from(config)
        # The growing turn stands at the end, so that its role is read like that of any other.
        *earlier, growing = conversation_from(
            [*_messages(conversation), {"role": role, "content": ""}]
        )
        native = ScoreStream(
            self._native,
            [(rule.name, rule.text) for rule in rules.rules],
            rules.threshold,
            earlier,
            role=growing.role,
            every_tokens=every_tokens,
            sentence_ends=bool(sentence_ends),
            every_append=bool(every_append),
        )
        return Stream(native, lambda answer: _score(rules, answer))

    def info(self) -> dict[str, Any]:
        """What is loaded: name, digest, variant, device, engine version, calibration, ..."""
        return dict(self._native.info())

    def operating_points(self) -> tuple[OperatingPoint, ...]:
        """Thresholds that the artifact holds for given false-positive rates, by rising rate.

        Use one as a config's threshold: `dataclasses.replace(config, threshold=...)`. Errors:
        BadArtifact when the manifest has changed and cannot be read any more.
        """
        return read_operating_points(self._artifact)

    def cache_stats(self) -> dict[str, int]:
        """Counters and bounds of the prefix cache: n_hits, n_misses, n_evictions, n_entries, ..."""
        return dict(self._native.cache_stats())

    def clear_cache(self) -> None:
        """Forgets every cached prefix; scores stay the same. Thread-safe."""
        self._native.clear_cache()

    def check_integrity(self) -> None:
        """Verifies the invariants of the prefix cache. Errors: Internal."""
        self._native.check_integrity()

    def _answers(
        self,
        config: object,
        conversations: Sequence[object],
        judged: str,
        explain: Explain,
        reuse_turns: bool,
    ) -> list[Score | Error]:
        if judged not in get_args(Judged):
            raise BadArgument('judged must be "last" or "assistant"')
        rules = config_from(config)
        answers = [_read(conversation) for conversation in conversations]
        good = [i for i, answer in enumerate(answers) if not isinstance(answer, Error)]
        if good:
            native = self._native.score_batch(
                [(rule.name, rule.text) for rule in rules.rules],
                rules.threshold,
                [list(cast(Conversation, answers[i])) for i in good],
                judged,
                checked_explain(explain),
                reuse_turns=bool(reuse_turns),
            )
            if len(native) != len(good):
                raise Internal(f"{len(native)} answers for {len(good)} conversations")
            for i, answer in zip(good, native, strict=True):
                answers[i] = answer_from(rules, answer)
        return cast("list[Score | Error]", answers)


def checked_explain(explain: object) -> Explain:
    """What a caller gave for `explain`. Errors: BadArgument for a text that is not "fast"."""
    if not isinstance(explain, str):
        return bool(explain)
    if explain != "fast":
        raise BadArgument('explain must be True, False or "fast"')
    return "fast"


def _folder(artifact: str | os.PathLike[str]) -> Path:
    path = Path(artifact)
    if not path.is_dir():
        raise BadArtifact("the artifact is not a folder; name the folder with manifest.json")
    return path.resolve()


def _open_native(artifact: Path, options: LoadOptions) -> NativeScorer:
    # Imported here so that configs and conversations can be checked without the native module.
    from csrm._core import Scorer as NativeScorer

    return NativeScorer(
        str(artifact),
        engine_library=str(engine_library()),
        n_threads=options.n_threads,
        cache_tokens=options.cache_tokens,
        batch_tokens=options.batch_tokens,
        variant=options.variant,
        tenant_salt=options.tenant_salt,
        allow_spinning=options.allow_spinning,
        device=options.device,
        limits={},
    )


def _check_options(options: LoadOptions) -> None:
    for name in ("n_threads", "cache_tokens", "batch_tokens"):
        value = getattr(options, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
            raise BadArgument(f"{name} must be an integer from 0 to {_MAX_COUNT:,}")
    for name in ("variant", "tenant_salt", "device"):
        if not isinstance(getattr(options, name), str):
            raise BadArgument(f"{name} must be a string")


def _read(conversation: object) -> Conversation | Score | Error:
    try:
        return conversation_from(conversation)
    except Error as error:
        return error


def _messages(conversation: object) -> Sequence[object]:
    if conversation in ([], ()):
        return ()
    return conversation_from(conversation)


def answer_from(config: SafetyConfig, native: tuple[Any, ...]) -> Score | Error:
    """The Score or Error in a tuple of the native module."""
    if native[0] == "error":
        return error_from_name(native[1], native[2])
    return _score(config, native)


def _score(config: SafetyConfig, native: tuple[Any, ...]) -> Score:
    reward, compliance, verdict, turns, rules, scored_tokens = native
    return Score(
        reward=reward,
        compliance=compliance,
        verdict=cast(Verdict, verdict),
        turns=tuple(TurnScore(*turn) for turn in turns),
        rules=tuple(
            RuleScore(rule, config.rules[rule].name, rule_reward, rule_compliance, rule_verdict)
            for rule, rule_reward, rule_compliance, rule_verdict in rules
        ),
        scored_tokens=scored_tokens,
    )
