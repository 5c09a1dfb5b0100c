"""Errors: a domain error names one reason of the catalogue; this module turns it into a status.

The catalogue is `conductor.errors.v1.Reason`; each reason's code is written there and read from its
descriptor. Nothing else in the mesh picks a status code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from conductor.errors.v1 import reason_pb2
from conductor.errors.v1.reason_pb2 import Reason

__all__ = (
    "DomainError",
    "Reason",
    "Resource",
    "Violation",
    "code_of",
    "invalid",
    "naming",
    "of_field",
    "read_status",
    "reason_name",
    "reason_value",
    "to_status",
)

DOMAIN = "conductor"
"""The `domain` of every ErrorInfo."""

DETAILS = "grpc-status-details-bin"
"""The trailer that holds the status of an error."""

_PREFIX = "REASON_"
_MAX_VIOLATIONS = 10
_MAX_TEXT_BYTES = 256
# Together with the rest these keep a status within 4 KiB.
_VIOLATION_BYTES = 2200
_RESOURCE_BYTES = 1000
_WRAPPING_BYTES = 64
D = TypeVar("D", bound=Message)

_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule a field of the request breaks."""

    field: str
    """Its path, for example `metadata["a"]`."""
    description: str
    """What is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class Resource:
    """The stored thing an error is about."""

    type: str
    """Its noun, for example `execution`."""
    name: str
    """Its id."""
    description: str = ""


class DomainError(Exception):
    """Something a caller is told: one reason, one sentence, and where it applies.

    Args:
        reason: its place in the catalogue, which decides the status code.
        message: one sentence for people, with the fix where there is one.
        violations: the fields of the request that are wrong.
        resources: the stored things it is about.
        retry_after: seconds after which the same call may work.
        metadata: short machine-readable facts for ErrorInfo.
    """

    def __init__(
        self,
        reason: Reason.ValueType,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        resources: Sequence[Resource] = (),
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.resources = tuple(resources)
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})


def invalid(field: str, description: str) -> DomainError:
    """Make the error for one wrong field of a request."""
    return DomainError(
        Reason.REASON_INVALID_REQUEST,
        f"{field}: {description}",
        violations=[Violation(field, description)],
    )


def of_field(error: DomainError, field: str) -> DomainError:
    """Say which field of the request an error is about, unless that is said or there is none."""
    if not field or error.violations:
        return error
    return DomainError(
        error.reason,
        f"{field}: {error.message}",
        violations=[Violation(field, error.message)],
        resources=error.resources,
        retry_after=error.retry_after,
        metadata=error.metadata,
    )


@contextmanager
def naming(fields: Mapping[Reason.ValueType, str]) -> Iterator[None]:
    """Say of errors in the block which field of the request they are about, by their reasons."""
    try:
        yield
    except DomainError as error:
        said = of_field(error, fields.get(error.reason, ""))
        if said is error:
            raise
        raise said from error


def reason_name(reason: Reason.ValueType) -> str:
    """Name a reason as ErrorInfo and stored errors do, without its prefix."""
    return Reason.Name(reason).removeprefix(_PREFIX)


def reason_value(name: str) -> Reason.ValueType:
    """Read a reason back from its name; an unknown name is INTERNAL."""
    try:
        return Reason.Value(_PREFIX + name)
    except ValueError:
        return Reason.REASON_INTERNAL


def code_of(reason: Reason.ValueType) -> grpc.StatusCode:
    """Look up the status code a reason has in the catalogue."""
    options = reason_pb2.Reason.DESCRIPTOR.values_by_number[reason].GetOptions()
    return _CODES[int(options.Extensions[reason_pb2.code])]


def to_status(error: DomainError) -> status_pb2.Status:
    """Turn an error into a status of at most 4 KiB; what does not fit is cut or left out."""
    status = status_pb2.Status(code=code_of(error.reason).value[0], message=_short(error.message))
    info = error_details_pb2.ErrorInfo(
        reason=reason_name(error.reason),
        domain=DOMAIN,
        metadata={key: _short(value) for key, value in error.metadata.items()},
    )
    _pack(status, info)
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_short(violation.field), description=_short(violation.description)
            )
            for violation in error.violations[:_MAX_VIOLATIONS]
        ]
        fitting = _fitting(violations, _VIOLATION_BYTES)
        _pack(status, error_details_pb2.BadRequest(field_violations=fitting))
    resources = [
        error_details_pb2.ResourceInfo(
            resource_type=_short(resource.type),
            resource_name=_short(resource.name),
            description=_short(resource.description),
        )
        for resource in error.resources[:_MAX_VIOLATIONS]
    ]
    for resource_info in _fitting(resources, _RESOURCE_BYTES):
        _pack(status, resource_info)
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def read_status(status: status_pb2.Status) -> DomainError | None:
    """Read an error back from a status; None when it is none of this mesh.

    A reason that a newer release has is INTERNAL here.
    """
    info = error_details_pb2.ErrorInfo()
    if not any(detail.Unpack(info) for detail in status.details) or info.domain != DOMAIN:
        return None
    violations: list[Violation] = []
    resources: list[Resource] = []
    retry_after: float | None = None
    bad_request = error_details_pb2.BadRequest()
    resource = error_details_pb2.ResourceInfo()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(bad_request):
            violations += [
                Violation(one.field, one.description) for one in bad_request.field_violations
            ]
        elif detail.Unpack(resource):
            resources.append(
                Resource(resource.resource_type, resource.resource_name, resource.description)
            )
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    return DomainError(
        reason_value(info.reason),
        status.message,
        violations=violations,
        resources=resources,
        retry_after=retry_after,
        metadata=info.metadata,
    )


def _fitting(details: Sequence[D], room: int) -> list[D]:
    """Take the first details that fit."""
    taken: list[D] = []
    for detail in details:
        room -= detail.ByteSize() + _WRAPPING_BYTES
        if room < 0:
            break
        taken.append(detail)
    return taken


def _pack(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _short(text: str) -> str:
    if len(text) * 4 <= _MAX_TEXT_BYTES or len(text.encode()) <= _MAX_TEXT_BYTES:
        return text
    return text.encode()[: _MAX_TEXT_BYTES - len("…".encode())].decode(errors="ignore") + "…"
