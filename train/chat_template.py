"""The template of decoder artifacts and the verbalizers, from a backbone's tokenizer.json.

What it is: the one place of the judge's words, and of which control tokens (ChatML or Llama 3) go
around them. The manifest carries the result to the runtime, which tokenises the texts itself and
puts control ids between them as integers. The form is the paper's (numbered categories, the
conversation apart from them, a question whose answer is the label); its exact words are not public.
Not: rendering (runtime/src/render_chat.cc).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from csrm._core import ChatRenderer
from csrm.errors import BadArtifact
from csrm.train.decoder_files import Verbalizers

Piece = int | str
TEMPLATE_ID = "csrm-chat-1"
ROLES = ("system", "user", "assistant", "tool")
MAX_BLOCK_TOKENS = 512  # encoded at once; bounds the memory of attention, changes no score

INSTRUCTION = (
    "You check the messages of a conversation against a safety configuration. The configuration is"
    " a list of numbered categories; a category may forbid something or allow it. A message that"
    " does what a category forbids is unsafe. Every other message is safe.\n\nConfiguration:\n"
)
QUESTION = "Is the last message safe or unsafe under the configuration? Answer with one word."

# The paper's token sets (arXiv 2605.30487, section 3).
SAFE_WORDS = ("safe", " safe", "Safe")
UNSAFE_WORDS = ("unsafe", " unsafe", "Unsafe")


def make_chat_template(tokenizer_json: bytes) -> dict[str, Any]:
    """The manifest's "template" object for the decoder with this tokenizer.

    Errors: BadArtifact when it has neither ChatML's nor Llama 3's control tokens.
    """
    ids = added_tokens(tokenizer_json)
    if "<|im_start|>" in ids and "<|im_end|>" in ids:
        start, end = ids["<|im_start|>"], ids["<|im_end|>"]
        first: list[Piece] = []
        turn_end: list[Piece] = [end, "\n"]
        heads: dict[str, list[Piece]] = {role: [start, f"{role}\n"] for role in ROLES}
    elif {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"} <= set(
        ids
    ):
        start, end = ids["<|start_header_id|>"], ids["<|end_header_id|>"]
        first = [ids["<|begin_of_text|>"]]
        turn_end = [ids["<|eot_id|>"]]
        heads = {role: [start, role, end, "\n\n"] for role in ROLES}
    else:
        raise BadArtifact("the tokenizer has neither ChatML's nor Llama 3's control tokens")
    return {
        "id": TEMPLATE_ID,
        "config_head": [*first, *heads["system"], INSTRUCTION],
        "config_end": turn_end,
        "roles": heads,
        "turn_end": turn_end,
        "cue": [*heads["user"], QUESTION, *turn_end, *heads["assistant"]],
        "max_block_tokens": MAX_BLOCK_TOKENS,
    }


def make_chat_renderer(tokenizer_json: bytes) -> ChatRenderer:
    """The C++ renderer with this tokenizer's template. Errors: BadArtifact, Unsupported."""
    return chat_renderer_of(tokenizer_json, make_chat_template(tokenizer_json))


def chat_renderer_of(tokenizer_json: bytes, template: Mapping[str, Any]) -> ChatRenderer:
    """The C++ renderer with a manifest's template."""
    parts = {name: value for name, value in template.items() if name != "id"}
    return ChatRenderer(tokenizer_json, **parts)


def verbalizers_of(encode: Callable[[str], Sequence[int]]) -> Verbalizers:
    """The ids of the paper's words. Errors: BadArtifact when both sides share an id.

    A word of several tokens is represented by its first one: what the model gives to the word is
    at most what it gives to that token.
    """
    safe, unsafe = (
        tuple(dict.fromkeys(int(encode(word)[0]) for word in words))
        for words in (SAFE_WORDS, UNSAFE_WORDS)
    )
    if set(safe) & set(unsafe):
        raise BadArtifact("the tokenizer begins a safe and an unsafe word with the same token")
    return Verbalizers(safe, unsafe)


def added_tokens(tokenizer_json: bytes) -> dict[str, int]:
    """Content -> id of the tokenizer's added tokens. Errors: BadArtifact."""
    try:
        added = json.loads(tokenizer_json)["added_tokens"]
        return {str(token["content"]): int(token["id"]) for token in added}
    except (ValueError, TypeError, KeyError) as error:
        raise BadArtifact(f"tokenizer.json cannot be read: {type(error).__name__}") from error
