"""What is judged of a completion in LiteLLM's types: the texts in its choices, whole or streamed.

Not: judging, and not requests, whose texts LiteLLM's own translations find. What csrm cannot read
(audio, images) is BadConversation, so that it does not pass unjudged. Fields are read by name, for
both kinds of object leave out what is not set; ids, annotations and usage are not texts to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from csrm import errors

_UNREADABLE = ("audio", "images")


def call_texts(calls: Iterable[object]) -> list[str]:
    """What tools are to do, one text for each call, which is an object or a dict."""
    return [f"{name}({given})" for name, given in map(_call, calls) if name or given]


def answer_texts(choices: Iterable[object]) -> list[str]:
    """The texts of whole choices: contents, refusals, reasoning, and what tools are to do.

    Errors: BadConversation.
    """
    texts: list[str] = []
    for choice in choices:
        message = _message(choice, "message")
        texts += [_content(message), _reasoning(message)]
        texts += call_texts([*_list(message, "tool_calls"), _field(message, "function_call")])
    return [text for text in texts if text]


class StreamedTexts:
    """The texts of a streamed answer, one delta after another. For one stream."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int], list[str]] = {}

    def take(self, choices: Iterable[object]) -> tuple[dict[int, str], bool]:
        """The text a chunk adds, by a number for each choice's content and reasoning; and whether
        the chunk belongs to the end: it ends a choice or calls tools. Errors: BadConversation.
        """
        texts: dict[int, str] = {}
        is_last = False
        for choice in choices:
            delta, index = _message(choice, "delta"), getattr(choice, "index", None) or 0
            for number, text in ((2 * index, _content(delta)), (2 * index + 1, _reasoning(delta))):
                texts[number] = texts.get(number, "") + text
            is_last = self._take_calls(index, delta) or is_last
            is_last = getattr(choice, "finish_reason", None) is not None or is_last
        return texts, is_last

    def calls(self) -> list[str]:
        """What tools are to do, when the stream has ended."""
        return [f"{name}({arguments})" for name, arguments in self._calls.values()]

    def _take_calls(self, index: int, delta: object) -> bool:
        calls = [(getattr(call, "index", 0), call) for call in _list(delta, "tool_calls")]
        if getattr(delta, "function_call", None) is not None:
            calls.append((-1, getattr(delta, "function_call", None)))
        for place, call in calls:
            so_far = self._calls.setdefault((index, place), ["", ""])
            for i, part in enumerate(_call(call)):
                so_far[i] += part
        return bool(calls)


def _message(choice: object, name: str) -> object:
    """What holds a choice's texts: the field `name`, or the choice of a text completion itself."""
    found = getattr(choice, name, None)
    message = choice if found is None and hasattr(choice, "text") else found
    if message is None:
        raise errors.BadConversation("a choice of the answer has no message and no text")
    for field in _UNREADABLE:
        if _field(message, field):
            raise errors.BadConversation(f"the answer has {field}; csrm reads text only")
    return message


def _content(message: object) -> str:
    content = getattr(message, "content", getattr(message, "text", None))
    parts = content if isinstance(content, list) else [content]
    texts = [_part(part) for part in parts if part is not None]
    refusal = getattr(message, "refusal", None)
    return "\n".join(texts) + (refusal if isinstance(refusal, str) else "")


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise errors.BadConversation("a part of the answer is not text; csrm reads text only")
    return text


def _reasoning(message: object) -> str:
    """What the model shows of its reasoning; the blocks repeat the plain field where both are."""
    plain = getattr(message, "reasoning_content", None)
    if isinstance(plain, str) and plain:
        return plain
    blocks = _list(message, "thinking_blocks")
    texts = [block.get("thinking") for block in blocks if isinstance(block, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _call(call: object) -> tuple[str, str]:
    """Name and arguments of a call of a tool, or of a part of one that is streamed."""
    function = _field(call, "function") or _field(call, "custom") or call
    given = _field(function, "arguments") or _field(function, "input")
    return str(_field(function, "name") or ""), str(given or "")


def _field(item: object, name: str) -> object:
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)


def _list(message: object, field: str) -> Sequence[object]:
    found = getattr(message, field, None)
    return found if isinstance(found, list) else ()
