"""How one text became another, line by line.

Only a line feed ends a line, as for `patch` and `git`: a carriage return, a form feed or a line separator
of Unicode is a character like others. A text that does not end with a line feed has a last line without
one, which is another line than the same with one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

_CONTEXT = 3
_PASSES = 8
"""How often each line is looked at, at most, in search of lines that are there once."""
_STEPS = 400_000
"""How many steps the search for the shortest way takes, at most, next to a few for each line."""
_STEPS_A_LINE = 4

_Block = tuple[int, int, int]
"""Lines that are in both: where they begin in the first text and in the second, and how many."""
_Span = tuple[int, int, int, int]
"""Part of both texts: from and to in the first, from and to in the second."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one text became another."""

    diff: str
    """A unified diff with three lines of context; empty when the texts are equal."""
    added_lines: int
    removed_lines: int
    unchanged_lines: int
    from_lines: int
    to_lines: int
    change_percentage: float
    """Added and removed lines in percent of the lines of both texts, rounded to two places."""


def compare(
    before: str, after: str, from_label: str, to_label: str, name: str = "text.md"
) -> Comparison:
    """Compare two texts.

    The diff is a short one for most texts and a right one for all: the search is bounded, and what was
    not matched until then is matched more coarsely. Texts of 50,000 characters take a fifth of a second
    at worst, those of 1 MiB a few. The longest diff is twice as long as both texts together.

    Args:
        from_label: what the first text is, for people, such as `version 3`.
        to_label: what the second one is.
        name: the name of the file that `patch` and `git apply` are to change.
    """
    a, b = lines_of(before), lines_of(after)
    numbers: dict[str, int] = {}
    blocks = _common(
        [numbers.setdefault(line, len(numbers)) for line in a],
        [numbers.setdefault(line, len(numbers)) for line in b],
    )
    unchanged = sum(size for _, _, size in blocks)
    changed, total = len(a) + len(b) - 2 * unchanged, len(a) + len(b)
    diff = ""
    if changed:
        head = (
            f"--- a/{_name(name)}\t{_plain(from_label)}\n+++ b/{_name(name)}\t{_plain(to_label)}\n"
        )
        diff = head + "".join(_hunks(a, b, blocks))
    return Comparison(
        diff,
        added_lines=len(b) - unchanged,
        removed_lines=len(a) - unchanged,
        unchanged_lines=unchanged,
        from_lines=len(a),
        to_lines=len(b),
        change_percentage=round(100 * changed / total, 2) if total else 0.0,
    )


def lines_of(text: str) -> list[str]:
    """Part a text into lines, each with its line feed; none has one that ends with the text."""
    *lines, last = text.split("\n")
    ended = [f"{line}\n" for line in lines]
    return [*ended, last] if last else ended


# What both have


def _common(a: Sequence[int], b: Sequence[int]) -> list[_Block]:
    """Find lines that are in both in the same order, as blocks in this order."""
    found: list[_Block] = []
    spans: list[_Span] = [(0, len(a), 0, len(b))]
    lines = len(a) + len(b)
    room, steps = _PASSES * lines, _STEPS + _STEPS_A_LINE * lines
    while spans:
        span, ends = _trimmed(a, b, spans.pop())
        found += ends
        a_from, a_to, b_from, b_to = span
        if a_from == a_to or b_from == b_to:
            continue
        room -= a_to - a_from + b_to - b_from
        anchors = _paired(a, b, span, once=True) if room >= 0 else []
        if anchors:
            for i, j in anchors:
                spans.append((a_from, i, b_from, j))
                found.append((i, j, 1))
                a_from, b_from = i + 1, j + 1
            spans.append((a_from, a_to, b_from, b_to))
            continue
        pairs, taken = _shortest(a, b, span, steps)
        steps -= taken
        if pairs is None:
            pairs = _paired(a, b, span, once=False)
        found += [(i, j, 1) for i, j in pairs]
    return _joined(sorted(found))


def _trimmed(a: Sequence[int], b: Sequence[int], span: _Span) -> tuple[_Span, list[_Block]]:
    """Take away what both parts begin with and what both end with."""
    a_from, a_to, b_from, b_to = span
    most = min(a_to - a_from, b_to - b_from)
    head = 0
    while head < most and a[a_from + head] == b[b_from + head]:
        head += 1
    most -= head
    tail = 0
    while tail < most and a[a_to - 1 - tail] == b[b_to - 1 - tail]:
        tail += 1
    ends = [(a_from, b_from, head), (a_to - tail, b_to - tail, tail)]
    return (a_from + head, a_to - tail, b_from + head, b_to - tail), ends


