"""Published sets whose rows come with rules of their own: DynaBench, CoSApien, CoSAlign, PolyGuard.

What it is: readers of rows in each set's own fields, one function per set (csrm.train.published
lists them). Not: the sets' texts; the wording of CoSA's categories below is ours. Where each format
is described, and what could not be checked, is in docs/evaluation.md.
"""

from __future__ import annotations

import json
import re

from csrm.config_formats import parse
from csrm.errors import Error
from csrm.train.published_fields import (
    SAFE,
    Reader,
    Row,
    flag,
    is_violation,
    known,
    origin,
    pseudo_reply,
    text,
)
from csrm.train.records import Judged, Policy, Record, Turn

# CoSA's categories, by their names in small letters joined by "_", in our words.
COSA_HARMS = {
    "discrimination_and_verbal_abuse": "treating or describing people as worth less for their"
    " origin, sex, faith, orientation or the like, and insulting or humiliating someone",
    "financial_crime_and_theft": "stealing, robbing, swindling, embezzling, and breaking into"
    " systems for gain",
    "violence": "hurting someone on purpose, abduction, torture and killing, and harming oneself",
    "illegal_drug_related_activities_and_substance_abuse": "making, dealing in or taking forbidden"
    " drugs, and taking permitted substances to get high",
    "privacy_violations": "getting at, gathering or passing on someone's personal data without"
    " their leave",
    "sexual_misconduct_exploitation_and_infidelity": "sexual harassment or coercion, sexual"
    " exploitation of people, and deceiving one's partner in an affair",
    "weapons_explosives_arson_and_illegal_firearm_transactions": "using weapons or explosives to do"
    " damage, setting fires, and dealing in guns outside the law",
}
OTHER_HARMS = "other_harms"  # never allowed
ANSWERED = {"safe": True, "exact": True, "subset": True, "not subset": False}
N_REQUESTS = 5  # of either kind in a row of PolyGuard's law and finance files


def dynabench(row: Row, id: str) -> list[Record]:
    """policy (numbered rules), transcript, label PASS/FAIL: tomg-group-umd/DynaBench.

    FAIL: some agent turn breaks some rule, so every agent turn is judged with its history and the
    worst counts (arXiv 2509.02563). No rules are dropped: nothing limits a config's length here.
    """
    compliant = known({"PASS": True, "FAIL": False}, row["label"].strip().upper())
    turns = transcript_turns(text(row["transcript"]))
    if not any(role == "assistant" for role, _ in turns):
        raise ValueError("transcript")
    rules = rules_of(text(row["policy"]))
    return [Policy(origin(id, "dynabench", "conversation"), turns, rules, compliant)]


def cosapien(row: Row, id: str) -> list[Record]:
    """prompt, scenario (the config in prose), type: microsoft/CoSApien.

    The set has prompts only. With the columns response and label a row is judged by them; without,
    the pseudo reply to a fully disallowed prompt is a violation, to a fully allowed one compliant,
    and partly allowed prompts are left out.
    """
    rules = rules_of(text(row["scenario"]))
    reply, kind = row.get("response"), text(row["type"]).lower()
    if reply:
        compliant = not is_violation(row["label"])
    elif "partial" in kind:
        return []
    elif "allow" in kind:
        compliant = "disallow" not in kind and "not allow" not in kind
    else:
        raise ValueError("type")
    content = text(reply) if reply else f"Sure. {row['prompt']}"
    turns: tuple[Turn, ...] = (("user", text(row["prompt"])), ("assistant", content))
    return [Policy(origin(id, "cosapien", "last_assistant"), turns, rules, compliant)]


def cosalign(file: str) -> Reader:
    """CoSAlign-Test: prompt, mode; the config is test_config_category or the name of the file.

    A row with response and harm_categorization_response (the judge's answer) complies if every
    category the judge found is allowed; a row whose judge gave no verdict is left out. Without a
    response the pseudo reply is judged: a violation where mode is "not subset".
    """

    def read(row: Row, id: str) -> list[Record]:
        config = row.get("test_config_category")
        allowed = allowed_harms(
            re.split(r"\.(?:jsonl?|csv)\b", file)[0] if config is None else config
        )
        rules = cosa_rules(allowed)
        if not row.get("response"):
            mode = re.sub(r"[\W_]+", " ", text(row["mode"]).strip().lower())
            return [pseudo_reply(id, "cosalign-test", row["prompt"], known(ANSWERED, mode), rules)]
        found = judged_harms(text(row["harm_categorization_response"]))
        if found is None:
            return []
        turns: tuple[Turn, ...] = (
            ("user", text(row["prompt"])),
            ("assistant", text(row["response"])),
        )
        where = origin(id, "cosalign-test", "last_assistant")
        return [Policy(where, turns, rules, compliant=found <= allowed)]

    return read


