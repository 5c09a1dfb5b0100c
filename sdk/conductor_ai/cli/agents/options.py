"""What the commands about agents are told."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from conductor.content.v1.agent_pb2 import Agent, AgentModel
from conductor_ai.cli import definitions, files
from conductor_ai.cli.exits import refuse

Id = Annotated[str, typer.Argument(help="The id of the agent.", metavar="ID")]


Ids = Annotated[list[str], typer.Argument(help="The ids of the agents.", metavar="ID...")]


Text: TypeAlias = str | None


Texts: TypeAlias = list[str] | None


Description = Annotated[Text, typer.Option(help="What it is for.")]


Instructions = Annotated[Text, typer.Option(help="Its operating procedure.")]


Group = Annotated[Text, typer.Option("--group", help="The group it is shown in.")]


Emoji = Annotated[Text, typer.Option(help="An emoji it is shown with.")]


Color = Annotated[Text, typer.Option(help="A colour it is shown in, as #rrggbb.")]


Author = Annotated[Text, typer.Option(help="Who wrote it.")]


Version = Annotated[
    Text, typer.Option("--definition-version", help="The version its author gives it.")
]


Tags = Annotated[Texts, typer.Option("--tag", help="A label; may be given several times.")]


Capabilities = Annotated[
    Texts, typer.Option("--capability", help="What it can do; may be given several times.")
]


Tools = Annotated[
    Texts, typer.Option("--tool", help="A tool it may use; may be given several times.")
]


McpServers = Annotated[
    Texts, typer.Option("--mcp-server", help="An MCP server it may use; several times.")
]


Provider = Annotated[Text, typer.Option("--provider", help="The provider of its model.")]


Model = Annotated[Text, typer.Option(help="Its model; empty leaves it to the settings.")]


Fallbacks = Annotated[
    list[str] | None,
    typer.Option(
        "--fallback",
        metavar="[PROVIDER/]MODEL",
        help="A model to ask when the one before fails; may be given several times.",
    ),
]


DefinitionFile = Annotated[
    str, typer.Option("--file", help="A definition in YAML, as `edit` shows it; - is stdin.")
]


class Said:
    """What options say of an agent."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.fields: list[str] = []


def wished(*, fallbacks: Texts, **options: Text | Texts) -> Said:
    """Read options, by the names of the fields of an agent; None is one that was not given."""
    wish = Said()
    for field, value in options.items():
        if value is None:
            continue
        wish.fields.append(field)
        if isinstance(value, str):
            setattr(wish.agent, field, value)
        else:
            getattr(wish.agent, field).extend(one for one in value if one.strip())
    if fallbacks is not None:
        wish.fields.append("fallbacks")
        wish.agent.fallbacks.extend(_fallback(one) for one in fallbacks if one.strip())
    return wish


def _fallback(text: str) -> AgentModel:
    """Read a model as `conductor run --fallback` does."""
    provider, slash, model = text.partition("/")
    return AgentModel(ai_provider=provider, model=model) if slash else AgentModel(model=text)


def defined(file: str) -> Agent:
    """Read a definition; leaves with a sentence when it is none."""
    try:
        return definitions.read(files.read_text(file))
    except definitions.DefinitionError as error:
        refuse(f"{file}: {error}")
