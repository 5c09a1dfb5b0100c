"""Personas and their versions, as people read them."""

from __future__ import annotations

from conductor.content.v1.persona_pb2 import Persona, PersonaStatistics, PersonaVersion
from conductor_ai.cli import facts, listing, rows
from conductor_ai.cli.output import json_line
from conductor_ai.cli.tables import Column


def report(persona: Persona, *, as_json: bool) -> None:
    """Print a persona that was saved."""
    print(json_line(persona) if as_json else saved(persona))


def saved(persona: Persona) -> str:
    """Say which version a persona has, and which one runs use."""
    told = f"the persona of {persona.agent_id} is version {persona.version}"
    if persona.active_version != persona.version:
        # Whoever saves a text expects runs to use it.
        told += f"; runs use {persona.active_version}, which `production` stands for"
    return told


def persona_facts(persona: Persona) -> list[tuple[str, str]]:
    """Tell what is known of a persona."""
    return [
        ("agent", persona.agent_id),
        ("version", str(persona.version)),
        ("runs use", str(persona.active_version)),
        *(("alias", f"{one.name} is {one.version}") for one in persona.aliases),
        ("characters", f"{len(persona.content):,}"),
        ("metadata", json_line(persona.metadata) if persona.metadata.fields else ""),
        ("created", facts.when(persona.create_time)),
        ("changed", facts.when(persona.update_time)),
        ("deleted", facts.when(persona.delete_time)),
        ("gone for good", rows.moment(persona.purge_time)),
        ("etag", persona.etag),
    ]


def version_facts(version: PersonaVersion) -> list[tuple[str, str]]:
    """Tell what is known of a version, but its text."""
    return [
        ("agent", version.agent_id),
        ("version", str(version.version)),
        ("aliases", ", ".join(version.aliases)),
        ("author", version.author),
        ("reason", version.reason),
        ("restored from", str(version.restored_from or "")),
        ("used by runs", "yes" if version.used else "no"),
        ("characters", f"{version.characters:,}"),
        ("sha-256", version.content_hash),
        ("metadata", json_line(version.metadata) if version.metadata.fields else ""),
        ("created", facts.when(version.create_time)),
    ]


def statistics_facts(found: PersonaStatistics) -> list[tuple[str, str]]:
    """Tell how a persona grew, and what its text is made of."""
    text = found.content
    return [
        ("versions", f"{found.versions:,} kept, the newest is {found.latest_version}"),
        ("first", facts.when(found.first_version_time)),
        ("last", facts.when(found.last_version_time)),
        ("versions a day", f"{found.versions_per_day:.2f}"),
        ("bytes", f"{found.content_bytes:,} in all texts"),
        ("lines", f"{text.lines:,}"),
        ("words", f"{text.words:,}"),
        ("characters", f"{text.characters:,}"),
        ("headings", f"{text.headings:,}"),
        ("bold", f"{text.bold:,}"),
        ("italic", f"{text.italic:,}"),
        ("code blocks", f"{text.code_blocks:,}"),
        ("links", f"{text.links:,}"),
        ("images", f"{text.images:,}"),
        ("list items", f"{text.list_items:,}"),
    ]


def _persona_columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("agent", 22),
        Column("version", 7, right=True),
        Column("runs use", 8, right=True),
        when,
        Column("aliases", below=True),
    )


def _persona_cells(persona: Persona, when: str) -> tuple[str, ...]:
    return (
        persona.agent_id,
        str(persona.version),
        str(persona.active_version),
        when,
        ", ".join(f"{one.name}={one.version}" for one in persona.aliases),
    )


def _version_columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("version", 7, right=True),
        when,
        Column("author", 16),
        Column("characters", 10, right=True, below=True),
        Column("used", 4, below=True),
        Column("aliases", 12),
        Column("reason", below=True, long=True),
    )


def _version_cells(version: PersonaVersion, when: str) -> tuple[str, ...]:
    return (
        str(version.version),
        when,
        version.author,
        f"{version.characters:,}",
        "yes" if version.used else "",
        ",".join(version.aliases),
        _reason(version),
    )


def _reason(version: PersonaVersion) -> str:
    restored = f"restored from {version.restored_from}" if version.restored_from else ""
    return ": ".join(part for part in (restored, version.reason) if part)


PERSONAS = listing.Layout(_persona_columns, _persona_cells)


VERSIONS = listing.Layout(_version_columns, _version_cells)
