"""What lines that begin with a slash want."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import Final, TypeAlias

from conductor.conversations.v1.message_service_pb2 import ListMessagesRequest
from conductor_ai.cli.chat.talk import LeaveError, Talk
from conductor_ai.cli.conversations import shown
from conductor_ai.cli.conversations.changes import edit_context
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import one_line, tell

_Order: TypeAlias = Callable[[Talk, str], Awaitable[Exit]]
_LISTED: Final = 10
_MOST_LISTED: Final = 10_000
_LAST_POSITION: Final = 2**32 - 1


async def obey(talk: Talk, line: str) -> Exit:
    """Do what a line wants.

    Raises:
        ConductorError: the mesh said no.
        LeaveError: it wants to leave.
    """
    name, _, rest = line.removeprefix("/").partition(" ")
    if name not in ORDERS:
        close = get_close_matches(name, ORDERS, n=1)
        meant = f"did you mean /{close[0]}?" if close else "/help names those there are."
        tell(f"there is no /{name}; {meant} A message that begins with a slash is //{name}")
        return Exit.REFUSED
    return await ORDERS[name][1](talk, rest.strip())


async def _help(talk: Talk, rest: str) -> Exit:
    del talk, rest
    for name, (form, _, sentence) in ORDERS.items():
        print(f"{f'/{name} {form}':<16}{sentence}")
    print("Ctrl-C cancels an answer, Ctrl-D leaves. //text says /text.")
    return Exit.SUCCEEDED


async def _agent(talk: Talk, rest: str) -> Exit:
    wish, conversations = talk.wish, talk.client.conversations
    if rest:
        if wish.conversation_id:
            await conversations.set_active_agent(wish.conversation_id, rest)
        else:
            await talk.client.agents.get(rest)
        wish.agent_id, wish.instance_id = rest, ""
    answers = wish.agent_id
    if not answers and wish.instance_id:
        answers = shown.instance_name(await talk.client.instances.get(wish.instance_id))
    elif not answers and wish.conversation_id:
        answers = shown.active_name(await conversations.get(wish.conversation_id))
    tell(f"{answers or 'default'} answers")
    return Exit.SUCCEEDED


async def _instance(talk: Talk, rest: str) -> Exit:
    if not rest:
        tell("/instance takes the id of an instance; `conductor instances list` shows them")
        return Exit.REFUSED
    wish = talk.wish
    instance = await talk.client.instances.get(rest)
    if wish.conversation_id:
        await talk.client.conversations.set_active_agent(wish.conversation_id, instance_id=rest)
    wish.agent_id, wish.instance_id = "", rest
    tell(f"{shown.instance_name(instance)} answers")
    return Exit.SUCCEEDED


async def _title(talk: Talk, rest: str) -> Exit:
    id_ = await talk.opened()
    conversations = talk.client.conversations
    if rest:
        conversation = await conversations.set_title(id_, rest)
    else:
        conversation = await conversations.get(id_)
    tell(f"it is called {one_line(conversation.title)}")
    return Exit.SUCCEEDED


async def _context(talk: Talk, rest: str) -> Exit:
    if rest:
        tell("/context opens the editor; `conductor conversations context ID FILE` takes a file")
        return Exit.REFUSED
    return await edit_context(talk.client, await talk.opened())


async def _history(talk: Talk, rest: str) -> Exit:
    count = _number(rest, _MOST_LISTED) if rest else _LISTED
    if count is None:
        tell("/history takes a number: how many messages to show")
        return Exit.REFUSED
    if not talk.wish.conversation_id:
        tell("nothing was said yet")
        return Exit.SUCCEEDED
    filters = ListMessagesRequest(
        conversation_id=talk.wish.conversation_id, page_size=min(count + 1, 200)
    )
    messages, more = await shown.newest(talk.client, filters, count)
    for message in messages:
        talk.show(message)
    if more:
        tell(f"there is more; /history {count * 2} shows twice as much")
    elif not messages:
        tell("nothing was said yet")
    return Exit.SUCCEEDED


async def _hide(talk: Talk, rest: str) -> Exit:
    id_ = talk.wish.conversation_id
    if _number(rest, _LAST_POSITION) is None or not id_:
        tell("/hide takes the number of a message; /history shows them")
        return Exit.REFUSED
    found = await shown.message_id(talk.client, id_, rest)
    changed = await talk.client.conversations.messages.hide(id_, found, hidden=None)
    now = "hidden: agents are not told of it" if changed.hidden else "no longer hidden"
    tell(f"message {changed.position} is {now}")
    return Exit.SUCCEEDED


async def _retry(talk: Talk, rest: str) -> Exit:
    del rest
    return await talk.retry()


async def _quit(talk: Talk, rest: str) -> Exit:
    del talk, rest
    raise LeaveError


def _number(text: str, most: int) -> int | None:
    """Read a number from 1 on; None when it is none."""
    is_one = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    return int(text) if is_one and 1 <= int(text) <= most else None


ORDERS: Final[dict[str, tuple[str, _Order, str]]] = {
    "help": ("", _help, "Say what can be done."),
    "agent": ("ID", _agent, "Let another agent answer from now on; without ID, say who does."),
    "instance": ("ID", _instance, "Let an instance of an agent answer from now on."),
    "title": ("TEXT", _title, "Give the conversation a title; without TEXT, say it."),
    "context": ("", _context, "Edit what every run in it is told, in $EDITOR."),
    "history": ("N", _history, "Show the newest messages, 10 unless told otherwise."),
    "hide": ("N", _hide, "Tell agents of message N no more; once more, tell them again."),
    "retry": ("", _retry, "Say again what was said last, as if it had not been."),
    "quit": ("", _quit, "Leave."),
}
"""By name: what follows it, what it does, and the sentence that says so."""
