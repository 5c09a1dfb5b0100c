"""The server of models, in a process of its own so that it takes nothing from who is measured.

Run as `python -m tests.bench.models <port>`.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

import uvloop

from tests.fakes.models import Answer, ModelServer, Tokens

TOKENS = 5000
LONG = "bench-long"
"""Says its tokens as fast as they are read."""
PACED_TOKENS = 1000
PACED = "bench-paced"
"""Says its tokens one by one: each comes in a packet of its own."""
SHORT = "bench-short"
"""Says one token."""

_PACE_SECONDS = 0.001
_WORDS = (" the", " mesh", " keeps", " every", " word", " of", " this", " answer", ",", " durably")


def answer(tokens: int) -> Answer:
    """Make an answer of words as models cut them."""
    words = tuple(_WORDS[number % len(_WORDS)] for number in range(tokens))
    return Answer(words, usage=Tokens(output=tokens))


ANSWERS = {
    LONG: answer(TOKENS),
    PACED: replace(answer(PACED_TOKENS), every=_PACE_SECONDS),
    SHORT: answer(1),
}


async def _serve(port: int) -> None:
    async with ModelServer(port) as server:
        for model, said in ANSWERS.items():
            server.says(model, said)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
