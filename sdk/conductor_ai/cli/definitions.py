"""Definitions of agents as people write them: YAML, a key for each field.

It is the form of the `definition.yaml` that `conductor migrate` reads and writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from conductor.content.v1.agent_pb2 import Agent, AgentModel

SCHEMA_VERSION: Final = 1

_KEYS: Final = {
    "name": "name",
    "version": "definition_version",
    "description": "description",
    "author": "author",
    "group": "group",
    "emoji": "emoji",
    "color": "color",
    "tags": "tags",
    "capabilities": "capabilities",
    "tools": "tools",
    "mcp_servers": "mcp_servers",
    "ai_provider": "ai_provider",
    "model": "model",
    "fallbacks": "fallbacks",
    "instructions": "instructions",
}
"""The fields of an agent by the keys of its definition, in their order."""
_LISTS: Final = frozenset({"tags", "capabilities", "tools", "mcp_servers"})
_SCHEMA: Final = "schema_version"
_ID: Final = "id"
_MODEL_KEYS: Final = ("ai_provider", "model")
_QUOTED: Final = frozenset({"version", "color"})
# No line is broken: what changes in one place is to be one line in a comparison.
_WIDTH: Final = 1_000_000

FIELDS: Final = tuple(_KEYS.values())
"""The fields of an agent that its definition says."""


class DefinitionError(Exception):
    """A definition that says no agent; the sentence names the place and the fix."""


class _Quoted(str):
    """A text that YAML could take for something else once somebody changes it."""

    __slots__ = ()


def write(agent: Agent) -> str:
    """Write the definition of an agent, with every key there is."""
    import yaml  # noqa: PLC0415  # it takes time that most commands have no use for

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as such."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
            del indentless
            return super().increase_indent(flow, indentless=False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        # As a block only where that says every character of it.
        is_plain = all(one == "\n" or one.isprintable() for one in value)
        style = ("|" if "\n" in value else None) if value and is_plain else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    def quoted(dumper: yaml.SafeDumper, value: _Quoted) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style='"')

    Dumper.add_representer(str, text)
    Dumper.add_representer(_Quoted, quoted)
    return yaml.dump(
        _printed(agent),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=_WIDTH,
        default_flow_style=False,
    )


def read(text: str) -> Agent:
    """Read a definition; keys that are left out are empty.

    Raises:
        DefinitionError: it is no YAML, or says what no agent has.
    """
    import yaml  # noqa: PLC0415  # see above

    class Loader(yaml.SafeLoader):
        """Reads no key twice: what one of them says would be lost."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value]
            for place, name in enumerate(names):
                if name in names[:place]:
                    where = node.value[place][0].start_mark
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {name} is there twice", problem_mark=where
                    )
            return super().construct_mapping(node, deep)

    try:
        said = yaml.load(text, Loader)  # noqa: S506  # it is a safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DefinitionError(f"{where}{error.problem or 'this is no YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DefinitionError(f"this is no YAML: {error}") from None
    if not isinstance(said, dict):
        raise DefinitionError("it has to be keys and values, such as `name: Writer`")
    _check_keys(said)
    agent = Agent(id=_text(_ID, said.get(_ID)))
    for key, field in _KEYS.items():
        value = said.get(key)
        if key in _LISTS:
            getattr(agent, field).extend(_list(key, value))
        elif key == "fallbacks":
            agent.fallbacks.extend(_fallbacks(value))
        else:
            setattr(agent, field, _text(key, value))
    return agent


def changed(before: Agent, after: Agent) -> list[str]:
    """Name the fields that two definitions say differently."""
    return [field for field in FIELDS if _value(before, field) != _value(after, field)]


def copied(fields: Iterable[str], source: Agent, target: Agent) -> Agent:
    """Let an agent say in these fields what another one says."""
    for field in fields:
        value = _value(source, field)
        if isinstance(value, list):
            target.ClearField(field)  # type: ignore[arg-type]  # its name is one of FIELDS
            getattr(target, field).extend(value)
        else:
            setattr(target, field, value)
    return target


def _value(agent: Agent, field: str) -> Any:
    value = getattr(agent, field)
    return value if isinstance(value, str) else list(value)


def _printed(agent: Agent) -> dict[str, Any]:
    said: dict[str, Any] = {_SCHEMA: SCHEMA_VERSION}
    for key, field in _KEYS.items():
        value = _value(agent, field)
        if field == "fallbacks":
            value = [{name: getattr(one, name) for name in _MODEL_KEYS} for one in value]
        said[key] = _Quoted(value) if key in _QUOTED else value
    return said


def _check_keys(said: Mapping[Any, Any]) -> None:
    known = [_SCHEMA, _ID, *_KEYS]
    for key in said:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            meant = f"did you mean {close[0]}" if close else f"there are {', '.join(known)}"
            raise DefinitionError(f"{key}: no definition has this key; {meant}")
    if said.get(_SCHEMA, SCHEMA_VERSION) != SCHEMA_VERSION:
        raise DefinitionError(
            f"{_SCHEMA}: this release reads {SCHEMA_VERSION}, not {said[_SCHEMA]!r}"
        )


def _text(key: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        # YAML reads 1.10 as a number, and yes as a truth: what was meant is lost.
        raise DefinitionError(f"{key}: has to be a text; put it in quotes")
    return value


def _list(key: str, value: object) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, list):
        raise DefinitionError(f"{key}: has to be a list, such as [one, two]")
    for place, one in enumerate(value):
        yield _text(f"{key}[{place}]", one)


def _fallbacks(value: object) -> Iterator[AgentModel]:
    if value is None:
        return
    if not isinstance(value, list):
        raise DefinitionError("fallbacks: has to be a list of models")
    for place, one in enumerate(value):
        key = f"fallbacks[{place}]"
        if not isinstance(one, dict) or not {*one} <= {*_MODEL_KEYS}:
            raise DefinitionError(f"{key}: has to be {' and '.join(_MODEL_KEYS)}")
        yield AgentModel(
            **{name: _text(f"{key}.{name}", one.get(name)) for name in _MODEL_KEYS},
        )
