"""`conductor conversations`: what is said to agents, as people and programs see and change it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rpc.commanded import Commands
from tests.rpc.terminal import COMMAND, unstyled

BELL = "\x07"


def made(talker: Commands, *arguments: str) -> str:
    """Make a conversation; answers its id."""
    return str(talker.told("conversations", "create", *arguments)["id"])


def said(talker: Commands, id_: str, *texts: str) -> list[str]:
    """Say something in a conversation; answers the ids of the messages."""
    return [str(talker.told("conversations", "say", id_, text)["id"]) for text in texts]


def test_a_conversation_is_made_seen_renamed_deleted_and_taken_back(
    talker: Commands, tmp_path: Path
) -> None:
    (tmp_path / "harbour.md").write_text("# Harbour\n")
    id_ = made(talker, "Storm", "--context", "harbour.md", "--agent", "writer", "--allow", "writer")

    facts = talker.done("conversations", "get", id_)
    assert "title           Storm\n" in facts
    assert "answers         writer\n" in facts
    assert "may take part   writer\n" in facts
    assert facts.endswith("\ncontext:\n# Harbour\n")
    assert talker.done("conversations", "title", id_, "Calm") == f"{id_} is called Calm\n"
    refused = talker.run("conversations", "agent", id_, "editor")
    assert (refused.status, "AGENT_NOT_ALLOWED" in refused.err) == (2, True)
    talker.done("conversations", "settings", id_, "--allow", "")
    assert talker.done("conversations", "agent", id_, "editor") == f"editor answers in {id_}\n"
    listed = talker.told("conversations", "list", "-q", "ca")
    assert (listed["id"], listed["active_agent"]["agent_id"]) == (id_, "editor")
    assert "context" not in listed
    assert talker.done("conversations", "delete", id_) == f"{id_} deleted\n"
    gone = talker.run("conversations", "get", id_)
    assert (gone.status, "CONVERSATION_NOT_FOUND" in gone.err) == (2, True)
    assert "deleted  " in talker.done("conversations", "get", id_, "--deleted")
    assert talker.done("conversations", "undelete", id_) == f"{id_} (Calm) is back\n"
    unasked = talker.run("conversations", "delete", id_, "--purge")
    assert (unasked.status, "--yes" in unasked.err) == (2, True)
    talker.done("conversations", "delete", id_, "--purge", "--yes")
    assert talker.run("conversations", "undelete", id_).status == 2


def test_lists_are_filtered_ordered_and_cut(talker: Commands) -> None:
    for title in ("beta one", "Alpha one", "gamma one"):
        made(talker, f"{title} listed")

    def titles(query: str, *options: str) -> list[str]:
        lines = talker.done(
            "conversations", "list", *("-q", query, "--json", *options)
        ).splitlines()
        return [json.loads(line)["title"] for line in lines]

    assert titles("listed", "--order", "title") == [
        *("Alpha one listed", "beta one listed", "gamma one listed")
    ]
    assert titles("listed", "--order", "title", "--reverse")[0] == "gamma one listed"
    assert titles("one bet") == ["beta one listed"]
    cut = talker.run("conversations", "list", "-q", "listed", "--limit", "2")
    assert next(line.split()[0] for line in cut.out.splitlines()) == "id"
    assert len(cut.out.splitlines()) == 3
    assert "there are more than the 2 listed" in cut.err
    visitors = talker.run("conversations", "list", "--visitors")
    assert (visitors.status, visitors.err) == (0, "no conversations are like that\n")
    nothing = talker.run("conversations", "list", "--screenplay", "sp_none")
    assert (nothing.status, nothing.err) == (0, "no conversations are like that\n")


def test_the_newest_messages_are_shown_in_the_order_they_came_in(talker: Commands) -> None:
    id_ = made(talker)
    said(talker, id_, *(f"say {number}" for number in range(1, 6)))

    def numbers(*options: str) -> list[int]:
        lines = talker.done("conversations", "messages", id_, "--json", *options).splitlines()
        return [json.loads(line)["position"] for line in lines]

    assert numbers() == [1, 2, 3, 4, 5]
    assert numbers("--limit", "2") == [4, 5]
    assert numbers("--limit", "2", "--before", "4") == [2, 3]
    assert numbers("--limit", "2", "--after", "1") == [2, 3]
    assert numbers("--limit", "0", "--after", "2") == [3, 4, 5]
    cut = talker.run("conversations", "messages", id_, "--limit", "2")
    assert [line.split()[0] for line in cut.out.splitlines()] == ["#", "4", "5"]
    assert cut.err == "there are more than the 2 listed; --limit 0 lists all\n"
    whole = talker.run("conversations", "messages", id_, "--limit", "5")
    assert (len(whole.out.splitlines()), whole.err) == (6, "")
    empty = talker.run("conversations", "messages", made(talker))
    assert (empty.out, empty.err) == ("", "no messages yet\n")


def test_messages_are_hidden_deleted_and_answered_by_number_or_id(talker: Commands) -> None:
    id_ = made(talker)
    first, _, third = said(talker, id_, "one", "two", "three")

    assert talker.done("conversations", "hide", id_, "1", third) == (
        "message 1 is hidden\nmessage 3 is hidden\n"
    )
    assert talker.done("conversations", "hide", id_, "3", "--undo") == (
        "message 3 is no longer hidden\n"
    )
    visible = talker.done("conversations", "messages", id_, "--visible").splitlines()
    assert [line.split()[0] for line in visible[1:]] == ["2", "3"]
    assert talker.done("conversations", "delete-message", id_, "2") == "message 2 is deleted\n"
    left = talker.done("conversations", "messages", id_).splitlines()
    assert [line.split()[0] for line in left[1:]] == ["1", "3"]
    assert " completed hidden " in left[1]
    assert talker.done("conversations", "undelete-message", id_, "2") == "message 2 is back\n"
    reply = talker.told("conversations", "say", id_, "four", "--agent", "poet", "--reply-to", "1")
    assert (reply["type"], reply["reply_to"]) == ("TYPE_AGENT", first)
    replies = talker.done("conversations", "messages", id_, "--reply-to", "1").splitlines()
    assert replies[1].split()[:3] == ["4", reply["id"], "poet"]
    some = talker.run("conversations", "hide", id_, "9", "2")
    assert (some.status, some.out) == (2, "message 2 is hidden\n")
    assert some.err == f"error: 9: {id_} has no message 9 (MESSAGE_NOT_FOUND)\n"


def test_texts_are_shown_whole_and_found_by_their_words(talker: Commands) -> None:
    id_ = made(talker)
    talker.done("conversations", "say", id_, "-", stdin="Grüße aus\ndem Hafen\n".encode())
    talker.done("conversations", "say", id_, "x" * 500, "--agent", "poet")

    whole = talker.done("conversations", "messages", id_, "--text")

    assert whole.splitlines()[1:3] == ["  Grüße aus", "  dem Hafen"]
    assert f"\n  {'x' * 500}\n" in whole
    assert whole.startswith("#1 user, ")
    assert "\n#2 poet, " in whole
    assert whole.splitlines()[0].endswith(" ago")
    talker.done("conversations", "hide", id_, "1")
    hidden = talker.done("conversations", "messages", id_, "--text")
    assert hidden.splitlines()[0].endswith(" ago (hidden)")
    row = talker.done("conversations", "messages", id_).splitlines()[2]
    assert row.endswith(f"{'x' * 200}…")
    found = talker.done("conversations", "search", "haf grü", "--conversation", id_).splitlines()
    assert found[1].split()[:2] == [id_, "1"]
    none = talker.run("conversations", "search", "nobody", "--conversation", id_)
    assert (none.status, none.err) == (0, "no messages are like that\n")


def test_the_context_comes_from_a_file_or_goes(talker: Commands) -> None:
    id_ = made(talker)

    talker.done("conversations", "context", id_, "-", stdin="# Ü\n".encode())
    assert talker.told("conversations", "get", id_)["context"] == "# Ü\n"
    broken = talker.run("conversations", "context", id_, "-", stdin=b"\xff")
    assert (broken.status, broken.err) == (2, "error: stdin is not UTF-8\n")
    assert talker.done("conversations", "context", id_, "--clear") == (
        f"{id_} has a context of 0 characters\n"
    )


def test_two_who_edit_a_context_are_merged(talker: Commands, tmp_path: Path) -> None:
    id_ = made(talker, "Merged", "--context", str(_file(tmp_path, "one\ntwo\nthree\n")))
    other = _file(tmp_path, "ONE\ntwo\nthree\n", "other.md")
    talker.edits(
        tmp_path / "editor",
        f"conductor conversations context {id_} {other} && sed -i s/three/THREE/ $1",
    )
    talker.patch.setenv("PATH", f"{COMMAND.parent}:/usr/bin:/bin")

    edited = talker.run("conversations", "context", id_)

    assert edited.status == 0, edited
    assert edited.err.endswith(f"the context of {id_} is saved\n")
    assert "both changes are merged" in edited.err
    assert talker.told("conversations", "get", id_)["context"] == "ONE\ntwo\nTHREE\n"


def test_settings_say_who_takes_part_and_how_far_work_is_handed_on(talker: Commands) -> None:
    id_ = made(talker)

    assert talker.done("conversations", "settings", id_, "--max-chain-depth", "3") == (
        f"{id_}: agents hand on up to 3 times; all may take part\n"
    )
    assert talker.done(
        "conversations", "settings", id_, "--no-auto-delegate", "--allow", "poet"
    ) == (f"{id_}: agents hand nothing on; poet may take part\n")
    assert talker.told("conversations", "get", id_)["max_chain_depth"] == 3
    nothing = talker.run("conversations", "settings", id_)
    assert (nothing.status, "name options" in nothing.err) == (2, True)


def test_a_clone_names_the_copies_of_instances(talker: Commands) -> None:
    id_ = made(talker, "Storm")
    said(talker, id_, "one")
    placed = talker.told("instances", "create", "writer", "--conversation", id_)["instance_id"]

    told = talker.done("conversations", "clone", id_, "--title", "Calm").splitlines()

    copy = told[0].removesuffix(" created: Calm")
    assert talker.told("conversations", "get", copy)["cloned_from"] == id_
    (twin,) = [line.split()[0] for line in told[1:]]
    assert told[1] == f"{twin} is the copy of {placed}"
    assert talker.told("instances", "get", twin)["conversation_id"] == copy
    assert talker.told("conversations", "messages", copy)["content"] == "one"


def test_a_terminal_obeys_nothing_of_what_was_said(talker: Commands) -> None:
    id_ = made(talker)
    said(talker, id_, f"ding{BELL}\x1b[31mred\x9b32m\u202eend")

    table = talker.shown("conversations", "messages", id_)
    whole = talker.shown("conversations", "messages", id_, "--text")

    for shown in (table, whole):
        assert BELL not in shown
        assert "ding[31mredend" in unstyled(shown).replace("32m", "")
        assert "\u202e" not in shown
    assert "\x1b[1m#1 user, " in whole
    assert BELL in talker.done("conversations", "messages", id_, "--text")


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "no"),
        ("title", "{}", "no"),
        ("say", "{}", "  "),
        ("agent", "{}", "unknown"),
        ("context", "{}", "file.md", "--clear"),
        ("context", "{}", "--json"),
    ],
)
def test_what_makes_no_sense_is_refused(talker: Commands, arguments: tuple[str, ...]) -> None:
    id_ = made(talker)

    refused = talker.run("conversations", *(word.format(id_) for word in arguments))

    assert refused.status == 2
    assert refused.err.startswith("error: ")


def _file(directory: Path, text: str, name: str = "file.md") -> Path:
    path = directory / name
    path.write_text(text)
    return path
