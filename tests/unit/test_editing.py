"""Texts in an editor, which is a small script here, and others who save at the same time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from conductor_ai.cli.editing import Draft, Subject, UnreadableError, edit
from conductor_ai.cli.exits import Exit
from conductor_ai.errors import ConductorError

BASE = "one\ntwo\nthree\nfour\nfive\n"


class Shelf:
    """A text that the mesh has; `before_save` is what others do before the first save arrives."""

    def __init__(self, text: str = BASE) -> None:
        self.text, self.revision = text, 1
        self.others: list[str] = []
        self.failure: Exception | None = None
        self.refused = ""

    def subject(self) -> Subject:
        return Subject("the text", "poem.md", self.fetch, self.save, "conductor set")

    async def fetch(self) -> Draft:
        return Draft(self.text, str(self.revision))

    async def save(self, text: str, etag: str, over: bool) -> None:
        if self.others:
            self.text, self.revision = self.others.pop(0), self.revision + 1
        if self.failure is not None:
            raise self.failure
        if self.refused and self.refused in text:
            raise UnreadableError(f"line 1: {self.refused!r} is no word")
        if etag != str(self.revision) and not over:
            raise ConductorError(grpc.StatusCode.ABORTED, "ETAG_MISMATCH", "it was changed")
        self.text, self.revision = text, self.revision + 1


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files for editors are made."""
    place = tmp_path / "kept"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture
def editor(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes an editor that does one of some lines of shell each time it is opened, to `$1`.

    It notes what it was given in files called 1, 2, …
    """

    def made(*steps: str) -> Path:
        seen = tmp_path / "seen"
        seen.mkdir(exist_ok=True)
        cases = "\n".join(f"{number}) {step};;" for number, step in enumerate(steps, start=1))
        script = tmp_path / "editor"
        script.write_text(
            f'#!/bin/sh\nn=$(($(ls {seen} | wc -l) + 1))\ncp "$1" {seen}/$n\n'
            f"case $n in\n{cases}\n*) exit 9;;\nesac\n"
        )
        script.chmod(0o755)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", str(script))
        return seen

    return made


def left(kept: Path) -> list[tuple[str, str]]:
    """The files that are left on disk, with what is in them; directories have nothing in them."""
    return [
        (str(path), path.read_text(errors="replace") if path.is_file() else "")
        for path in kept.rglob("*")
        if path.is_file() or not any(path.iterdir())
    ]


async def test_what_was_edited_is_saved_and_the_file_goes(
    editor: Callable[..., Path], kept: Path
) -> None:
    shelf = Shelf()
    seen = editor('sed -i s/two/2/ "$1"')

    assert await edit(shelf.subject(), force=False) is Exit.SUCCEEDED

    assert shelf.text == BASE.replace("two", "2")
    assert (seen / "1").read_text() == BASE
    assert left(kept) == []


async def test_a_text_left_as_it_was_is_not_saved(
    editor: Callable[..., Path], capsys: pytest.CaptureFixture[str], kept: Path
) -> None:
    shelf = Shelf()
    editor("true")

    assert await edit(shelf.subject(), force=False) is Exit.SUCCEEDED

    assert shelf.revision == 1
    assert capsys.readouterr().err == "the text is as it was\n"
    assert left(kept) == []


async def test_the_end_an_editor_gives_the_last_line_is_no_change(
    editor: Callable[..., Path],
) -> None:
    shelf = Shelf("one\ntwo")
    seen = editor('sed -i s/one/1/ "$1"')

    await edit(shelf.subject(), force=False)

    assert ((seen / "1").read_text(), shelf.text) == ("one\ntwo\n", "1\ntwo")


async def test_what_others_saved_elsewhere_in_the_text_is_merged_without_a_question(
    editor: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = Shelf()
    shelf.others = [BASE.replace("five", "5")]
    seen = editor('sed -i s/one/1/ "$1"')

    assert await edit(shelf.subject(), force=False) is Exit.SUCCEEDED

    assert shelf.text == "1\ntwo\nthree\nfour\n5\n"
    assert "both changes are merged" in capsys.readouterr().err
    assert len(left(seen)) == 1


async def test_a_conflict_opens_the_editor_again_with_both_and_what_is_made_of_it_is_saved(
    editor: Callable[..., Path], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = Shelf()
    shelf.others = [BASE.replace("two", "theirs")]
    seen = editor(
        'sed -i s/two/mine/ "$1"',
        """sed -i -e '/^[<=>]\\{7\\}/d' "$1" """,
    )

    assert await edit(shelf.subject(), force=False) is Exit.SUCCEEDED

    assert shelf.text == "one\nmine\ntheirs\nthree\nfour\nfive\n"
    assert (seen / "2").read_text().splitlines()[1:6] == [
        "<<<<<<< yours: make one of both, and take these marker lines out",
        "mine",
        "=======",
        "theirs",
        ">>>>>>> theirs: what was saved in the meantime",
    ]
    assert "make one of both" in capsys.readouterr().err
    assert left(kept) == []


async def test_a_second_conflict_is_merged_like_the_first_one(
    editor: Callable[..., Path],
) -> None:
    shelf = Shelf()
    shelf.others = [BASE.replace("two", "theirs"), "zero\n" + BASE.replace("two", "theirs")]
    editor('sed -i s/two/mine/ "$1"', """sed -i -e '/^[<=>]\\{7\\}/d' "$1" """)

    assert await edit(shelf.subject(), force=False) is Exit.SUCCEEDED

    assert shelf.text == "zero\none\nmine\ntheirs\nthree\nfour\nfive\n"


async def test_nothing_is_saved_while_markers_are_left_and_the_text_is_kept(
    editor: Callable[..., Path], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = Shelf()
    shelf.others = [BASE.replace("two", "theirs")]
    editor('sed -i s/two/mine/ "$1"', "true")

    assert await edit(shelf.subject(), force=False) is Exit.FAILED

    assert shelf.text == BASE.replace("two", "theirs")
    ((path, text),) = left(kept)
    assert "mine\n" in text
    told = capsys.readouterr().err
    assert "line 2 is a marker" in told
    assert path in told
    assert "conductor set /" in told


async def test_force_saves_over_what_others_saved(editor: Callable[..., Path]) -> None:
    shelf = Shelf()
    shelf.others = ["theirs"]
    editor('sed -i s/two/mine/ "$1"')

    assert await edit(shelf.subject(), force=True) is Exit.SUCCEEDED

    assert shelf.text == BASE.replace("two", "mine")


async def test_ctrl_c_while_the_editor_is_open_is_the_editors_alone(
    editor: Callable[..., Path],
) -> None:
    shelf = Shelf()
    editor('kill -INT $PPID; sed -i s/two/2/ "$1"')

    assert await edit(shelf.subject(), force=False) is Exit.SUCCEEDED

    assert shelf.text == BASE.replace("two", "2")


@pytest.mark.parametrize(
    "failure",
    [
        ConductorError(grpc.StatusCode.UNAVAILABLE, "", "it is gone"),
        ConductorError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "too long"),
        KeyboardInterrupt(),
    ],
)
async def test_whatever_keeps_it_from_being_saved_the_text_is_kept_and_its_place_told(
    editor: Callable[..., Path],
    kept: Path,
    capsys: pytest.CaptureFixture[str],
    failure: Exception,
) -> None:
    shelf = Shelf()
    shelf.failure = failure
    editor('sed -i s/two/mine/ "$1"')

    with pytest.raises(type(failure)):
        await edit(shelf.subject(), force=False)

    ((path, text),) = left(kept)
    assert text == BASE.replace("two", "mine")
    assert path in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("echo wrong > $1", "'wrong' is no word"),
        ('printf "\\377" > "$1"', "not UTF-8"),
        ('echo more >> "$1"; exit 3', "ended with 3"),
    ],
)
async def test_a_text_that_cannot_be_saved_is_kept(
    editor: Callable[..., Path],
    kept: Path,
    capsys: pytest.CaptureFixture[str],
    step: str,
    told: str,
) -> None:
    shelf = Shelf()
    shelf.refused = "wrong"
    editor(step)

    assert await edit(shelf.subject(), force=False) is Exit.FAILED

    assert shelf.text == BASE
    assert told in capsys.readouterr().err
    assert len(left(kept)) == 1


@pytest.mark.parametrize("name", ["/nowhere/editor --wait", "unbalanced 'quote"])
async def test_without_an_editor_the_variable_is_named_and_nothing_is_left(
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setenv("VISUAL", name)

    assert await edit(Shelf().subject(), force=False) is Exit.FAILED

    assert "EDITOR" in capsys.readouterr().err
    assert left(kept) == []