def cosa_key(name: str) -> str:
    """A category's name as a key of `COSA_HARMS`: files write it with spaces, "_", "." and "-"."""
    return re.sub(r"[^a-z]+", "_", name.lower()).strip("_")


def allowed_harms(config: str) -> frozenset[str]:
    """The categories that a config allows: their names in a row, or "safe" for none.

    Errors: ValueError for anything else in it.
    """
    left = cosa_key(re.sub(r"-\d{5}-of-\d{5}$", "", text(config)))
    if left == "safe":
        return frozenset()
    found = {harm for harm in COSA_HARMS if re.search(rf"(^|_){harm}(_|$)", left)}
    for harm in found:
        left = left.replace(harm, "")
    if left.strip("_") or not found:
        raise ValueError("not a known config")
    return frozenset(found)


def cosa_rules(allowed: frozenset[str]) -> tuple[str, ...]:
    """A rule per category, in the order of `COSA_HARMS`, and one against all other harm."""
    rules = [
        f"{'Allowed' if harm in allowed else 'Not allowed'}: {meaning}."
        for harm, meaning in COSA_HARMS.items()
    ]
    return (*rules, "Not allowed: any harm of another kind.")


def judged_harms(answer: str) -> frozenset[str] | None:
    """The categories that a judge's answer, which ends in a JSON object, calls harmful.

    None if there is no object in it. Errors: ValueError for an object of other content.
    """
    found = re.search(r"\{[^{}]*\}\W*$", answer)
    if found is None:
        return None
    verdict = json.loads(found[0][: found[0].rindex("}") + 1])
    harms = {cosa_key(name): flag(is_found) for name, is_found in verdict.items()}
    if not harms or not set(harms) <= {*COSA_HARMS, OTHER_HARMS}:
        raise ValueError("not a known category")
    return frozenset(harm for harm, is_found in harms.items() if is_found)


def polyguard(file: str) -> Reader:
    """AI-secure/PolyGuard, each row under the one rule that it was written about.

    Three forms: a statement (instance, rule; the label in attribute or label, or else safe or
    unsafe in the name of the file), a reply (gen_prompt, gen_response, rule, safe), and a policy
    with requests (policy_text, benign_example_1 to 5, rephrased_malicious_example_1 to 5, and
    columns with their answers).
    """
    named = re.search(r"(?:^|_)(safe|unsafe)\.", file)

    def read(row: Row, id: str) -> list[Record]:
        if "policy_text" in row:
            return policy_requests(row, id)
        if "gen_prompt" in row:
            prompt, reply = text(row["gen_prompt"]), text(row["gen_response"])
            return [under_rule(id, row["rule"], prompt, reply, flag(row["safe"]))]
        label = row.get("attribute") or row.get("label") or (named[1] if named else row["label"])
        return [under_rule(id, row["rule"], text(row["instance"]), None, known(SAFE, text(label)))]

    return read


def policy_requests(row: Row, id: str) -> list[Record]:
    """The requests of a row of PolyGuard's law and finance files, with their answers if any."""
    found: list[Record] = []
    for kind, compliant in (("rephrased_malicious", False), ("benign", True)):
        for n in range(1, N_REQUESTS + 1):
            prompt = text(row[f"{kind}_example_{n}"])
            reply = text(row.get(f"{kind}_example_answer_{n}") or "")
            if prompt.strip():
                where = f"{id}-{kind}-{n}"
                found.append(
                    under_rule(where, row["policy_text"], prompt, reply or None, compliant)
                )
    return found


def under_rule(id: str, rule: object, said: str, reply: str | None, compliant: bool) -> Policy:
    """What a user said, or the reply to it if there is one, judged under a single rule."""
    turns: tuple[Turn, ...] = (("user", said),)
    judged: Judged = "last_user"
    if reply is not None:
        turns, judged = (*turns, ("assistant", reply)), "last_assistant"
    if not said.strip() or not text(rule).strip():
        raise ValueError("empty")
    return Policy(origin(id, "polyguard", judged), turns, (text(rule),), compliant)


def transcript_turns(transcript: str) -> tuple[Turn, ...]:
    """Turns of a transcript whose turns open with "User:" or "Agent:" at a line's start."""
    roles = {"user": "user", "agent": "assistant"}
    parts = re.split(r"^[ \t]*(user|agent):[ \t]*", transcript, flags=re.IGNORECASE | re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    turns = tuple((roles[who.lower()], said.strip()) for who, said in pairs)
    if parts[0].strip() or not turns:
        raise ValueError("transcript")
    return turns


def rules_of(policy: str) -> tuple[str, ...]:
    """The rules of a policy in text, read as a config file would be.

    A list that `csrm.config` refuses (a number is missing) is taken line by line.
    """
    try:
        rules = parse(policy).rules
    except Error:
        return tuple(line.strip() for line in policy.split("\n") if line.strip())
    return tuple(f"{rule.name}: {rule.text}" if rule.name else rule.text for rule in rules)
