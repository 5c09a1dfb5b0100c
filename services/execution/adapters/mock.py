"""The `mock` provider: models for people without a key, and for tests. Always the same answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass

import orjson

from services.execution.domain import ChatMessage, Model, ModelError, Role, Usage, prompts
from services.execution.ports import Prompt, Report

_ECHO_CHARACTERS = 2000
_YIELD_EVERY = 64
_SENTENCE = (
    "the mesh keeps every word of this answer in order so that a reader who comes late or comes "
    "back finds all of it again"
)


@dataclass(frozen=True, slots=True)
class Script:
    """How a mock model behaves."""

    description: str
    tokens: int | None = None
    """How many tokens it says; None for a few sentences that repeat the input."""
    delay_ms: float = 0.0
    """Before each token."""
    token_bytes: int | None = None
    """The size of each token; None for words."""
    fail_after: int | None = None
    """Dies after that many tokens."""
    fail_attempts: int = 0
    """Dies at once on each step's first attempts, up to this one."""
    stall_after: int | None = None
    """Says nothing more after that many tokens, and never ends."""
    shows_persona: bool = False
    """Whether it says the first line of what it was told to be, instead of a few sentences."""
    recalls: bool = False
    """Whether it says all that it was told, as JSON, instead of a few sentences."""
    context_tokens: int | None = None
    """The most of input and output together, as it is known by; it takes what it gets."""


SCRIPTS: Mapping[str, Script] = {
    "mock": Script("Answers at once with a few sentences that repeat the input."),
    "mock-slow": Script("Says about 150 tokens, one each 20 ms.", tokens=150, delay_ms=20),
    "mock-long": Script("Says 10,000 tokens as fast as it can.", tokens=10_000),
    "mock-fail": Script("Dies after three tokens.", fail_after=3),
    "mock-flaky": Script("Fails the first two attempts of each step.", fail_attempts=2),
    "mock-stall": Script("Says three tokens, then nothing more.", stall_after=3),
    "mock-persona": Script(
        "Answers with the first line of its agent's persona.", shows_persona=True
    ),
    "mock-recall": Script(
        "Answers with all that it was told, as JSON: `system` and `messages`.", recalls=True
    ),
}


class MockProvider:
    """Plays scripts.

    Args:
        scripts: more models by id; one with a known id replaces it.
    """

    name = "mock"
    serves_any = False

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        self._scripts = {**SCRIPTS, **(scripts or {})}
        self.models: Mapping[str, Model] = {
            id_: Model(id_, self.name, script.description, script.context_tokens)
            for id_, script in self._scripts.items()
        }

    async def stream(self, model: str, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        """Play the script of a model."""
        script = self._scripts[model]
        if prompt.attempt <= script.fail_attempts:
            raise ModelError(f"The model {model} failed attempt {prompt.attempt} on purpose.")
        said = 0
        for number, token in enumerate(_tokens(script, prompt)):
            if number == prompt.max_output_tokens:
                finish_reason = "length"
                break
            if number == script.fail_after:
                raise ModelError(f"The model {model} died after {number} tokens on purpose.")
            if number == script.stall_after:
                await asyncio.Event().wait()
            if script.delay_ms:
                await asyncio.sleep(script.delay_ms / 1000)
            elif number % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            yield token
            said += 1
        else:
            finish_reason = "stop"
        told = (prompt.system, *(one.text for one in prompt.history), prompt.text)
        given = sum(len(text.split()) for text in told)
        usage = Usage(input_tokens=given, output_tokens=said)
        yield Report(usage, finish_reason)

    async def close(self) -> None:
        """Do nothing: there is no connection."""


def _tokens(script: Script, prompt: Prompt) -> Iterator[str]:
    if script.shows_persona:
        return iter((_first_line(prompts.persona(prompt.system)) or "(no persona)",))
    if script.recalls:
        return iter((_recalled(prompt),))
    if script.token_bytes is not None:
        return itertools.repeat("x" * script.token_bytes, script.tokens or 1)
    if script.tokens is not None:
        words = itertools.islice(itertools.cycle(_SENTENCE.split(" ")), script.tokens)
        return (f" {word}" if number else word for number, word in enumerate(words))
    return _sentences(prompts.newest(prompt.text))


def _recalled(prompt: Prompt) -> str:
    said = [*prompt.history, ChatMessage(Role.USER, prompt.text)]
    messages = [{"role": one.role, "content": one.text} for one in said]
    told = {"system": prompt.system, "messages": messages}
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _sentences(text: str) -> Iterator[str]:
    echo = text if len(text) <= _ECHO_CHARACTERS else f"{text[:_ECHO_CHARACTERS]}…"
    yield from ("You", " said:", " ")
    yield echo
    yield from (
        "\n",
        "This",
        " is",
        " the",
        " mock",
        " model;",
        " it",
        " needs",
        " no",
        " key",
        ".",
    )
