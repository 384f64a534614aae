"""`CsrmGuardrail`: a guardrail of LiteLLM's proxy that judges in the proxy's own process.

Not: a client of `csrm serve` (for that LiteLLM's generic_guardrail_api needs no code), nor a change
of any text: it allows or blocks. The proxy's config file names it and gives its parameters; scores
come from `guard.Guard`. Requests, and answers of other endpoints than chat completions, are read by
LiteLLM's own translations; what these find no text in would pass unseen, and is blocked here.
"""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from litellm.exceptions import GuardrailRaisedException
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.proxy.common_utils.callback_utils import add_guardrail_to_applied_guardrails_header
from litellm.proxy.guardrails.guardrail_hooks.unified_guardrail.unified_guardrail import (
    UnifiedLLMGuardrails,
    resolve_endpoint_translation,
)
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import (
    EmbeddingResponse,
    GenericGuardrailAPIInputs,
    ModelResponse,
    ModelResponseStream,
    TextCompletionResponse,
)

from csrm import errors
from csrm.integrations.answer_stream import AnswerStream, Release
from csrm.integrations.guard import Blocked, Decision, FailMode, Guard
from csrm.integrations.litellm_answer import StreamedTexts, answer_texts, call_texts
from csrm.scorer import load

_UNIFIED = UnifiedLLMGuardrails()
_CHUNKS = (ModelResponseStream, TextCompletionResponse)


@dataclass
class _Asking:
    """What a hook has LiteLLM ask: after which messages, and how often it did."""

    earlier: object = ()
    n_asked: int = 0


