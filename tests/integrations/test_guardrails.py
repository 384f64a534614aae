"""Guardrails AI with `csrm/config` as the validator of real guards and toy models."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from csrm_server import Traffic
from offline import offline
from pages import blocks

import csrm

with warnings.catch_warnings():  # of packages that it imports
    warnings.simplefilter("ignore", DeprecationWarning)
    from guardrails import AsyncGuard, Guard
    from guardrails.errors import ValidationError
    from guardrails.utils.hub_telemetry_utils import HubTelemetry
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    from csrm.integrations.guard import Decision
    from csrm.integrations.guardrails import CsrmConfig, asentences, sentences

Make = Callable[..., CsrmConfig]
# Guardrails AI's own, of which a user sees the same.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("loop"),
]


@pytest.fixture(scope="session", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Guardrails AI and LiteLLM as docs/integrations/guardrails.md says to silence them."""
    home = tmp_path_factory.mktemp("home")
    (home / ".guardrailsrc").write_text("enable_metrics=false\n")
    with pytest.MonkeyPatch.context() as patch, offline() as others:
        patch.setenv("HOME", str(home))
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        yield
        HubTelemetry()._tracer_provider.force_flush()
        assert others == []


@pytest.fixture(scope="session")
def scorer() -> csrm.Scorer:
    return csrm.load(n_threads=1)


@pytest.fixture(scope="session")
def make(scorer: csrm.Scorer, policy: Path) -> Make:
    return lambda **options: CsrmConfig(policy, model=scorer, **options)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def model(pieces: list[str]) -> Callable[..., Iterator[str]]:
    return lambda *, messages, **_: iter(pieces)


def async_model(pieces: list[str]) -> Callable[..., Any]:
    async def stream() -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    async def call(*, messages: object, **_: object) -> SimpleNamespace:
        return SimpleNamespace(completion_stream=stream())

    return call


def words(text: str) -> list[str]:
    return [f"{word} " for word in text.split()]


def told(guard: Guard) -> list[Any]:
    """What csrm said in the last call, in order."""
    logs = guard.history.last.iterations.last.validator_logs
    return [log.validation_result.metadata["csrm"] for log in logs]


def streamed(guard: Guard, pieces: list[str], question: str) -> tuple[str, Exception | None]:
    """What got out of a stream, and the exception that ended it."""
    out = ""
    try:
        for part in guard(model(pieces), messages=[user(question)], stream=True):
            out += part.validated_output or ""
    except (ValidationError, TypeError) as error:
        return out, error
    return out, None


def test_validate_compliant_answer_passes_with_its_compliance(
    make: Make, scorer: csrm.Scorer, policy: Path, traffic: Traffic
) -> None:
    guard = Guard().use(make())
    outcome = guard.validate(traffic.allowed_answer)
    assert (outcome.validation_passed, outcome.validated_output) == (True, traffic.allowed_answer)
    answer = [{"role": "assistant", "content": traffic.allowed_answer}]
    score = scorer.score(csrm.SafetyConfig.load(policy), answer)
    assert told(guard) == [
        {"config": "general-default", "verdict": "compliant", "compliance": score.compliance}
    ]


def test_validate_reads_the_messages_of_the_metadata(
    make: Make, scorer: csrm.Scorer, policy: Path, traffic: Traffic
) -> None:
    guard = Guard().use(make())
    earlier = [{"role": "system", "content": "Be brief."}, user(traffic.allowed)]
    guard.validate(traffic.allowed_answer, metadata={"messages": earlier})
    whole = [*earlier, {"role": "assistant", "content": traffic.allowed_answer}]
    score = scorer.score(csrm.SafetyConfig.load(policy), whole)
    assert told(guard)[0]["compliance"] == score.compliance
    assert score.compliance != scorer.score(csrm.SafetyConfig.load(policy), whole[2:]).compliance


def test_validate_violation_raises_by_default(make: Make, traffic: Traffic) -> None:
    with pytest.raises(ValidationError, match="violates the config general-default"):
        Guard().use(make()).validate(traffic.violating_answer)


@pytest.mark.parametrize(
    ("on_fail", "output"), [("refrain", None), ("filter", None), ("fix", ""), ("noop", "the text")]
)
def test_validate_violation_gets_the_chosen_action(
    make: Make, traffic: Traffic, on_fail: str, output: str | None
) -> None:
    outcome = Guard().use(make(on_fail=on_fail)).validate(traffic.violating_answer)
    expected = traffic.violating_answer if on_fail == "noop" else output
    assert outcome.validated_output == expected
    # Guardrails AI takes a fix for a pass.
    assert outcome.validation_passed is (on_fail == "fix")


