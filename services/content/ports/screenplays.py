"""What screenplays need from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.content.domain.screenplays import Screenplay, Text, Wanted
from services.kit.resources.ports import Roots


class Screenplays(Roots[Screenplay], Protocol):
    """The stored screenplays.

    No two that are not deleted have the same `file_path`, nor the same `import_path`: `add` and the ways
    to change one raise TakenError, whose field is `file_key` or `import_key`.
    """

    async def add(self, screenplay: Screenplay) -> Screenplay:
        """Store a new screenplay.

        Raises:
            TakenError: also `request_key`.
        """
        ...

    async def save_text(self, screenplay: Screenplay, replaced: Text) -> Screenplay:
        """Store a screenplay that got another text, and first the one it had.

        That one may stay behind when the screenplay cannot be stored; it is right also then.

        Raises:
            FencedError: somebody else was there first.
        """
        ...

    async def by_request_id(self, org: str, request_id: str) -> Screenplay | None:
        """Read the screenplay a request_id made, deleted or not."""
        ...

    async def by_path(self, org: str, field: str, path: str) -> Screenplay | None:
        """Read the screenplay, not deleted, that has a path.

        Args:
            field: `file_path` or `import_path`.
        """
        ...

    async def by_content(self, org: str, content_hash: str, limit: int) -> Sequence[Screenplay]:
        """Read screenplays, not deleted, with an equal text; without it."""
        ...

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Screenplay]:
        """Read a page of screenplays, without their texts."""
        ...

    def place(self, screenplay: Screenplay, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of a screenplay in a list."""
        ...


class Texts(Protocol):
    """The texts that screenplays had."""

    async def get(self, org: str, screenplay_id: str, revision: int) -> Text | None:
        """Read a text by the revision in which it came."""
        ...

    async def list(self, org: str, screenplay_id: str, below: int, limit: int) -> Sequence[Text]:
        """Read texts that came before a revision, newest first, without the texts themselves."""
        ...

    async def remove(self, *texts: Text) -> None:
        """Remove texts; when somebody else removes some of them meanwhile, others may stay."""
        ...
