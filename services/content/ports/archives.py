"""What archives need: the files of one, and everything that is stored of an organisation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from services.content.domain.agents import Agent
from services.content.domain.archives import File, Record
from services.content.domain.imports import Item
from services.content.domain.personas import Persona, PersonaVersion
from services.content.domain.screenplays import Screenplay, Text


class Packing(Protocol):
    """An archive that is made; what it holds is kept in temporary files, not in memory.

    Its methods raise TooLargeError when it would hold more than may be, and DomainError
    STORE_FULL when there is no room for it.
    """

    async def add(self, files: Sequence[File]) -> None:
        """Add files; those of a backup come in the order of their paths."""
        ...

    async def mark(self) -> object:
        """Return where it ends now."""
        ...

    async def cut(self, mark: object) -> None:
        """Forget what was added since."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """Close it, and read it in pieces of up to 64 KiB; called once, last."""
        ...


class Received(Protocol):
    """An archive that somebody sends, in a temporary file."""

    @property
    def size(self) -> int:
        """How many bytes came."""
        ...

    async def receive(self, chunk: bytes) -> None:
        """Take the next bytes. Raises TooLargeError and STORE_FULL like Packing."""
        ...

    def backup(self, org: str) -> AsyncIterator[Sequence[Record]]:
        """Read what a backup holds, some at a time, as things of an organisation.

        Each is held against the manifest and the rules of its kind. It can be read again.

        Raises:
            ArchiveError: it is damaged, or something else.
            TooLargeError: unpacked.
        """
        ...

    def directory(self) -> AsyncIterator[Sequence[File]]:
        """Read the files of a directory, some at a time, in the order of `directories.order_of`.

        Those that `directories.is_read` does not know come without what is in them.

        Raises:
            ArchiveError: it is damaged, or something else.
            TooLargeError: unpacked.
        """
        ...


class Archives(Protocol):
    """Archives in temporary files, which go with the block."""

    def packing(self, *, manifest: bool) -> AbstractContextManager[Packing]:
        """Begin an archive, with a manifest or without."""
        ...

    def receiving(self) -> AbstractContextManager[Received]:
        """Begin to receive one."""
        ...


class Library(Protocol):
    """Everything that is stored of an organisation. Things are read with their texts."""

    async def agent_ids(self, org: str) -> Sequence[str]:
        """Read the ids of all agents, deleted ones too, and of `default` if it has a persona."""
        ...

    async def screenplay_ids(self, org: str) -> Sequence[str]:
        """Read the ids of all screenplays, deleted ones too."""
        ...

    async def live_screenplays(self, org: str) -> Sequence[Screenplay]:
        """Read all screenplays that are not deleted, without their texts."""
        ...

    async def agent(self, org: str, agent_id: str) -> Agent | None:
        """Read an agent that is stored."""
        ...

    async def persona(self, org: str, agent_id: str) -> Persona | None:
        """Read the persona of an agent."""
        ...

    async def numbers(self, org: str, agent_id: str) -> Sequence[int]:
        """Read the numbers of its versions, in order."""
        ...

    async def version(self, org: str, agent_id: str, number: int) -> PersonaVersion | None:
        """Read one of them."""
        ...

    async def screenplay(self, org: str, screenplay_id: str) -> Screenplay | None:
        """Read a screenplay."""
        ...

    async def revisions(self, org: str, screenplay_id: str) -> Sequence[int]:
        """Read the revisions its earlier texts came in, in order."""
        ...

    async def text(self, org: str, screenplay_id: str, revision: int) -> Text | None:
        """Read one of them."""
        ...

    async def holder(self, org: str, field: str, path: str) -> str | None:
        """Read the id of the screenplay that has a path.

        Args:
            field: `file_path` or `import_path`.
        """
        ...


class Yaml(Protocol):
    """YAML files that hold keys and values."""

    def read(self, raw: bytes) -> Mapping[str, Any]:
        """Read a file. Raises ValueError when it is something else."""
        ...

    def written(self, row: Mapping[str, Any]) -> bytes:
        """Write a file; what it says is read back the same."""
        ...


class ImportRunningError(Exception):
    """Another import of the organisation is under way.

    Attributes:
        import_id: which.
    """

    def __init__(self, import_id: str) -> None:
        super().__init__(f"import {import_id} is under way")
        self.import_id = import_id


@dataclass(frozen=True, slots=True)
class Claim:
    """An import as it is stored."""

    org: str
    id: str
    batches: int = 0
    """How many batches are set aside."""
    applied: int = 0
    """How many of them are applied."""
    committed: bool = False
    """Whether it is to be applied whatever happens; else it is nothing yet."""
    dropped: bool = False
    """Whether it is about to be removed."""
    create_time: int = 0
    """Microseconds since the epoch."""
    version: int = 1
    """Of the stored document. It becomes one more with each sign of life of who works on it."""


class Imports(Protocol):
    """Imports, and what they set aside.

    An import is nothing until it is committed, by one change of its document; from then on it is
    applied batch by batch, by whoever finds it. Methods that change an import raise FencedError when
    somebody else did.
    """

    async def begin(self, org: str, import_id: str, now: int) -> Claim:
        """Store a new import. Raises ImportRunningError."""
        ...

    async def running(self, org: str) -> Claim | None:
        """Read the import of an organisation that is under way."""
        ...

    async def get(self, org: str, import_id: str) -> Claim | None:
        """Read an import."""
        ...

    async def save(self, claim: Claim) -> Claim:
        """Store a changed import, or only say that somebody works on it."""
        ...

    async def stage(self, claim: Claim, items: Sequence[Item]) -> Claim:
        """Set the next batch aside, and count it."""
        ...

    async def apply(self, claim: Claim) -> Sequence[str]:
        """Apply the next batch; done again, it changes nothing more. It is not counted here.

        Returns:
            A sentence about each thing that could not be stored as it was wanted.
        """
        ...

    async def remove(self, claim: Claim) -> None:
        """Remove an import with all it set aside; done again, nothing happens."""
        ...

    async def unfinished(self) -> Sequence[Claim]:
        """Read the imports of all organisations that are under way."""
        ...
