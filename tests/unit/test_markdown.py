"""Checking Markdown; its blocks are held against those of markdown-it, a reader of CommonMark."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from services.content.domain import blocks, markdown
from services.content.domain.findings import Severity

COMMONMARK = MarkdownIt("commonmark", {"maxNesting": blocks.DEPTH})
PARTS = (
    *(
        "# ",
        "## a",
        "a",
        "b c",
        "\n",
        "\n",
        "\n",
        "\n",
        "  ",
        " ",
        "- ",
        "* ",
        "1. ",
        "2) ",
        "10. ",
    ),
    *("> ", ">", "```", "~~~", "````", "---", "===", "=", "-", "***", "_", "+", "`", "\\", "é"),
    *("[b]", "(", '"t"', "#######", "<div>", "<p", "<a>", "</a>", "<pre>", "</pre>", "<!--", "-->"),
    *("<?", "?>", "<!X", "<![CDATA[", "]]>"),
)
LONG = "x" * 121


def found(text: str) -> list[tuple[str, int, int]]:
    report = markdown.check(text)
    both = sorted((*report.errors, *report.warnings), key=lambda one: (one.line, one.column))
    return [(one.rule, one.line, one.column) for one in both]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Nothing to say.
        ("# A\n\nSome [text](http://a.b/c).\n", []),
        ("no heading, no line feed", []),
        ("# A\n## B\n### C\n# D\n## E", []),
        # Empty texts.
        ("", [("empty-text", 0, 0)]),
        (" \r\n\t\n", [("empty-text", 0, 0)]),
        ("\ufeff\n", [("empty-text", 0, 0)]),
        # Too deep.
        ("####### a", [("heading-too-deep", 1, 1)]),
        ("a\n   #######a", [("heading-too-deep", 2, 4)]),
        ("> ####### a", [("heading-too-deep", 1, 3)]),
        ("- ####### a", [("heading-too-deep", 1, 3)]),
        ("a `b\n####### c`", []),
        ("\\####### a", []),
        # Fences.
        ("```", [("unclosed-fence", 1, 1)]),
        ("a\n\n  ~~~ py\nx\n~~", [("unclosed-fence", 3, 3)]),
        ("````\n```\n", [("unclosed-fence", 1, 1)]),
        ("```\n~~~\n", [("unclosed-fence", 1, 1)]),
        ("```\n``` x\n", [("unclosed-fence", 1, 1)]),
        ("```\n    ```\n", [("unclosed-fence", 1, 1)]),
        ("```\n`````  \n", []),
        ("~~~ a`b\n~~~", []),
        ("``` a`b\n", []),
        ("- a\n\n  ```\n  code\n  ```\n", []),
        ("1. a\n\n    ```\n    # no heading\n    ```\n", []),
        ("> ```\n> a\n\nb", [("unclosed-fence", 1, 3)]),
        ("- ```\n  a\n```\n", [("unclosed-fence", 1, 3), ("unclosed-fence", 3, 1)]),
        # Headings.
        ("## A", [("heading-level-jump", 1, 1)]),
        ("# A\n\n ### B", [("heading-level-jump", 3, 2)]),
        ("A\n===\n\n### B", [("heading-level-jump", 4, 1)]),
        ("A\n---", [("heading-level-jump", 1, 1)]),
        ("# A\n\n```\n### no\n```\n\n    ### no\n\n<div>\n### no\n</div>", []),
        ("# A\n> ### B", [("heading-level-jump", 2, 3)]),
        ("# A\n#B\n\\### C", []),
        ("- a\n\n     ## A", [("heading-level-jump", 3, 6)]),
        ("-\n\n     ## A", []),
        ("a\n1. ```", [("unclosed-fence", 2, 4)]),
        ("a\n2. ```", []),
        # Links.
        ("[a](", [("malformed-link", 1, 1)]),
        ("so [a] (b)", [("malformed-link", 1, 4)]),
        ("(a)[b]", [("malformed-link", 1, 4)]),
        ("[a](b c)", [("malformed-link", 1, 1)]),
        ("[a](b) and [c](d e)", [("malformed-link", 1, 12)]),
        ("[a [b](c) d](e)", [("malformed-link", 1, 1)]),
        ("[a [b](c) d] [](e)", [("empty-link-text", 1, 14)]),
        ("[](b)", [("empty-link-text", 1, 1)]),
        ("[a]()", [("empty-link-target", 1, 1)]),
        ("é𝄞 [ ]( <> )", [("empty-link-target", 1, 4), ("empty-link-text", 1, 4)]),
        ("![](a.png) ![b](<c d.png> 'e')", []),
        ("![a]()", [("empty-link-target", 1, 1)]),
        ("[![a](b)](c)", []),
        ("[a\nb](c\n'd')", []),
        ("[a](b(c)d) [a](\\()", []),
        ("`[a](b c)` ``[a](`[b](`` \\[a](b c)", []),
        ("``\n[a](b c)\n``", []),
        ("```\n[a](b c)\n```\n\n    [](b)\n", []),
        ("<http://a/[b](c> <i title='[a](b c)'> <!-- [a](b c) -->", []),
        ("- [ ] one (1)\n- [x] two (2)\n\nAs said[^1] (once).", []),
        ("(see [a] or [b][a])\n\n[A]: http://a.b\n", []),
        ("(see [a])\n\n[b]: c", [("malformed-link", 1, 6)]),
        ("a[0] of an index", []),
        ("# [a](b c)", [("malformed-link", 1, 3)]),
        ("> - x\n>   [](b)", [("empty-link-text", 2, 5)]),
        # Lines.
        (LONG, [("long-line", 1, 121)]),
        (f"```\n{LONG}\n```", [("long-line", 2, 121)]),
        ("𝄞" * 120, []),
        ("a \nb\t\nc", [("trailing-white-space", 1, 2), ("trailing-white-space", 2, 2)]),
        ("a\n \nb", [("trailing-white-space", 2, 1)]),
        ("```\na \n```", []),
        ("a \r\nb \rc\x0c\x85\u2028d ", [
            ("trailing-white-space", 1, 2),
            ("trailing-white-space", 2, 2),
            ("trailing-white-space", 3, 6),
        ]),
        ("\ufeff## A\n## B", [("heading-level-jump", 1, 2)]),
        ("-\t## A", [("heading-level-jump", 1, 3)]),
        (">\t>\t[](b)", [("empty-link-text", 1, 5)]),
    ],
)  # fmt: skip
def test_a_text_has_these_findings(text: str, expected: list[tuple[str, int, int]]) -> None:
    assert found(text) == expected


def test_errors_are_no_warnings() -> None:
    report = markdown.check("## A\n```")
    assert not report.is_valid
    assert [one.rule for one in report.errors] == ["unclosed-fence"]
    assert [one.rule for one in report.warnings] == ["heading-level-jump"]
    assert markdown.check("## A ").is_valid


def test_of_more_findings_than_are_answered_errors_come_first() -> None:
    report = markdown.check("a \n" * 2000 + "####### b\n" + "c \n" * 10)
    assert [one.line for one in report.errors] == [2001]
    assert [one.line for one in report.warnings] == list(range(1, 1000))
    assert report.truncated
    assert [one.line for one in report.first(3)] == [1, 2, 2001]
    many = markdown.check("#######\n" * 1500)
    assert (len(many.errors), len(many.warnings), many.truncated) == (1000, 0, True)
    assert not markdown.check("a \n" * 1000).truncated


@given(st.lists(st.sampled_from(PARTS), max_size=16).map("".join))
@settings(max_examples=300)
def test_headings_and_fences_are_those_of_commonmark(text: str) -> None:
    # markdown-it lets a quote go on at a `>` that is indented as code.
    assume(not re.search("    +>", text))
    text += "\n"
    tokens = COMMONMARK.parse(text)
    parsed = blocks.parse(text.split("\n")[:-1])
    assert [(one.level, one.line) for one in parsed.headings] == [
        (int(token.tag[1]), token.map[0] + 1)
        for token in tokens
        if token.type == "heading_open" and token.map
    ]
    assert [(one.mark, one.line, one.closed) for one in parsed.fences] == [
        (token.markup, begin + 1, end - begin == token.content.count("\n") + 2)
        for token in tokens
        if token.type == "fence" and token.map
        for begin, end in [token.map]
    ]


@given(
    st.text()
    | st.lists(st.sampled_from((*PARTS, "[", "](", ")", "\t", "\r")), max_size=20).map("".join)
)
@settings(max_examples=150)
def test_any_text_is_checked_and_findings_lie_within_it(text: str) -> None:
    report = markdown.check(text)
    assert report == markdown.check(text)
    lines = re.split("\r\n|\r|\n", text)
    for one in (*report.errors, *report.warnings):
        if one.rule == "empty-text":
            assert not text.replace("\ufeff", "").strip()
        else:
            assert 1 <= one.line <= len(lines)
            assert 1 <= one.column <= max(len(lines[one.line - 1]), 1)
    assert {one.severity for one in report.errors} <= {Severity.ERROR}
    assert {one.severity for one in report.warnings} <= {Severity.WARNING}


@given(st.lists(st.sampled_from((*PARTS, "[](", ")")), max_size=20).map("".join))
@settings(max_examples=100)
def test_what_is_between_fences_has_no_findings(text: str) -> None:
    code = "\n".join(line[:100] for line in text.splitlines())
    mark = "~" * (max((len(run) for run in re.findall("~+", code)), default=0) + 3)
    assert found(f"# A\n{mark}\n{code}\n{mark}\n") == []


@pytest.mark.parametrize(
    "part",
    ["[", "]", "[]", "![", "[a](", "](", "*", "`", "`` ", "<", "<!-- ", "<a b='", "(", "> ", "- ",
     "> - a\n", "```\n", "[a]: b\n", "[a](b 'c", "[x]", "\\[", "a\n=\n", "> ```\nb\n", "\t", "\n"],
)  # fmt: skip
def test_much_of_the_same_is_checked(part: str) -> None:
    """Each would take minutes if anything here took the square of its length."""
    text = part * (256 * 1024 // len(part))
    report = markdown.check(f"[x]: y\n\n{text}")
    assert len(report.errors) + len(report.warnings) <= markdown.MOST_FINDINGS
