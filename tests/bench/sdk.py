"""The bare SDKs of OpenAI and Anthropic: what a program that calls them by itself would have.

Run as `python -m tests.bench.sdk <address of the models>`; what it is told is in `tests.bench.told`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from time import process_time

import anthropic
import openai
import uvloop

from tests.bench.answers import Answers, read_answers
from tests.bench.told import obey

INPUT = "Tell me in a few words what you keep, and for how long."
_MAX_TOKENS = 8192


class Sdks:
    """Calls models with the SDK of their protocol, as its documentation shows."""

    def __init__(self, url: str) -> None:
        self._openai = openai.AsyncOpenAI(api_key="sk-bench", base_url=f"{url}/v1", max_retries=0)
        self._anthropic = anthropic.AsyncAnthropic(api_key="sk-bench", base_url=url, max_retries=0)
        self._reads = {"openai": self._of_openai, "anthropic": self._of_anthropic}

    async def answers(self, ai_provider: str, model: str, times: int, callers: int) -> Answers:
        """Read answers of a model."""
        began = process_time()
        read = partial(self._reads[ai_provider], model)
        measured = await read_answers(read, times, callers)
        return replace(measured, processor=process_time() - began)

    async def _of_openai(self, model: str) -> str:
        stream = await self._openai.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": INPUT}],
            stream=True,
            stream_options={"include_usage": True},
        )
        said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        return "".join(said)

    async def _of_anthropic(self, model: str) -> str:
        stream = await self._anthropic.messages.create(
            model=model,
            messages=[{"role": "user", "content": INPUT}],
            max_tokens=_MAX_TOKENS,
            stream=True,
        )
        said = [
            event.delta.text
            async for event in stream
            if event.type == "content_block_delta" and event.delta.type == "text_delta"
        ]
        return "".join(said)


async def _serve(url: str) -> None:
    await obey(Sdks(url))


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
