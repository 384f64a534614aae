"""`csrm.integrations.answer_stream.AnswerStream`: which pieces leave when, and what blocks them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from toy_guard import guard, scorer

import csrm
from csrm.integrations.answer_stream import AnswerStream, Release
from csrm.integrations.guard import Blocked, Decision, Guard
from csrm.stream import Stream

fixtures = (scorer,)  # made known to pytest here

USER = {"role": "user", "content": "a b c"}


def stream(judge: Guard, release: Release = "whole") -> AnswerStream[str]:
    return AnswerStream(judge, [USER], release)


def test_stream_whole_lets_nothing_go_before_the_end(scorer: csrm.Scorer) -> None:
    answer = stream(guard(scorer))
    pieces = ["a b", " c\n", "", "d"]
    assert [answer.push(piece, {0: piece}) for piece in pieces] == [[], [], [], []]
    assert answer.finish() == pieces
    assert answer.decision().verdict == "compliant"


def test_stream_final_score_is_that_of_the_whole_turn(scorer: csrm.Scorer) -> None:
    judge = guard(scorer)
    answer = stream(judge)
    for piece in ("a b", " c\n", "d e f"):
        answer.push(piece, {0: piece})
    answer.finish()
    turns = [USER, {"role": "assistant", "content": "a b c\nd e f"}]
    assert answer.decision().scores == (scorer.score(judge.config, turns, reuse_turns=True),)


def test_stream_judged_lets_go_what_a_score_covers(scorer: csrm.Scorer) -> None:
    answer = stream(guard(scorer), "judged")
    assert answer.push("role", {}) == ["role"]
    assert answer.push("a b", {0: "a b"}) == []
    assert answer.push(" c\n", {0: " c\n"}) == ["a b", " c\n"]
    assert answer.push("d", {0: "d"}) == []
    assert answer.finish() == ["d"]


def test_stream_judged_waits_for_every_text(scorer: csrm.Scorer) -> None:
    answer = stream(guard(scorer), "judged")
    assert answer.push("1", {1: "d"}) == []
    assert answer.push("0", {0: "a\n"}) == []
    assert answer.push("1'", {1: " e\n"}) == ["1", "0", "1'"]


def test_stream_judged_holds_from_the_last_piece_on(scorer: csrm.Scorer) -> None:
    answer = stream(guard(scorer), "judged")
    assert answer.push("call", {}, is_last=True) == []
    assert answer.push("a\n", {0: "a\n"}) == []
    assert answer.finish(["f(x)"]) == ["call", "a\n"]


@pytest.mark.parametrize("release", ["whole", "judged"])
def test_stream_violation_blocks_at_the_first_score_and_for_good(
    scorer: csrm.Scorer, release: Release
) -> None:
    answer = stream(guard(scorer, threshold=1), release)
    assert answer.push("a b", {0: "a b"}) == []
    for attempt in (lambda: answer.push("c\n", {0: "c\n"}), lambda: answer.push("d", {})):
        with pytest.raises(Blocked, match="violates the config policy"):
            attempt()
    with pytest.raises(Blocked) as caught:
        answer.finish()
    assert caught.value.decision == answer.decision()
    assert (answer.decision().is_blocked, answer.decision().verdict) == (True, "violation")


@pytest.mark.parametrize("release", ["whole", "judged"])
@pytest.mark.parametrize(
    ("text", "kind"), [("z", "NonFinite"), ("\udc80", "BadUtf8"), ("", "EmptyConversation")]
)
def test_stream_unknown_blocks(scorer: csrm.Scorer, release: Release, text: str, kind: str) -> None:
    answer = stream(guard(scorer), release)
    left = answer.push("role", {})

    def rest() -> list[str]:
        return answer.push("text", {0: text}) + answer.finish()

    with pytest.raises(Blocked, match=f"not judged .{kind}."):
        rest()
    assert left == ([] if release == "whole" else ["role"])


def test_stream_text_given_at_the_end_is_judged(scorer: csrm.Scorer) -> None:
    answer = stream(guard(scorer))
    answer.push("a\n", {0: "a\n"})
    with pytest.raises(Blocked, match="NonFinite"):
        answer.finish(["d", "z"])


def test_stream_messages_that_cannot_be_read_block(scorer: csrm.Scorer) -> None:
    answer: AnswerStream[str] = AnswerStream(guard(scorer), [{"role": "martian", "content": "a"}])
    with pytest.raises(Blocked, match="UnknownRole"):
        answer.push("a", {0: "a"})


def test_stream_late_score_blocks_unless_open(
    scorer: csrm.Scorer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Blocked, match="DeadlineExceeded"):
        stream(guard(scorer, deadline_s=0)).push("a\n", {0: "a\n"})
    answer = stream(guard(scorer, fail_mode="open", deadline_s=0))
    answer.push("a\n", {0: "a\n"})
    assert answer.finish() == ["a\n"]
    assert (answer.decision().is_blocked, answer.decision().verdict) == (False, "unknown")
    assert {(entry.levelname, entry.message) for entry in caplog.records} == {
        ("CRITICAL", "let by what could not be judged: DeadlineExceeded")
    }


@pytest.mark.parametrize("n_failures", [1, 9])
def test_stream_open_judges_later_what_came_before_a_stream_could_be_opened(
    scorer: csrm.Scorer, n_failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = guard(scorer, fail_mode="open")
    failures = iter([csrm.errors.EngineFailed("no memory")] * n_failures)
    open_stream = judge.open_stream

    def opened(messages: object) -> Stream:
        for failure in failures:
            raise failure
        return open_stream(messages)

    monkeypatch.setattr(judge, "open_stream", opened)
    answer = stream(judge, "judged")
    released = [piece for piece in ("a b", " c\n", "d") for piece in answer.push(piece, {0: piece})]
    assert released == ["a b", " c\n"] + ["d"] * (n_failures > 1)
    judged: list[float] = []
    decide = judge.decide

    def noting(answers: Sequence[csrm.Score | BaseException]) -> Decision:
        judged.extend(found.reward for found in answers if isinstance(found, csrm.Score))
        return decide(answers)

    monkeypatch.setattr(judge, "decide", noting)
    assert answer.finish() == ["d"] * (n_failures == 1)
    turns = [USER, {"role": "assistant", "content": "a b c\nd"}]
    assert judged == [pytest.approx(scorer.score(judge.config, turns).reward, abs=1e-5)]


def test_stream_late_violation_blocks_when_open(scorer: csrm.Scorer) -> None:
    answer = stream(guard(scorer, threshold=1, fail_mode="open", deadline_s=0))
    with pytest.raises(Blocked, match="violates"):
        answer.push("a\n", {0: "a\n"})


def test_stream_of_a_closed_guard_blocks(scorer: csrm.Scorer) -> None:
    judge = guard(scorer)
    stricter = judge.at_least(0.1)
    answers = [stream(judge), stream(stricter)]
    judge.close()
    for answer in answers:
        with pytest.raises(Blocked, match="Cancelled"):
            answer.push("a\n", {0: "a\n"})


def test_stream_async_of_a_closed_guard_blocks(scorer: csrm.Scorer) -> None:
    judge = guard(scorer)

    async def push() -> None:
        answer = stream(judge, "judged")
        assert await answer.apush("a b", {0: "a b"}) == []
        judge.close()
        await answer.apush(" c\n", {0: " c\n"})

    with pytest.raises(Blocked, match="Cancelled"):
        asyncio.run(push())


def test_stream_async_lets_the_same_go(scorer: csrm.Scorer) -> None:
    pieces = ["a b", " c\n", "d"]

    async def released() -> list[list[str]]:
        answer = stream(guard(scorer), "judged")
        found = [await answer.apush(piece, {0: piece}) for piece in pieces]
        return [*found, await answer.afinish()]

    answer = stream(guard(scorer), "judged")
    expected = [answer.push(piece, {0: piece}) for piece in pieces]
    assert asyncio.run(released()) == [*expected, answer.finish()]


def test_stream_unknown_release_is_refused(scorer: csrm.Scorer) -> None:
    with pytest.raises(csrm.errors.BadArgument):
        AnswerStream(guard(scorer), [USER], "early")  # type: ignore[arg-type]
