"""Models behind the Chat Completions of OpenAI, and of every server that speaks them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any, Literal

import openai
from openai._streaming import ServerSentEvent, SSEDecoder

from services.execution.adapters.faults import Faults, Wording, count, word
from services.execution.domain import Model, Usage
from services.execution.ports import Prompt, Report

_CONNECT_SECONDS = 10.0


class _UnmarkedEnd(Exception):
    """A stream ended without `[DONE]`."""


class _Decoder(SSEDecoder):
    """Events of a stream; an end without `[DONE]` is an error, which the SDK takes for a whole answer.

    The SDK stops reading at `[DONE]`, so that whoever reads on has not met it.
    """

    async def aiter_bytes(self, iterator: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
        async for event in super().aiter_bytes(iterator):
            # Frames that are only an id, a retry or a name; the SDK takes them for broken JSON.
            if event.data:
                yield event
        raise _UnmarkedEnd


class _Client(openai.AsyncOpenAI):
    def _make_sse_decoder(self) -> SSEDecoder:
        return _Decoder()


class OpenAIProvider:
    """Calls the models of one server, each call once and as a stream.

    Args:
        name: the `ai_provider` it is.
        models: those it is known to serve, by id; the first is its default.
        base_url: with the version, as in `https://api.openai.com/v1`.
        api_key: empty for a server that asks for none.
        serves_any: whether it may be asked for models that are not in `models`.
        output_limit_field: what the server calls the most tokens of an answer.
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
        output_limit_field: Literal["max_completion_tokens", "max_tokens"],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.models = models
        self.serves_any = serves_any
        self._output_limit_field = output_limit_field
        self._client = _Client(
            # The SDK looks into the environment for a key that is empty.
            api_key=api_key or "none",
            base_url=base_url,
            default_headers=headers,
            timeout=openai.Timeout(None, connect=_CONNECT_SECONDS),
            max_retries=0,
        )
        # The SDK reads them from the environment, and other servers have no business with them.
        self._client.organization = self._client.project = None
        self._faults = Faults(
            name,
            lost=openai.APIConnectionError,
            answered=openai.APIError,
            secrets=[api_key, *(headers or {}).values()],
        )

    async def stream(self, model: str, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        """Call a model once; see `ports.Provider`."""
        with self._faults.translated(model):
            # What `chat.completions.create` does, but for its models of each chunk: to make them takes
            # three times as long as all the rest, and they hide the shape of what was sent.
            async with await self._client.post(
                "/chat/completions",
                body=self._body(model, prompt),
                cast_to=object,
                stream=True,
                stream_cls=openai.AsyncStream[object],
            ) as chunks:
                answer = _Answer()
                try:
                    async for chunk in chunks:
                        for one in answer.read(chunk):
                            yield one
                except _UnmarkedEnd:
                    if not answer.finish_reason:
                        raise self._faults.unfinished(model, chunks.response) from None
                except openai.APIConnectionError:
                    # What is lost after the last word is at most the usage.
                    if not answer.finish_reason:
                        raise
            if rest := answer.rest():
                yield rest
            if answer.refused:
                raise self._faults.refused(model)

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()

    def _body(self, model: str, prompt: Prompt) -> dict[str, object]:
        told = [{"role": "system", "content": prompt.system}] if prompt.system else []
        said = [{"role": one.role.value, "content": one.text} for one in prompt.history]
        body: dict[str, object] = {
            "model": model,
            "messages": [*told, *said, {"role": "user", "content": prompt.text}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.max_output_tokens is not None:
            body[self._output_limit_field] = prompt.max_output_tokens
        return body


class _Answer:
    """What was read of one answer. Servers send chunks of many shapes: nothing in them is sure."""

    def __init__(self) -> None:
        self.finish_reason = ""
        self.refused = False
        """Known before the end, which is awaited for the usage."""
        self._wording = Wording()
        self._usage = Usage()

    def read(self, chunk: Any) -> Iterator[str | Report]:
        """Read the next chunk. Raises some error for what is none."""
        # Some servers report usage in chunks of its own kind; what has neither is no chunk.
        choices = chunk.get("choices") if "usage" in chunk else chunk["choices"]
        for choice in (choices or [])[:1]:
            yield from self._said(choice.get("delta") or {})
            if finish_reason := word(choice.get("finish_reason")):
                self.finish_reason = finish_reason
                self.refused |= finish_reason == "content_filter"
                yield Report(finish_reason=finish_reason)
        usage = chunk.get("usage")
        if isinstance(usage, dict) and (known := _usage(usage)) != self._usage:
            self._usage = known
            yield Report(usage=known)

    def rest(self) -> str:
        """Take the text that waited for more."""
        return self._wording.rest()

    def _said(self, delta: dict[str, Any]) -> Iterator[str]:
        if content := delta.get("content"):
            yield self._wording.piece(content)
        elif delta.get("refusal"):
            self.refused = True
            yield ""
        # `reasoning_content`, `reasoning`, `reasoning_details`: no two servers agree.
        elif any(said for name, said in delta.items() if name.startswith("reasoning")):
            yield ""


def _usage(usage: dict[str, Any]) -> Usage:
    said, given = count(usage.get("completion_tokens")), count(usage.get("prompt_tokens"))
    total = count(usage.get("total_tokens"))
    if said is not None and given is not None and total is not None:
        # Some servers count what was thought in the total alone.
        said = max(said, total - given)
    return Usage(
        input_tokens=given,
        output_tokens=said,
        cached_input_tokens=_detail(usage, "prompt_tokens_details", "cached_tokens"),
        cache_write_input_tokens=_detail(usage, "prompt_tokens_details", "cache_write_tokens"),
        reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
    )


def _detail(usage: dict[str, Any], kind: str, name: str) -> int | None:
    details = usage.get(kind)
    return count(details.get(name)) if isinstance(details, dict) else None
