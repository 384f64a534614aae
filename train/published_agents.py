"""Published sets of agents at work: SOPBench's output files.

What it is: the reader of a task's runs with their tool calls, in the fields of the repository's own
output, after its evaluation has added `evaluations`. Not: that evaluation, which needs the
repository's environments. docs/evaluation.md says where the format is described.
"""

from __future__ import annotations

import re

from csrm.train.published_fields import Row, flag, origin, text
from csrm.train.records import Policy, Record, Turn

# Checks that fail where the agent broke its procedures. The repository's `success` also asks for
# no_tool_call_error and action_called_correctly: a call that cannot be parsed, or an action
# withheld though it was due, breaks no rule.
SOP_CHECKS = ("constraint_not_violated", "database_match", "dirgraph_satisfied")
USERS = ("user", "human")


def sopbench(row: Row, id: str) -> list[Record]:
    """One task: interactions (prompt, interaction) and, for each, its entry of evaluations.

    A run complies if every one of `SOP_CHECKS` holds. Its rules are those of its own prompt, and
    every agent turn is judged with its history.
    """
    found: list[Record] = []
    for n, (run, checks) in enumerate(zip(row["interactions"], row["evaluations"], strict=True)):
        turns = tuple(turn for message in run["interaction"] for turn in sop_turns(message))
        if not any(role == "assistant" for role, _ in turns):
            raise ValueError("interaction")
        held = [flag(checks[name]) for name in SOP_CHECKS]
        where = origin(f"{id}-{n}", "sopbench", "conversation")
        found.append(Policy(where, turns, procedure_rules(text(run["prompt"])), all(held)))
    return found


def sop_turns(message: Row) -> list[Turn]:
    """The turn of a message; none for one without content. The sender tells whose it is."""
    content = message["content"]
    if "tool_name" in message:
        return [("tool", f"{text(message['tool_name'])} -> {text(content)}")]
    said = [text(content)] if content else []
    for call in message.get("tool_calls") or []:
        made = call["function"]
        said.append(f"call: {text(made['name'])}({text(made['arguments'])})")
    role = "user" if text(message["sender"]) in USERS else "assistant"
    return [(role, "\n".join(said))] if said else []


def procedure_rules(prompt: str) -> tuple[str, ...]:
    """An agent's instructions as rules: one per section, one per action with constraints.

    Sections open with "### ", actions with "* ". Lists of internal functions state no rule.
    """
    rules: list[str] = []
    is_listing = False
    for block in re.split(r"^(?=### |\* )", prompt, flags=re.MULTILINE):
        said = block
        if block.startswith("### "):
            title, _, said = block.partition("\n")
            is_listing = "Internal" in title
        if said.strip() and not is_listing:
            rules.append(said.removeprefix("* ").strip())
    if not rules:
        raise ValueError("prompt")
    return tuple(rules)
