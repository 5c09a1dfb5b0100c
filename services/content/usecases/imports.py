"""Taking an archive in: all of it, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Self

from services.content.domain.archives import ArchiveError, Layout, TooLargeError
from services.content.domain.directories import Reading
from services.content.domain.imports import (
    ImportReport,
    Item,
    Phase,
    Progress,
    Put,
)
from services.content.ports.archives import (
    Archives,
    Claim,
    ImportRunningError,
    Imports,
    Library,
    Received,
    Yaml,
)
from services.content.usecases.exports import TOLD_EVERY, too_large
from services.content.usecases.keeping import ImportKeeper
from services.content.usecases.migrations import Migration, things_of
from services.content.usecases.plans import Plan, is_root
from services.kit.errors import DomainError, Reason, Resource, Violation
from services.kit.resources.ports import FencedError

_TOLD_BYTES = 8 * 1024 * 1024
_BATCH_CHARACTERS = 1024 * 1024
_RENEWED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Asked:
    """How to take an archive in."""

    layout: Layout
    dry_run: bool = False
    force: bool = False
    """Whether what exists and differs is overwritten."""
    author: str = ""
    """Who takes it in, as in audit records."""


class Importer:
    """Takes archives in.

    Nothing is written before the whole archive was checked, and then everything is, even if the process
    dies. While it is written, others see a part of it. What others change in that time is kept where it
    is nothing that the archive overwrites.

    Args:
        clock: microseconds since the epoch.
        monotonic: seconds.
        new_id: makes ids of imports.
        new_play_id: makes those of screenplays.
        batch: how many things are set aside and applied at a time.
    """

    def __init__(
        self,
        library: Library,
        imports: Imports,
        archives: Archives,
        keeper: ImportKeeper,
        yaml: Yaml,
        *,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
        new_play_id: Callable[[], str],
        batch: int = 100,
    ) -> None:
        self._library = library
        self._imports = imports
        self._archives = archives
        self._keeper = keeper
        self._yaml = yaml
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id
        self._new_play_id = new_play_id
        self._batch = batch

    async def run(
        self, org: str, asked: Asked, chunks: AsyncIterator[bytes]
    ) -> AsyncGenerator[Progress | ImportReport, None]:
        """Take an archive in; answers how far it is, and what happened at the end.

        Raises:
            DomainError: ARCHIVE_INVALID, ARCHIVE_TOO_LARGE; CONFLICT while another one is taken in;
                STORE_FULL.
        """
        if not asked.dry_run and (running := await self._imports.running(org)) is not None:
            raise _is_running(running.id)
        try:
            with self._archives.receiving() as received:
                told = 0
                async for chunk in chunks:
                    await received.receive(chunk)
                    if received.size - told >= _TOLD_BYTES:
                        told = received.size
                        yield Progress(Phase.RECEIVE, told)
                yield Progress(Phase.RECEIVE, received.size, received.size)
                async with aclosing(self._taken_in(org, asked, received)) as steps:
                    async for step in steps:
                        yield step
        except TooLargeError as error:
            raise too_large(error) from None
        except ArchiveError as error:
            raise _invalid(error) from None

    async def _taken_in(
        self, org: str, asked: Asked, received: Received
    ) -> AsyncGenerator[Progress | ImportReport, None]:
        report = ImportReport(asked.dry_run)
        taken_in = self._backup if asked.layout is Layout.BACKUP else self._directory
        if asked.dry_run:
            async for progress in taken_in(org, asked, received, report, None):
                yield progress
        else:
            total = 0
            async with _Staging(
                self._imports, self._keeper, self._monotonic, self._batch
            ) as staging:
                async for progress in taken_in(org, asked, received, report, staging):
                    total = progress.total
                    yield progress
                claim = await staging.committed()
            if claim is not None:
                async for progress in self._applied(claim, report, total):
                    yield progress
        yield report

    async def _backup(
        self,
        org: str,
        asked: Asked,
        received: Received,
        report: ImportReport,
        staging: _Staging | None,
    ) -> AsyncGenerator[Progress, None]:
        """Check a backup, decide on what it holds, and set aside what is to be written."""
        total = 0
        async for records in received.backup(org):
            before, total = total, total + sum(map(is_root, records))
            if total // TOLD_EVERY > before // TOLD_EVERY:
                yield Progress(Phase.CHECK, total)
        yield Progress(Phase.CHECK, total, total)
        if staging is not None:
            await staging.begin(org, self._new_id(), self._clock())
        plan = await self._decided(org, asked, received, report, staging)
        if staging is not None:
            async for progress in self._staged(org, received, plan, staging):
                yield progress

    async def _directory(
        self,
        org: str,
        asked: Asked,
        received: Received,
        report: ImportReport,
        staging: _Staging | None,
    ) -> AsyncGenerator[Progress, None]:
        """Check a directory, decide on what it holds, and set aside what is to be written."""
        total = await self._check_directory(received, report)
        yield Progress(Phase.CHECK, total, total)
        if staging is not None:
            await staging.begin(org, self._new_id(), self._clock())
        migration = Migration(
            org, asked.force, asked.author, self._library, report, self._clock, self._new_play_id
        )
        reading = Reading(self._yaml.read, lambda *_: None)
        done = 0
        async for thing in things_of(received.directory(), reading):
            if done % TOLD_EVERY == 0:
                yield Progress(Phase.STAGE, done, total)
            done += 1
            for item in await migration.items(thing):
                if staging is not None:
                    await staging.add(item)
            if staging is not None:
                await staging.renew()
        yield Progress(Phase.STAGE, total, total)

    async def _check_directory(self, received: Received, report: ImportReport) -> int:
        """Read all files of a directory; return how many things they are."""

        def find(rule: str, where: str, message: str) -> None:
            report.find(rule, where, message)

        reading = Reading(self._yaml.read, find)
        total = 0
        async for _ in things_of(received.directory(), reading):
            total += 1
        if reading.problems:
            raise _all_invalid(reading.problems)
        if report.findings and not reading.known:
            raise ArchiveError("", "it holds neither agents/ nor screenplays/ at its top")
        return total

    async def _staged(
        self, org: str, received: Received, plan: Plan, staging: _Staging
    ) -> AsyncGenerator[Progress, None]:
        """Set aside what is to be written."""
        for item in plan.first():
            await staging.add(item)
        yield Progress(Phase.STAGE, 0, plan.writing)
        done = 0
        async for records in received.backup(org):
            for record in records:
                for item in plan.items(record):
                    await staging.add(item)
                done += is_root(record) and plan.writes(record)
                if is_root(record) and done % TOLD_EVERY == 0:
                    yield Progress(Phase.STAGE, done, plan.writing)
        for item in plan.rest():
            await staging.add(item)
        yield Progress(Phase.STAGE, plan.writing, plan.writing)

    async def _decided(
        self,
        org: str,
        asked: Asked,
        received: Received,
        report: ImportReport,
        staging: _Staging | None,
    ) -> Plan:
        """Hold everything against what there is."""
        plan = Plan(org, asked.force, self._library, report)
        async for records in received.backup(org):
            for record in records:
                await plan.see(record)
            if staging is not None:
                await staging.renew()
        await plan.settle()
        return plan

    async def _applied(
        self, claim: Claim, report: ImportReport, total: int
    ) -> AsyncGenerator[Progress, None]:
        """Apply what is committed, whether or not the caller waits for it."""
        told: asyncio.Queue[int | None] = asyncio.Queue()
        task = self._keeper.finishing(claim, told.put_nowait)
        task.add_done_callback(lambda _: told.put_nowait(None))
        while (batches := await told.get()) is not None:
            yield Progress(Phase.APPLY, total * batches // max(1, claim.batches), total)
        try:
            notes = task.result()
        except asyncio.CancelledError:
            raise DomainError(
                Reason.REASON_SHUTTING_DOWN,
                "The process ends; what was taken in is applied by the next one.",
                retry_after=1.0,
            ) from None
        except DomainError as error:
            raise DomainError(
                error.reason,
                f"{error.message} What was taken in is safe, and is applied by itself.",
                retry_after=error.retry_after,
            ) from error
        for note in notes:
            report.find("changed-meanwhile", note.split(" ", 1)[0], note)


class _Staging:
    """Sets items aside in batches, and forgets them again unless they get committed."""

    def __init__(
        self,
        imports: Imports,
        keeper: ImportKeeper,
        monotonic: Callable[[], float],
        batch: int,
    ) -> None:
        self._imports = imports
        self._keeper = keeper
        self._monotonic = monotonic
        self._batch = batch
        self._claim: Claim | None = None
        self._items: list[Item] = []
        self._characters = 0
        self._renewed = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Forget what is set aside, unless it is committed."""
        if self._claim is not None:
            await asyncio.shield(self._keeper.dropping(self._claim))

    async def begin(self, org: str, import_id: str, now: int) -> None:
        """Store the import."""
        try:
            self._claim = await self._imports.begin(org, import_id, now)
        except ImportRunningError as error:
            raise _is_running(error.import_id) from None
        self._renewed = self._monotonic()

    async def add(self, item: Item) -> None:
        """Set an item aside."""
        self._items.append(item)
        if isinstance(item, Put):
            self._characters += len(getattr(item.record, "content", ""))
        if len(self._items) >= self._batch or self._characters >= _BATCH_CHARACTERS:
            await self._flush()
        else:
            await self.renew()

    async def renew(self) -> None:
        """Say every now and then that somebody works on it."""
        assert self._claim is not None
        if self._monotonic() - self._renewed >= _RENEWED_SECONDS:
            await self._save(self._imports.save(self._claim))

    async def committed(self) -> Claim | None:
        """Commit: from now on it is applied, whatever happens. None when there is nothing to do."""
        await self._flush()
        assert self._claim is not None
        if not self._claim.batches:
            return None
        await self._save(self._imports.save(replace(self._claim, committed=True)))
        claim, self._claim = self._claim, None
        return claim

    async def _flush(self) -> None:
        assert self._claim is not None
        if self._items:
            await self._save(self._imports.stage(self._claim, self._items))
        self._items, self._characters = [], 0

    async def _save(self, saving: Awaitable[Claim]) -> None:
        assert self._claim is not None
        try:
            self._claim = await saving
        except FencedError:
            # Who took it for left alone may have looked before the last batch was there.
            lost = replace(self._claim, batches=self._claim.batches + 1)
            self._claim = None
            await self._imports.remove(lost)
            raise DomainError(
                Reason.REASON_CONFLICT,
                "The import was silent for too long and was given up; nothing was written. Try again.",
                retry_after=1.0,
            ) from None


def _is_running(import_id: str) -> DomainError:
    return DomainError(
        Reason.REASON_CONFLICT,
        f"Another archive is just being taken in ({import_id}); try again when it is done.",
        resources=[Resource("import", import_id)],
        retry_after=5.0,
    )


def _all_invalid(problems: Sequence[ArchiveError]) -> DomainError:
    """Make the error for a directory in which something is wrong; it names all that was found."""
    others = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
    return DomainError(
        Reason.REASON_ARCHIVE_INVALID,
        f"{problems[0].where}: {problems[0].why}.{others} Nothing was written.",
        violations=[Violation(problem.where, problem.why) for problem in problems],
    )


def _invalid(error: ArchiveError) -> DomainError:
    where = error.where or "archive"
    return DomainError(
        Reason.REASON_ARCHIVE_INVALID,
        f"{error.where or 'The archive'}: {error.why}. Nothing was written.",
        violations=[Violation(where, error.why)],
    )
