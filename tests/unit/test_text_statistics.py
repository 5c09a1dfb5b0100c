from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content.domain.statistics import TextStatistics, statistics_of

TEXT = """\
# One *i*

Two
===

Some **bold**, __bold__ and _italic_ words, ***both***; 2 * 3 * 4 and snake_case_name.

- item [link](https://example.com) <https://example.com>
- item ![image **alt**](a.png)
  1. item
> - item

```python
# no heading, **no bold**, [no](link)
```

    code
`# **no** [no](no)`
"""


def test_a_text_is_counted_as_it_is_shown() -> None:
    assert statistics_of(TEXT) == TextStatistics(
        lines=18,
        words=44,
        characters=len(TEXT),
        headings=2,
        bold=3,
        italic=3,
        code_blocks=2,
        links=2,
        images=1,
        list_items=4,
    )


def test_only_line_feeds_end_lines_and_characters_are_no_bytes() -> None:
    found = statistics_of("ü\u2028🎈\f x\r\n\ny")
    assert (found.lines, found.words, found.characters) == (3, 4, 10)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab*_`[]()!<>#-=~1. \n\t\\&\"'", max_size=200))
def test_any_text_has_counts_that_fit_into_it(text: str) -> None:
    found = statistics_of(text)
    marks = found.bold + found.italic + found.links + found.images
    assert 0 <= found.headings + found.code_blocks + found.list_items + marks <= len(text)
    assert found.words <= found.characters == len(text)


@pytest.mark.timeout(20)
def test_a_text_made_to_be_hard_is_counted_in_the_end() -> None:
    found = statistics_of("# One\n" + "\n> ```\n_" * 4_000 + "\n\n# Two **b**\n")
    assert (found.headings, found.bold) == (2, 1)
