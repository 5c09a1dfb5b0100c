"""Templates: agents that come with the mesh, to be installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.content.domain.agents import Definition, name_key, suggestions
from services.kit.errors import DomainError, Reason, Resource


@dataclass(frozen=True, slots=True)
class Template:
    """An agent to be installed."""

    id: str
    """That of the agent."""
    category: str
    definition: Definition
    persona: str
    """The text of its persona."""


@dataclass(frozen=True, slots=True)
class Category:
    """Templates of one field."""

    id: str
    name: str
    description: str
    templates: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which templates are to be installed: these, or those of a category, or all."""

    template_ids: tuple[str, ...] = ()
    category: str = ""


def chosen(categories: Sequence[Category], choice: Choice) -> Sequence[Template]:
    """Find the templates somebody chose, each once, in the order of the catalogue.

    Raises:
        DomainError: TEMPLATE_NOT_FOUND.
    """
    if choice.category and choice.category not in {one.id for one in categories}:
        known = ", ".join(one.id for one in categories)
        raise _not_found("category", choice.category, f"; there are: {known}.")
    every = {template.id: template for one in categories for template in one.templates}
    for template_id in choice.template_ids:
        if template_id not in every:
            named = [(one.id, name_key(one.definition.name)) for one in every.values()]
            meant = suggestions(template_id, named)
            hint = (
                f". Did you mean {' or '.join(meant)}?" if meant else "; ListTemplates names all."
            )
            raise _not_found("template", template_id, hint, meant)
    return [
        template
        for template in every.values()
        if choice.category in {"", template.category}
        and (not choice.template_ids or template.id in choice.template_ids)
    ]


def _not_found(noun: str, id_: str, hint: str, meant: Sequence[str] = ()) -> DomainError:
    return DomainError(
        Reason.REASON_TEMPLATE_NOT_FOUND,
        f"No {noun} has the id {id_}{hint}",
        resources=[Resource(noun, id_)],
        metadata={"suggestions": ",".join(meant)} if meant else {},
    )