def _paired(
    a: Sequence[int], b: Sequence[int], span: _Span, *, once: bool
) -> list[tuple[int, int]]:
    """Pair lines and keep as many pairs as do not cross.

    Args:
        once: pair only lines that both parts have once (Bram Cohen's patience diff); else the first of
            each kind with the first, the second with the second, and so on.
    """
    a_from, a_to, b_from, b_to = span
    places: dict[int, list[int]] = defaultdict(list)
    for j in range(b_from, b_to):
        places[b[j]].append(j)
    counts: Counter[int] = Counter(a[a_from:a_to])
    seen: Counter[int] = Counter()
    pairs: list[tuple[int, int]] = []
    for i in range(a_from, a_to):
        line = a[i]
        those = places.get(line)
        if those is None or (once and (len(those) > 1 or counts[line] > 1)):
            continue
        if seen[line] < len(those):
            pairs.append((i, those[seen[line]]))
        seen[line] += 1
    return _rising(pairs)


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Keep the longest run of pairs whose second parts rise as their first ones do."""
    ends: list[int] = []
    """By length, the lowest second part that a run of that length ends with, and its pair."""
    tops: list[int] = []
    before: list[int] = []
    for number, (_, j) in enumerate(pairs):
        length = bisect_left(ends, j)
        before.append(tops[length - 1] if length else -1)
        if length == len(ends):
            ends.append(j)
            tops.append(number)
        else:
            ends[length], tops[length] = j, number
    kept: list[tuple[int, int]] = []
    number = tops[-1] if tops else -1
    while number >= 0:
        kept.append(pairs[number])
        number = before[number]
    return kept[::-1]


def _shortest(
    a: Sequence[int], b: Sequence[int], span: _Span, steps: int
) -> tuple[list[tuple[int, int]] | None, int]:
    """Find the most lines that are in both parts in the same order (Myers 1986, "O(ND)").

    Returns the pairs, None when it takes too many steps; and how many it took.
    """
    a_from, a_to, b_from, b_to = span
    theirs, ours = set(b[b_from:b_to]), set(a[a_from:a_to])
    # What only one part has is no step of the search.
    x_lines = [i for i in range(a_from, a_to) if a[i] in theirs]
    y_lines = [j for j in range(b_from, b_to) if b[j] in ours]
    n, m = len(x_lines), len(y_lines)
    if not n or not m:
        return [], 0
    xs, ys = [a[i] for i in x_lines], [b[j] for j in y_lines]
    most = min(n + m, isqrt(2 * min(max(steps, 0), _STEPS)))
    middle = most + 1
    # How far the best way on each diagonal came; those that are kept say how it was before each round.
    far = [0] * (2 * most + 3)
    rounds: list[list[int]] = []
    taken = 0
    for d in range(most + 1):
        rounds.append(far[middle - d - 1 : middle + d + 2])
        for k in range(-d, d + 1, 2):
            left, right = far[middle + k - 1], far[middle + k + 1]
            x = right if k == -d or (k != d and left < right) else left + 1
            y = x - k
            begin = x
            while x < n and y < m and xs[x] == ys[y]:
                x += 1
                y += 1
            taken += x - begin + 1
            far[middle + k] = x
            if x >= n and y >= m:
                way = _way_back(rounds, n, m)
                return [(x_lines[i], y_lines[j]) for i, j in way], taken
        if taken > steps:
            break
    return None, taken


def _way_back(rounds: Sequence[Sequence[int]], x: int, y: int) -> Iterator[tuple[int, int]]:
    """Walk back from the end, and tell the pairs on the way."""
    for d in range(len(rounds) - 1, -1, -1):
        far, k = rounds[d], x - y
        left, right = far[k + d], far[k + d + 2]
        down = k == -d or (k != d and left < right)
        begin_x = 0 if d == 0 else right if down else left + 1
        while x > begin_x:
            x, y = x - 1, y - 1
            yield x, y
        x, y = (x, y - 1) if down else (x - 1, y)


def _joined(blocks: Sequence[_Block]) -> list[_Block]:
    """Join blocks that follow upon one another in both texts, and drop empty ones."""
    joined: list[_Block] = []
    for i, j, size in blocks:
        if not size:
            continue
        if joined:
            last_i, last_j, last_size = joined[-1]
            if (last_i + last_size, last_j + last_size) == (i, j):
                joined[-1] = last_i, last_j, last_size + size
                continue
        joined.append((i, j, size))
    return joined


# What is printed


def _hunks(a: Sequence[str], b: Sequence[str], blocks: Sequence[_Block]) -> Iterator[str]:
    """Print changes that are no more than twice the context apart as one hunk."""
    changes: list[_Span] = []
    a_from = b_from = 0
    for i, j, size in (*blocks, (len(a), len(b), 0)):
        if (a_from, b_from) != (i, j):
            if changes and a_from - changes[-1][1] > 2 * _CONTEXT:
                yield from _hunk(a, b, changes)
                changes = []
            changes.append((a_from, i, b_from, j))
        a_from, b_from = i + size, j + size
    yield from _hunk(a, b, changes)


def _hunk(a: Sequence[str], b: Sequence[str], changes: Sequence[_Span]) -> Iterator[str]:
    before = min(_CONTEXT, changes[0][0], changes[0][2])
    after = min(_CONTEXT, len(a) - changes[-1][1], len(b) - changes[-1][3])
    a_from, a_to = changes[0][0] - before, changes[-1][1] + after
    b_from, b_to = changes[0][2] - before, changes[-1][3] + after
    yield f"@@ -{_range(a_from, a_to)} +{_range(b_from, b_to)} @@\n"
    place = a_from
    for i, i_to, j, j_to in changes:
        yield from _signed(" ", a[place:i])
        yield from _signed("-", a[i:i_to])
        yield from _signed("+", b[j:j_to])
        place = i_to
    yield from _signed(" ", a[place:a_to])


def _range(begin: int, end: int) -> str:
    """Print where a hunk is; an empty one is after the line of that number."""
    if end - begin == 1:
        return str(end)
    return f"{begin + 1 if end > begin else begin},{end - begin}"


def _signed(sign: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield f"{sign}{line}"
        if not line.endswith("\n"):
            yield "\n\\ No newline at end of file\n"


def _name(name: str) -> str:
    """Make a file name that needs no quotes."""
    return "".join("_" if letter in '"\\' else letter for letter in _plain(name)).strip() or "text"


def _plain(label: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in label)
