"""csrm.Scheduler on the toy artifact: the scorer's scores, whatever runs beside them; typed errors;
nothing dropped; threads, asyncio, exit and fork. The order of calls: tests/cpp/test_job_queue.cc.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import letters

import csrm
from csrm import errors
from csrm.conversation import Turn

toy_artifact = toy.toy_artifact  # the fixture, made known to pytest here

# Rounding of a batch; measured 2.4e-7 with csrm-mini, the toy's rewards are of the same size.
TOLERANCE = 5e-6
CONFIGS = [[letters(5 + 9 * i, i), letters(8, 3 + i), letters(40, 7 * i)] for i in range(3)]
WAIT_S = 60.0

Chat = list[dict[str, str]]


def chat_of(*turns: tuple[str, int]) -> Chat:
    """Turns as (role, words)."""
    return [{"role": role, "content": letters(n, 3 * i + n)} for i, (role, n) in enumerate(turns)]


def many_chats(n: int) -> list[Chat]:
    rng = random.Random(n)
    return [
        chat_of(*[(rng.choice(["user", "assistant"]), rng.randint(1, 80)) for _ in range(3)])
        for _ in range(n)
    ]


LONG = chat_of(*[("assistant", 900)] * 4)  # several engine calls
VERY_LONG = chat_of(*[("user", 1500)] * 7)  # many of them


@pytest.fixture(scope="module")
def scorer(toy_artifact: Path) -> csrm.Scorer:
    return csrm.load(toy_artifact, n_threads=1)


@pytest.fixture
def scheduler(scorer: csrm.Scorer) -> Iterator[csrm.Scheduler]:
    with csrm.Scheduler(scorer) as made:
        yield made


def assert_same(one: csrm.Score, other: csrm.Score) -> None:
    assert one.reward == pytest.approx(other.reward, abs=TOLERANCE)
    assert one.compliance == pytest.approx(other.compliance, abs=TOLERANCE)
    assert one.verdict == other.verdict
    assert one.scored_tokens == other.scored_tokens
    assert [turn.turn for turn in one.turns] == [turn.turn for turn in other.turns]
    assert [(rule.index, rule.name) for rule in one.rules] == [
        (rule.index, rule.name) for rule in other.rules
    ]
    for parts in ("turns", "rules"):
        rewards = [[part.reward for part in getattr(score, parts)] for score in (one, other)]
        assert rewards[0] == pytest.approx(rewards[1], abs=TOLERANCE)


def error_of(future: Future[csrm.Score]) -> BaseException | None:
    return future.exception(WAIT_S)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_scheduler_scores_equal_those_of_the_scorer(scorer: csrm.Scorer, n_workers: int) -> None:
    requests: list[tuple[object, Chat, dict[str, Any]]] = []
    for i, chat in enumerate([*many_chats(60), LONG]):
        options = {
            "judged": "assistant" if i % 3 else "last",
            "explain": i % 5 == 0,
            "reuse_turns": i % 2 == 0,
        }
        chat = [*chat, {"role": "assistant", "content": "a b"}]
        requests.append((CONFIGS[i % 3], chat, options))
    scorer.clear_cache()  # the scheduler encodes the configs
    with csrm.Scheduler(scorer, n_workers=n_workers) as scheduler:
        futures = [scheduler.submit(config, chat, **o) for config, chat, o in requests]
        scores = [future.result(WAIT_S) for future in futures]
        stats = scheduler.stats()
    for score, (config, chat, options) in zip(scores, requests, strict=True):
        assert_same(score, scorer.score(config, chat, **options))
    assert len({score.reward for score in scores}) > 50, "the toy rewards must differ"
    assert stats["n_accepted"] == stats["n_finished"] == len(requests)
    assert stats["n_rows"] > stats["n_batches"], "some requests must have shared a call"
    assert stats["real_tokens"] <= stats["padded_tokens"] <= 1.3 * stats["real_tokens"]
    assert (stats["n_queued"], stats["n_running"], stats["held_tokens"]) == (0, 0, 0)


def test_scheduler_one_request_at_a_time_is_bit_equal(
    scheduler: csrm.Scheduler, scorer: csrm.Scorer
) -> None:
    for chat in [*many_chats(10), LONG]:
        assert scheduler.submit(CONFIGS[0], chat).result(WAIT_S) == scorer.score(CONFIGS[0], chat)


def test_scheduler_eight_threads_get_their_own_scores(
    scheduler: csrm.Scheduler, scorer: csrm.Scorer
) -> None:
    chats = many_chats(160)

    def client(number: int) -> list[csrm.Score]:
        own = chats[number::8]
        return [scheduler.submit(CONFIGS[number % 3], chat).result(WAIT_S) for chat in own]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client, range(8)))
    for number, scores in enumerate(answers):
        for score, chat in zip(scores, chats[number::8], strict=True):
            assert_same(score, scorer.score(CONFIGS[number % 3], chat))


def test_scheduler_missing_config_is_encoded_once(scorer: csrm.Scorer) -> None:
    scorer.clear_cache()
    with csrm.Scheduler(scorer) as scheduler:
        futures = [scheduler.submit([letters(20, 4), letters(22, 5)], c) for c in many_chats(20)]
        wait(futures, WAIT_S)
        stats = scheduler.stats()
    assert stats["n_prefix_calls"] == 1
    assert stats["n_finished"] == 20


@pytest.mark.parametrize(
    ("config", "chat", "error"),
    [
        ([], chat_of(("user", 3)), errors.EmptyConfig),
        (["a"], [], errors.EmptyConversation),
        (["a"], [{"role": "user", "content": ""}], errors.EmptyConversation),
        (["a"], [{"role": "nobody", "content": "a"}], errors.UnknownRole),
        (["a"], [{"role": "user", "content": "\ud800"}], errors.BadUtf8),
        (["\ud800"], chat_of(("user", 3)), errors.BadUtf8),
        (["a"], "not turns", errors.BadConversation),
        (["a"], chat_of(("user", 40_000)), errors.LimitExceeded),
    ],
)
def test_scheduler_bad_request_gets_its_own_error(
    scheduler: csrm.Scheduler, scorer: csrm.Scorer, config: object, chat: Any, error: type
) -> None:
    before, good_chat = scheduler.submit(CONFIGS[0], LONG), many_chats(1)[0]
    bad = scheduler.submit(config, chat)
    good = scheduler.submit(CONFIGS[0], good_chat)
    assert type(error_of(bad)) is error
    assert_same(good.result(WAIT_S), scorer.score(CONFIGS[0], good_chat))
    assert_same(before.result(WAIT_S), scorer.score(CONFIGS[0], LONG))


def test_scheduler_bad_options_are_bad_arguments(
    scheduler: csrm.Scheduler, scorer: csrm.Scorer
) -> None:
    for options in ({"judged": "all"}, {"deadline_s": "1"}, {"deadline_s": float("nan")}):
        future = scheduler.submit(["a"], chat_of(("user", 1)), **options)  # type: ignore[arg-type]
        assert type(error_of(future)) is errors.BadArgument
    for name in ("n_workers", "max_requests", "max_tokens", "batch_tokens", "max_begun"):
        for value in (-1, 1.5, True, 2**31) + ((0,) if name != "batch_tokens" else ()):
            with pytest.raises(errors.BadArgument, match=name):
                csrm.Scheduler(scorer, **{name: value})  # type: ignore[arg-type]
    for patience in (-1, float("nan"), 1e6, "1"):
        with pytest.raises(errors.BadArgument, match="patience_s"):
            csrm.Scheduler(scorer, patience_s=patience)  # type: ignore[arg-type]
    with pytest.raises(errors.BadArgument, match="n_workers"):
        csrm.Scheduler(scorer, n_workers=65)


def test_scheduler_non_finite_model_output_fails_only_what_it_concerns(
    toy_artifact: Path, tmp_path: Path
) -> None:
    scorer = csrm.load(toy.without_finite_z(toy_artifact, tmp_path / "toy"), n_threads=1)
    good, bad = chat_of(("user", 3)), [{"role": "user", "content": "z"}]
    with csrm.Scheduler(scorer) as scheduler:
        scheduler.submit(["a"], LONG)  # what follows waits, and shares calls
        futures = [scheduler.submit(["a"], chat) for chat in [good, bad] * 5]
        of_bad_config = [scheduler.submit(["a", "z"], good, explain=True) for _ in range(3)]
        kinds = [type(error_of(future)) for future in futures]
        assert kinds == [type(None), errors.NonFinite] * 5
        assert {type(error_of(future)) for future in of_bad_config} == {errors.NonFinite}
        assert scheduler.stats()["n_failed"] == 8
        assert_same(futures[0].result(), scorer.score(["a"], good))


def test_scheduler_without_a_cache_gives_equal_scores(toy_artifact: Path) -> None:
    scorer = csrm.load(toy_artifact, n_threads=1, cache_tokens=0)
    with csrm.Scheduler(scorer) as scheduler:
        futures = [scheduler.submit(CONFIGS[0], c, explain=True) for c in many_chats(5)]
        for future, chat in zip(futures, many_chats(5), strict=True):
            assert_same(future.result(WAIT_S), scorer.score(CONFIGS[0], chat, explain=True))


def test_scheduler_deadline_passed_is_deadline_exceeded(scheduler: csrm.Scheduler) -> None:
    running = scheduler.submit(CONFIGS[0], VERY_LONG)
    for deadline_s in (-5.0, 0.0, 1e-9):
        late = scheduler.submit(CONFIGS[0], chat_of(("user", 3)), deadline_s=deadline_s)
        assert type(error_of(late)) is errors.DeadlineExceeded
    # A long conversation in progress: no further engine call after the deadline.
    assert type(error_of(scheduler.submit(CONFIGS[0], VERY_LONG, deadline_s=0.05))) is (
        errors.DeadlineExceeded
    )
    in_time = scheduler.submit(CONFIGS[0], chat_of(("user", 3)), deadline_s=1e12)
    assert in_time.result(WAIT_S).verdict in ("compliant", "violation")
    running.cancel()


def test_scheduler_full_queue_is_overloaded(scorer: csrm.Scorer) -> None:
    with csrm.Scheduler(scorer, max_requests=2) as scheduler:
        futures = [scheduler.submit(CONFIGS[0], VERY_LONG) for _ in range(3)]
        assert type(error_of(futures[2])) is errors.Overloaded
        assert "max_requests" in str(error_of(futures[2]))
        assert scheduler.stats()["n_refused"] == 1
        for future in futures:
            future.cancel()
    with csrm.Scheduler(scorer, max_tokens=100) as scheduler:
        alone = scheduler.submit(CONFIGS[0], VERY_LONG)
        refused = scheduler.submit(CONFIGS[0], chat_of(("user", 3)))
        assert "max_tokens" in str(error_of(refused))
        alone.cancel()


def test_scheduler_short_requests_run_between_the_rows_of_a_long_one(
    scheduler: csrm.Scheduler,
) -> None:
    scheduler.submit(CONFIGS[0], chat_of(("user", 3))).result(WAIT_S)
    order: list[str] = []
    long = scheduler.submit(CONFIGS[0], VERY_LONG)  # a dozen engine calls
    long.add_done_callback(lambda _: order.append("long"))
    for _ in range(3):
        short = scheduler.submit(CONFIGS[0], chat_of(("user", 3)))
        short.add_done_callback(lambda _: order.append("short"))
    long.result(WAIT_S)
    assert order == ["short"] * 3 + ["long"]


def test_scheduler_cancelled_future_is_withdrawn(scheduler: csrm.Scheduler) -> None:
    futures = [scheduler.submit(CONFIGS[0], VERY_LONG) for _ in range(2)]
    time.sleep(0.01)
    assert all(future.cancel() for future in futures)
    end = time.monotonic() + WAIT_S
    while scheduler.stats()["held_tokens"] and time.monotonic() < end:
        time.sleep(0.005)
    assert scheduler.stats()["n_cancelled"] == 2
    assert scheduler.submit(CONFIGS[0], LONG).result(WAIT_S)


@pytest.mark.parametrize("shape", ["text", "parts", "turns", "rules"])
def test_scheduler_long_text_is_tokenised_off_the_event_loop(
    scheduler: csrm.Scheduler, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    threads = set()
    submit = scheduler._submit

    def noted(*given: Any) -> int:
        threads.add(threading.get_ident())
        return submit(*given)

    monkeypatch.setattr(scheduler, "_submit", noted)
    long = letters(12_000)
    config = csrm.SafetyConfig.from_rules([long if shape == "rules" else "a b"])
    content: Any = [{"type": "text", "text": long}] if shape == "parts" else long
    turn: Any = {"role": "user", "content": "a" if shape == "rules" else content}
    chat = [Turn("user", long)] if shape == "turns" else [turn]

    async def ask() -> None:
        with pytest.raises(errors.DeadlineExceeded):
            await scheduler.score(config, chat, deadline_s=1e-6)
        threads.add(-1)

    asyncio.run(ask())
    assert -1 in threads
    assert threading.get_ident() not in threads


def test_scheduler_answer_that_cannot_be_read_ends_its_future(
    scheduler: csrm.Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such answer")

    monkeypatch.setattr("csrm.scheduler.answer_from", fail)
    with pytest.raises(ValueError, match="no such answer"):
        scheduler.submit(CONFIGS[0], chat_of(("user", 4))).result(WAIT_S)


def test_scheduler_closed_ends_every_future(scorer: csrm.Scorer) -> None:
    scheduler = csrm.Scheduler(scorer, max_tokens=10**9)
    futures = [scheduler.submit(CONFIGS[i % 3], VERY_LONG) for i in range(2)]
    futures += [scheduler.submit(CONFIGS[i % 3], LONG) for i in range(20)]
    scheduler.close()
    scheduler.close()
    assert all(future.done() for future in futures)
    kinds = {type(error_of(future)) for future in futures}
    assert kinds <= {errors.Cancelled, type(None)}
    assert errors.Cancelled in kinds
    assert type(error_of(scheduler.submit(CONFIGS[0], LONG))) is errors.Cancelled


def test_scheduler_garbage_is_closed(scorer: csrm.Scorer) -> None:
    scheduler = csrm.Scheduler(scorer)
    future = scheduler.submit(CONFIGS[0], VERY_LONG)
    del scheduler
    gc.collect()
    assert future.done()


def test_scheduler_asyncio_gather_equals_the_scorer(
    scheduler: csrm.Scheduler, scorer: csrm.Scorer
) -> None:
    chats = [*many_chats(12), LONG, VERY_LONG]

    async def all_scores() -> list[csrm.Score]:
        return await asyncio.gather(*(scheduler.score(CONFIGS[1], chat) for chat in chats))

    for score, chat in zip(asyncio.run(all_scores()), chats, strict=True):
        assert_same(score, scorer.score(CONFIGS[1], chat))


def test_scheduler_asyncio_errors_are_raised_and_cancelling_withdraws(
    scheduler: csrm.Scheduler,
) -> None:
    async def play() -> None:
        with pytest.raises(errors.EmptyConversation):
            await scheduler.score(CONFIGS[0], [])
        with pytest.raises(errors.BadConversation):
            await scheduler.score(CONFIGS[0], "x" * 100_000)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(scheduler.score(CONFIGS[0], VERY_LONG), 0.05)

    asyncio.run(play())
    scheduler.submit(CONFIGS[0], LONG).result(WAIT_S)
    assert scheduler.stats()["n_cancelled"] == 1


SCRIPT = """
import os, sys, time, csrm
chats = [[{"role": "user", "content": "a b c " * 500}] * 7 for _ in range(8)]
scorer = csrm.load(sys.argv[1], n_threads=1)
scheduler = csrm.Scheduler(scorer, max_tokens=10**9)
futures = [scheduler.submit(["a b", "c"], chat) for chat in chats]
"""


def run_script(artifact: Path, body: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT + body, str(artifact)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_scheduler_process_may_exit_while_requests_wait(toy_artifact: Path) -> None:
    run_script(toy_artifact, "time.sleep(0.05)")
    run_script(toy_artifact, "sys.exit(0)")


def test_scheduler_last_reference_dropped_by_a_callback_closes_it(toy_artifact: Path) -> None:
    body = """
holder = [scheduler]; del scheduler
short = holder[0].submit(["a b", "c"], [{"role": "user", "content": "a"}])
short.add_done_callback(lambda _: holder.clear())
kinds = {type(f.exception(30)).__name__ for f in futures}
assert kinds == {"Cancelled"}, kinds
print("closed", len(holder))
"""  # and out, while that thread may have answers left to give
    assert run_script(toy_artifact, body) == "closed 0\n"


def test_scheduler_in_a_forked_child_is_unsupported(toy_artifact: Path) -> None:
    body = """
pid = os.fork()
if pid == 0:
    error = scheduler.submit(["a"], chats[0]).exception(5)
    scheduler.close()
    ok = type(error).__name__ == "Unsupported" and "fork" in str(error)
    del scheduler
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print(scheduler.submit(["a b", "c"], [{"role": "user", "content": "a"}]).result(30).verdict)
"""
    assert run_script(toy_artifact, body) in ("compliant\n", "violation\n")
