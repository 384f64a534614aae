"""Rails for NeMo Guardrails that judge a conversation under a csrm config.

Not: the decision (guard.py), nor a rails configuration: that is the user's, with the flows of
`COLANG`, which call the actions that `register` adds. An action reads NeMo's context and events and
gives a RailOutcome back. Tested with nemoguardrails 0.24.1 and Colang 1.0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from nemoguardrails import LLMRails
from nemoguardrails.actions.actions import action
from nemoguardrails.actions.rail_outcome import RailOutcome

from csrm.config import SafetyConfig
from csrm.integrations.guard import Decision, FailMode, Guard
from csrm.scorer import Scorer

# A rails configuration names these flows under rails.input.flows and rails.output.flows.
COLANG = """\
define flow csrm check input
  $csrm_input = execute csrm_check_input
  $csrm_reason = $csrm_input.reason
  if $csrm_input.is_blocked
    do mask blocked user input
    if $config.enable_rails_exceptions
      create event InputRailException(message=$csrm_reason)
    else
      bot refuse to respond
    stop

define flow csrm check output
  $csrm_output = execute csrm_check_output
  $csrm_reason = $csrm_output.reason
  if $csrm_output.is_blocked
    if $config.enable_rails_exceptions
      create event OutputRailException(message=$csrm_reason)
    else
      bot refuse to respond
    stop
"""

_Message = dict[str, object]


def register(
    rails: LLMRails,
    config: SafetyConfig | str | os.PathLike[str],
    *,
    model: Scorer | str | os.PathLike[str] | None = None,
    deadline_s: float = 10.0,
    fail_mode: FailMode = "closed",
) -> Guard:
    """Adds the actions csrm_check_input and csrm_check_output to `rails`; the Guard they ask.

    config, model, deadline_s, fail_mode: as of `csrm.integrations.guard.Guard`. The input action
    judges every turn since the model's last answer, the output action the model's message, both
    after all turns that NeMo's events hold. In a stream NeMo hands over no events: the output
    action reads the turns in the context's csrm_messages, if any, and the user's message.
    Each answers a RailOutcome; its metadata has allowed, policy_violations (the config's id),
    verdict, compliance and reason, and no text. Errors: those of `Guard`.
    """
    guard = Guard(config, model=model, deadline_s=deadline_s, fail_mode=fail_mode)

    async def check_input(
        context: Mapping[str, Any] | None = None,
        events: Sequence[Mapping[str, Any]] | None = None,
        **_: object,
    ) -> RailOutcome:
        return _outcome(guard, await guard.acheck_input(_turns(context or {}, events)))

    async def check_output(
        context: Mapping[str, Any] | None = None,
        events: Sequence[Mapping[str, Any]] | None = None,
        **_: object,
    ) -> RailOutcome:
        context = context or {}
        answer: Any = context.get("bot_message")
        return _outcome(guard, await guard.acheck_output(_turns(context, events), [answer]))

    for name, check in (("csrm_check_input", check_input), ("csrm_check_output", check_output)):
        # A server of actions would have neither context nor model: system actions stay here.
        rails.register_action(action(name=name, is_system_action=True)(check))
    return guard


def _outcome(guard: Guard, decision: Decision) -> RailOutcome:
    is_violation = decision.verdict == "violation"
    metadata = {
        "allowed": not decision.is_blocked,
        "policy_violations": [guard.config.id] if is_violation else [],
        "verdict": decision.verdict,
        "compliance": decision.compliance,
        "reason": decision.reason,
    }
    make = RailOutcome.block if decision.is_blocked else RailOutcome.allow
    return make(reason=decision.reason, metadata=metadata)


def _turns(
    context: Mapping[str, Any], events: Sequence[Mapping[str, Any]] | None
) -> list[_Message]:
    """The turns up to the user's message, as messages."""
    if events is None:
        turns = [*(context.get("csrm_messages") or ())]
    else:
        turns = [message for event in events for message in _messages(event)]
    text = context.get("user_message")
    if not text:
        return turns
    if turns and turns[-1].get("role") == "user":
        # As the rails before this one left it, and as the model gets it.
        return [*turns[:-1], {"role": "user", "content": text}]
    return [*turns, {"role": "user", "content": text}]


def _messages(event: Mapping[str, Any]) -> list[_Message]:
    """What `event` adds to the conversation."""
    kind = event["type"]
    if kind == "SystemMessage":
        return [{"role": "system", "content": event["content"]}]
    if kind == "UtteranceUserActionFinished":
        return [{"role": "user", "content": event["final_transcript"]}]
    if kind == "StartUtteranceBotAction":
        return [{"role": "assistant", "content": event["script"]}]
    if kind == "UserToolMessages":
        return [{"role": "tool", "content": m["content"]} for m in event["tool_messages"]]
    return []
