"""`conductor chat`: talking with an agent."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor_ai.cli.chat.lines import Lines, lines
from conductor_ai.cli.chat.orders import ORDERS, obey
from conductor_ai.cli.chat.talk import Talk, Wish
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.output import AsJson
from conductor_ai.cli.turns import Busy, OnBusy

__all__ = ["chat"]


def chat(
    agent: Annotated[
        str, typer.Option(help="Who answers.", show_default="as the conversation says")
    ] = "",
    conversation: Annotated[
        str, typer.Option(help="The conversation to go on with.", show_default="a new one")
    ] = "",
    screenplay: Annotated[str, typer.Option(help="The screenplay that is worked on.")] = "",
    instance: Annotated[
        str, typer.Option(help="The instance of an agent that answers, where it is placed.")
    ] = "",
    model: Annotated[str, typer.Option(help="The model, for example mock-slow.")] = "",
    provider: Annotated[str, typer.Option(help="The provider of the model.")] = "",
    busy: OnBusy = Busy.QUEUE,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Talk with an agent. Without a terminal each line of stdin is said, answers are on stdout.

    With --json each line of stdin is said, too, and each answer is printed once it is whole or known not
    to come: a message, as `conductor conversations messages --json` has it.

    /help names what else can be done: another agent, title, context, history. Ctrl-C cancels an answer,
    and once more leaves, with 4, while its run may go on; Ctrl-D leaves. What was said is kept, and told
    is how to go on.

    0 done; without a terminal the status of the first answer that did not come, as `conductor run` has
    it. 2 refused as asked for, 3 no mesh answers, 130 left by Ctrl-C.
    """
    wish = Wish(
        agent_id=agent,
        conversation_id=conversation,
        screenplay_id=screenplay,
        instance_id=instance,
        model=model,
        provider=provider,
        busy_policy=busy.proto,
    )
    said = Lines() if as_json else lines([f"/{name}" for name in ORDERS])
    call(
        address,
        api_key,
        lambda client: Talk(client, wish, said, obey, address, as_json=as_json).run(),
    )
