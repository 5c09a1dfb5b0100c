"""Models and prices from `models.yaml`, and from a file of the owner's that goes before it."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib import resources
from pathlib import Path

import yaml

from services.execution.domain import NANO, Model, Price
from services.kit.settings import SettingsError

_LOG = logging.getLogger(__name__)

ANY = "*"
"""The row for every model of its provider that has none."""

_SETTING = "CONDUCTOR_EXECUTION_PRICE_FILE"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_FILE_BYTES = 1 << 20
_MAX_DOLLARS = 1_000_000
_MAX_TOKENS = 1_000_000_000
_NANO_DOLLAR = Decimal(1) / NANO
_PRICES = ("input", "output", "cached_input", "cache_write_input")
_LIMITS = ("context_tokens", "max_output_tokens")
_KEYS = (*_PRICES, *_LIMITS, "description")


class _Wrong(Exception):
    """A table cannot be used; the message says where and what to do."""


@dataclass(frozen=True, slots=True)
class _Row:
    """What a row says of a model; None for what it leaves out."""

    price: Price | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    description: str | None = None

    def over(self, other: _Row) -> _Row:
        """Lay this row over another; a price is taken whole, not key by key."""
        return _Row(
            other.price if self.price is None else self.price,
            other.context_tokens if self.context_tokens is None else self.context_tokens,
            other.max_output_tokens if self.max_output_tokens is None else self.max_output_tokens,
            other.description if self.description is None else self.description,
        )


_Table = Mapping[str, Mapping[str, _Row]]
_Mark = tuple[int, ...]


class FilePrices:
    """What models cost and how large they are, as two files say.

    The owner's file is looked at again at each look-up: one that has changed counts from then on,
    and one that cannot be used any more leaves the figures before in force and one ERROR in the log.

    Args:
        own: the owner's file; None for the table that ships.
        providers: the names there are, if they are known: prices of others help nobody, and are a
            WARNING in the log.

    Raises:
        SettingsError: the owner's file cannot be used; names the row and the fix.
    """

    def __init__(self, own: Path | None = None, providers: Collection[str] | None = None) -> None:
        shipped = resources.files("services.execution").joinpath("models.yaml")
        self._own = own
        self._shipped = _table(shipped.read_text("utf-8"))
        self._table: _Table = self._shipped
        self._mark: _Mark | None = None
        if own is not None:
            self._mark = _mark(own)
            try:
                self._table = _over(_read(own), self._shipped)
            except _Wrong as wrong:
                raise SettingsError(f"{_SETTING}: {wrong}") from None
        self._providers = None if providers is None else {*self._shipped, *providers}
        self._warn_of_strangers()
        self._models = {
            ai_provider: {
                id_: Model(
                    id_,
                    ai_provider,
                    row.description or "",
                    row.context_tokens,
                    row.max_output_tokens,
                )
                for id_, row in rows.items()
                if id_ != ANY
            }
            for ai_provider, rows in self._table.items()
        }

    def models(self, ai_provider: str) -> Mapping[str, Model]:
        """Name the models of a provider by id, as the files were at the start.

        The first is its default; there may be none.
        """
        return self._models.get(ai_provider, {})

    def price(self, ai_provider: str, model: str) -> Price | None:
        """Look up what a model costs now; None when neither file says."""
        if self._own is not None:
            self._look_again(self._own)
        rows = self._table.get(ai_provider, {})
        row = rows.get(model) or rows.get(ANY)
        return None if row is None else row.price

    def _look_again(self, own: Path) -> None:
        mark = _mark(own)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._table = _over(_read(own), self._shipped)
        except _Wrong as wrong:
            _LOG.error(
                "The price file changed and cannot be used; the prices before stay in force: %s",
                wrong,
            )
        else:
            _LOG.info("The price file changed; runs from now on have its prices.")
            self._warn_of_strangers()

    def _warn_of_strangers(self) -> None:
        strangers = () if self._providers is None else self._table.keys() - self._providers
        for name in strangers:
            _LOG.warning("The price file has prices of %r, and no provider has that name.", name)


def _mark(file: Path) -> _Mark | None:
    """Tell one state of a file from another; None when it is not there."""
    try:
        found = os.stat(file)  # noqa: PTH116 on the path of a run, and half the time
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _read(file: Path) -> _Table:
    try:
        return _table(_text(file))
    except _Wrong as wrong:
        raise _Wrong(f"{file}: {wrong}") from None


def _text(file: Path) -> str:
    try:
        # What is not a file may block or never end.
        if not stat.S_ISREG(file.stat().st_mode):
            raise _Wrong("it is not a file; name one.")
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _Wrong(
            f"it cannot be read ({error}); name a file that this process may read."
        ) from None
    if len(content) > _MAX_FILE_BYTES:
        raise _Wrong(f"it has more than {_MAX_FILE_BYTES} bytes; leave out what is not used.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Wrong("it is not UTF-8; save it as UTF-8.") from None


def _over(own: _Table, shipped: _Table) -> _Table:
    empty: Mapping[str, _Row] = {}
    laid = {ai_provider: dict(rows) for ai_provider, rows in shipped.items()}
    for ai_provider, rows in own.items():
        below = shipped.get(ai_provider, empty)
        laid.setdefault(ai_provider, {}).update(
            (id_, row.over(below.get(id_, _Row()))) for id_, row in rows.items()
        )
    return laid


def _table(text: str) -> _Table:
    """Read a table event by event.

    So nothing nests or expands without end, a number is the text that was written, a name given
    twice is seen, and everything has a line.
    """
    events = iter(yaml.parse(text, Loader=_LOADER))
    try:
        next(events)
        if isinstance(next(events), yaml.StreamEndEvent):
            raise _Wrong("it has no rows; write one, or unset the setting.")
        _mapping(next(events), "the file", "providers")
        table: dict[str, dict[str, _Row]] = {}
        for ai_provider, place, value in _entries(events, ""):
            _mapping(value, place, "models")
            table[ai_provider] = rows = {}
            for id_, model_place, row in _entries(events, f"{ai_provider}: "):
                _mapping(row, model_place, "prices and limits")
                rows[id_] = _row(dict(_cells(events, model_place)), id_, model_place)
        next(events)
        if not isinstance(next(events), yaml.StreamEndEvent):
            raise _Wrong("it has a second document; leave one.")
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise _Wrong(f"{line}{error.problem}; make it YAML.") from None
    except yaml.YAMLError as error:
        raise _Wrong(f"{str(error).splitlines()[0]}; make it YAML.") from None
    return table


def _entries(events: Iterator[yaml.Event], where: str) -> Iterator[tuple[str, str, yaml.Event]]:
    """Read a mapping to its end: each name, its place for people, and the first of its value."""
    seen = set()
    for key in events:
        if isinstance(key, yaml.MappingEndEvent):
            return
        if not isinstance(key, yaml.ScalarEvent):
            raise _Wrong(f"{where}line {_line(key)}: a name must be text; write it plainly.")
        place = f"{where}{key.value} (line {_line(key)})"
        if key.value in seen:
            raise _Wrong(f"{place} is there twice; leave one.")
        seen.add(key.value)
        yield key.value, place, next(events)


def _mapping(event: yaml.Event, place: str, content: str) -> None:
    if not isinstance(event, yaml.MappingStartEvent):
        raise _Wrong(f"{place} must hold {content} by name; see the form in models.yaml.")


def _line(event: yaml.Event) -> int:
    return 0 if event.start_mark is None else event.start_mark.line + 1


def _cells(events: Iterator[yaml.Event], place: str) -> Iterator[tuple[str, str]]:
    for key, _, value in _entries(events, f"{place}: "):
        if key not in _KEYS:
            raise _Wrong(f"{place}: {key} is unknown; there are {', '.join(_KEYS)}.")
        if not isinstance(value, yaml.ScalarEvent):
            raise _Wrong(f"{place}: {key} must be one value, written out.")
        yield key, value.value


def _row(cells: Mapping[str, str], id_: str, place: str) -> _Row:
    if id_ == ANY and not {"input", "output"} <= cells.keys() <= set(_PRICES):
        raise _Wrong(f"{place} must hold input and output, and beside them only prices.")
    money = {key: _nano(cells[key], f"{place}: {key}") for key in _PRICES if key in cells}
    if money and not {"input", "output"} <= money.keys():
        raise _Wrong(f"{place} has a price without input or output; write both.")
    limits = {key: _count(cells[key], f"{place}: {key}") for key in _LIMITS if key in cells}
    return _Row(Price(**money) if money else None, **limits, description=cells.get("description"))


def _nano(text: str, place: str) -> int:
    """Read dollars as nano-dollars, exactly."""
    try:
        dollars = Decimal(text)
        if dollars.is_finite() and 0 <= dollars <= _MAX_DOLLARS:
            whole = dollars.quantize(_NANO_DOLLAR)
            if whole == dollars:
                return int(whole * NANO)
    except InvalidOperation:
        pass
    raise _Wrong(
        f"{place} is {text[:40]!r}; write US dollars for a million tokens, from 0 to "
        f"{_MAX_DOLLARS} with at most 9 decimals."
    )


def _count(text: str, place: str) -> int:
    digits = text.replace("_", "")
    if digits.isascii() and digits.isdigit() and len(digits) <= len(str(_MAX_TOKENS)):
        count = int(digits)
        if 1 <= count <= _MAX_TOKENS:
            return count
    raise _Wrong(f"{place} is {text[:40]!r}; write tokens, a whole number from 1 to {_MAX_TOKENS}.")
