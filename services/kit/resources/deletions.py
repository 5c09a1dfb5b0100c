"""How things are deleted and come back, with what belongs to them.

A thing is deleted by one change of its own document: it gets the id of the deletion, and notes that
what belongs to it is still to be marked. That note is the outbox row: who dies after the change has
left it behind, and whoever finds it goes on. Each of those below takes the mark of a deletion once;
one that was deleted before by itself keeps its own, so it does not come back with the others.

The ids of deletions have the order they were made in, so a mark that comes late is known by its id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

_DAY = 24 * 3600 * 1_000_000


class Cascade(StrEnum):
    """What is still to be done to those that belong to a thing."""

    NONE = ""
    MARK = "mark"
    """They are to be deleted with it."""
    UNMARK = "unmark"
    """They are to come back with it."""
    PURGE = "purge"
    """They are to go for good, and it after them."""
    MARK_AFAR = "mark_afar"
    """Those of its own service are deleted with it; those of others are to be."""
    UNMARK_AFAR = "unmark_afar"
    """Those of its own service came back with it; those of others are to."""


AFAR = (Cascade.MARK_AFAR, Cascade.UNMARK_AFAR)
"""What only those of other services are still to follow in."""


@dataclass(frozen=True, slots=True)
class Life:
    """Whether a thing is deleted, and how."""

    deletion: str = ""
    """The id of the deletion it went with; empty while it is not deleted."""
    delete_time: int | None = None
    """Microseconds since the epoch."""
    last_deletion: str = ""
    """The newest deletion that it handed on to what belongs to it, or took the mark of. It takes no
    older one: whoever is late with one that was taken back marks nothing."""
    inherited: bool = False
    """Whether it went with what it belongs to. It comes back and goes for good with that alone."""
    cascade: Cascade = Cascade.NONE

    @property
    def live(self) -> bool:
        """Whether it is not deleted."""
        return not self.deletion

    @property
    def purging(self) -> bool:
        """Whether it is about to go for good, and cannot come back."""
        return self.cascade is Cascade.PURGE


def purge_time(delete_time: int, keep_days: float) -> int:
    """Tell when what was deleted goes for good; both times in microseconds since the epoch."""
    return delete_time + round(keep_days * _DAY)


def is_due(life: Life, keep_days: float, now: int) -> bool:
    """Tell whether a thing that was deleted by itself was so long ago that it goes for good.

    Args:
        now: microseconds since the epoch.
    """
    if life.delete_time is None or life.inherited or life.purging:
        return False
    return purge_time(life.delete_time, keep_days) < now


def deleted(life: Life, deletion: str, now: int, cascade: Cascade = Cascade.MARK) -> Life:
    """Delete a thing; one that is deleted stays as it is.

    Args:
        deletion: the id of a new deletion.
        now: microseconds since the epoch.
        cascade: `MARK`, or `NONE` for a thing that nothing belongs to.
    """
    if not life.live:
        return life
    if cascade is Cascade.NONE:
        return replace(life, deletion=deletion, delete_time=now)
    if deletion <= life.last_deletion:
        # The clock that made the id is behind. A longer id comes after the one it begins with.
        deletion = f"{life.last_deletion}+"
    return Life(deletion, now, deletion, cascade=cascade)


def undeleted(life: Life) -> Life:
    """Take a deleted thing back, with what went with it.

    One that lives, goes for good or went with another stays as it is.
    """
    if life.live or life.purging or life.inherited:
        return life
    handed_on = life.deletion == life.last_deletion
    cascade = Cascade.UNMARK if handed_on else Cascade.NONE
    return Life(last_deletion=life.last_deletion, cascade=cascade)


def marked(life: Life, deletion: str, time: int) -> Life | None:
    """Delete a thing with the one it belongs to.

    Args:
        deletion: that of the other one.
        time: when the other one was deleted, in microseconds since the epoch.

    Returns:
        None when nothing is to change: it was deleted before by itself, or it took the mark of this
        deletion or of a newer one.
    """
    if deletion <= life.last_deletion or not (life.live or life.inherited):
        return None
    return replace(
        life, deletion=deletion, delete_time=time, last_deletion=deletion, inherited=True
    )


def unmarked(life: Life, deletion: str) -> Life | None:
    """Take a thing back with the one it went with; None when it did not go with that deletion."""
    if not life.inherited or life.deletion != deletion:
        return None
    return replace(life, deletion="", delete_time=None, inherited=False)


def purging(life: Life) -> Life:
    """Let a deleted thing go for good.

    Raises:
        ValueError: it is not deleted.
    """
    if life.live:
        raise ValueError("what lives is deleted first")
    return replace(life, cascade=Cascade.PURGE)


def staged(deletion: str, now: int) -> Life:
    """Begin a life that counts for nothing until `begun`: it goes for good when nobody comes back.

    For what is made of several documents, this one first. What belongs to it takes the mark of the
    deletion once it is there.
    """
    return Life(deletion, now, deletion, cascade=Cascade.PURGE)


def begun(life: Life) -> Life:
    """Let what was staged live, and what belongs to it."""
    return Life(last_deletion=life.deletion, cascade=Cascade.UNMARK)


def overwritten(before: Life, after: Life) -> Life:
    """Replace a life by one that was kept elsewhere, such as in a backup.

    What belongs to the thing in its own service is replaced with it; those of others are to follow. They
    come back from whatever the thing was deleted by here. A deletion that they heard the end of before
    is old to them, and they stay.
    """
    left = before.cascade if before.cascade in AFAR else Cascade.NONE
    if not after.live:
        is_new = after.deletion != before.deletion
        return replace(after, cascade=Cascade.MARK_AFAR if is_new else left)
    newest = max(before.last_deletion, after.last_deletion)
    return Life(last_deletion=newest, cascade=left if before.live else Cascade.UNMARK_AFAR)


def done(life: Life, *, afar: bool = False) -> Life:
    """Note that what belongs to a thing has followed it.

    Args:
        afar: whether something of other services belongs to it, too, and is to follow now.
    """
    left = {Cascade.MARK: Cascade.MARK_AFAR, Cascade.UNMARK: Cascade.UNMARK_AFAR} if afar else {}
    return replace(life, cascade=left.get(life.cascade, Cascade.NONE))
