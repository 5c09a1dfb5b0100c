"""What a mesh answers instead of a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "conductor"
_M = TypeVar("_M", bound=Message)


class ConductorError(Exception):
    """A call to a mesh failed.

    Args:
        code: the status of the call.
        reason: the name of a value of `conductor.errors.v1.Reason` without its prefix, for example
            `EXECUTION_NOT_FOUND`; empty when the error does not come from a service of the mesh,
            for example because nothing answered.
        message: one sentence for people.
        status: everything the mesh said, with the details as they came.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        status: status_pb2.Status | None = None,
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.status = status or status_pb2.Status()

    @classmethod
    def decode(cls, error: grpc.aio.AioRpcError) -> ConductorError:
        """Read the details of a failed call."""
        status = _status(error)
        message = error.details() or error.code().name
        reason = ""
        for info in _details(status, error_details_pb2.ErrorInfo):
            if info.domain == _DOMAIN:
                reason = info.reason
        return cls(error.code(), reason, status.message or message, status)

    @property
    def metadata(self) -> dict[str, str]:
        """What the reason says besides, for example the `execution_id` of CONVERSATION_BUSY."""
        for info in _details(self.status, error_details_pb2.ErrorInfo):
            if info.domain == _DOMAIN:
                return dict(info.metadata)
        return {}

    @property
    def field_violations(self) -> list[error_details_pb2.BadRequest.FieldViolation]:
        """Which fields of the request break a rule, and how to fix each."""
        bad_requests = _details(self.status, error_details_pb2.BadRequest)
        return [violation for bad in bad_requests for violation in bad.field_violations]

    @property
    def resources(self) -> list[error_details_pb2.ResourceInfo]:
        """What the error is about, for example the execution that failed."""
        return list(_details(self.status, error_details_pb2.ResourceInfo))

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the mesh asks to try again; None when it does not ask."""
        for info in _details(self.status, error_details_pb2.RetryInfo):
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
        return None


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata():
        if key == _DETAILS_KEY:
            raw = value if isinstance(value, bytes) else value.encode()
            try:
                return status_pb2.Status.FromString(raw)
            except DecodeError:
                break
    return status_pb2.Status()


def _details(status: status_pb2.Status, kind: type[_M]) -> Iterator[_M]:
    for packed in status.details:
        detail = kind()
        if packed.TypeName() == detail.DESCRIPTOR.full_name:
            packed.Unpack(detail)
            yield detail
