"""Where a run answers, and what it is told: options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from conductor.conversations.v1.busy_policy_pb2 import BusyPolicy
from conductor.execution.v1.execution_pb2 import ContextMode


class Busy(StrEnum):
    """What happens to a message while another run answers in the conversation."""

    QUEUE = "queue"
    REJECT = "reject"
    INTERRUPT = "interrupt"

    @property
    def proto(self) -> BusyPolicy.ValueType:
        """What the protos call it."""
        return BusyPolicy.Value(f"BUSY_POLICY_{self.name}")


class Context(StrEnum):
    """What a run is told besides its input."""

    STATELESS = "stateless"
    CONTEXTUAL = "contextual"
    INTERACTIVE = "interactive"

    @property
    def proto(self) -> ContextMode.ValueType:
        """What the protos call it."""
        return ContextMode.Value(f"CONTEXT_MODE_{self.name}")


Conversation = Annotated[
    str,
    typer.Option(
        "--conversation", help="The conversation to answer in: what is said is kept.", metavar="ID"
    ),
]


Instance = Annotated[
    str, typer.Option("--instance", help="The instance of an agent that answers.", metavar="ID")
]


Screenplay = Annotated[
    str, typer.Option("--screenplay", help="The screenplay to work on.", metavar="ID")
]


OnBusy = Annotated[
    Busy,
    typer.Option(
        "--busy",
        help="What happens while another run answers in the conversation.",
        case_sensitive=False,
    ),
]


OfContext = Annotated[
    Context | None,
    typer.Option(
        "--context-mode",
        help="What the run is told besides its input.",
        case_sensitive=False,
        show_default="contextual with a conversation or an instance, else stateless",
    ),
]
