"""Models behind the Messages of Anthropic, and of every server that speaks them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

import anthropic
from anthropic.types import (
    CacheControlEphemeralParam,
    MessageParam,
    RawMessageStreamEvent,
    TextBlockParam,
)

from services.execution.adapters.faults import Faults, Wording, count, word
from services.execution.domain import ChatMessage, Model, Role, Usage
from services.execution.ports import Prompt, Report

_CONNECT_SECONDS = 10.0
# Anthropic does not take a call without a limit.
_DEFAULT_OUTPUT_TOKENS = 8192
_LARGEST_DEFAULT_OUTPUT_TOKENS = 32_000
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


class AnthropicProvider:
    """Calls the models of one server, each call once and as a stream.

    Args:
        name: the `ai_provider` it is.
        models: those it is known to serve, by id; the first is its default.
        base_url: without the version, as in `https://api.anthropic.com`.
        api_key: empty for a server that asks for none.
        serves_any: whether it may be asked for models that are not in `models`.
        headers: sent with each call.
    """

    def __init__(
        self,
        name: str,
        models: Mapping[str, Model],
        *,
        base_url: str,
        api_key: str,
        serves_any: bool,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.models = models
        self.serves_any = serves_any
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key or "none",
            base_url=base_url,
            default_headers=headers,
            timeout=anthropic.Timeout(None, connect=_CONNECT_SECONDS),
            max_retries=0,
            # Left alone the SDK makes spans of its own, and tells the provider our trace ids.
            open_telemetry=False,
        )
        self._faults = Faults(
            name,
            lost=anthropic.APIConnectionError,
            answered=anthropic.APIError,
            secrets=[api_key, *(headers or {}).values()],
        )

    async def stream(self, model: str, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        """Call a model once; see `ports.Provider`."""
        with self._faults.translated(model):
            async with await self._client.messages.create(
                model=model,
                # Left out when there is none: some servers refuse an empty one.
                system=prompt.system or anthropic.omit,
                messages=[*map(_message, prompt.history), _asked(prompt)],
                max_tokens=self._limit(model, prompt),
                stream=True,
            ) as events:
                answer = _Answer()
                async for event in events:
                    for one in answer.read(event):
                        yield one
                if not (answer.whole or answer.refused):
                    raise self._faults.unfinished(model, events.response)
            if rest := answer.rest():
                yield rest
            if answer.refused:
                raise self._faults.refused(model)

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()

    def _limit(self, model: str, prompt: Prompt) -> int:
        if prompt.max_output_tokens is not None:
            return prompt.max_output_tokens
        known = self.models.get(model)
        if known is None or known.max_output_tokens is None:
            return _DEFAULT_OUTPUT_TOKENS
        return min(known.max_output_tokens, _LARGEST_DEFAULT_OUTPUT_TOKENS)


def _asked(prompt: Prompt) -> MessageParam:
    """Make the message to answer, and ask the server to keep all up to it for some minutes if it goes on.

    The mark stands at a part of the message, where every server that coding agents are pointed at knows it,
    and not at the request.
    """
    if not prompt.goes_on:
        return {"role": "user", "content": prompt.text}
    text = TextBlockParam(
        type="text", text=prompt.text, cache_control=CacheControlEphemeralParam(type="ephemeral")
    )
    return {"role": "user", "content": [text]}


def _message(message: ChatMessage) -> MessageParam:
    if message.role is Role.ASSISTANT:
        return {"role": "assistant", "content": message.text}
    return {"role": "user", "content": message.text}


class _Answer:
    """What was read of one answer."""

    def __init__(self) -> None:
        self.whole = False
        self.refused = False
        self._wording = Wording()
        self._counts: dict[str, int] = {}

    def read(self, event: RawMessageStreamEvent) -> Iterator[str | Report]:
        """Read the next event; those of other types say nothing to us."""
        match event.type:
            case "message_start":
                yield from self._used(event.message.usage)
            case "content_block_start":
                yield from self._said(event.content_block)
            case "content_block_delta":
                yield from self._said(event.delta)
            case "message_delta":
                yield from self._used(event.usage)
                if stop_reason := word(event.delta.stop_reason):
                    self.refused = stop_reason == "refusal"
                    yield Report(finish_reason=_FINISH_REASONS.get(stop_reason, stop_reason))
            case "message_stop":
                self.whole = True

    def rest(self) -> str:
        """Take the text that waited for more."""
        return self._wording.rest()

    def _said(self, part: Any) -> Iterator[str]:
        match part.type:
            case "text" | "text_delta":
                if part.text:
                    yield self._wording.piece(part.text)
            case "thinking_delta" | "signature_delta":
                yield ""

    def _used(self, usage: Any) -> Iterator[Report]:
        """Read counts; each is of the whole call, and what is not said again stays as it was."""
        before = dict(self._counts)
        details = getattr(usage, "output_tokens_details", None)
        for place, name in (
            (usage, "input_tokens"),
            (usage, "cache_read_input_tokens"),
            (usage, "cache_creation_input_tokens"),
            (usage, "output_tokens"),
            (details, "thinking_tokens"),
        ):
            value = count(getattr(place, name, None))
            if value is not None:
                self._counts[name] = value
        if self._counts != before:
            yield Report(usage=self._usage())

    def _usage(self) -> Usage:
        counts = self._counts
        cached = counts.get("cache_read_input_tokens")
        written = counts.get("cache_creation_input_tokens")
        given = counts.get("input_tokens")
        return Usage(
            input_tokens=None if given is None else given + (cached or 0) + (written or 0),
            output_tokens=counts.get("output_tokens"),
            cached_input_tokens=cached,
            cache_write_input_tokens=written,
            reasoning_tokens=counts.get("thinking_tokens"),
        )
