"""YAML as people write it: plain keys and values, and nothing that only machines would use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

_WIDTH = 2**20
"""Lines are not folded."""
_MOST_BYTES = 256 * 1024


class PlainYaml:
    """Reads and writes YAML files that hold keys and values."""

    def read(self, raw: bytes) -> Mapping[str, Any]:
        """Read a file.

        Raises:
            ValueError: it is something else, or holds what is not read here: anchors, tags, a key twice.
        """
        if len(raw) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        try:
            row = yaml.load(raw.decode(), Loader=_Loader)  # noqa: S506 it is a safe loader
        except UnicodeDecodeError:
            raise ValueError("it is not UTF-8") from None
        except yaml.YAMLError as error:
            raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from None
        except (RecursionError, ValueError) as error:
            raise ValueError(f"it cannot be read: {error}") from None
        if row is None:
            return {}
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            raise ValueError("it must hold keys and values")
        return row

    def written(self, row: Mapping[str, Any]) -> bytes:
        """Write a file; what it says is read back the same."""
        text = yaml.dump(
            dict(row),
            Dumper=_Dumper,
            allow_unicode=True,
            default_flow_style=False,
            sort_keys=False,
            width=_WIDTH,
        )
        return text.encode()


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML has no types here
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("anchors and aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in names:
                raise ValueError(f"it has the key {str(key.value)[:100]} twice")
            names.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Write a text of several lines as a block; quoted, where a block does not say every character."""
    style = None
    if not text.isprintable():
        is_plain = all(one == "\n" or one.isprintable() for one in text)
        style = "|" if is_plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
