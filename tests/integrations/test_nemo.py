"""NeMo Guardrails: real rails from the page's files, with a model that answers what a test says."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from csrm_server import Traffic
from nemoguardrails import LLMRails, RailsConfig, telemetry
from nemoguardrails.rails.llm.options import RailStatus
from nemoguardrails.types import LLMResponse, LLMResponseChunk
from offline import offline
from pages import blocks

import csrm
from csrm.integrations.guard import Guard
from csrm.integrations.nemo import COLANG, register

# NeMo's own, of which a user sees the same.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("loop"),
]
CONFIG, STREAMING = blocks("nemo", "yaml")
REFUSAL = "I'm sorry, I can't respond to that."


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.get_event_loop().run_until_complete(coroutine)


class ToyModel:
    """Answers `answer`, notes its prompts, and calls `then` after each."""

    model_name = "toy"
    provider_name = "test"
    provider_url = None

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.prompts: list[object] = []
        self.then: Callable[[], None] = lambda: None

    async def generate_async(self, prompt: object, **_: object) -> LLMResponse:
        self.prompts.append(prompt)
        self.then()
        return LLMResponse(content=self.answer)

    async def stream_async(self, prompt: object, **_: object) -> AsyncIterator[LLMResponseChunk]:
        self.prompts.append(prompt)
        for word in self.answer.split(" "):
            yield LLMResponseChunk(delta_content=f"{word} ")


class Case:
    """Rails with the guard that they ask and the model that they protect."""

    def __init__(self, rails: LLMRails, guard: Guard, model: ToyModel) -> None:
        self.rails, self.guard, self.model = rails, guard, model

    def ask(self, *messages: dict[str, object], **options: object) -> Any:
        return run(self.rails.generate_async(messages=list(messages), **options))

    def stream(self, *messages: dict[str, object]) -> tuple[str, dict[str, str] | None]:
        """What got out, and the error that ended it."""

        async def pieces() -> list[str]:
            return [piece async for piece in self.rails.stream_async(messages=list(messages))]

        found = run(pieces())
        if found and found[-1].startswith('{"error"'):
            return "".join(found[:-1]), json.loads(found[-1])["error"]
        return "".join(found), None


Make = Callable[..., Case]


@pytest.fixture(scope="session", autouse=True)
def quiet() -> Iterator[None]:
    """NeMo as docs/integrations/nemo.md says to silence it."""
    with pytest.MonkeyPatch.context() as patch, offline() as others:
        patch.setenv("NEMO_GUARDRAILS_NO_USAGE_STATS", "1")
        yield
        assert others == []


@pytest.fixture(scope="session")
def scorer() -> csrm.Scorer:
    return csrm.load(n_threads=1)


@pytest.fixture(scope="session")
def config(policy: Path) -> csrm.SafetyConfig:
    return csrm.SafetyConfig.load(policy)


@pytest.fixture(scope="session")
def make(scorer: csrm.Scorer, config: csrm.SafetyConfig) -> Make:
    def make(answer: str, rails: str = CONFIG, colang: str = COLANG, **options: Any) -> Case:
        model = ToyModel(answer)
        found = RailsConfig.from_content(colang_content=colang, yaml_content=rails)
        app = LLMRails(found, llm=model)
        return Case(app, register(app, config, model=scorer, **options), model)

    return make


def user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, object]:
    return {"role": "assistant", "content": text}


PARALLEL = CONFIG.replace("    flows:", "    parallel: true\n    flows:")
both_orders = pytest.mark.parametrize("rails", [CONFIG, PARALLEL], ids=["in order", "parallel"])


@both_orders
def test_rails_compliant_conversation_passes(make: Make, traffic: Traffic, rails: str) -> None:
    case = make(traffic.allowed_answer, rails)
    assert case.ask(user(traffic.allowed)) == assistant(traffic.allowed_answer)
    assert len(case.model.prompts) == 1


@both_orders
def test_rails_violating_input_is_blocked_before_the_model(
    make: Make, traffic: Traffic, rails: str
) -> None:
    case = make(traffic.allowed_answer, rails)
    assert case.ask(user(traffic.violating)) == assistant(REFUSAL)
    assert case.model.prompts == []


@both_orders
def test_rails_violating_output_is_blocked(make: Make, traffic: Traffic, rails: str) -> None:
    case = make(traffic.violating_answer, rails)
    assert case.ask(user(traffic.question)) == assistant(REFUSAL)
    assert len(case.model.prompts) == 1


def test_input_rail_every_unanswered_message_is_judged(make: Make, traffic: Traffic) -> None:
    case = make(traffic.allowed_answer)
    messages = [user("Hello"), assistant("Hello."), user(traffic.violating), user(traffic.allowed)]
    assert case.ask(*messages) == assistant(REFUSAL)
    assert case.model.prompts == []


def test_input_rail_without_a_score_blocks_unless_open(make: Make, traffic: Traffic) -> None:
    closed = make(traffic.allowed_answer, deadline_s=0)
    assert closed.ask(user(traffic.allowed)) == assistant(REFUSAL)
    assert closed.model.prompts == []
    opened = make(traffic.allowed_answer, deadline_s=0, fail_mode="open")
    assert opened.ask(user(traffic.allowed)) == assistant(traffic.allowed_answer)


def test_output_rail_without_a_score_blocks(make: Make, traffic: Traffic) -> None:
    case = make(traffic.allowed_answer)
    case.model.then = case.guard.close
    answer = case.ask(user(traffic.allowed), options={"output_vars": ["csrm_output"]})
    assert answer.response == [assistant(REFUSAL)]
    assert answer.output_data["csrm_output"].reason == "not judged (Cancelled)"


def test_input_rail_image_is_blocked_even_when_open(make: Make, traffic: Traffic) -> None:
    case = make(traffic.allowed_answer, fail_mode="open")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    message = {"role": "user", "content": [{"type": "text", "text": traffic.allowed}, image]}
    assert case.ask(message) == assistant(REFUSAL)
    assert case.model.prompts == []


def test_output_rail_empty_answer_is_blocked(make: Make, traffic: Traffic) -> None:
    answer = make("").ask(user(traffic.allowed), options={"output_vars": ["csrm_output"]})
    assert answer.response == [assistant(REFUSAL)]
    assert answer.output_data["csrm_output"].reason == "not judged (EmptyConversation)"


def test_rails_judge_in_the_light_of_all_turns(
    make: Make, scorer: csrm.Scorer, config: csrm.SafetyConfig, traffic: Traffic
) -> None:
    case = make(traffic.allowed_answer)
    system = {"role": "system", "content": "Be brief."}
    earlier = [user("What is flour made of?"), assistant("Of ground wheat.")]
    turns = [system, *earlier, user(traffic.allowed)]
    answer = case.ask(*turns, options={"output_vars": ["csrm_input", "csrm_output"]})
    for name, whole in (
        ("csrm_input", turns),
        ("csrm_output", [*turns, assistant(traffic.allowed_answer)]),
    ):
        assert answer.output_data[name].metadata == {
            "allowed": True,
            "policy_violations": [],
            "verdict": "compliant",
            "compliance": scorer.score(config, whole).compliance,
            "reason": "complies with the config general-default",
        }


def test_rails_second_turn_reads_the_first_from_the_events(
    make: Make, scorer: csrm.Scorer, config: csrm.SafetyConfig, traffic: Traffic
) -> None:
    case = make(traffic.allowed_answer)
    turns = [user("Hello")]
    turns.append(case.ask(*turns))
    turns.append(user(traffic.allowed))
    answer = case.ask(*turns, options={"output_vars": ["csrm_input"]})
    expected = scorer.score(config, turns).compliance
    assert answer.output_data["csrm_input"].metadata["compliance"] == expected


def test_violation_names_the_config_and_no_text(make: Make, traffic: Traffic) -> None:
    options = {"output_vars": ["csrm_input"]}
    outcome = make("").ask(user(traffic.violating), options=options).output_data["csrm_input"]
    assert outcome.metadata["policy_violations"] == ["general-default"]
    assert (outcome.metadata["allowed"], outcome.metadata["verdict"]) == (False, "violation")
    assert outcome.reason == "violates the config general-default"
    assert "idiot" not in repr(outcome)


@pytest.mark.parametrize("is_input", [True, False])
def test_rails_exceptions_give_the_reason(make: Make, traffic: Traffic, is_input: bool) -> None:
    case = make(traffic.violating_answer, f"enable_rails_exceptions: true\n{CONFIG}")
    answer = case.ask(user(traffic.violating if is_input else traffic.question))
    assert answer["role"] == "exception"
    assert answer["content"]["type"] == f"{'Input' if is_input else 'Output'}RailException"
    assert answer["content"]["message"] == "violates the config general-default"


def test_check_decides_without_the_model(make: Make, traffic: Traffic) -> None:
    case = make("never asked")
    cases = [
        ([user(traffic.allowed)], RailStatus.PASSED),
        ([user(traffic.violating)], RailStatus.BLOCKED),
        ([user(traffic.question), assistant(traffic.violating_answer)], RailStatus.BLOCKED),
        ([assistant(traffic.violating_answer)], RailStatus.BLOCKED),
        ([assistant(traffic.allowed_answer)], RailStatus.PASSED),
    ]
    for messages, status in cases:
        assert run(case.rails.check_async(messages)).status == status
    assert case.model.prompts == []


def test_input_rail_judges_what_an_earlier_rail_left(make: Make, traffic: Traffic) -> None:
    colang = f'{COLANG}\ndefine flow rewrite\n  $user_message = "{traffic.allowed}"\n'
    rails = CONFIG.replace("- csrm check input", "- rewrite\n      - csrm check input")
    case = make(traffic.allowed_answer, rails, colang)
    assert case.ask(user(traffic.violating)) == assistant(traffic.allowed_answer)


def test_rails_without_register_do_not_ask_the_model(traffic: Traffic) -> None:
    model = ToyModel(traffic.allowed_answer)
    config = RailsConfig.from_content(colang_content=COLANG, yaml_content=CONFIG)
    answer = Case(LLMRails(config, llm=model), None, model).ask(user(traffic.allowed))  # type: ignore[arg-type]
    assert "csrm_check_input' not found" in answer["content"]
    assert model.prompts == []


WINDOWS = STREAMING.replace("20", "6").replace("100000", "2")
WHOLE = STREAMING.replace("20", "4")
both_sizes = pytest.mark.parametrize("rails", [WHOLE, WINDOWS], ids=["whole", "windows"])


@both_sizes
@pytest.mark.parametrize("is_parallel", [False, True])
def test_stream_compliant_answer_comes_whole(
    make: Make, traffic: Traffic, rails: str, is_parallel: bool
) -> None:
    rails = rails.replace("    flows:", f"    parallel: {str(is_parallel).lower()}\n    flows:")
    out, error = make(traffic.allowed_answer, rails).stream(user(traffic.allowed))
    assert (out.strip(), error) == (traffic.allowed_answer, None)


@both_sizes
@pytest.mark.parametrize("is_parallel", [False, True])
def test_stream_violation_does_not_get_out(
    make: Make, traffic: Traffic, rails: str, is_parallel: bool
) -> None:
    rails = rails.replace("    flows:", f"    parallel: {str(is_parallel).lower()}\n    flows:")
    case = make(f"{traffic.allowed_answer} {traffic.violating_answer}", rails)
    out, error = case.stream(user(traffic.question))
    assert out.startswith("Feed the starter")
    assert "die" not in out
    assert error is not None
    assert error["code"] == "content_blocked"


def test_stream_without_a_score_lets_nothing_out(make: Make, traffic: Traffic) -> None:
    case = make(traffic.allowed_answer, STREAMING)

    def close() -> None:
        case.guard.close()

    # The input passes, then csrm is gone.
    answered = case.model.stream_async

    async def stream(prompt: object, **options: object) -> AsyncIterator[LLMResponseChunk]:
        close()
        async for chunk in answered(prompt, **options):
            yield chunk

    case.model.stream_async = stream  # type: ignore[method-assign]
    out, error = case.stream(user(traffic.allowed))
    assert out == ""
    assert error is not None
    assert error["code"] == "content_blocked"


def test_stream_violating_input_is_refused_before_the_model(make: Make, traffic: Traffic) -> None:
    case = make(traffic.allowed_answer, STREAMING)
    assert case.stream(user(traffic.violating)) == (REFUSAL, None)
    assert case.model.prompts == []


def test_stream_reads_the_turns_of_the_context(
    make: Make, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make(traffic.allowed_answer, STREAMING)
    judged: list[tuple[object, tuple[str]]] = []
    check = case.guard.acheck_output

    async def noting(messages: object, answers: Any) -> Any:
        judged.append((messages, tuple(answers)))
        return await check(messages, answers)

    monkeypatch.setattr(case.guard, "acheck_output", noting)
    turns = [user("Hello"), assistant("Good morning."), user(traffic.allowed)]
    for told in (turns, turns[:-1], []):  # with the last message, without it, nothing
        judged.clear()
        case.stream({"role": "context", "content": {"csrm_messages": told}}, *turns)
        expected = turns if told else turns[-1:]
        # Pieces end in a space; NeMo has the whole answer judged once more, without.
        streamed = [messages for messages, (answer,) in judged if answer.endswith(" ")]
        assert streamed
        assert all(messages == expected for messages in streamed)


def test_page_colang_is_the_module_s() -> None:
    assert blocks("nemo", "colang") == [COLANG]


def test_page_folder_works_as_it_stands(
    traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yml").write_text(CONFIG)
    (tmp_path / "csrm.co").write_text(COLANG)
    (tmp_path / "config.py").write_text(blocks("nemo", "python")[0])
    model = ToyModel(traffic.violating_answer)
    rails = LLMRails(RailsConfig.from_path(str(tmp_path)), llm=model)
    for text, n_prompts in ((traffic.question, 1), (traffic.violating, 1)):
        assert rails.generate(messages=[user(text)]) == assistant(REFUSAL)
        assert len(model.prompts) == n_prompts


def test_page_code_works_as_it_stands(traffic: Traffic) -> None:
    names: dict[str, Any] = {"CONFIG": CONFIG, "LLM": ToyModel(traffic.allowed_answer)}
    exec(blocks("nemo", "python")[1], names)
    assert names["answer"] == assistant(traffic.allowed_answer)


def test_telemetry_is_off_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # NeMo is silent under pytest and in continuous integration anyway: pretend it is neither.
    monkeypatch.delitem(sys.modules, "pytest")
    for name in ("PYTEST_CURRENT_TEST", "CI", "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)
    assert not telemetry._is_usage_stats_enabled()
    monkeypatch.delenv("NEMO_GUARDRAILS_NO_USAGE_STATS")
    assert telemetry._is_usage_stats_enabled()
