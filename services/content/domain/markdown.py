"""Checking Markdown: what is wrong with a text, and where; findings never keep it from being stored.

Lines end with LF, CRLF or CR, as in CommonMark, and with nothing else; columns count characters. In code,
between fences or indented, only the length of lines counts; in code within a line nothing does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from services.content.domain import blocks, links
from services.content.domain.blocks import Blocks
from services.content.domain.findings import Finding, Severity
from services.content.domain.links import Fault

MOST_FINDINGS = 1000
LONGEST_LINE = 120
_SHOWN = 10
"""How many characters of a long fence are shown."""
_BOM = "\ufeff"

_FAULTS = {
    Fault.TOO_DEEP: (
        Severity.ERROR,
        "heading-too-deep",
        "The line begins with more than 6 number signs, which makes no heading.",
        "Use 1 to 6, or write \\# where none is meant.",
    ),
    Fault.NO_TEXT: (
        Severity.WARNING,
        "empty-link-text",
        "The link has no text.",
        "Write what it leads to between the brackets.",
    ),
    Fault.NO_TARGET: (
        Severity.WARNING,
        "empty-link-target",
        "The link leads nowhere.",
        "Write the address between the parentheses.",
    ),
    Fault.MALFORMED: (
        Severity.WARNING,
        "malformed-link",
        "Brackets and parentheses make no link here.",
        "Write [text](target), or \\[ where none is meant.",
    ),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong with a text."""

    errors: Sequence[Finding] = ()
    """In the order of lines."""
    warnings: Sequence[Finding] = ()
    """In the order of lines."""
    truncated: bool = False
    """Whether there is more. Warnings are left out before errors are."""

    @property
    def is_valid(self) -> bool:
        """Whether nothing is an error."""
        return not self.errors

    def first(self, most: int) -> tuple[Finding, ...]:
        """Return so many findings in the order of lines; warnings are left out before errors are."""
        errors = list(self.errors[:most])
        return tuple(sorted([*errors, *self.warnings[: most - len(errors)]], key=_place))


def check(text: str) -> Report:
    """Check a text, in time linear in its length."""
    if not text.lstrip(_BOM).strip():
        message = "The text holds only white space." if text else "The text is empty."
        finding = Finding(Severity.ERROR, "empty-text", message, "Write something.")
        return Report(errors=(finding,))
    shift = int(text.startswith(_BOM))
    lines = text[shift:].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    parsed = blocks.parse(lines)
    found = [
        *_most(_long_lines(lines)),
        *_most(_trailing_space(lines, parsed.code)),
        *_most(_jumps(parsed)),
        *_most(_unclosed_fences(parsed)),
        *_faults(parsed),
    ]
    found = sorted((_shifted(one, shift) for one in found), key=_place)
    errors = [one for one in found if one.severity is Severity.ERROR]
    warnings = [one for one in found if one.severity is Severity.WARNING]
    room = max(MOST_FINDINGS - len(errors), 0)
    return Report(errors[:MOST_FINDINGS], warnings[:room], truncated=len(found) > MOST_FINDINGS)


def _most(found: Iterator[Finding]) -> Iterator[Finding]:
    """Take as many as may be answered, and one more, which tells that there are."""
    return islice(found, MOST_FINDINGS + 1)


def _long_lines(lines: Sequence[str]) -> Iterator[Finding]:
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            yield Finding(
                Severity.WARNING,
                "long-line",
                f"The line has {len(line)} characters.",
                f"Break it before character {LONGEST_LINE + 1}.",
                line=number,
                column=LONGEST_LINE + 1,
            )


def _trailing_space(lines: Sequence[str], code: bytes | bytearray) -> Iterator[Finding]:
    for number, line in enumerate(lines, 1):
        if line.endswith((" ", "\t")) and not code[number - 1]:
            yield Finding(
                Severity.WARNING,
                "trailing-white-space",
                "White space ends the line.",
                "Remove it; a backslash at the end of a line breaks it, too.",
                line=number,
                column=len(line.rstrip(" \t")) + 1,
            )


def _jumps(parsed: Blocks) -> Iterator[Finding]:
    before = 0
    for heading in parsed.headings:
        if heading.level > before + 1:
            yield Finding(
                Severity.WARNING,
                "heading-level-jump",
                f"A heading of level {heading.level} follows one of level {before}."
                if before
                else f"The first heading is of level {heading.level}.",
                f"Use level {before + 1}.",
                line=heading.line,
                column=heading.column,
            )
        before = heading.level


def _unclosed_fences(parsed: Blocks) -> Iterator[Finding]:
    for fence in parsed.fences:
        if not fence.closed:
            mark = fence.mark if len(fence.mark) <= _SHOWN else f"{fence.mark[:_SHOWN]}…"
            yield Finding(
                Severity.ERROR,
                "unclosed-fence",
                f"The code that {mark} opens is not closed.",
                f"Add a line of {mark} where the code ends, as far in as the one that opens it.",
                line=fence.line,
                column=fence.column,
            )


def _faults(parsed: Blocks) -> Iterator[Finding]:
    counts = Counter[Fault]()
    for passage in parsed.passages:
        for fault, line, column in links.faults(passage, parsed.labels):
            counts[fault] += 1
            if counts[fault] <= MOST_FINDINGS + 1:
                yield Finding(*_FAULTS[fault], line=line, column=column)


def _shifted(finding: Finding, shift: int) -> Finding:
    if not shift or finding.line != 1:
        return finding
    return replace(finding, column=finding.column + shift)


def _place(finding: Finding) -> tuple[int, int, str]:
    return finding.line, finding.column, finding.rule
