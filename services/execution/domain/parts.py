r"""Parts of a prompt: what others wrote, between tags that no text can open or close.

A part is `<mesh-NAME-NONCE>`, its text and `</mesh-NAME-NONCE>`, each on lines of their own. The nonce is
one that occurs in none of the texts; and whatever in a text could be taken
for such a tag, with this nonce or without, gets a backslash behind its first character: `<mesh-persona>`
becomes `<\mesh-persona>`, and `<\mesh-persona>` becomes `<\\mesh-persona>`. So nothing is lost:
`unescaped` takes them away again. Other tags stay as they are.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from string import ascii_lowercase

_MARK = "mesh"
_NONCE_DIGITS = 16
_WITHIN = 80
"""How many letters and digits behind a tag's first one its nonce is looked for."""

_BETWEEN = r"[^\w<]*+"
"""What may be between letters: all that is neither letter nor digit, blanks and invisible characters too."""

_ALIKE: Mapping[str, str] = {
    # Characters that look like the first and do not decompose to it: Cyrillic, Greek and Armenian letters,
    # small capitals, digits; less-than wide, small, as quotation mark or bracket; letters that nobody sees.
    "<": "\uff1c\ufe64\u02c2\u2039\u00ab\u227a\u226a\u22d6\u27e8\u27ea\u2329\u3008\u300a\u276c\u276e"
    "\u2770\u29fc\u1438",
    "-": "_\u115f\u1160\u3164\uffa0",
    "a": "4\u0430\u0410\u0251\u03b1\u0391\u1d00",
    "b": "8\u042c\u044c\u0412\u0432\u03b2\u0392\u0299",
    "c": "\u0441\u0421\u03f2\u03f9\u1d04",
    "d": "\u0501\u0256\u1d05",
    "e": "3\u0435\u0415\u0454\u0404\u03b5\u0395\u212e\u0437\u0417\u1d07",
    "f": "\u03dd\u0192\ua730",
    "g": "9\u0261\u050d\u0262",
    "h": "\u04bb\u041d\u043d\u0397\u029c",
    "i": "1lL\u0456\u0406\u03b9\u0399\u0131\u04cf\u026a",
    "k": "\u043a\u041a\u03ba\u039a\u1d0b",
    "m": "\u043c\u041c\u039c\u1d0d",
    "n": "\u043f\u03b7\u039d\u0578\u0274",
    "o": "0\u043e\u041e\u03bf\u039f\u03c3\u0585\u1d0f",
    "p": "\u0440\u0420\u03c1\u03a1\u1d18",
    "r": "\u0433\u0280",
    "s": "5\u0455\u0405\ua731",
    "t": "7\u0442\u0422\u03c4\u03a4\u1d1b",
    "u": "\u03c5\u057d\u1d1c",
    "v": "\u03bd\u0475\u1d20",
    "x": "\u0445\u0425\u03c7\u03a7",
    "y": "\u0443\u0423\u03b3\u03a5\u028f",
}
_BEGINNING = re.compile(f"[<&%{_ALIKE['<']}]")
_FORMS = (
    # Where characters decompose to a letter or digit: with accents, raised, in circles, wide, italic.
    (0xA0, 0x250),
    (0x1D2C, 0x1DC0),
    (0x1E00, 0x1F00),
    (0x2070, 0x2190),
    (0x2460, 0x2500),
    (0xFF00, 0xFFF0),
    (0x1D400, 0x1D800),
    (0x1F100, 0x1F200),
)


class Part(StrEnum):
    """The parts there are."""

    PERSONA = "persona"
    INSTRUCTIONS = "instructions"
    SCREENPLAY_NAME = "screenplay-name"
    SCREENPLAY = "screenplay"
    TITLE = "conversation-title"
    CONTEXT = "conversation-context"
    DIRECTORY = "directory"
    AGENT = "agent"
    """The name of another agent, which says the message that follows."""
    MESSAGE = "message"
    NOTE = "note"


def nonce(id_: str, number: int = 0) -> str:
    """Make a nonce of a run or a conversation: always the same ones, each by its number."""
    named = f"{id_}\0{number}" if number else id_
    digest = hashlib.sha256(b"parts of a prompt\0" + named.encode())
    return digest.hexdigest()[:_NONCE_DIGITS]


