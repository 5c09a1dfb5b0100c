"""The templates that come with the mesh: complete, well-formed, each in words of its own."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

TEMPLATES = Path(__file__).parents[2] / "services/content/templates"
CATEGORIES = TEMPLATES / "categories.yaml"
FOLDERS = sorted(path for path in TEMPLATES.glob("*/*") if path.is_dir())
FILES = sorted(path for path in TEMPLATES.rglob("*") if path.is_file())
KEYS = [
    "schema_version",
    "name",
    "version",
    "description",
    "author",
    "group",
    "emoji",
    "color",
    "tags",
    "capabilities",
    "tools",
    "mcp_servers",
    "instructions",
]
SECTIONS = ["Role", "What you are good at", "Output format", "Boundaries", "Tone"]
TOOLS = {"web_fetch", "run_code", "query_sql"}
ID = re.compile(r"[a-z]+(-[a-z]+)*")
FENCE = re.compile(r"\s*(`{3,}|~{3,})(.*)")
HEADING = re.compile(r"(#{1,6}) (\S.*)")

each_template = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
each_file = pytest.mark.parametrize(
    "file", FILES, ids=lambda path: path.relative_to(TEMPLATES).as_posix()
)


def categories() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(CATEGORIES.read_bytes())["categories"]
    return found


def definition(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "definition.yaml").read_bytes())
    return found


def persona(folder: Path) -> list[str]:
    return (folder / "persona.md").read_text("utf-8").splitlines()


def outside_fences(lines: list[str]) -> list[str]:
    """Returns the lines that are not code; a fence must name its language and be closed."""
    outside: list[str] = []
    opened = ""
    for line in lines:
        fence = FENCE.fullmatch(line)
        if fence is None:
            if not opened:
                outside.append(line)
        elif not opened:
            assert fence[2].strip(), f"a fence without a language: {line}"
            opened = fence[1]
        elif fence[1].startswith(opened) and not fence[2].strip():
            opened = ""
    assert not opened, "a fence is never closed"
    return outside


def headings(lines: list[str]) -> list[tuple[int, str]]:
    found = [HEADING.fullmatch(line) for line in outside_fences(lines)]
    return [(len(one[1]), one[2]) for one in found if one]


def nodes(node: yaml.Node) -> list[yaml.Node]:
    """Returns the node and all below it, keys of mappings too."""
    below: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        below = node.value
    elif isinstance(node, yaml.MappingNode):
        below = [one for pair in node.value for one in pair]
    return [node, *(deep for one in below for deep in nodes(one))]


def test_there_are_fifteen_templates_three_in_each_of_five_categories() -> None:
    assert Counter(folder.parent.name for folder in FOLDERS) == {
        category["id"]: 3 for category in categories()
    }
    assert len(categories()) == 5
    assert len(FOLDERS) == 15


def test_an_id_is_lower_kebab_case_and_stands_for_one_template() -> None:
    ids = [folder.name for folder in FOLDERS] + [category["id"] for category in categories()]
    assert len(set(ids)) == len(ids)
    assert [one for one in ids if not ID.fullmatch(one) or len(one) > 64] == []


def test_a_category_has_a_name_and_says_in_a_sentence_what_is_in_it() -> None:
    assert list(yaml.safe_load(CATEGORIES.read_bytes())) == ["schema_version", "categories"]
    for category in categories():
        assert list(category) == ["id", "name", "description"]
        assert category["name"].strip()
        assert re.fullmatch(r"[A-Z][^.\n]{9,199}\.", category["description"])


def test_nothing_but_the_files_of_templates_lies_among_them() -> None:
    wanted = {folder / name for folder in FOLDERS for name in ("definition.yaml", "persona.md")}
    assert set(FILES) == wanted | {CATEGORIES}


@each_file
def test_a_file_is_clean_utf8_text_with_unix_line_ends(file: Path) -> None:
    text = file.read_bytes().decode("utf-8")
    assert not text.startswith("\N{BOM}")
    assert "\r" not in text
    assert "\t" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert unicodedata.is_normalized("NFC", text)


@each_file
def test_a_file_holds_no_placeholder(file: Path) -> None:
    assert not re.search(
        r"\{\{|\}\}|TODO|TBD|FIXME|lorem ipsum", file.read_text("utf-8"), re.IGNORECASE
    )


@each_template
def test_a_definition_has_its_keys_in_order(folder: Path) -> None:
    assert list(definition(folder)) == KEYS


@each_template
def test_a_definition_is_in_block_style_and_repeats_no_key(folder: Path) -> None:
    root = yaml.compose((folder / "definition.yaml").read_text("utf-8"))
    assert isinstance(root, yaml.MappingNode)
    assert len({key.value for key, _ in root.value}) == len(root.value)
    for node in nodes(root):
        if isinstance(node, yaml.CollectionNode):
            assert not (node.flow_style and node.value)
    styles = {key.value: getattr(value, "style", None) for key, value in root.value}
    assert styles["instructions"] == "|"


@each_template
def test_the_fields_of_a_definition_are_within_their_limits(folder: Path) -> None:
    made = definition(folder)
    assert made["schema_version"] == 1
    assert made["version"] == "1.0.0"
    assert made["author"] == "Conductor Mesh"
    assert made["group"] == folder.parent.name
    assert 1 <= len(made["name"]) <= 100
    assert 10 <= len(made["description"]) <= 500
    assert re.fullmatch(r"#[0-9a-f]{6}", made["color"])
    assert made["mcp_servers"] == []
    assert set(made["tools"]) <= TOOLS
    assert len(set(made["tools"])) == len(made["tools"])
    assert 3 <= len(made["instructions"].splitlines()) <= 10


@each_template
def test_the_emoji_is_one_that_needs_no_variation_selector(folder: Path) -> None:
    emoji = definition(folder)["emoji"]
    assert len(emoji) == 1
    assert unicodedata.category(emoji) == "So"
    assert ord(emoji) >= 0x1F300


@each_template
@pytest.mark.parametrize("key", ["tags", "capabilities"])
def test_tags_and_capabilities_are_two_to_six_different_words(folder: Path, key: str) -> None:
    words = definition(folder)[key]
    assert 2 <= len(words) <= 6
    assert len(set(words)) == len(words)
    assert [word for word in words if not ID.fullmatch(word)] == []


@each_template
def test_a_persona_begins_with_the_name_of_its_agent_and_has_no_other_title(folder: Path) -> None:
    name = definition(folder)["name"]
    assert persona(folder)[0] == f"# {name}"
    assert [text for level, text in headings(persona(folder)) if level == 1] == [name]


@each_template
def test_a_persona_has_every_section_once_and_skips_no_level(folder: Path) -> None:
    found = headings(persona(folder))
    titles = [text for _, text in found]
    assert len(set(titles)) == len(titles)
    assert [title for title in SECTIONS if title not in titles] == []
    assert any(title.startswith("How you work") for title in titles)
    levels = [level for level, _ in found]
    assert all(deeper <= level + 1 for level, deeper in pairwise(levels))


@each_template
def test_a_heading_stands_between_blank_lines(folder: Path) -> None:
    lines = ["", *outside_fences(persona(folder)), ""]
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if HEADING.fullmatch(line):
            assert before == after == "", line


@each_template
def test_a_persona_has_the_size_of_a_page_and_lines_that_fit_a_screen(folder: Path) -> None:
    lines = persona(folder)
    assert 40 <= len(lines) <= 110
    assert [line for line in lines if len(line) > 120] == []


@each_template
def test_a_persona_has_a_numbered_method_and_an_example(folder: Path) -> None:
    lines = persona(folder)
    outside = outside_fences(lines)
    numbers = [int(line.split(".")[0]) for line in outside if re.match(r"\d+\. ", line)]
    assert len(numbers) >= 5
    assert all(now in {1, last + 1} for last, now in zip([0, *numbers], numbers, strict=False))
    example = lines.index("## Output format")
    assert any(FENCE.fullmatch(line) for line in lines[example : lines.index("## Boundaries")])


def test_names_emoji_colours_and_descriptions_tell_templates_apart() -> None:
    made = [definition(folder) for folder in FOLDERS]
    for key in ("name", "emoji", "color", "description"):
        assert len({one[key] for one in made}) == len(made), key


def test_no_sentence_is_shared_by_two_templates() -> None:
    said: Counter[str] = Counter()
    for folder in FOLDERS:
        lines = persona(folder) + definition(folder)["instructions"].splitlines()
        said.update({line.strip() for line in lines if len(re.findall(r"\w+", line)) >= 6})
    assert [line for line, times in said.items() if times > 1] == []
