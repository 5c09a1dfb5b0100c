"""Templates as messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from conductor.content.v1 import template_service_pb2 as pb
from services.content.convert.agents import definition_to_proto
from services.content.domain.templates import Category, Choice, Template


def choice_of(request: pb.InstallTemplatesRequest) -> Choice:
    """Read which templates to install."""
    return Choice(tuple(request.template_ids), request.category)


def templates_to_proto(
    categories: Sequence[Category], installed: Collection[str]
) -> pb.ListTemplatesResponse:
    """Print templates by category.

    Args:
        installed: the ids of those the caller has as agents.
    """
    return pb.ListTemplatesResponse(
        categories=[
            pb.TemplateCategory(
                id=one.id,
                name=one.name,
                description=one.description,
                templates=[_template(template, installed) for template in one.templates],
            )
            for one in categories
        ]
    )


def _template(template: Template, installed: Collection[str]) -> pb.Template:
    agent = definition_to_proto(template.definition)
    agent.id = agent.template_id = template.id
    return pb.Template(
        id=template.id,
        category=template.category,
        agent=agent,
        persona_content=template.persona,
        installed=template.id in installed,
    )