def tags(part: Part, nonce_: str) -> tuple[str, str]:
    """Write the tags that open and close a part."""
    name = f"{_MARK}-{part}-{nonce_}"
    return f"<{name}>", f"</{name}>"


def enclosed(part: Part, text: str, nonce_: str) -> str:
    """Write a part."""
    opening, closing = tags(part, nonce_)
    return f"{opening}\n{escaped(text, nonce_)}\n{closing}"


def escaped(text: str, nonce_: str) -> str:
    """Mark whatever could be taken for a tag of a part."""
    if _BEGINNING.search(text) is None:
        return text
    # Folding takes most of the time, so it is done once unless something was marked.
    folded = _folded(text)
    for pattern in _patterns_for(folded, nonce_):
        if ends := _ends(pattern, folded):
            text = "\\".join(_pieces(text, ends))
            folded = _folded(text)
    return text


def unescaped(text: str, nonce_: str) -> str:
    """Read a text back that was escaped with the same nonce."""
    for pattern in reversed(_patterns_for(_folded(text), nonce_)):
        ends = [end for end in _ends(pattern, _folded(text)) if text[end - 1] == "\\"]
        if ends:
            first, *others = _pieces(text, [end - 1 for end in ends])
            text = "".join((first, *(piece[1:] for piece in others)))
    return text


def _ends(pattern: re.Pattern[str], folded: str) -> list[int]:
    """Find the places behind the beginning of each tag, and the backslashes there."""
    return [found.end() for found in pattern.finditer(folded)]


def _pieces(text: str, places: Sequence[int]) -> Iterator[str]:
    """Cut a text at some places."""
    for first, end in pairwise((0, *places, len(text))):
        yield text[first:end]


def _patterns_for(folded: str, nonce_: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Match the beginning of what could be taken for a tag in a text, and the backslashes behind it."""
    # Behind each less-than the nonce is looked for, which takes long where it is nowhere.
    return _patterns(nonce_ if _spelling(nonce_).search(folded) else "")


@lru_cache(maxsize=256)
def _spelling(nonce_: str) -> re.Pattern[str]:
    return re.compile(_spelt(nonce_))


@lru_cache(maxsize=256)
def _patterns(nonce_: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Match tags with a nonce or without; without alone if the nonce is empty.

    Of what follows so little is looked at that reading a text takes time in proportion to its length,
    whatever it is. The second is for less-than as HTML and URLs write it, which a model may read.
    """
    encoded = (
        rf"&(?:{_folded('lt')}|#{_folded('0')}*6{_folded('0')}|#x{_folded('0')}*{_folded('3c')});?"
    )
    return (
        _pattern("<", "<", nonce_),
        _pattern(f"{encoded}|%{_folded('3c')}", "<&%", nonce_),
    )


def _pattern(opening: str, openings: str, nonce_: str) -> re.Pattern[str]:
    """Make a pattern for a folded text."""
    names = "|".join(_spelt(part) for part in Part)
    following = f"{_BETWEEN}{_spelt(_MARK)}{_BETWEEN}(?:{names})"
    if nonce_:
        # Marks are not counted, so that a marked text is read like the one it was.
        letters = rf"(?:[^\w{openings}]*+\w){{0,{_WITHIN}}}?"
        following += f"|{letters}{_BETWEEN}{_spelt(nonce_)}"
    return re.compile(rf"(?:{opening})\\*+(?={following})")


def _spelt(word: str) -> str:
    return _BETWEEN.join(one for one in _folded(word) if one.isalnum())


def _folded(text: str) -> str:
    return text.translate(_folding())


@lru_cache(maxsize=1)
def _folding() -> Mapping[int, str]:
    """Gather the characters that look like another one; each has one character in its place."""
    table = {ord(one.upper()): one for one in ascii_lowercase}
    for first, end in _FORMS:
        for number in range(first, end):
            base = _base(chr(number))
            if len(base) == 1:
                table[number] = base
    alike = {one: base for base, ones in _ALIKE.items() for one in ones}
    # What decomposes to a character that looks like another one is the same as that.
    table = {number: alike.get(base, base) for number, base in table.items()}
    return table | {ord(one): base for one, base in alike.items()}


def _base(character: str) -> str:
    """Find the letter or digit that a character is a form of; else empty, or more than one."""
    letters = unicodedata.normalize("NFKD", character).casefold()
    return "".join(one for one in letters if one.isascii() and one.isalnum())
