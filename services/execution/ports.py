"""What the execution service needs from outside, in its own words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.execution.domain import (
    Agent,
    Appended,
    ChatMessage,
    Choice,
    CircuitState,
    Context,
    Errand,
    Event,
    Execution,
    Filling,
    Filter,
    Key,
    Model,
    Placement,
    Price,
    Screenplay,
    Spend,
    State,
    Usage,
)
from services.kit.errors import DomainError


class FencedError(Exception):
    """Somebody else appended or wrote first. Read again what is true now."""


class SlotTakenError(Exception):
    """Another run of the organisation holds this slot."""


class QueueFullError(Exception):
    """As many runs wait as may."""


class RequestIdTakenError(Exception):
    """The organisation used this request_id before."""


@dataclass(frozen=True, slots=True)
class Due:
    """A run that may need a worker."""

    org: str
    id: str
    owner: str
    priority: int
    slot: int | None
    held: bool = False
    """Whether no worker may take it: something is left to be done at its conversation first."""


@dataclass(frozen=True, slots=True)
class Left:
    """A run for which something is left to be done at its conversation."""

    org: str
    id: str
    conversation_id: str
    version: int


class Executions(Protocol):
    """The stored executions and their logs.

    Every method raises DomainError STORE_UNAVAILABLE or STORE_FULL when the store cannot serve it.
    """

    async def start(self, execution: Execution, first: Event, most_waiting: int) -> None:
        """Store a new run and its first event, unless too many wait.

        Raises RequestIdTakenError and QueueFullError.
        """
        ...

    async def get(self, org: str, id_: str) -> Execution | None:
        """Read a run; one that was taken back is not there."""
        ...

    async def version(self, org: str, id_: str) -> int | None:
        """Read only the version of a run's document."""
        ...

    async def by_request_id(self, org: str, request_id: str) -> Execution | None:
        """Read the run a request_id started."""
        ...

    async def list(
        self, org: str, where: Filter, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Read a page of runs, newest first, beyond a (create_time, id).

        Of their inputs they have the beginning, and no results.
        """
        ...

    async def due(
        self, state: State, after: tuple[int, str] | None
    ) -> Sequence[tuple[tuple[int, str], Due]]:
        """Read a page of the runs in a state, oldest first, each with its place for `after`."""
        ...

    async def left(
        self, errand: Errand, after: tuple[int, str] | None
    ) -> Sequence[tuple[tuple[int, str], Left]]:
        """Read a page of the runs with an errand, oldest first, each with its place for `after`."""
        ...

    async def append(self, org: str, id_: str, after: int, events: Sequence[Event]) -> None:
        """Append events to the log. Raises FencedError when it does not end at `after`."""
        ...

    async def claim(self, execution: Execution, after: int, events: Sequence[Event]) -> Execution:
        """Store a run that takes a slot, and append the events that say so, in this order.

        Returns the projection as stored. Raises SlotTakenError, and FencedError like `commit`.
        """
        ...

    async def commit(self, execution: Execution, after: int, events: Sequence[Event]) -> Execution:
        """Append events and store the projection they lead to, in this order.

        Returns the projection as stored. Raises FencedError when the log does not end at `after` or
        the document is not at `execution.version`.
        """
        ...

    async def save(self, execution: Execution) -> Execution:
        """Store a projection alone. Raises FencedError when the document has another version."""
        ...

    async def delete(self, execution: Execution | Left) -> None:
        """Delete a run and its log. Raises FencedError when the document has another version."""
        ...

    async def erase(self, org: str, id_: str) -> None:
        """Delete what is left of the log of a run that is there no more."""
        ...

    async def events(self, org: str, id_: str, after: int) -> Sequence[Event]:
        """Read a page of events after a sequence; empty only at the end of the log."""
        ...

    async def last_event(self, org: str, id_: str) -> Event | None:
        """Read the newest event of a run."""
        ...


@dataclass(frozen=True, slots=True)
class Renewal:
    """A worker's lease as it is stored: `counter` grows with each renewal."""

    worker: str
    counter: int


class Leases(Protocol):
    """The leases of workers. One stands for all runs its worker owns."""

    async def register(self, worker: str, now: int) -> Renewal:
        """Make the lease of a new worker."""
        ...

    async def renew(self, lease: Renewal) -> Renewal:
        """Renew a lease. Raises FencedError when it was taken away."""
        ...

    async def all(self) -> Sequence[Renewal]:
        """Read every lease."""
        ...

    async def remove(self, lease: Renewal) -> None:
        """Remove a lease unless it was renewed since it was read; a renewed one stays."""
        ...


class Keys(Protocol):
    """The stored keys of all organisations.

    Every method raises DomainError STORE_UNAVAILABLE or STORE_FULL when the store cannot serve it.
    """

    async def add(self, key: Key) -> None:
        """Store a new key."""
        ...

    async def get(self, key_id: str) -> Key | None:
        """Read a key."""
        ...

    async def list(
        self, org: str | None, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Key]:
        """Read a page of keys, newest first, beyond a (create_time, id).

        Those of an organisation, or of all for None.
        """
        ...

    async def save(self, key: Key) -> Key:
        """Store a changed key; returns it as stored. Raises FencedError when somebody else did."""
        ...


class Wakeups(Protocol):
    """Hints that something changed; see `services.kit.storage.ports.Wakeups`."""

    async def publish(self, channel: str) -> None:
        """Wake everyone subscribed to a channel."""
        ...

    def subscribe(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` for each wake-up of a channel; returns the way to stop."""
        ...


class WorkQueue(Protocol):
    """Hints of runs to work on; see `services.kit.storage.ports.WorkQueue`."""

    async def put(self, item: str) -> None:
        """Add an item; one that waits already is not added again."""
        ...

    async def take(self) -> str:
        """Wait for the oldest item and take it."""
        ...

    async def done(self, item: str) -> None:
        """Say that a taken item is in good hands."""
        ...


class Agents(Protocol):
    """The agents there are, each with one version of its persona."""

    async def get(self, org: str, agent_id: str, persona_version: str) -> Agent:
        """Read an agent as it is now, or was less than a second ago.

        Args:
            persona_version: a number, `latest`, `first` or an alias; empty for the active one.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_VERSION_NOT_FOUND; SERVICE_UNAVAILABLE and
                STORE_UNAVAILABLE while whoever knows them cannot tell.
        """
        ...


class AwayError(Exception):
    """Nobody can tell now. What was asked for may have been done; asked again, it is done once.

    Attributes:
        error: what a caller is told.
    """

    def __init__(self, error: DomainError) -> None:
        super().__init__(error.message)
        self.error = error


class Conversations(Protocol):
    """Where what is said is kept. Each of these may be asked again and answers the same.

    Every method raises AwayError, and DomainError for what is refused for good.
    """

    async def instance(self, org: str, instance_id: str) -> Placement:
        """Read where an agent is placed. Raises DomainError INSTANCE_NOT_FOUND."""
        ...

    async def active(self, org: str, conversation_id: str) -> Placement:
        """Read who answers in a conversation. Raises DomainError CONVERSATION_NOT_FOUND."""
        ...

    async def create(self, org: str, who: Placement, request_id: str) -> str:
        """Make a conversation with somebody who answers in it; returns its id.

        Args:
            request_id: repeated, it answers the one it made before; empty for a new one.
        """
        ...

    async def append(self, execution: Execution) -> Appended:
        """Add the message of a run and the answer that is awaited.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, INSTANCE_NOT_FOUND, AGENT_NOT_ALLOWED,
                CONVERSATION_BUSY, MESSAGE_NOT_FOUND; TURN_WITHDRAWN.
        """
        ...

    async def place(self, execution: Execution) -> int:
        """Count the runs that answer before one. Raises DomainError TURN_NOT_FOUND."""
        ...

    async def fill(self, filling: Filling) -> None:
        """Complete an answer, let the next run answer, and count the run.

        Raises:
            DomainError: TURN_NOT_FOUND.
        """
        ...

    async def withdraw(self, left: Left) -> None:
        """Take the message and the answer of a run back; nothing may add them from then on."""
        ...


class Screenplays(Protocol):
    """What agents work on."""

    async def get(self, org: str, screenplay_id: str) -> Screenplay:
        """Read a screenplay that is not deleted.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND; SERVICE_UNAVAILABLE and STORE_UNAVAILABLE while whoever
                keeps them cannot tell.
        """
        ...

    async def note_use(self, org: str, screenplay_id: str) -> None:
        """Note that a screenplay is used now. Raises nothing: that may fail, and is in the log then."""
        ...


class Contexts(Protocol):
    """What runs are told besides their agent and their input."""

    async def read(self, execution: Execution, max_bytes: int) -> Context:
        """Read it as it is now.

        Args:
            max_bytes: how many bytes of UTF-8 the history may have; what is older is only counted.

        Raises:
            DomainError: with a `retry_after` while whoever knows it cannot tell; any other ends the run.
        """
        ...


class Prices(Protocol):
    """What models cost."""

    def price(self, ai_provider: str, model: str) -> Price | None:
        """Look up what a model costs now; None when nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call of a model."""

    text: str
    step: int
    attempt: int
    max_output_tokens: int | None = None
    """The most tokens it may make; None leaves it to the model."""
    system: str = ""
    """What it is told before all messages, of who it is and how it works; empty for nothing."""
    history: Sequence[ChatMessage] = ()
    """The messages before the text: from user and assistant in turn, none of them empty."""
    goes_on: bool = False
    """Whether later calls are likely to begin with all of this: a provider may keep it for them."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider says about a call; of several, a later one adds to and corrects the earlier."""

    usage: Usage | None = None
    """Of this call so far, not since the last report."""
    finish_reason: str = ""
    """`stop` when the model was done, `length` when it was cut at a limit, else the provider's word."""


class Provider(Protocol):
    """Serves models under one name."""

    @property
    def name(self) -> str:
        """The `ai_provider` callers name it by."""
        ...

    @property
    def models(self) -> Mapping[str, Model]:
        """The models it is known to serve, by id; the first is its default."""
        ...

    @property
    def serves_any(self) -> bool:
        """Whether it may be asked for models that are not in `models`."""
        ...

    def stream(self, model: str, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        """Call a model once and yield its answer as it comes.

        Yields text; an empty text as a sign of life while the model thinks; and reports. Ends when
        the model's answer is whole, and never otherwise.

        Raises:
            ModelError: nothing else, whatever the provider does. One that is cut short closes its
                connection.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Outcome(StrEnum):
    """How a call of a model ended."""

    SUCCEEDED = "succeeded"
    """The answer is whole, whatever its run makes of it."""
    FAILED = "failed"
    """The model did not answer, or the provider's adapter has a fault."""
    STOPPED = "stopped"
    """The run has reached a limit, was cancelled or handed back."""


class Metrics(Protocol):
    """What is measured of the work; docs/operations.md names it.

    Each thing is told once, by the process that did it. Every method returns at once and raises
    nothing, whether or not anybody wants to know.
    """

    def refused(self, choice: Choice) -> None:
        """A call was not made, because the circuit of its model is open."""
        ...

    def answering(self, choice: Choice, seconds: float) -> None:
        """A model said, or thought, its first word so many seconds after it was asked."""
        ...

    def called(
        self, choice: Choice, outcome: Outcome, reason: str, seconds: float, spend: Spend
    ) -> None:
        """A call of a model ended.

        Args:
            reason: why it did not succeed, a name of the catalogue of reasons; may be empty.
            spend: as far as the provider reported it.
        """
        ...

    def taken_over(self) -> None:
        """A run goes on that another worker began."""
        ...

    def ended(self, execution: Execution) -> None:
        """A run ended, and that is stored."""
        ...

    def handed(self, seconds: float) -> None:
        """A live event was handed to a watcher so many seconds after it was made."""
        ...

    def observe(
        self,
        *,
        running: Callable[[], int],
        waiting: Callable[[], int],
        circuits: Callable[[], Mapping[tuple[str, str], CircuitState]],
    ) -> None:
        """Take what is looked at from time to time, in another thread; to be called once.

        Args:
            running: counts the runs in the hands of this process.
            waiting: counts those that wait, as far as this process knows.
            circuits: the breakers there are, by provider and model.
        """
        ...


class Others(Protocol):
    """The other services of the mesh."""

    async def health(self) -> Mapping[str, str]:
        """Ask each whether it serves: what is wrong by its name, empty where nothing is."""
        ...


class Traces(Protocol):
    """The spans of the work; docs/operations.md names them.

    Every method returns at once and raises nothing, whether or not anybody wants to know.
    """

    def here(self) -> str:
        """Name the span that this happens in, as a `traceparent`; empty when nothing is traced."""
        ...

    def begun(self, execution: Execution, *, resumed: bool) -> None:
        """A worker has a run in its hands; what this task does from now on belongs to it.

        Args:
            resumed: whether another worker had it before. What that one told of may never have ended,
                so this is a trace of its own with a link to where the run was started.
        """
        ...

    def left(self, execution: Execution, why: str) -> None:
        """The worker of this task has let go of its run.

        Args:
            execution: as this worker has last stored it.
            why: of a run that had not ended, one word; else empty.
        """
        ...

    def called(
        self,
        choice: Choice,
        attempt: int,
        began: int,
        outcome: Outcome,
        reason: str,
        spend: Spend,
        finish_reason: str,
    ) -> None:
        """A call of a model ended; see `Metrics.called`.

        Args:
            began: when, in microseconds since the epoch.
            finish_reason: why the model stopped; empty when it did not say.
        """
        ...
