"""The figures of model calls: the service beside the bare SDK, reading the same answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from conductor.execution.v1.execution_service_pb2 import StartExecutionRequest
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.bench import models
from tests.bench.answers import Answers, read_answers
from tests.bench.process import Usage
from tests.bench.sdk import INPUT
from tests.bench.stand import Stand
from tests.bench.table import Row, Target
from tests.bench.told import FailedError, Told, telling

SDKS = {"openai": "OpenAI", "anthropic": "Anthropic"}
_TOKENS_TARGET = Target(0.6)
_CALLS_TARGET = Target(0.3)
"""Of calls at the same time; one at a time waits for the disk, which the bare SDK does not use."""


def provider_settings(url: str, *names: str) -> str:
    """Tell the service where the providers are, and give it keys for them."""
    addresses = {"openai": f"{url}/v1", "anthropic": url}
    return json.dumps(
        {
            name: {"base_url": addresses[name], "api_key": "sk-bench", "any_model": True}
            for name in names
        }
    )


async def idle_memory(service: Usage, names: Sequence[str]) -> Row:
    """Resident memory of a service that has imported SDKs."""
    await asyncio.sleep(1)
    imported = " and ".join(SDKS[name] for name in names)
    return Row(f"memory of the service, idle, keys of {imported}", f"{service.memory():.0f} MB")


@dataclass(frozen=True, slots=True)
class _Figure:
    """Answers that the service and the bare SDK read in turn, and what they are counted in."""

    name: str
    ai_provider: str
    model: str
    times: int
    callers: int
    units: int

    async def round(self, figures: ModelFigures) -> tuple[Answers, Answers]:
        """Let the bare SDK and then the service read them; answers what the service took first."""
        bare = await figures.bare(self.ai_provider, self.model, self.times, self.callers)
        ours = await figures.ours(self.ai_provider, self.model, self.times, self.callers)
        said = ["".join(models.ANSWERS[self.model].pieces)]
        if not ours.texts == bare.texts == said:
            raise FailedError(f"{self.name}: other text than the model said")
        return ours, bare


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """Measures one figure after the other."""

    service: Usage
    stub: ExecutionServiceStub
    sdk: Told
    rounds: int
    calls_each: int

    async def tokens(self) -> list[Row]:
        """One run of a long answer: as fast as it is read, and token by token."""
        rows: list[Row] = []
        for ai_provider, sdk in SDKS.items():
            long = _Figure(
                f"{models.TOKENS:,} tokens / bare {sdk} SDK",
                *(ai_provider, models.LONG, 1, 1, models.TOKENS),
            )
            paced = _Figure(
                f"{models.PACED_TOKENS:,} tokens, a packet each / bare {sdk} SDK",
                *(ai_provider, models.PACED, 1, 1, models.PACED_TOKENS),
            )
            pairs = await self._rounds(long)
            rows += [_rates(long, pairs, _TOKENS_TARGET), _processor(long, pairs)]
            rows.append(_processor(paced, await self._rounds(paced)))
        return rows

    async def calls(self) -> list[Row]:
        """Many runs of one token."""
        rows: list[Row] = []
        for ai_provider, sdk in SDKS.items():
            for callers in (1, 16):
                at_once = "1 at a time" if callers == 1 else f"{callers} at a time"
                figure = _Figure(
                    f"{self.calls_each} calls, {at_once} / bare {sdk} SDK",
                    *(ai_provider, models.SHORT, self.calls_each, callers, self.calls_each),
                )
                pairs = await self._rounds(figure)
                target = _CALLS_TARGET if callers > 1 else None
                rows += [_rates(figure, pairs, target), _processor(figure, pairs)]
        return rows

    async def _rounds(self, figure: _Figure) -> list[tuple[Answers, Answers]]:
        """Measure over rounds; the first only warms up."""
        return [await figure.round(self) for _ in range(-1, self.rounds)][1:]

    async def bare(self, ai_provider: str, model: str, times: int, callers: int) -> Answers:
        """Let the bare SDK read answers."""
        told = await self.sdk.ask(
            "answers", ai_provider=ai_provider, model=model, times=times, callers=callers
        )
        return Answers(**told)

    async def ours(self, ai_provider: str, model: str, times: int, callers: int) -> Answers:
        """Let the service read answers, each in a run that is watched to its end."""
        request = StartExecutionRequest(input=INPUT, ai_provider=ai_provider, model=model)
        began = self.service.processor()
        measured = await read_answers(partial(self._run, request), times, callers)
        return replace(measured, processor=self.service.processor() - began)

    async def _run(self, request: StartExecutionRequest) -> str:
        said: list[str] = []
        result: str | None = None
        async for message in self.stub.RunExecution(request):
            event = message.event
            if event.HasField("on_llm_new_token"):
                said.append(event.on_llm_new_token.chunk)
            elif event.HasField("result"):
                result = event.result.result
        if result != "".join(said):
            raise FailedError(f"a run ended without the result that it said: {result!r}")
        return result


@asynccontextmanager
async def model_figures(
    stand: Stand, service: Usage, url: str, rounds: int, calls_each: int
) -> AsyncIterator[ModelFigures]:
    """Connect with the service and start the bare SDKs, until the block ends."""
    async with stand.channel() as channel, telling("tests.bench.sdk", url) as sdk:
        stub = ExecutionServiceStub(channel)
        yield ModelFigures(service, stub, sdk, rounds, calls_each)


def _rates(
    figure: _Figure, pairs: Sequence[tuple[Answers, Answers]], target: Target | None = None
) -> Row:
    ours, bare = zip(*pairs, strict=True)
    ratios = [other.seconds / one.seconds for one, other in pairs]
    return Row(figure.name, _rate(figure, ours), _rate(figure, bare), ratios, None, target)


def _rate(figure: _Figure, answers: Sequence[Answers]) -> str:
    rate = figure.units / median(one.seconds for one in answers)
    return f"{rate:,.0f}/s, {median(one.median for one in answers) * 1000:.3g} ms"


def _processor(figure: _Figure, pairs: Sequence[tuple[Answers, Answers]]) -> Row:
    ours, bare = zip(*pairs, strict=True)
    ratios = [one.processor / other.processor for one, other in pairs]
    return Row(f"{figure.name}: processor", _each(figure, ours), _each(figure, bare), ratios)


def _each(figure: _Figure, answers: Sequence[Answers]) -> str:
    return f"{median(one.processor for one in answers) / figure.units * 1e6:,.0f} us each"
