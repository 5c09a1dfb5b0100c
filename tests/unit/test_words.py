"""What things are found by."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.resources.words import LONGEST, MOST_TERMS, folded, query_terms, terms


def finds(query: str, *texts: str, tags: tuple[str, ...] = ()) -> bool:
    return set(query_terms(query, ())) <= terms(texts, tags)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("wri", "The Writer"),
        ("WRITER the", "The Writer"),
        ("über", "ÜBERSICHT"),
        ("strasse", "Straße"),
        ("file", "ﬁle"),
        ("\uff12", "2 files"),
        ("हिन्दी", "यह हिन्दी है"),
        ("code-rev", "code_reviewer.v2"),
        ("v2", "code_reviewer.v2"),
        ("小", "小説を書く"),
        ("x" * 60, "x" * 100),
        ("?!", "anything"),
        ("", "anything"),
    ],
)
def test_a_query_finds_what_has_words_that_begin_like_its_own(query: str, text: str) -> None:
    assert finds(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [("riter", "The Writer"), ("writers", "The Writer"), ("the editor", "The Writer"), ("a", "")],
)
def test_a_query_finds_nothing_by_the_middle_of_words_or_by_some_of_them(
    query: str, text: str
) -> None:
    assert not finds(query, text)


def test_tags_are_found_whole_and_whatever_their_case() -> None:
    found = terms(["text"], ["Big News"])

    assert set(query_terms("", ["big news "])) <= found
    assert not set(query_terms("", ["big"])) <= found
    assert not set(query_terms("tag:big", ())) <= found


def test_a_thing_has_only_so_many_terms_and_its_tags_are_among_them() -> None:
    texts = [" ".join(f"{number:03d}{'x' * 21}" for number in range(1000))]

    found = terms(texts, ["last"])

    assert len(found) == MOST_TERMS
    assert set(query_terms("", ["last"])) <= found
    assert found == terms(texts, ["last"])


def test_a_query_says_nothing_twice() -> None:
    assert query_terms("write writer wr other", ["b", "B", "a"]) == (
        "other",
        "writer",
        "tag:a",
        "tag:b",
    )


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_found_by_itself_and_by_every_case_of_it(text: str) -> None:
    found = terms([text], ())

    for query in (text, text.upper(), text.lower(), text.casefold(), folded(text)):
        assert set(query_terms(query, ())) <= found or len(found) == MOST_TERMS
    assert all(1 <= len(term) <= LONGEST for term in found)