class CsrmGuardrail(CustomGuardrail):  # type: ignore[misc]
    """Blocks what breaks a config, and what could not be judged, with GuardrailRaisedException.

    safety_config: path of a config file. model: an artifact's folder (None = the shipped
    csrm-mini). threshold: counts if it is above the config's; so does "threshold" in a request's
    extra_body. deadline_s, fail_mode: as of `Guard`. release: "whole" or "judged", when pieces of a
    streamed answer leave (csrm.integrations.answer_stream). n_threads: as of `csrm.load`. The rest
    is LiteLLM's. Errors: those of `Guard`, BadArgument.
    """

    # LiteLLM then calls the hooks below, which can see that it found nothing to ask about.
    use_native_lifecycle_hooks: ClassVar[bool] = True
    records_own_guardrail_information: ClassVar[bool] = True
    # Other streams than chat completions: held by LiteLLM and judged once, as a whole.
    streaming_buffer_until_moderated = True

    def __init__(
        self,
        safety_config: str | os.PathLike[str] | None = None,
        *,
        model: str | None = None,
        threshold: float | None = None,
        deadline_s: float = 10.0,
        fail_mode: FailMode = "closed",
        release: Release = "whole",
        n_threads: int = 0,
        **kwargs: Any,
    ) -> None:
        if safety_config is None:
            raise errors.BadArgument("safety_config must be the path of a config file")
        if release not in ("whole", "judged"):
            raise errors.BadArgument('release must be "whole" or "judged"')
        # LiteLLM does not hold back streams for what masks texts.
        kwargs.update(mask_request_content=False, mask_response_content=False)
        super().__init__(supported_event_hooks=self.get_supported_event_hooks(), **kwargs)
        scorer = load(model, n_threads=n_threads)
        guard = Guard(safety_config, model=scorer, deadline_s=deadline_s, fail_mode=fail_mode)
        self._guard = guard.at_least(threshold)
        self._release = release
        self._asking: _Asking | None = None

    @classmethod
    def get_supported_event_hooks(cls) -> list[GuardrailEventHooks]:
        """The modes a config file may name."""
        return [
            GuardrailEventHooks.pre_call,
            GuardrailEventHooks.during_call,
            GuardrailEventHooks.post_call,
        ]

    def should_run_guardrail(self, data: Any, event_type: GuardrailEventHooks) -> bool:
        """Whether LiteLLM is to call a hook. Asked again within one, it stays with its answer."""
        return self._asking is not None or super().should_run_guardrail(data, event_type)

    async def apply_guardrail(
        self,
        inputs: GenericGuardrailAPIInputs,
        request_data: dict[str, Any],
        input_type: Literal["request", "response"],
        logging_obj: object = None,
    ) -> GenericGuardrailAPIInputs:
        """`inputs` as they are, if all that is new in them complies.

        A request's texts are its structured_messages, or turns of the user without these; a
        response's are answers to the messages of the request. Errors: GuardrailRaisedException.
        """
        asking = self._asking or _Asking(request_data.get("messages") or ())
        asking.n_asked += 1
        try:
            guard = self._guard_for(request_data)
            if inputs.get("images"):
                raise errors.BadConversation("csrm reads text only; it cannot judge images")
            texts = list(inputs.get("texts") or ())
            if input_type == "request":
                given = inputs.get("structured_messages")
                turns = given or [{"role": "user", "content": text} for text in texts]
                decision = await guard.acheck_input(turns)
            else:
                texts += call_texts(inputs.get("tool_calls") or ())
                decision = await guard.acheck_output(asking.earlier, texts)
        except errors.Error as error:
            decision = self._guard.decide([error])
        self._settle(decision, request_data)
        return inputs

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> Any:
        """Mode pre_call: the request is judged before the model gets it."""
        one = self._for_one_call(data)
        asked = _UNIFIED.async_pre_call_hook(user_api_key_dict, cache, data, call_type)
        return await one._check_asked(asked, data)

    async def async_moderation_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, call_type: Any
    ) -> Any:
        """Mode during_call: the request is judged while the model works on it."""
        one = self._for_one_call(data)
        asked = _UNIFIED.async_moderation_hook(data, user_api_key_dict, call_type)
        return await one._check_asked(asked, data)

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """Mode post_call: a whole answer is judged before the client gets it."""
        if isinstance(response, EmbeddingResponse):
            return None  # numbers
        earlier = _earlier(data, user_api_key_dict, response)
        if isinstance(response, ModelResponse | TextCompletionResponse):
            try:
                texts = answer_texts(response.choices)
                decision = await self._guard_for(data).acheck_output(earlier, texts)
            except errors.Error as error:
                decision = self._guard.decide([error])
            self._settle(decision, data)
            return None
        one = self._for_one_call(data, earlier)
        asked = _UNIFIED.async_post_call_success_hook(data, user_api_key_dict, response)
        return await one._check_asked(asked, data)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: AsyncIterable[Any], request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Mode post_call, streamed: what may leave of `response`, in its order.

        Errors: GuardrailRaisedException, in place of what is blocked.
        """
        chunks = aiter(response)
        first = await anext(chunks, None)
        earlier = _earlier(request_data, user_api_key_dict, first)
        whole = _with_first(first, chunks)
        if isinstance(first, _CHUNKS):
            judged = self._stream(whole, earlier, request_data)
        else:
            judged = self._other_stream(whole, earlier, request_data, user_api_key_dict)
        try:
            async with aclosing(judged):
                async for chunk in judged:
                    yield chunk
        except GuardrailRaisedException:
            if hasattr(response, "aclose"):
                await response.aclose()  # the model need not go on
            raise

    async def _stream(
        self, chunks: AsyncIterator[Any], earlier: object, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Chunks of a completion, judged while they come."""
        texts = StreamedTexts()
        try:
            guard = self._guard_for(request_data)
            stream: AnswerStream[Any] = AnswerStream(guard, earlier, self._release)
            async for chunk in chunks:
                if not isinstance(chunk, _CHUNKS):
                    raise errors.BadConversation("the stream has a chunk of another kind")
                new, is_last = texts.take(chunk.choices)
                for free in await stream.apush(chunk, new, is_last=is_last):
                    yield free
            rest = await stream.afinish(texts.calls())
            self._settle(stream.decision(), request_data)
            for free in rest:
                yield free
        except Blocked as blocked:
            self._settle(blocked.decision, request_data)
        except errors.Error as error:
            self._settle(self._guard.decide([error]), request_data)

    async def _other_stream(
        self,
        chunks: AsyncIterator[Any],
        earlier: object,
        request_data: dict[str, Any],
        user_api_key_dict: Any,
    ) -> AsyncGenerator[Any, None]:
        """Any other stream: LiteLLM holds it, puts its text together and asks once at its end."""
        one = self._for_one_call(request_data, earlier)
        held = _UNIFIED.async_post_call_streaming_iterator_hook(
            user_api_key_dict, chunks, request_data
        )
        async with aclosing(held):
            async for chunk in held:
                one._raise_if_unasked(request_data)
                yield chunk

    def _for_one_call(self, data: dict[str, Any], earlier: object = ()) -> CsrmGuardrail:
        """A copy that counts how often it is asked, for LiteLLM to find in `data`."""
        one = copy.copy(self)
        one._asking = _Asking(earlier)
        data["guardrail_to_apply"] = one
        return one

    async def _check_asked(self, asked: Awaitable[Any], data: dict[str, Any]) -> Any:
        result = await asked
        self._raise_if_unasked(data)
        return result

    def _raise_if_unasked(self, data: dict[str, Any]) -> None:
        if self._asking is not None and not self._asking.n_asked:
            error = errors.EmptyConversation("LiteLLM found no text to judge")
            self._settle(self._guard.decide([error]), data)

    def _guard_for(self, data: dict[str, Any]) -> Guard:
        """The Guard with the threshold that a request asks for, if that is higher.

        Errors: BadConfig.
        """
        given = self.get_guardrail_dynamic_request_body_params(data)
        return self._guard.at_least(given.get("threshold") if isinstance(given, dict) else None)

    def _settle(self, decision: Decision, data: dict[str, Any]) -> None:
        """Writes down the decision, and raises it if it blocks."""
        status = "success"
        if decision.is_blocked:
            is_verdict = decision.verdict == "violation"
            status = "guardrail_intervened" if is_verdict else "guardrail_failed_to_respond"
        self.add_standard_logging_guardrail_information_to_request_data(
            guardrail_json_response={
                "config_id": self._guard.config.id,
                "verdict": decision.verdict,
                "reason": decision.reason,
                "compliance": decision.compliance,
            },
            request_data=data,
            guardrail_status=status,
            guardrail_provider="csrm",
        )
        if decision.is_blocked:
            raise GuardrailRaisedException(
                guardrail_name=self.guardrail_name,
                message=decision.reason,
                should_wrap_with_default_message=False,
                blocked_content=decision.verdict == "violation",
            )
        add_guardrail_to_applied_guardrails_header(data, self.guardrail_name)


def _earlier(data: dict[str, Any], user_api_key_dict: Any, item: object) -> object:
    """The request's messages, in OpenAI's form; () where LiteLLM has no translation for them."""
    found = resolve_endpoint_translation(user_api_key_dict, item)
    return () if found is None else found[1].get_structured_messages(data) or ()


async def _with_first(first: Any, rest: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    if first is not None:
        yield first
    async for chunk in rest:
        yield chunk
