"""Scorer.stream on the toy artifact: where a turn is scored, and that every score is exact."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import MAX_CONTENT, letters

import csrm
from csrm import Score, Stream, errors

toy_artifact = toy.toy_artifact  # the fixture, made known to pytest here

RULES = [("n a", letters(5)), letters(9, 3)]
CHAT = [
    {"role": "user", "content": letters(12)},
    {"role": "assistant", "content": letters(2 * MAX_CONTENT, 2)},
    {"role": "user", "content": letters(3, 5)},
]


def finished(text: str) -> list[dict[str, str]]:
    return [*CHAT, {"role": "assistant", "content": text}]


def scores_of(stream: Stream, pieces: list[str]) -> list[bool]:
    """Whether each append gave a score."""
    return [stream.append(piece) is not None for piece in pieces]


@pytest.fixture
def scorer(toy_artifact: Path) -> csrm.Scorer:
    return csrm.load(toy_artifact, n_threads=1)


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("n_words", [5, MAX_CONTENT, 4 * MAX_CONTENT + 1])
def test_stream_every_score_is_that_of_the_turn_so_far(
    toy_artifact: Path, scorer: csrm.Scorer, size: int, n_words: int
) -> None:
    uncached = csrm.load(toy_artifact, n_threads=1, cache_tokens=0)
    text = letters(n_words, 7)
    stream = scorer.stream(RULES, CHAT, every_tokens=11)
    n_scores = 0
    for start in range(0, len(text), size):
        score = stream.append(text[start : start + size])
        if score is None:
            continue
        n_scores += 1
        so_far = finished(text[: start + size])
        assert score == uncached.score(RULES, so_far, reuse_turns=True)
        assert stream.verdict == score.verdict
    assert n_scores == n_words // 11 if size == 1 else n_scores <= n_words // 11
    whole = stream.finish()
    assert whole == uncached.score(RULES, finished(text), reuse_turns=True)
    assert whole.reward == pytest.approx(scorer.score(RULES, finished(text)).reward, abs=1e-5)
    scorer.check_integrity()


def test_stream_growing_block_is_not_kept_and_the_finished_turn_is(scorer: csrm.Scorer) -> None:
    scorer.score(RULES, CHAT, reuse_turns=True)
    before = scorer.cache_stats()
    stream = scorer.stream(RULES, CHAT, every_append=True)
    for start in range(3 * MAX_CONTENT):
        assert stream.append(letters(1, start) + " ") is not None
        assert scorer.cache_stats()["n_entries"] == before["n_entries"]
    # Two whole blocks are kept; the third may still change.
    grown = scorer.cache_stats()["n_tokens"] - before["n_tokens"]
    assert grown == 2 * (MAX_CONTENT + 3)
    stream.finish()
    assert scorer.cache_stats()["n_tokens"] - before["n_tokens"] == 3 * (MAX_CONTENT + 3)
    scorer.check_integrity()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a b", ".", " c"], [False, False, True]),
        (["a b. ", "c", " d! e"], [True, False, True]),
        (["a 3.", "14 b"], [False, False]),
        (["a", "\n", "\n", " b"], [False, True, False, False]),
        (['a "b?', '"', " c"], [False, False, True]),
        (["a b\u3002", "c\uff1f"], [True, True]),
        ([" ", "\n", ". "], [False, False, True]),
    ],
)
def test_stream_sentence_or_line_end_is_a_boundary(
    scorer: csrm.Scorer, pieces: list[str], expected: list[bool]
) -> None:
    assert scores_of(scorer.stream(RULES, CHAT), pieces) == expected
    quiet = scorer.stream(RULES, CHAT, sentence_ends=False)
    assert not any(scores_of(quiet, pieces))


def test_stream_without_boundaries_is_scored_at_the_end_only(scorer: csrm.Scorer) -> None:
    stream = scorer.stream(RULES, CHAT, every_tokens=0, sentence_ends=False)
    text = "a. b\n" * 100
    assert scores_of(stream, [text]) == [False]
    assert stream.verdict == "unknown"
    assert stream.finish() == scorer.score(RULES, finished(text), reuse_turns=True)


def test_stream_at_every_append_skips_white_space(scorer: csrm.Scorer) -> None:
    stream = scorer.stream(RULES, every_append=True, role="user")
    assert scores_of(stream, [" ", "a", "", " \n", "b"]) == [False, True, False, False, True]
    messages = [{"role": "user", "content": " a \nb"}]
    assert stream.finish() == scorer.score(RULES, messages, reuse_turns=True)


def test_stream_first_turn_of_a_conversation_needs_no_earlier_one(scorer: csrm.Scorer) -> None:
    for empty in ([], ()):
        stream = scorer.stream(RULES, empty)
        stream.append("a b")
        assert stream.finish().turns[0].turn == 0


def test_stream_bad_text_is_refused_and_the_stream_goes_on(scorer: csrm.Scorer) -> None:
    stream = scorer.stream(RULES, CHAT, every_append=True)
    assert stream.append("a b") is not None
    with pytest.raises(errors.BadUtf8) as failure:
        stream.append("secret \udcff")
    assert "secret" not in str(failure.value)
    assert stream.verdict == "unknown"
    assert isinstance(stream.append(" c"), Score)
    assert stream.verdict != "unknown"
    assert stream.finish() == scorer.score(RULES, finished("a b c"), reuse_turns=True)


def test_stream_failed_finish_can_go_on(scorer: csrm.Scorer) -> None:
    stream = scorer.stream(RULES, CHAT)
    with pytest.raises(errors.EmptyConversation):
        stream.finish()
    stream.append("a")
    stream.finish()
    assert stream.verdict != "unknown"
    for call in (stream.finish, lambda: stream.append("b")):
        with pytest.raises(errors.BadArgument, match="finished"):
            call()


def test_stream_over_a_limit_is_unknown_each_time(scorer: csrm.Scorer) -> None:
    stream = scorer.stream(RULES, CHAT[:1] * 2000, every_append=True)
    for text in ("a", " b"):
        with pytest.raises(errors.LimitExceeded, match="max_turns"):
            stream.append(text)
        assert stream.verdict == "unknown"
    with pytest.raises(errors.LimitExceeded):
        stream.finish()


def test_stream_bad_arguments_are_typed(scorer: csrm.Scorer) -> None:
    bad: list[tuple[type[errors.Error], tuple[Any, ...], dict[str, Any]]] = [
        (errors.BadArgument, (RULES, CHAT), {"every_tokens": -1}),
        (errors.BadArgument, (RULES, CHAT), {"every_tokens": True}),
        (errors.UnknownRole, (RULES, CHAT), {"role": "Assistant"}),
        (errors.BadConversation, (RULES, "hello"), {}),
        (errors.BadConversation, (RULES, None), {}),
    ]
    for error, positional, named in bad:
        with pytest.raises(error):
            scorer.stream(*positional, **named)
    with pytest.raises(errors.BadArgument):
        scorer.stream(RULES, CHAT).append(b"a")  # type: ignore[arg-type]


def test_stream_second_thread_at_once_is_refused(scorer: csrm.Scorer) -> None:
    inside, leave = threading.Event(), threading.Event()

    class Slow:
        def append(self, text: str) -> None:
            inside.set()
            assert leave.wait(10)

    stream = Stream(Slow(), lambda answer: answer)  # type: ignore[arg-type, return-value]
    thread = threading.Thread(target=stream.append, args=("a",))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(errors.BadArgument, match="one thread"):
        stream.append("b")
    leave.set()
    thread.join()


def test_stream_outlives_the_name_of_its_scorer(toy_artifact: Path) -> None:
    stream = csrm.load(toy_artifact, n_threads=1).stream(RULES, CHAT)
    stream.append("a")
    assert stream.finish().verdict in ("compliant", "violation")
