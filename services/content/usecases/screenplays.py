"""Making, reading, changing and deleting screenplays, and the texts they had."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from services.content.domain import comparisons, markdown, paths, screenplays
from services.content.domain.comparisons import Comparison
from services.content.domain.markdown import Report
from services.content.domain.screenplays import (
    KEPT_TEXTS,
    UNIQUE_PATHS,
    Asked,
    Checked,
    Screenplay,
    Text,
    Wanted,
)
from services.content.ports.screenplays import Screenplays, Texts
from services.content.ports.work import Workbench
from services.kit.errors import DomainError, Resource
from services.kit.resources import deletions, etags, request_ids
from services.kit.resources.cascades import Cascades
from services.kit.resources.conflicts import contended
from services.kit.resources.ports import FencedError, TakenError

_TRIES = 30
_FINDINGS = 100
_SAME = 10
_SPARE = 10
"""How many revisions go by before texts that are too old are removed."""
_BRIEF = 16 * 1024
"""How many characters are looked at at once; longer texts go to a thread, so that others go on."""
_BEYOND = 2**32
"""A revision that no screenplay gets to."""
_FIELDS = {"file_key": "file_path", "import_key": "import_path"}


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Who has a path, and who an equal text."""

    path: str
    """As it is kept; empty when none was given."""
    holder: Screenplay | None
    same_content: tuple[Screenplay, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Two texts, and how the first became the second."""

    before: Text
    after: Text
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class _Shown:
    """An etag that a caller shows, as `etags.check` has it."""

    etag: str
    force: bool = False
    required: bool = False

    def check(self, stored: Screenplay, *, changes: bool) -> None:
        """Hold it against the one of a screenplay."""
        etags.check(
            self.etag,
            stored.etag,
            force=self.force,
            required=self.required,
            what=stored.resource,
            changes=changes,
        )


class ScreenplayService:
    """The screenplays.

    Args:
        clock: microseconds since the epoch.
        new_id: makes ids of screenplays.
        new_deletion_id: makes ids of deletions.
        workbench: where long texts are looked at.
    """

    def __init__(
        self,
        stored: Screenplays,
        texts: Texts,
        cascades: Cascades[Screenplay],
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        new_deletion_id: Callable[[], str],
        workbench: Workbench,
    ) -> None:
        self._screenplays = stored
        self._texts = texts
        self._cascades = cascades
        self._clock = clock
        self._workbench = workbench
        self._new_id = new_id
        self._new_deletion_id = new_deletion_id

    async def create(self, org: str, asked: Asked, author: str) -> Checked:
        """Make a screenplay; a repeated request_id answers the one it made before.

        Args:
            author: who asks, as in audit records.

        Raises:
            DomainError: INVALID_REQUEST, SCREENPLAY_PATH_TAKEN, REQUEST_ID_REUSED, CONFLICT.
        """
        asked = replace(asked, values=screenplays.tidy(asked.values))
        for _ in range(_TRIES):
            if asked.request_id:
                earlier = await self._screenplays.by_request_id(org, asked.request_id)
                if earlier is not None and not earlier.life.purging:
                    digest = screenplays.digest_of(asked)
                    request_ids.same_request(digest, earlier.digest, earlier.resource)
                    return Checked(earlier)
            made = screenplays.made(org, self._new_id(), asked, self._clock(), author)
            try:
                return await self._checked(await self._screenplays.add(made))
            except TakenError as error:
                if error.field in _FIELDS:
                    await self._refuse(made, error.field, "screenplay.")
        raise _contended("")

    async def get(
        self, org: str, screenplay_id: str, *, include_deleted: bool = False
    ) -> Screenplay:
        """Read a screenplay with its text.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND.
        """
        screenplay = await self._screenplays.get(org, screenplay_id)
        if screenplay is None or screenplay.life.purging:
            raise screenplays.not_found(screenplay_id)
        if not screenplay.life.live and not include_deleted:
            raise screenplays.is_deleted(screenplay_id)
        return screenplay

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Screenplay]:
        """Read a page of screenplays, without their texts."""
        return await self._screenplays.list(org, wanted, after, limit)

    def place(self, screenplay: Screenplay, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of a screenplay in a list."""
        return self._screenplays.place(screenplay, wanted)

    async def update(
        self,
        org: str,
        screenplay_id: str,
        values: Mapping[str, Any],
        etag: str,
        author: str,
        *,
        force: bool,
    ) -> Checked:
        """Change a screenplay; what changes nothing leaves its etag as it is.

        Args:
            values: by the names of the fields that change.
            etag: the one the change started from.
            author: who asks, as in audit records.
            force: whether to change it whatever its etag is.

        Raises:
            DomainError: INVALID_REQUEST, SCREENPLAY_NOT_FOUND, SCREENPLAY_PATH_TAKEN, ETAG_MISMATCH,
                CONFLICT.
        """
        values = screenplays.tidy(values)

        async def change(_: Screenplay) -> Mapping[str, Any]:
            return values

        shown = _Shown(etag, force=force, required=True)
        return await self._change(org, screenplay_id, change, shown, author, "screenplay.")

    async def rename(
        self,
        org: str,
        screenplay_id: str,
        name: str,
        etag: str,
        author: str,
        *,
        move_files: bool,
    ) -> Checked:
        """Give a screenplay another name.

        Args:
            etag: the one it has to have; empty for any.
            author: who asks, as in audit records.
            move_files: whether the files it is kept in and exported to get the name, too.

        Raises:
            DomainError: as `update` does.
        """
        name = screenplays.normal_name(name, "new_name")

        async def change(stored: Screenplay) -> Mapping[str, Any]:
            return screenplays.renamed(stored, name, move_files=move_files)

        return await self._change(org, screenplay_id, change, _Shown(etag), author, "new_name")

    async def set_working_directory(
        self, org: str, screenplay_id: str, directory: str
    ) -> Screenplay:
        """Set where runs that work on a screenplay work; no new revision.

        Raises:
            DomainError: INVALID_REQUEST, SCREENPLAY_NOT_FOUND, CONFLICT.
        """
        screenplays.tidy({"working_directory": directory}, "")
        return await self._note(
            org, screenplay_id, lambda stored: replace(stored, working_directory=directory)
        )

    async def mark_used(self, org: str, screenplay_id: str) -> Screenplay:
        """Note that a screenplay was used now; no new revision.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND, CONFLICT.
        """
        return await self._note(
            org, screenplay_id, lambda stored: screenplays.used(stored, self._clock())
        )

    async def delete(self, org: str, screenplay_id: str, etag: str, *, purge: bool) -> None:
        """Delete a screenplay; its paths are free at once.

        Args:
            etag: the one it has to have; empty for any.
            purge: whether it goes for good, deleted before or not.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND, ETAG_MISMATCH, CONFLICT.
        """
        for _ in range(_TRIES):
            stored = await self.get(org, screenplay_id, include_deleted=purge)
            etags.check(etag, stored.etag, force=False, required=False, what=stored.resource)
            life = deletions.deleted(stored.life, self._new_deletion_id(), self._clock())
            if purge:
                life = deletions.purging(life)
            try:
                going = await self._screenplays.save(replace(stored, life=life))
            except FencedError:
                continue
            await self._cascades.finish(going, screenplay_id)
            return
        raise _contended(screenplay_id)

    async def undelete(self, org: str, screenplay_id: str, *, drop_taken_paths: bool) -> Screenplay:
        """Take a deleted screenplay back; one that is not deleted is answered as it is.

        Args:
            drop_taken_paths: whether it comes back without the paths that others have now, which is a
                change of it.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND, SCREENPLAY_PATH_TAKEN, CONFLICT.
        """
        taken: set[str] = set()
        for _ in range(_TRIES):
            stored = await self.get(org, screenplay_id, include_deleted=True)
            if stored.life.live:
                return stored
            back = screenplays.undeleted(stored, taken, self._clock())
            try:
                saved = await self._screenplays.save(back)
            except FencedError:
                continue
            except TakenError as error:
                if drop_taken_paths:
                    taken.add(_FIELDS[error.field])
                    continue
                hint = ", or take it back with drop_taken_paths"
                await self._refuse(back, error.field, "", hint)
            else:
                await self._cascades.finish(saved, screenplay_id)
                return await self.get(org, screenplay_id, include_deleted=True)
        raise _contended(screenplay_id)

    async def restore(
        self, org: str, screenplay_id: str, revision: int, etag: str, author: str
    ) -> Checked:
        """Make a text that is kept the text of the screenplay again.

        Args:
            etag: the one the screenplay has to have; empty for any.
            author: who asks, as in audit records.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND, SCREENPLAY_VERSION_NOT_FOUND, ETAG_MISMATCH, CONFLICT.
        """

        async def change(stored: Screenplay) -> Mapping[str, Any]:
            return {"content": (await self._text(stored, revision)).content}

        return await self._change(org, screenplay_id, change, _Shown(etag), author, "")

    async def take_in(self, org: str, asked: Asked, author: str, *, overwrite: bool) -> Checked:
        """Make a screenplay of a file, or change the one that was imported from the same path.

        Args:
            asked: with the `import_path`; without a name it is named like the file.
            author: who asks, as in audit records.
            overwrite: whether the text of that one is replaced.

        Raises:
            DomainError: INVALID_REQUEST, SCREENPLAY_PATH_TAKEN, CONFLICT.
        """
        path = paths.normal(asked.values["import_path"], "import_path")
        named = {"name": screenplays.import_name(path), **asked.values, "import_path": path}
        values = screenplays.tidy(named, at="")
        content = values.get("content", "")
        for _ in range(_TRIES):
            holder = await self._screenplays.by_path(org, "import_path", path)
            if holder is None:
                made = screenplays.made(org, self._new_id(), Asked(values), self._clock(), author)
                try:
                    return await self._checked(await self._screenplays.add(made))
                except TakenError:
                    continue
            if holder.content == content:
                return Checked(holder)
            if not overwrite:
                raise screenplays.path_taken(
                    "import_path", path, holder, ", or import it with overwrite"
                )
            changed = screenplays.changed(holder, {"content": content}, self._clock(), author)
            if changed is not None and (saved := await self._saved(holder, changed)) is not None:
                return await self._checked(saved)
        raise _contended(path)

    async def check(self, content: str) -> Report:
        """Check a text."""
        if len(content) <= _BRIEF:
            return markdown.check(content)
        return await self._workbench.do(markdown.check, content)

    async def duplicates(self, org: str, path: str, content: str, exclude_id: str) -> Duplicates:
        """Find who has a path, and who has an equal text.

        Args:
            path: empty for none.
            content: empty for none.
            exclude_id: who does not count; empty for nobody.

        Raises:
            DomainError: INVALID_REQUEST.
        """
        path = paths.normal(path, "file_path")
        found = None
        for name in UNIQUE_PATHS if path else ():
            holder = await self._screenplays.by_path(org, name, path)
            if holder is not None and holder.id != exclude_id:
                found = holder
                break
        hashed = screenplays.content_hash(content)
        return Duplicates(path, found, await self._same(org, hashed, exclude_id))

    async def texts(
        self, org: str, screenplay_id: str, below: int | None, limit: int
    ) -> Sequence[Text]:
        """Read the texts that are kept, newest first, without the texts themselves.

        Args:
            below: only those that came in earlier revisions; None for all.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND.
        """
        current = screenplays.text_of(await self.get(org, screenplay_id))
        shown = [current] if below is None else []
        # The current one is not read from the others, among which somebody may have left it behind.
        below = current.revision if below is None else below
        return [*shown, *await self._texts.list(org, screenplay_id, below, limit - len(shown))]

    async def text(self, org: str, screenplay_id: str, revision: int) -> Text:
        """Read the text that a screenplay had in a revision.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND, SCREENPLAY_VERSION_NOT_FOUND.
        """
        return await self._text(await self.get(org, screenplay_id), revision)

    async def compare(
        self, org: str, screenplay_id: str, before: int, after: int | None
    ) -> Compared:
        """Compare the texts of two revisions.

        Args:
            after: None for the newest.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND, SCREENPLAY_VERSION_NOT_FOUND.
        """
        stored = await self.get(org, screenplay_id)
        first = await self._text(stored, before)
        second = await self._text(stored, stored.revision if after is None else after)
        comparison = await self._workbench.do(
            comparisons.compare,
            first.content,
            second.content,
            f"version {first.revision}",
            f"version {second.revision}",
        )
        return Compared(first, second, comparison)

    async def _change(
        self,
        org: str,
        screenplay_id: str,
        change: Callable[[Screenplay], Awaitable[Mapping[str, Any]]],
        shown: _Shown,
        author: str,
        at: str,
    ) -> Checked:
        """Store a change, again when somebody else was faster.

        Args:
            change: says what changes, or raises.
            shown: the etag of the caller.
            at: what stands before the names of paths in errors; whole, when it is a field.
        """
        for _ in range(_TRIES):
            stored = await self.get(org, screenplay_id)
            values = await change(stored)
            changed = screenplays.changed(stored, values, self._clock(), author)
            shown.check(stored, changes=changed is not None)
            if changed is None:
                return Checked(stored)
            try:
                saved = await self._saved(stored, changed)
            except TakenError as error:
                await self._refuse(changed, error.field, at)
                continue
            if saved is not None:
                is_new = saved.text_revision == saved.revision
                return await self._checked(saved) if is_new else Checked(saved)
        raise _contended(screenplay_id)

    async def _note(
        self, org: str, screenplay_id: str, change: Callable[[Screenplay], Screenplay]
    ) -> Screenplay:
        """Store a change that makes no revision, whatever others change meanwhile."""
        for _ in range(_TRIES):
            stored = await self.get(org, screenplay_id)
            with suppress(FencedError):
                return await self._screenplays.save(change(stored))
        raise _contended(screenplay_id)

    async def _saved(self, stored: Screenplay, changed: Screenplay) -> Screenplay | None:
        """Store a new revision; None when somebody else was faster."""
        if changed.text_revision == stored.text_revision:
            with suppress(FencedError):
                return await self._screenplays.save(changed)
            return None
        replaced = screenplays.text_of(stored)
        try:
            saved = await self._screenplays.save_text(changed, replaced)
        except FencedError:
            found = await self._screenplays.get(stored.org, stored.id)
            if found is None or found.life.purging:
                # Its texts may have been removed before this one came.
                await self._texts.remove(replaced)
            return None
        # A few go at once: else every save would cost twice as much.
        is_due = saved.revision // _SPARE > replaced.revision // _SPARE
        if saved.revision > KEPT_TEXTS and is_due:
            most = KEPT_TEXTS - 1
            older = await self._texts.list(
                saved.org, saved.id, saved.text_revision, most + 2 * _SPARE
            )
            if older[most:]:
                await self._texts.remove(*older[most:])
        return saved

    async def _text(self, stored: Screenplay, revision: int) -> Text:
        if stored.text_revision <= revision <= stored.revision:
            return screenplays.text_of(stored)
        found: Text | None = None
        if revision < stored.text_revision:
            for one in await self._texts.list(stored.org, stored.id, revision + 1, 1):
                found = await self._texts.get(stored.org, stored.id, one.revision)
        if found is None:
            raise screenplays.no_version(stored.id, revision)
        return found

    async def _checked(self, screenplay: Screenplay) -> Checked:
        """Say what there is to a text that came just now."""
        report = await self.check(screenplay.content)
        same = await self._same(screenplay.org, screenplay.content_hash, screenplay.id)
        return Checked(screenplay, report.first(_FINDINGS), same)

    async def _same(self, org: str, content_hash: str, but: str) -> tuple[Screenplay, ...]:
        if not content_hash:
            return ()
        found = await self._screenplays.by_content(org, content_hash, _SAME + 1)
        return tuple(one for one in found if one.id != but)[:_SAME]

    async def _refuse(self, wanted: Screenplay, key: str, at: str, hint: str = "") -> None:
        """Name who has a path, unless nobody has it any more.

        Raises:
            DomainError: SCREENPLAY_PATH_TAKEN.
        """
        name = _FIELDS[key]
        path: str = getattr(wanted, name)
        holder = await self._screenplays.by_path(wanted.org, name, path)
        if holder is not None:
            field = f"{at}{name}" if not at or at.endswith(".") else at
            raise screenplays.path_taken(field, path, holder, hint)


class TextKin:
    """The texts that a screenplay had: they are seen with it alone, and go for good with it."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        """Leave them: who is deleted shows no texts."""

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        """Leave them."""

    async def purge(self, org: str, parent_id: str) -> None:
        """Remove them."""
        while found := await self._texts.list(org, parent_id, _BEYOND, KEPT_TEXTS):
            await self._texts.remove(*found)


def _contended(what: str) -> DomainError:
    return contended(Resource("screenplay", what))
