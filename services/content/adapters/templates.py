"""The templates in the folder `templates`: a folder for each category, and in it one for each agent.

`categories.yaml` names the categories in their order. An agent has a `definition.yaml` and a
`persona.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.content.adapters.yamls import PlainYaml
from services.content.domain import personas
from services.content.domain.agents import Definition, check_id
from services.content.domain.directories import (
    DEFINITION,
    DEFINITION_KEYS,
    PERSONA,
    definition_of,
)
from services.content.domain.templates import Category, Template
from services.kit.errors import DomainError
from services.kit.settings import SettingsError
from services.kit.tasks import threaded

FOLDER = Path(__file__).parents[1] / "templates"
_NEEDED = ("schema_version", "name", "version", "description", "author")


class BrokenTemplateError(SettingsError):
    """A file of the templates is not what it should be; the message names it and says why."""


class TemplateFolder:
    """The templates as files."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    async def check(self) -> tuple[int, str]:
        """Read them all."""
        try:
            found = await threaded(read_templates, self._folder)
        except BrokenTemplateError as error:
            return 0, str(error)
        return sum(len(category.templates) for category in found), ""


def read_templates(folder: Path = FOLDER) -> tuple[Category, ...]:
    """Read and check every template, by category.

    Raises:
        BrokenTemplateError: also for folders that no category or template accounts for.
    """
    file = folder / "categories.yaml"
    rows = _mapping(file).get("categories")
    if not isinstance(rows, list) or not rows:
        raise _broken(file, "needs a list `categories`")
    categories = tuple(_category(file, folder, row) for row in rows)
    names = [one.id for one in categories]
    names += [template.id for one in categories for template in one.templates]
    for name in names:
        if names.count(name) > 1:
            raise _broken(folder, f"has {name} twice")
    for found in _folders(folder):
        if found.name not in names:
            raise _broken(file, f"does not name the folder {found.name}")
    return categories


def _category(file: Path, folder: Path, row: object) -> Category:
    match row:
        case {"id": str() as id_, "name": str() as name, "description": str() as description}:
            pass
        case _:
            raise _broken(file, "needs `id`, `name` and `description` of each category")
    if not (folder / id_).is_dir():
        raise _broken(file, f"names {id_}, which is no folder")
    return Category(
        id_, name, description, tuple(_template(id_, path) for path in _folders(folder / id_))
    )


def _template(category: str, folder: Path) -> Template:
    file = folder / DEFINITION
    definition = _definition(file)
    try:
        check_id(folder.name, "id")
    except DomainError as error:
        raise _broken(file, f"cannot be used: {error.message}") from None
    if definition.group != category:
        raise _broken(file, f"has the group `{definition.group}` and not that of its folder")
    persona = folder / PERSONA
    try:
        draft = personas.checked(personas.Draft(_decoded(persona)))
    except DomainError as error:
        raise _broken(persona, f"cannot be used: {error.message}") from None
    return Template(folder.name, category, definition, draft.content)


def _definition(file: Path) -> Definition:
    row = _mapping(file)
    if missing := [key for key in _NEEDED if not row.get(key)]:
        raise _broken(file, f"lacks {', '.join(missing)}")
    if unknown := row.keys() - DEFINITION_KEYS:
        raise _broken(file, f"has the unknown keys {', '.join(sorted(unknown))}")
    try:
        return definition_of(row)
    except DomainError as error:
        raise _broken(file, f"cannot be used: {error.message}") from None
    except ValueError as error:
        raise _broken(file, f"cannot be used: {error}") from None


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder, but for those that tools make."""
    return (
        path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith((".", "__"))
    )


def _mapping(file: Path) -> Mapping[str, Any]:
    try:
        return PlainYaml().read(_read(file))
    except ValueError as error:
        raise _broken(file, f"cannot be used: {error}") from None


def _decoded(file: Path) -> str:
    try:
        # As bytes: line ends stay what they are.
        return _read(file).decode()
    except UnicodeDecodeError:
        raise _broken(file, "is not UTF-8") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _broken(file, f"cannot be read ({error.strerror})") from None


def _broken(file: Path, description: str) -> BrokenTemplateError:
    return BrokenTemplateError(f"The template file {file} {description}.")