def test_validate_without_a_score_fails_unless_open(make: Make, traffic: Traffic) -> None:
    with pytest.raises(ValidationError, match=r"not judged \(DeadlineExceeded\)"):
        Guard().use(make(deadline_s=0)).validate(traffic.allowed_answer)
    opened = Guard().use(make(deadline_s=0, fail_mode="open"))
    assert opened.validate(traffic.allowed_answer).validation_passed
    assert told(opened)[0]["verdict"] == "unknown"


@pytest.mark.parametrize(
    "messages", ["text", [{"role": "martian", "content": "a"}], [{"role": "user"}]]
)
def test_validate_messages_that_are_none_fail_even_when_open(
    make: Make, traffic: Traffic, messages: object
) -> None:
    guard = Guard().use(make(fail_mode="open"))
    with pytest.raises(ValidationError, match="not judged"):
        guard.validate(traffic.allowed_answer, metadata={"messages": messages})


def test_async_guard_validate_decides_the_same(make: Make, traffic: Traffic) -> None:
    guard = AsyncGuard().use(make(on_fail="refrain"))
    assert asyncio.run(guard.validate(traffic.allowed_answer)).validation_passed
    assert not asyncio.run(guard.validate(traffic.violating_answer)).validation_passed


def test_validate_inside_a_running_loop_decides_the_same(make: Make, traffic: Traffic) -> None:
    async def ask() -> bool:
        return bool(
            Guard().use(make(on_fail="refrain")).validate(traffic.violating).validation_passed
        )

    with pytest.warns(UserWarning, match="Could not obtain an event loop"):
        assert not asyncio.run(ask())


def test_call_reask_gives_the_model_another_try(make: Make, traffic: Traffic) -> None:
    answers = iter([traffic.violating_answer, traffic.allowed_answer])
    asked: list[str] = []

    def call(*, messages: list[dict[str, str]], **_: object) -> str:
        asked.append(str(messages))
        return next(answers)

    outcome = Guard().use(make(on_fail="reask"))(call, messages=[user(traffic.question)])
    assert (outcome.validated_output, len(asked)) == (traffic.allowed_answer, 2)
    assert "violates the config general-default" in asked[1]


def both_sides(make: Make) -> tuple[Guard, list[object], Callable[..., str]]:
    """A guard on both sides, a list of the requests that its model got, and the model."""
    guard = Guard().use(make(side="input"), on="messages").use(make())
    asked: list[object] = []

    def call(*, messages: list[dict[str, str]], **_: object) -> str:
        asked.append(messages)
        return Traffic.allowed_answer

    return guard, asked, call


def test_call_compliant_request_reaches_the_model(make: Make, traffic: Traffic) -> None:
    guard, asked, call = both_sides(make)
    outcome = guard(call, messages=[user(traffic.allowed)])
    assert (outcome.validated_output, len(asked)) == (traffic.allowed_answer, 1)


def test_call_violating_answer_does_not_come_back(make: Make, traffic: Traffic) -> None:
    guard = Guard().use(make(on_fail="refrain"))
    messages = [user(traffic.question)]
    outcome = guard(
        lambda *, messages, **_: traffic.violating_answer,
        messages=messages,
        metadata={"messages": messages},
    )
    assert (outcome.validated_output, outcome.validation_passed) == (None, False)


@pytest.mark.parametrize("has_metadata", [False, True])
def test_call_violating_message_is_blocked_before_the_model(
    make: Make, traffic: Traffic, has_metadata: bool
) -> None:
    guard, asked, call = both_sides(make)
    # The last message alone is harmless; models answer both.
    messages = [user(traffic.violating), user(traffic.allowed)]
    with pytest.raises(ValidationError, match="violates the config"):
        guard(call, messages=messages, metadata={"messages": messages} if has_metadata else {})
    assert asked == []


def test_call_system_prompt_is_read_and_not_judged(
    make: Make, scorer: csrm.Scorer, policy: Path, traffic: Traffic
) -> None:
    guard, _, call = both_sides(make)
    messages = [{"role": "system", "content": "You are a baker."}, user(traffic.allowed)]
    guard(call, messages=messages)
    assert len(judged_messages(guard)) == 2
    guard(call, messages=messages, metadata={"messages": messages})
    score = scorer.score(csrm.SafetyConfig.load(policy), messages)
    assert [result["compliance"] for result in judged_messages(guard)] == [score.compliance]


