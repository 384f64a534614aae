"""Admission: what cannot be answered by its deadline is refused before anything is done for it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from serve_client import CHAT, RunningApp, code, raw_call, serve_artifact, shared_app

from csrm.serve.admission import Admission
from csrm.serve.failures import Failure

fixtures = (serve_artifact, shared_app)  # made known to pytest here

N_BYTES = 1000


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def taught(clock: Clock, seconds: float = 0.02, n_workers: int = 1) -> Admission:
    """One that has seen the engine take `seconds` for each of some requests of N_BYTES."""
    admission = Admission(n_workers, clock)
    for _ in range(40):
        ticket = admission.begin("score", N_BYTES, clock.now + 10)
        clock.now += seconds
        admission.end(ticket, is_scored=True)
    return admission


def is_refused(admission: Admission, clock: Clock, within_s: float, name: str = "score") -> bool:
    try:
        admission.check(name, N_BYTES, clock.now + within_s)
    except Failure as failure:
        return (failure.kind, failure.retry_after_s) == ("Overloaded", 1)
    return False


def test_admission_idle_engine_is_always_tried() -> None:
    clock = Clock()
    assert not is_refused(Admission(1, clock), clock, 0.001)
    assert not is_refused(taught(clock), clock, 0.001)


def test_admission_waits_behind_what_is_accepted() -> None:
    clock = Clock()
    admission = taught(clock)
    admission.begin("score", N_BYTES, clock.now + 10)
    # 20 ms of another and 20 of its own, and a fifth more.
    assert is_refused(admission, clock, 0.047)
    assert not is_refused(admission, clock, 0.049)
    clock.now += 0.015  # the other is nearly done
    assert is_refused(admission, clock, 0.029)
    assert not is_refused(admission, clock, 0.031)


def test_admission_waits_only_for_what_is_due_first() -> None:
    clock = Clock()
    admission = taught(clock)
    for _ in range(4):  # due a second after they came, at the latest
        admission.begin("score", 20 * N_BYTES, clock.now + 100)
    assert is_refused(admission, clock, 0.4)  # the one that runs takes as long
    clock.now += 0.4
    assert not is_refused(admission, clock, 0.03)


def test_admission_unknown_endpoint_is_tried() -> None:
    clock = Clock()
    admission = taught(clock)
    admission.begin("score", N_BYTES, clock.now + 10)
    assert not is_refused(admission, clock, 0.021 * 1.2, name="classify")


def test_admission_margin_grows_with_late_answers_and_shrinks_again() -> None:
    clock = Clock()
    admission = taught(clock)
    for _ in range(10):
        admission.end(admission.begin("other", 1, clock.now - 1), is_scored=False)
    ticket = admission.begin("score", N_BYTES, clock.now + 10)
    assert is_refused(admission, clock, 0.06)
    admission.end(ticket, is_scored=False)
    admission = taught(clock)
    admission.begin("score", N_BYTES, clock.now + 10)
    assert not is_refused(admission, clock, 0.06)


def test_admission_several_workers_take_longer_for_each_alone() -> None:
    clock = Clock()
    admission = taught(clock, n_workers=2)
    admission.begin("score", N_BYTES, clock.now + 10)
    assert is_refused(admission, clock, 0.07)
    assert not is_refused(admission, clock, 0.073)


def test_admission_forgets_what_has_ended() -> None:
    clock = Clock()
    admission = taught(clock)
    tickets = [admission.begin("score", N_BYTES, clock.now + 0.13) for _ in range(5)]
    assert is_refused(admission, clock, 0.14)
    for ticket in tickets:
        admission.end(ticket, is_scored=False)
    assert not is_refused(admission, clock, 0.001)


def test_admission_endpoint_that_was_slow_once_is_tried_again_while_others_are_busy() -> None:
    clock = Clock()
    admission = taught(clock)
    slow = admission.begin("moderations", N_BYTES, clock.now + 100)
    clock.now += 50  # rules were encoded for the first time
    admission.end(slow, is_scored=True)
    ahead = admission.begin("score", N_BYTES, clock.now + 10)
    assert is_refused(admission, clock, 5.0, name="moderations")
    for _ in range(100):  # "score" keeps the engine busy, so that it is never idle
        clock.now += 0.02
        following = admission.begin("score", N_BYTES, clock.now + 10)
        admission.end(ahead, is_scored=True)
        ahead = following
    trial = admission.begin("moderations", N_BYTES, clock.now + 5.0)
    assert is_refused(admission, clock, 5.0, name="moderations")  # one at a time
    for _ in range(200):
        clock.now += 0.02
        admission.end(trial, is_scored=True)
        trial = admission.begin("moderations", N_BYTES, clock.now + 100)
    assert not is_refused(admission, clock, 5.0, name="moderations")


def test_admission_refusal_of_a_long_request_is_its_own_fault() -> None:
    clock = Clock()
    admission = taught(clock)
    admission.begin("score", N_BYTES, clock.now + 10)
    for n_bytes, within_s, is_ours in ((1 << 20, 10.0, False), (1 << 20, 0.03, True)):
        with pytest.raises(Failure) as caught:
            admission.check("score", n_bytes, clock.now + within_s)
        assert (caught.value.kind, caught.value.is_ours) == ("Overloaded", is_ours)


def test_admission_late_request_is_429_before_its_body_is_read(
    shared_app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.monotonic
    admission = taught(Clock(), seconds=30.0)
    monkeypatch.setattr(admission, "_clock", clock)
    monkeypatch.setattr(admission, "_last", clock())
    monkeypatch.setattr(shared_app.service, "admission", admission)
    body = {"messages": CHAT}
    assert shared_app.post("/v1/score", body).status_code == 200  # nobody before it
    ticket = admission.begin("score", N_BYTES, clock() + 1000)
    late = shared_app.post("/v1/score", body)
    assert code(late) == (429, "Overloaded")
    assert late.headers["retry-after"] == "1"
    given: dict[str, Any] = {"input_type": "request", "texts": ["a"]}
    path = "/beta/litellm_basic_guardrail_api"
    assert shared_app.post(path, given).status_code == 200  # nothing is known of this endpoint

    async def no_body() -> list[Any]:
        # The head alone: there is nothing to read, and the answer does not wait for it.
        return await raw_call(shared_app.app, [], n_bytes=len(json.dumps(body)))

    sent = shared_app.run(no_body())
    assert sent[0]["status"] == 429
    admission.end(ticket, is_scored=False)
    assert shared_app.post("/v1/score", body).status_code == 200
