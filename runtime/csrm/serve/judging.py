"""`judge`: conversations through the scheduler, each to a `Judgement`; and the rule to block by it.

Not: reading requests or writing answers. Data comes from the endpoints as `Case`s; a failure of one
case is the Judgement "unknown" and never a score.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from csrm.errors import Error
from csrm.score import Score, Verdict
from csrm.scorer import Explain, Judged
from csrm.serve.audit import conversation_digest
from csrm.serve.call import Call
from csrm.serve.configs import NamedConfig
from csrm.serve.failures import Failure, failure_of
from csrm.serve.logs import log_event, log_exception


@dataclass(frozen=True)
class Case:
    """One conversation to judge under one config."""

    named: NamedConfig
    conversation: object
    judged: Judged = "last"
    explain: Explain = False


@dataclass(frozen=True)
class Judgement:
    """What became of a case: a score, or why there is none."""

    named: NamedConfig
    score: Score | None = None
    failure: Failure | None = None

    @property
    def verdict(self) -> Verdict:
        """ "unknown" when there is no score."""
        return "unknown" if self.score is None else self.score.verdict

    def scored(self) -> Score:
        """The score. Errors: the Failure in its place."""
        if self.score is None:
            raise self.failure or Failure("Internal", "there is neither a score nor a failure")
        return self.score


@dataclass(frozen=True)
class Decision:
    """What a gateway is told. `verdict` is the worst: violation, then unknown, then compliant."""

    is_blocked: bool
    verdict: Verdict
    reason: str


async def judge(call: Call, cases: Sequence[Case]) -> list[Judgement]:
    """The Judgements of `cases`, in order. Errors: Failure for the request as a whole."""
    limits, service = call.service.options.limits, call.service
    if not cases:
        raise Failure("EmptyConversation", "there is nothing to judge in the request")
    if len(cases) > limits.max_batch:
        raise Failure(
            "LimitExceeded",
            f"{len(cases):,} conversations in a request; limit {limits.max_batch:,}",
        )
    service.quotas.take(call.tenant, len(cases))
    service.quotas.enter(call.tenant, len(cases))
    answers: list[Judgement] = []
    ticket = None
    try:
        ticket = service.admission.begin(call.name, len(call.data), call.deadline)
        with call.stage("score"):
            if len(cases) == 1:  # most requests: no tasks
                answers = [await _judge_one(call, cases[0])]
            else:
                answers = await _judge_all(call, cases)
    finally:
        service.quotas.leave(call.tenant, len(cases))
        if ticket is not None:
            is_scored = bool(answers) and all(answer.score is not None for answer in answers)
            service.admission.end(ticket, is_scored=is_scored)
    count(call, answers)
    if service.audit_key is not None:
        call.facts["conversation_digests"] = [
            conversation_digest(service.audit_key, case.conversation) for case in cases
        ]
    return answers


async def _judge_all(call: Call, cases: Sequence[Case]) -> list[Judgement]:
    """All at once, so that they share engine calls; the loop serves others between two of them,
    because submitting tokenises.
    """
    tasks: list[asyncio.Future[Judgement]] = []
    try:
        for case in cases:
            tasks.append(asyncio.ensure_future(_judge_one(call, case)))
            await asyncio.sleep(0)
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _judge_one(call: Call, case: Case) -> Judgement:
    max_turns = call.service.options.limits.max_turns
    turns = case.conversation
    try:
        if isinstance(turns, list | tuple) and len(turns) > max_turns:
            raise Failure("LimitExceeded", f"{len(turns):,} turns; limit {max_turns:,}")
        score = await call.snapshot.model.lane(call.tenant).scheduler.score(
            case.named.config,
            turns,
            deadline_s=call.deadline - time.monotonic(),
            judged=case.judged,
            explain=case.explain,
        )
    except Exception as error:
        if not isinstance(error, Failure | Error):
            log_exception("unexpected", error, request_id=call.id)
        return Judgement(case.named, failure=failure_of(error))
    return Judgement(case.named, score)


def decide(call: Call, judgements: Sequence[Judgement]) -> Decision:
    """Blocks a violation, and "unknown" unless the operator chose to let csrm's own failures by."""
    for judgement in judgements:
        if judgement.verdict == "violation":
            return Decision(True, "violation", f"violates the config {judgement.named.id}")
    failures = [judgement.failure for judgement in judgements if judgement.failure is not None]
    if failures:
        return decide_unknown(call, max(failures, key=lambda failure: not failure.is_ours))
    return Decision(False, "compliant", "complies")


def decide_unknown(call: Call, failure: Failure) -> Decision:
    """The decision when there is no verdict."""
    reason = f"not judged ({failure.kind}): {failure.message}"
    # A request that gives csrm no time must not get by with it.
    is_theirs = failure.kind in ("DeadlineExceeded", "Overloaded") and call.is_hurried
    if call.service.options.fail_mode == "open" and failure.is_ours and not is_theirs:
        call.service.metrics.fail_open.labels(call.name).inc()
        log_event("fail_open", logging.CRITICAL, request_id=call.id, error=failure.kind)
        return Decision(False, "unknown", reason)
    return Decision(True, "unknown", reason)


def count(call: Call, answers: Sequence[Judgement]) -> None:
    """Counts the verdicts and keeps their sum for the log line."""
    metrics = call.service.metrics
    for answer in answers:
        named = answer.named
        metrics.verdicts.labels(named.id, named.public_version, answer.verdict).inc()
        if answer.score is not None:
            metrics.compliance.observe(answer.score.compliance)
    call.named = answers[0].named
    call.facts["verdicts"] = dict(Counter(answer.verdict for answer in answers))
    kinds = Counter(answer.failure.kind for answer in answers if answer.failure is not None)
    call.facts["failures"] = dict(kinds) or None
    scores = [answer.score for answer in answers if answer.score is not None]
    if scores:
        call.facts["compliance"] = round(min(score.compliance for score in scores), 6)
        call.facts["tokens"] = sum(score.scored_tokens for score in scores)
    if call.span is not None:
        call.span.evaluated(answers)