def judged_messages(guard: Guard) -> list[Any]:
    """What csrm said of the last call's messages that it judged."""
    logs = [log for step in guard.history.last.iterations for log in step.validator_logs]
    results = [log.validation_result for log in logs if log.property_path == "messages"]
    return [result.metadata["csrm"] for result in results if result.metadata]


def test_stream_compliant_answer_comes_whole(make: Make, traffic: Traffic) -> None:
    guard = Guard().use(make())
    pieces = words(traffic.allowed_answer)
    assert streamed(guard, pieces, traffic.allowed) == ("".join(pieces), None)


def test_stream_piece_is_judged_in_the_answer_so_far(
    make: Make, scorer: csrm.Scorer, policy: Path, traffic: Traffic
) -> None:
    guard = Guard().use(make())
    pieces = list(sentences(["Mix it. Knead", " it. Then", " bake it"]))
    earlier = [user(traffic.allowed)]
    list(guard(model(pieces), messages=earlier, metadata={"messages": earlier}, stream=True))
    assert pieces == ["Mix it. ", "Knead it. ", "Then bake it"]
    answers = ["".join(pieces[:n]) for n in (1, 2, 3)]
    config = csrm.SafetyConfig.load(policy)
    turns = [[*earlier, {"role": "assistant", "content": answer}] for answer in answers]
    alone = [scorer.score(config, turn).compliance for turn in turns]
    assert [result["compliance"] for result in told(guard)] == alone


@pytest.mark.parametrize("on_fail", ["exception", "refrain", "filter", "fix"])
@pytest.mark.parametrize("by_sentence", [False, True])
def test_stream_violation_at_the_end_does_not_get_out(
    make: Make, traffic: Traffic, on_fail: str, by_sentence: bool
) -> None:
    # No full stop: a validator that waits for one lets this out.
    bad = traffic.violating_answer.rstrip(".")
    pieces = [*words(traffic.allowed_answer), *words(bad)]
    if by_sentence:
        pieces = list(sentences(pieces))
    out, error = streamed(Guard().use(make(on_fail=on_fail)), pieces, traffic.question)
    assert out.startswith(traffic.allowed_answer)
    assert "die" not in out
    assert not by_sentence or "idiot" not in out
    # What Guardrails AI makes of the other two in a stream; the text stays in.
    kinds = {"exception": ValidationError, "refrain": TypeError, "filter": TypeError}
    assert isinstance(error, kinds.get(on_fail, type(None)))


def test_stream_without_a_score_lets_nothing_out(make: Make, traffic: Traffic) -> None:
    guard = Guard().use(make(deadline_s=0))
    out, error = streamed(guard, words(traffic.allowed_answer), traffic.allowed)
    assert (out, str(error)) == (
        "",
        "Validation failed for field with errors: not judged (DeadlineExceeded)",
    )


