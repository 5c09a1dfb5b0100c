"""Screenplays and their texts as messages."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from conductor.content.v1 import screenplay_pb2
from conductor.content.v1 import screenplay_service_pb2 as pb
from services.content.convert.comparisons import comparison_to_proto
from services.content.convert.findings import finding_to_proto
from services.content.domain.comparisons import Comparison
from services.content.domain.markdown import Report
from services.content.domain.screenplays import Asked, Checked, Order, Screenplay, Text, Wanted
from services.kit.messages import life_to_proto, timestamp

UPDATABLE = frozenset(
    {
        "name",
        "description",
        "tags",
        "content",
        "working_directory",
        "file_path",
        "import_path",
        "export_path",
    }
)
"""The fields that an update may change."""
_IMPORTED = frozenset(
    {"import_path", "content", "name", "description", "tags", "working_directory"}
)
_ORDER = "ORDER_"
_BODY_BYTES = 64 * 1024
"""The most that Envoy takes as the beginning of a file is 1 MiB."""
_CONTENT_TYPE = "text/markdown; charset=utf-8"


def asked_of_create(request: pb.CreateScreenplayRequest) -> Asked:
    """Read what a caller asks to be made."""
    values = {"name": ""} | _given(request.screenplay, UPDATABLE)
    return Asked(values, request.request_id)


def asked_of_import(request: pb.ImportScreenplayRequest) -> Asked:
    """Read what a caller asks to be made of a file."""
    return Asked(_given(request, _IMPORTED))


def values_of(message: screenplay_pb2.Screenplay, fields: Collection[str]) -> dict[str, Any]:
    """Read the fields of a screenplay that change."""
    return {name: _value(message, name) for name in fields}


def _given(message: Message, fields: Collection[str]) -> dict[str, Any]:
    return {
        field.name: _value(message, field.name)
        for field, _ in message.ListFields()
        if field.name in fields
    }


def _value(message: Message, name: str) -> Any:
    value = getattr(message, name)
    return tuple(value) if name == "tags" else value


def checked_to_proto(checked: Checked, keep_days: float) -> screenplay_pb2.Screenplay:
    """Print a screenplay, and what is to be said of its text.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """
    message = screenplay_to_proto(checked.screenplay, keep_days)
    message.findings.extend(map(finding_to_proto, checked.findings))
    message.same_content.extend(map(reference_to_proto, checked.same_content))
    return message


def screenplay_to_proto(screenplay: Screenplay, keep_days: float) -> screenplay_pb2.Screenplay:
    """Print a screenplay with its text."""
    message = summary_to_proto(screenplay, keep_days)
    message.content = screenplay.content
    return message


def summary_to_proto(screenplay: Screenplay, keep_days: float) -> screenplay_pb2.Screenplay:
    """Print a screenplay without its text, as in lists."""
    message = screenplay_pb2.Screenplay(
        id=screenplay.id,
        name=screenplay.name,
        description=screenplay.description,
        tags=screenplay.tags,
        working_directory=screenplay.working_directory,
        file_path=screenplay.file_path,
        import_path=screenplay.import_path,
        export_path=screenplay.export_path,
        version=screenplay.revision,
        content_bytes=screenplay.content_bytes,
        content_hash=screenplay.content_hash,
        create_time=timestamp(screenplay.create_time),
        update_time=timestamp(screenplay.update_time),
        last_use_time=timestamp(screenplay.last_use_time),
        etag=screenplay.etag,
    )
    life_to_proto(screenplay.life, message, keep_days)
    return message


def reference_to_proto(screenplay: Screenplay) -> screenplay_pb2.ScreenplayReference:
    """Print a screenplay by its names."""
    return screenplay_pb2.ScreenplayReference(
        id=screenplay.id,
        name=screenplay.name,
        file_path=screenplay.file_path,
        import_path=screenplay.import_path,
    )


def wanted_of(request: pb.ListScreenplaysRequest) -> Wanted:
    """Read which screenplays to list."""
    name = pb.ListScreenplaysRequest.Order.Name(request.order).removeprefix(_ORDER)
    return Wanted(
        query=request.query,
        tags=tuple(tag for tag in request.tags if tag.strip()),
        order=Order[name] if request.order else Order.LAST_USE_TIME,
        reverse=request.reverse,
        deleted=request.deleted,
    )


def report_to_proto(report: Report) -> pb.ValidateMarkdownResponse:
    """Print what is wrong with a text."""
    return pb.ValidateMarkdownResponse(
        is_valid=report.is_valid,
        errors=map(finding_to_proto, report.errors),
        warnings=map(finding_to_proto, report.warnings),
        truncated=report.truncated,
    )


def text_to_proto(text: Text) -> screenplay_pb2.ScreenplayVersion:
    """Print a text."""
    message = text_summary_to_proto(text)
    message.content = text.content
    return message


def text_summary_to_proto(text: Text) -> screenplay_pb2.ScreenplayVersion:
    """Print what is known of a text, as in lists."""
    return screenplay_pb2.ScreenplayVersion(
        screenplay_id=text.screenplay_id,
        version=text.revision,
        content_bytes=text.content_bytes,
        content_hash=text.content_hash,
        author=text.author,
        create_time=timestamp(text.create_time),
    )


def compared_to_proto(
    before: Text, after: Text, comparison: Comparison
) -> pb.CompareScreenplayVersionsResponse:
    """Print two texts and how they differ."""
    response = pb.CompareScreenplayVersionsResponse(
        to=text_summary_to_proto(after), comparison=comparison_to_proto(comparison)
    )
    # A word of Python, so no argument can have its name.
    getattr(response, "from").CopyFrom(text_summary_to_proto(before))
    return response


def file_of(screenplay: Screenplay) -> Iterator[HttpBody]:
    """Print the text alone, in pieces; at least one, which says what it is."""
    data = screenplay.content.encode()
    for begin in range(0, max(len(data), 1), _BODY_BYTES):
        yield HttpBody(content_type=_CONTENT_TYPE, data=data[begin : begin + _BODY_BYTES])
