"""What things are found by: the beginnings of the words of their texts, and their tags."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import pairwise

LONGEST = 24
"""How many characters of a word count."""
MOST_TERMS = 2000
"""How many terms a thing has at most; what comes after them is not found."""
_TAG = "tag:"


def terms(texts: Iterable[str], tags: Iterable[str]) -> frozenset[str]:
    """Make the terms of a thing: every beginning of every word, and its tags.

    Tags count before texts, and texts in their order, when there are more than fit.
    """
    found: dict[str, None] = dict.fromkeys(map(_tag, tags))
    for text in texts:
        for word in _words(text):
            for end in range(1, len(word) + 1):
                if len(found) >= MOST_TERMS:
                    return frozenset(found)
                found[word[:end]] = None
    return frozenset(found)


def query_terms(query: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Make the terms a thing has to have, whose words begin like those of the query.

    A term that another one begins with says nothing more and is left out. A query without any word,
    such as `?`, asks for nothing.
    """
    words = sorted(set(_words(query)))
    # What begins with a word comes right after it.
    longest = [word for word, then in pairwise([*words, ""]) if not then.startswith(word)]
    return (*longest, *sorted(set(map(_tag, tags))))


def folded(text: str) -> str:
    """Bring texts that people read alike to one form: compatible characters, and no case."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", text)


def _tag(tag: str) -> str:
    return _TAG + folded(tag.strip())


def _words(text: str) -> Iterable[str]:
    # A mark belongs to the letter before it: without it many scripts would fall to pieces.
    parted = "".join(one if _is_part(one) else " " for one in folded(text))
    return (word[:LONGEST] for word in parted.split())


def _is_part(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"