def test_stream_once_failed_stays_failed(
    make: Make, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    validator = make(on_fail="noop")
    decisions = iter([Decision(True, "unknown", "not judged (Overloaded)")])
    check = validator._guard.check_output
    monkeypatch.setattr(
        validator._guard, "check_output", lambda *turn: next(decisions, None) or check(*turn)
    )
    guard = Guard().use(validator)
    pieces = words(traffic.allowed_answer)
    assert streamed(guard, pieces, traffic.allowed)[1] is None
    assert [result["verdict"] for result in told(guard)] == ["unknown"] * len(pieces)


def test_stream_leading_space_is_not_a_failure(make: Make, traffic: Traffic) -> None:
    pieces = ["\n", "", " ", *words(traffic.allowed_answer)]
    assert streamed(Guard().use(make()), pieces, traffic.allowed) == ("".join(pieces), None)


def test_streams_of_one_guard_do_not_mix(make: Make, traffic: Traffic) -> None:
    guard = Guard().use(make(on_fail="noop"))
    shared: dict[str, object] = {}  # the same object for both, as an application may do
    bad, good = (
        guard(model([text, " Enjoy."]), messages=[user("Hello?")], metadata=shared, stream=True)
        for text in (traffic.violating_answer, traffic.allowed_answer)
    )
    # One after the other, interleaved.
    for _ in range(2):
        next(bad)
        next(good)
    calls = [call.iterations.last.validator_logs for call in guard.history]
    verdicts = [
        [log.validation_result.metadata["csrm"]["verdict"] for log in logs] for logs in calls
    ]
    # The bad stream is not judged again once it failed, and says so each time.
    assert verdicts == [["violation", "violation"], ["compliant", "compliant"]]
    assert shared == {}


async def async_streamed(guard: AsyncGuard, pieces: list[str], question: str) -> str:
    out = ""
    async for part in await guard(async_model(pieces), messages=[user(question)], stream=True):
        out += part.validated_output or ""
    return out


def test_async_stream_compliant_answer_comes_whole(make: Make, traffic: Traffic) -> None:
    guard = AsyncGuard().use(make())
    pieces = words(traffic.allowed_answer.rstrip("."))
    assert asyncio.run(async_streamed(guard, pieces, traffic.allowed)) == "".join(pieces)


def test_async_stream_violation_does_not_get_out(make: Make, traffic: Traffic) -> None:
    pieces = [f"{traffic.allowed_answer} ", traffic.violating_answer, " Enjoy."]
    with pytest.raises(ValidationError, match="violates"):
        asyncio.run(async_streamed(AsyncGuard().use(make()), pieces, traffic.question))
    refraining = AsyncGuard().use(make(on_fail="refrain"))
    assert asyncio.run(async_streamed(refraining, pieces, traffic.question)) == pieces[0]


def test_async_streams_of_one_guard_do_not_mix(make: Make, traffic: Traffic) -> None:
    guard = AsyncGuard().use(make(on_fail="refrain"))

    async def both() -> list[str]:
        texts = [traffic.violating_answer, traffic.allowed_answer]
        return await asyncio.gather(
            *(async_streamed(guard, [text, " Enjoy."], "Hello?") for text in texts)
        )

    assert asyncio.run(both()) == ["", f"{traffic.allowed_answer} Enjoy."]


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([], []),
        (["no end"], ["no end"]),
        (["One. Two", "! Three"], ["One. ", "Two! ", "Three"]),
        (["3", ".", "5 is a number"], ["3.5 is a number"]),
        (["She said “No.” ", "And left"], ["She said “No.” ", "And left"]),
        (["a list\n- of", " things\n"], ["a list\n", "- of things\n"]),
        (["一句。", "两句"], ["一句。", "两句"]),
    ],
)
def test_sentences_regroup_pieces_without_loss(pieces: list[str], whole: list[str]) -> None:
    async def one_by_one() -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    async def collect() -> list[str]:
        return [sentence async for sentence in asentences(one_by_one())]

    assert list(sentences(pieces)) == whole == asyncio.run(collect())


def test_page_code_works_as_it_stands(traffic: Traffic, capsys: pytest.CaptureFixture[str]) -> None:
    start, at_hand, stream, async_stream = blocks("guardrails", "python")
    pieces = words(traffic.allowed_answer)

    async def stream_model_async(messages: object, **_: object) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    names: dict[str, Any] = {
        "ask_model": lambda *, messages, **_: traffic.allowed_answer,
        "stream_model": lambda messages, **_: pieces,
        "stream_model_async": stream_model_async,
    }
    exec(start, names)
    assert capsys.readouterr().out == f"{traffic.allowed_answer}\n"
    exec(at_hand, names)
    assert names["outcome"].validation_passed
    exec(stream, names)
    assert capsys.readouterr().out == "".join(pieces)
    exec(async_stream, names)

    async def asked() -> list[str]:
        answer = await names["ask_in_sentences_async"](messages=[])
        return [piece async for piece in answer.completion_stream]

    assert asyncio.run(asked()) == list(sentences(pieces))


def test_validator_unknown_side_is_refused(policy: Path) -> None:
    with pytest.raises(csrm.errors.BadArgument, match="side"):
        CsrmConfig(policy, side="both")  # type: ignore[arg-type]


def test_telemetry_off_exports_nothing(
    make: Make, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[str] = []

    def export(_: object, spans: list[Any]) -> SpanExportResult:
        exported.extend(span.name for span in spans)
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(OTLPSpanExporter, "export", export)
    for is_on in (False, True):
        guard = Guard().use(make())
        if is_on:
            guard.configure(allow_metrics_collection=True)
        guard.validate(traffic.allowed_answer)
        HubTelemetry()._tracer_provider.force_flush()
        assert bool(exported) is is_on
    Guard()  # off again, as the file says
