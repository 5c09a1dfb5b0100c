"""`conductor chat`: talking with an agent, at a terminal and through pipes."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.json_format import Parse

from conductor.conversations.v1.busy_policy_pb2 import BusyPolicy
from conductor.conversations.v1.conversation_pb2 import Message
from conductor.conversations.v1.conversation_service_pb2 import ListConversationsRequest
from conductor.conversations.v1.instance_pb2 import Instance
from conductor.conversations.v1.instance_service_pb2 import CreateInstanceRequest
from conductor.execution.v1.event_pb2 import (
    ContextRead,
    Error,
    JobStarted,
    Result,
    StatusUpdate,
    TurnQueued,
)
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2 import StartExecutionRequest
from services.kit.errors import DomainError, Reason
from services.kit.validation import Validation
from tests.patience import PATIENCE
from tests.rpc.scripted import Failure, Step, events, tokens
from tests.rpc.talking import Dialogue, Talking, answer, cancelled, serving_talks
from tests.rpc.talks import served_talks
from tests.rpc.terminal import Terminal

CUT = Failure(grpc.StatusCode.UNAVAILABLE, "cut")


@pytest_asyncio.fixture
async def talking(tmp_path: Path) -> AsyncIterator[Talking]:
    """A mesh that answers what a test wrote down; served by `speaker`."""
    async with served_talks(tmp_path / "data") as talks:
        yield Talking(talks)


@pytest_asyncio.fixture
async def speaker(talking: Talking) -> AsyncIterator[Terminal]:
    """The command line, used against it."""
    async with serving_talks(talking) as address:
        yield Terminal(address)


async def conversation(talking: Talking, *messages: str) -> str:
    """A conversation in which a person has said something, and the agent has answered."""
    made = await talking.talks.create(title="Harbour")
    for number, text in enumerate(messages):
        await talking.turns.begin(made.id, text, f"exec_old{number}")
        await talking.turns.end(f"exec_old{number}", f"{text}!")
    return made.id


async def test_each_line_is_said_in_one_conversation_and_answers_are_on_stdout(
    talking: Talking, speaker: Terminal
) -> None:
    talking.streams.extend([answer("Grüße, ", "мир"), answer("two")])

    outcome = await speaker.run(
        *("chat", "--agent", "poet", "--model", "mock", "--screenplay", "sp_1"),
        *("--busy", "interrupt"),
        stdin=b"Hello there\n\n//more\r\n",
    )

    made = await talking.conversation()
    id_ = made.id
    assert (outcome.status, outcome.out) == (0, "Grüße, мир\ntwo\n")
    assert outcome.err == f"{id_}: `conductor chat --conversation {id_}` goes on with it\n"
    assert (made.title, made.screenplay_id) == ("Hello there", "sp_1")
    assert made.active_agent.agent_id == "poet"
    assert await talking.texts(id_) == ["Hello there", "Grüße, мир", "/more", "two"]
    first, second = talking.starts
    assert (first.conversation_id, first.agent_id, first.model) == (id_, "poet", "mock")
    assert first.busy_policy == BusyPolicy.BUSY_POLICY_INTERRUPT
    assert first.request_id != second.request_id


async def test_a_conversation_is_gone_on_with_as_it_says(
    talking: Talking, speaker: Terminal
) -> None:
    id_ = await conversation(talking, "one")
    talking.streams.append(answer("two!"))

    outcome = await speaker.run("chat", "--conversation", id_, stdin=b"two\n")

    assert (outcome.status, outcome.out) == (0, "two!\n")
    (start,) = talking.starts
    assert (start.conversation_id, start.agent_id, start.instance_id) == (id_, "", "")
    assert start.busy_policy == BusyPolicy.BUSY_POLICY_QUEUE
    unknown = await speaker.run("chat", "--conversation", "conv_none", stdin=b"two\n")
    assert (unknown.status, unknown.out) == (2, "")
    assert "CONVERSATION_NOT_FOUND" in unknown.err


async def test_an_instance_answers_in_the_conversation_it_is_placed_in(
    talking: Talking, speaker: Terminal
) -> None:
    id_ = await conversation(talking)
    desk = Instance(instance_id="desk", agent_id="poet", conversation_id=id_)
    await talking.talks.instances.CreateInstance(CreateInstanceRequest(instance=desk))
    talking.streams.append(answer("yes"))

    outcome = await speaker.run("chat", "--instance", "desk", stdin=b"you?\n/agent\n")

    assert outcome.out == "yes\n"
    assert "poet as desk answers\n" in outcome.err
    assert (talking.starts[0].conversation_id, talking.starts[0].instance_id) == (id_, "desk")


async def test_instances_of_one_agent_answer_in_turn_and_are_told_apart(
    talking: Talking, speaker: Terminal
) -> None:
    id_ = await conversation(talking)
    for name in ("desk", "loft"):
        made = CreateInstanceRequest(instance=Instance(instance_id=name, agent_id="poet"))
        await talking.talks.instances.CreateInstance(made)
    talking.streams.extend([answer("at the desk"), answer("in the loft")])
    lines = (
        "/instance desk\none\n/instance loft\ntwo\n/instance none\n/instance\n/agent\n/history\n"
    )

    outcome = await speaker.run(
        "chat", "--conversation", id_, "--agent", "default", stdin=lines.encode()
    )

    assert [(one.agent_id, one.instance_id) for one in talking.starts] == [
        ("", "desk"),
        ("", "loft"),
    ]
    assert (await talking.talks.get(id_)).active_agent.instance_id == "loft"
    assert "#2 poet as desk, " in outcome.out
    assert "#4 poet as loft, " in outcome.out
    assert outcome.err.startswith(
        "poet as desk answers\npoet as loft answers\nerror: No instance has the id none."
    )
    assert "/instance takes the id of an instance" in outcome.err
    assert outcome.err.count("poet as loft answers\n") == 2
    assert outcome.status == 2


async def test_orders_change_title_agent_and_what_agents_are_told(
    talking: Talking, speaker: Terminal, tmp_path: Path
) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\necho '# Night' > \"$1\"\n")
    editor.chmod(0o755)
    speaker.env["EDITOR"] = str(editor)
    speaker.env.pop("VISUAL", None)
    id_ = await conversation(talking, "one", "two")
    talking.streams.append(answer("three!", agent_id="poet"))
    lines = (
        *("/title Night", "/title", "/agent poet", "/agent", "/context", "/hide 1", "/history 2"),
        *("three", "/hide 9", "/hide x", "/titel", "/xyzzy", "/title no", "/help", "/quit", "four"),
    )

    outcome = await speaker.run("chat", "--conversation", id_, stdin="\n".join(lines).encode())

    changed = await talking.talks.get(id_)
    assert (changed.title, changed.context) == ("Night", "# Night\n")
    assert changed.active_agent.agent_id == talking.starts[0].agent_id == "poet"
    assert (await talking.texts(id_, visible=True))[0] == "one!"
    assert (await talking.texts(id_))[4:] == ["three", "three!"]
    assert "#3 user, " in outcome.out
    assert "\n  two!\n" in outcome.out
    assert "#2" not in outcome.out
    assert "\n/retry " in outcome.out
    for told in (
        "it is called Night\nit is called Night\npoet answers\npoet answers\n",
        "message 1 is hidden: agents are not told of it\n",
        "there is more; /history 4 shows twice as much\n",
        f"error: {id_} has no message 9 (MESSAGE_NOT_FOUND)\n",
        "/hide takes the number of a message; /history shows them\n",
        "there is no /titel; did you mean /title? A message",
        "there is no /xyzzy; /help names those there are. A message",
        "error: new_title: must have 3 to 100 characters besides blanks around them (INVALID_REQUEST)\n",
    ):
        assert told in outcome.err
    # What could not be done is told to whoever started it, though the rest was.
    assert outcome.status == 2


async def test_whoever_writes_from_right_to_left_begins_a_conversation_titled_so(
    talking: Talking, speaker: Terminal
) -> None:
    said = "\u200fשלום\u200f עולם\u061c"  # noqa: RUF001 Hebrew
    talking.streams.append(answer("ahoy"))

    outcome = await speaker.run("chat", stdin=f"{said}\n".encode())

    assert (outcome.status, outcome.out) == (0, "ahoy\n")
    assert (await talking.conversation()).title == said
    assert talking.starts[0].input == said


async def test_an_agent_that_is_not_there_answers_no_new_conversation(
    talking: Talking, speaker: Terminal
) -> None:
    talking.streams.append(answer("still here"))

    outcome = await speaker.run("chat", "--agent", "poet", stdin=b"/agent nobody\n/agent\nHello\n")

    assert (outcome.status, outcome.out) == (2, "still here\n")
    assert outcome.err.startswith(
        "error: No agent has the id nobody. (AGENT_NOT_FOUND)\npoet answers\n"
    )
    assert talking.starts[0].agent_id == "poet"


async def test_a_first_message_that_no_run_takes_leaves_no_conversation(
    talking: Talking, speaker: Terminal
) -> None:
    talking.streams.append(answer("short"))
    large = "x" * (1024 * 1024 + 1)
    with pytest.raises(DomainError) as refused:
        Validation().check(StartExecutionRequest(input=large), len(large))

    alone = await speaker.run("chat", stdin=f"{large}\n".encode())
    found = await talking.talks.conversations.ListConversations(
        ListConversationsRequest(), timeout=PATIENCE
    )
    both = await speaker.run("chat", stdin=f"{large}\n\u200b\u200b\u200b\n".encode())

    sentence = f"error: {refused.value.message} (INVALID_REQUEST)\n"
    assert (alone.status, alone.out, alone.err) == (2, "", sentence)
    assert not found.conversations
    assert (both.out, both.err.startswith(sentence)) == ("short\n", True)
    assert (await talking.conversation()).title.startswith("Conversation ")


async def test_programs_get_each_answer_as_a_message_on_a_line(
    talking: Talking, speaker: Terminal
) -> None:
    failed: list[Step] = [
        *events(JobStarted(), *tokens("half"), Error(reason="MODEL_FAILED", error="It died."))
    ]
    talking.streams.extend([answer("one ", "two"), failed])

    outcome = await speaker.run("chat", "--json", stdin=b"Hello\nAgain\n/history 1\n")

    id_ = (await talking.conversation()).id
    first, second, last = (Parse(line, Message()) for line in outcome.out.splitlines())
    assert (first.position, first.content, first.execution_id) == (2, "one two", "exec_1")
    assert first.conversation_id == id_
    assert (second.position, second.status) == (4, Message.STATUS_FAILED)
    assert last == second
    assert outcome.err.startswith("no answer: MODEL_FAILED: It died; /retry asks again\n")
    assert outcome.status == 1


async def test_a_busy_conversation_is_told_with_what_can_be_done(
    talking: Talking, speaker: Terminal
) -> None:
    talking.refusals.append(
        DomainError(
            Reason.REASON_CONVERSATION_BUSY,
            "Another run answers.",
            metadata={"execution_id": "exec_9"},
        )
    )
    talking.streams.append(answer("now"))

    outcome = await speaker.run("chat", "--busy", "reject", stdin=b"Hello\n/retry\n")

    assert (outcome.status, outcome.out) == (1, "now\n")
    assert "error: Another run answers. (CONVERSATION_BUSY)\n" in outcome.err
    assert "`conductor executions cancel exec_9`" in outcome.err
    assert [start.busy_policy for start in talking.starts] == [BusyPolicy.BUSY_POLICY_REJECT] * 2
    assert await talking.texts((await talking.conversation()).id) == ["Hello", "now"]


async def test_places_in_the_queue_and_what_was_left_out_are_told(
    talking: Talking, speaker: Terminal
) -> None:
    talking.streams.append(
        [
            *events(
                TurnQueued(message="2 runs answer before it.", place=2),
                JobStarted(agent_id="default"),
                ContextRead(message="All of it.", history_count=4),
                ContextRead(history_count=4, omitted_count=7),
                *tokens("Hi"),
                Result(result="Hi"),
            )
        ]
    )

    outcome = await speaker.run("chat", stdin=b"Hello\n")

    assert outcome.out == "Hi\n"
    assert outcome.err.startswith(
        "2 runs answer before it.\nthe oldest 7 messages did not fit what the model takes\n"
    )
    assert "All of it." not in outcome.err


async def test_a_conversation_whose_making_was_not_answered_is_made_once(
    talking: Talking, speaker: Terminal
) -> None:
    talking.lost.append("CreateConversation")
    talking.streams.append(answer("there"))

    outcome = await speaker.run("chat", stdin=b"Hello\n/retry\n")

    assert (outcome.status, outcome.out) == (1, "there\n")
    assert (await talking.conversation()).title == "Hello"


async def test_cut_connections_lose_and_repeat_nothing(talking: Talking, speaker: Terminal) -> None:
    talking.refusals.append(DomainError(Reason.REASON_SHUTTING_DOWN, "Just now not."))
    steps = answer("one ", "two ", "three")
    talking.streams.extend([[*steps[:3], CUT], [*steps[3:4]], [*steps[4:]]])

    outcome = await speaker.run("chat", stdin=b"count\n")

    assert (outcome.status, outcome.out) == (0, "one two three\n")
    assert talking.starts[0] == talking.starts[1]
    assert [request.after_sequence for request in talking.requests] == [0, 3, 4]


async def test_ctrl_c_cancels_the_answer_and_the_next_line_is_said(
    talking: Talking, speaker: Terminal
) -> None:
    steps = answer("one ", "two")
    talking.streams.extend([[*steps[:3], None, cancelled(4)], answer("again")])
    process = await speaker.start("chat")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"count\n")
    await asyncio.wait_for(process.stdout.readexactly(len("one ")), PATIENCE)

    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(b"/retry\n"), PATIENCE)

    assert (process.returncode, out) == (130, b"\nagain\n")
    assert "cancelled; /retry asks again\n" in err.decode()
    id_ = (await talking.conversation()).id
    assert await talking.texts(id_, visible=True) == ["count", "again"]
    assert await talking.texts(id_) == ["count", "one ", "count", "again"]
    whole = await speaker.run("conversations", "messages", id_, "--text")
    _, cut, *_ = re.split(r"^#", whole.out, flags=re.MULTILINE)[1:]
    assert "ago (cancelled hidden)\n" in cut
    assert cut.splitlines()[1:4] == ["  one ", "", "  EXECUTION_CANCELLED: Cancelled."]


async def test_a_second_ctrl_c_leaves_and_says_how_to_go_on(
    talking: Talking, speaker: Terminal
) -> None:
    begun = StatusUpdate(message="Agent default runs.", state=Execution.STATE_RUNNING)
    waits = StatusUpdate(message="The answer waits.")
    steps = events(JobStarted(agent_id="default"), begun, *tokens("one "), waits)
    talking.streams.append([*steps, None, None])
    talking.failures["exec_1"] = Failure(grpc.StatusCode.UNAVAILABLE, "away", "UNAVAILABLE")
    async with Dialogue(speaker, "chat") as dialogue:
        await dialogue.expect("you> ")
        dialogue.type("count\n")
        await dialogue.expect("default> one \nThe answer waits.\n")
        dialogue.interrupt()
        await dialogue.expect("cancelling; Ctrl-C once more leaves at once\n")
        dialogue.interrupt()
        await dialogue.expect("left; exec_1 may still be running\n")
        await dialogue.expect("goes on with it\n")

        assert await dialogue.ended() == 4
        assert "Agent default runs." not in dialogue.shown


async def test_a_terminal_has_a_prompt_earlier_lines_and_the_name_of_who_answers(
    talking: Talking, speaker: Terminal
) -> None:
    id_ = await conversation(talking, "first\x07")
    talking.streams.extend([answer("one\x1b[2J", agent_id="poet"), answer("two"), answer("three")])
    async with Dialogue(speaker, "chat", "--conversation", id_) as dialogue:
        before = await dialogue.expect("you> ")
        assert "Harbour: 2 messages\n#1 user, " in before
        assert "\n  first\n\n#2 default, " in before
        dialogue.type("\x1b[A")  # the key for what was typed before
        await dialogue.expect("first")
        dialogue.type(" again\n")
        await dialogue.expect("poet> one[2J\n")
        await dialogue.expect("you> ")
        dialogue.type("/his\t 1\n")
        await dialogue.expect("default, ")
        await dialogue.expect("you> ")
        dialogue.type("never said")
        await dialogue.expect("never said")
        await dialogue.interrupt_prompt("Ctrl-D leaves")
        await dialogue.expect("you> ")
        dialogue.type("said\n")
        await dialogue.expect("default> two\n")
        await dialogue.expect("you> ")
        dialogue.type("\x04")
        await dialogue.expect(f"`conductor chat --conversation {id_}` goes on with it\n")

        assert await dialogue.ended() == 0
        assert "first\x07" not in dialogue.shown
    assert [start.input for start in talking.starts] == ["first again", "said"]


async def test_what_was_said_before_the_talk_is_said_again_and_its_answer_is_hidden(
    talking: Talking, speaker: Terminal
) -> None:
    id_ = await conversation(talking, "one", "two")
    talking.streams.append(answer("better"))

    outcome = await speaker.run("chat", "--conversation", id_, stdin=b"/retry\n")

    assert (outcome.status, outcome.out) == (0, "better\n")
    assert await talking.texts(id_, visible=True) == ["one", "one!", "two", "better"]
    await talking.turns.begin(id_, "three", "exec_other")
    refused = await speaker.run("chat", "--conversation", id_, stdin=b"/retry\n")
    assert (refused.status, len(talking.starts)) == (2, 1)
    assert (await talking.texts(id_, visible=True))[-2:] == ["three", ""]


async def test_ctrl_c_twice_at_the_prompt_leaves(speaker: Terminal) -> None:
    async with Dialogue(speaker, "chat") as dialogue:
        await dialogue.expect("a new conversation; /help")
        await dialogue.expect("you> ")
        await dialogue.interrupt_prompt("Ctrl-D leaves, and so does Ctrl-C once more\n")
        await dialogue.expect("you> ")
        await dialogue.interrupt_prompt("\n")

        assert await dialogue.ended() == 130


async def test_an_answer_that_fails_is_told_and_is_the_status_of_a_script(
    talking: Talking, speaker: Terminal
) -> None:
    failed = events(JobStarted(), Error(reason="MODEL_FAILED", error="It died."))
    talking.streams.extend([[*failed], answer("well")])

    outcome = await speaker.run("chat", stdin=b"Hello\nAgain\n")

    assert (outcome.status, outcome.out) == (1, "well\n")
    assert "no answer: MODEL_FAILED: It died; /retry asks again\n" in outcome.err


async def test_without_a_mesh_nothing_is_said() -> None:
    outcome = await Terminal("127.0.0.1:1").run("chat", stdin=b"Hello\nAgain\n")

    assert (outcome.status, outcome.out) == (3, "")
    assert outcome.err.count("no mesh answers at 127.0.0.1:1") == 1
