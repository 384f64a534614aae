"""`csrm.integrations.guard.Guard`: which turns are judged, and what a failure decides."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import Any

import pytest
from toy_guard import guard, scorer

import csrm
from csrm.integrations.guard import Blocked

fixtures = (scorer,)  # made known to pytest here

SYSTEM = {"role": "system", "content": "a b"}
USER = {"role": "user", "content": "a b c"}
ANSWER = {"role": "assistant", "content": "d e f g"}
UNSCORABLE = {"role": "user", "content": "a z b"}  # an infinite reward in the toy artifact


def test_guard_compliant_turn_passes(scorer: csrm.Scorer) -> None:
    decision = guard(scorer, 0).check_input([SYSTEM, USER])
    assert (decision.is_blocked, decision.verdict) == (False, "compliant")
    assert decision.compliance == decision.scores[0].compliance


def test_guard_violation_blocks_and_names_the_config(scorer: csrm.Scorer) -> None:
    decision = guard(scorer, 1).check_output([USER], ["d e f g"])
    assert (decision.is_blocked, decision.verdict) == (True, "violation")
    assert decision.reason == "violates the config policy"


def test_guard_input_judges_every_turn_since_the_answer(scorer: csrm.Scorer) -> None:
    turns = [USER, ANSWER, SYSTEM, USER, {"role": "user", "content": "h i"}]
    decision = guard(scorer, 0).check_input(turns)
    config = guard(scorer, 0).config
    alone = [scorer.score(config, turns[:n]).reward for n in (4, 5)]
    assert [score.reward for score in decision.scores] == alone


def test_guard_output_judges_every_choice_after_the_messages(scorer: csrm.Scorer) -> None:
    decision = guard(scorer, 0).check_output([USER], ["d e", "", "f g"])
    config = guard(scorer, 0).config
    alone = [scorer.score(config, [USER, {**ANSWER, "content": t}]).reward for t in ("d e", "f g")]
    assert [score.reward for score in decision.scores] == alone


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([], "EmptyConversation"),
        ([SYSTEM], "EmptyConversation"),
        ("a b", "BadConversation"),
        ([{"role": "martian", "content": "a"}], "UnknownRole"),
        ([{"role": "user", "content": "\udc80"}], "BadUtf8"),
    ],
)
def test_guard_bad_input_is_unknown_and_blocked_even_when_open(
    scorer: csrm.Scorer, messages: object, kind: str
) -> None:
    decision = guard(scorer, 0, "open").check_input(messages)
    assert (decision.is_blocked, decision.verdict) == (True, "unknown")
    assert decision.reason == f"not judged ({kind})"
    assert decision.compliance is None


def test_guard_own_failure_blocks_unless_open(scorer: csrm.Scorer) -> None:
    for fail_mode, blocked in (("closed", True), ("open", False)):
        decision = guard(scorer, 0, fail_mode).check_input([UNSCORABLE])  # type: ignore[arg-type]
        assert (decision.is_blocked, decision.verdict) == (blocked, "unknown")
        assert decision.reason == "not judged (NonFinite)"


def test_guard_violation_beside_a_failure_blocks_when_open(scorer: csrm.Scorer) -> None:
    decision = guard(scorer, 1, "open").check_output([USER], ["d e", "a z"])
    assert (decision.is_blocked, decision.verdict) == (True, "violation")


def test_guard_past_its_deadline_or_closed_is_unknown(scorer: csrm.Scorer) -> None:
    late = guard(scorer, 0, deadline_s=0).check_input([USER])
    assert late.reason == "not judged (DeadlineExceeded)"
    closed = guard(scorer, 0)
    closed.close()
    assert closed.check_input([USER]).reason == "not judged (Cancelled)"


def test_guard_async_decides_the_same(scorer: csrm.Scorer) -> None:
    judge = guard(scorer, 1)

    async def ask() -> tuple[object, object]:
        return await judge.acheck_input([USER]), await judge.acheck_output([USER], ["d e"])

    assert asyncio.run(ask()) == (judge.check_input([USER]), judge.check_output([USER], ["d e"]))


def test_guard_async_tokenises_long_turns_beside_the_event_loop(
    scorer: csrm.Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = guard(scorer, 0)
    threads: list[threading.Thread] = []
    submit = judge._scheduler._submit

    def noting(*request: Any) -> int:
        threads.append(threading.current_thread())
        return submit(*request)

    monkeypatch.setattr(judge._scheduler, "_submit", noting)
    long = [{"role": "user", "content": "a b c " * 4000}]
    for check in (judge.acheck_input(long), judge.acheck_output(long, ["d e"])):
        asyncio.run(check)
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_guard_async_cancelled_check_withdraws_and_decides_nothing(scorer: csrm.Scorer) -> None:
    judge = guard(scorer, 0, "open")

    async def ask() -> None:
        task = asyncio.create_task(judge.acheck_input([USER]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())


def test_guard_closed_leaves_no_thread_of_streams(scorer: csrm.Scorer) -> None:
    judge = guard(scorer, 0)
    thread = asyncio.run(judge.in_stream_worker(threading.current_thread))
    assert thread.is_alive()
    judge.close()
    thread.join(10)
    assert not thread.is_alive()


def test_guard_unknown_fail_mode_is_refused(scorer: csrm.Scorer) -> None:
    with pytest.raises(csrm.errors.BadArgument):
        guard(scorer, 0, "ajar")  # type: ignore[arg-type]


def test_guard_at_least_tightens_and_never_loosens(scorer: csrm.Scorer) -> None:
    judge = guard(scorer, 0)
    compliance = judge.check_input([USER]).compliance
    assert compliance is not None
    for threshold, blocked in ((None, False), (0.0, False), (compliance, False), (1.0, True)):
        assert judge.at_least(threshold).check_input([USER]).is_blocked is blocked
    assert guard(scorer, 1).at_least(0.0).check_input([USER]).is_blocked
    with pytest.raises(csrm.errors.BadConfig):
        judge.at_least(1.5)


def test_blocked_says_why_and_can_be_pickled(scorer: csrm.Scorer) -> None:
    blocked = Blocked(guard(scorer, 1).check_input([USER]))
    assert str(blocked) == "violates the config policy"
    assert pickle.loads(pickle.dumps(blocked)).decision == blocked.decision
