"""Instances as messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from conductor.conversations.v1 import instance_pb2 as pb
from conductor.conversations.v1 import instance_service_pb2, kin_service_pb2
from services.conversations.convert.histories import statistics_to_proto
from services.conversations.domain.histories import Totals
from services.conversations.domain.instances import (
    MOST_CONFIG,
    Asked,
    Instance,
    Order,
    Position,
    Status,
    Wanted,
)
from services.conversations.domain.parents import Kind
from services.kit.errors import invalid
from services.kit.messages import life_to_proto, object_of, struct_of, timestamp

UPDATABLE = frozenset(
    {
        "position",
        "status",
        "cwd",
        "config",
        "emoji",
        "display_order",
        "mcp_configs",
        "is_system_default",
        "is_hidden",
    }
)
"""The fields that an update may change."""
_GIVEN = frozenset({*UPDATABLE, "agent_id", "screenplay_id", "conversation_id"})
_LARGEST_CONFIG = 16 * MOST_CONFIG
"""More bytes than any config of the longest JSON has as a message: a larger one is not even read."""
_STATUS, _ORDER, _KIND = "STATUS_", "ORDER_", "PARENT_KIND_"


def asked_of_create(request: instance_service_pb2.CreateInstanceRequest) -> Asked:
    """Read what a caller asks to be made.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    message = request.instance
    present = {field.name for field, _ in message.ListFields()}
    return Asked(values_of(message, present & _GIVEN), message.instance_id, request.request_id)


def values_of(message: pb.Instance, fields: Collection[str]) -> dict[str, Any]:
    """Read fields of an instance; those that are named and absent are cleared.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    values = {name: _value(message, name) for name in fields}
    if values.get("status", Status.PENDING) is None:
        # Unspecified is as it is.
        del values["status"]
    return values


def _value(message: pb.Instance, name: str) -> Any:
    match name:
        case "position":
            place = message.position
            return Position(place.x, place.y) if message.HasField("position") else None
        case "status":
            return status_of(message.status)
        case "config":
            return _config(message)
        case "mcp_configs":
            return tuple(message.mcp_configs)
        case _:
            return getattr(message, name)


def _config(message: pb.Instance) -> dict[str, Any] | None:
    if not message.HasField("config"):
        return None
    if message.config.ByteSize() > _LARGEST_CONFIG:
        raise invalid("instance.config", f"must have at most {MOST_CONFIG} bytes as JSON")
    return object_of(message.config)


def status_of(status: pb.Instance.Status.ValueType) -> Status | None:
    """Read a status; None for none."""
    return Status[pb.Instance.Status.Name(status).removeprefix(_STATUS)] if status else None


def instance_to_proto(instance: Instance, totals: Totals, keep_days: float) -> pb.Instance:
    """Print an instance with its config.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """
    message = summary_to_proto(instance, totals, keep_days)
    message.config.CopyFrom(struct_of(instance.config))
    return message


def summary_to_proto(instance: Instance, totals: Totals, keep_days: float) -> pb.Instance:
    """Print an instance without its config, as in lists."""
    message = pb.Instance(
        instance_id=instance.id,
        agent_id=instance.agent_id,
        screenplay_id=instance.screenplay_id,
        conversation_id=instance.conversation_id,
        status=pb.Instance.Status.Value(f"{_STATUS}{instance.status.name}"),
        cwd=instance.cwd,
        emoji=instance.emoji,
        display_order=instance.display_order,
        mcp_configs=instance.mcp_configs,
        is_system_default=instance.is_system_default,
        is_hidden=instance.is_hidden,
        statistics=statistics_to_proto(totals),
        create_time=timestamp(instance.create_time),
        update_time=timestamp(instance.update_time),
        etag=instance.etag,
    )
    if instance.position is not None:
        message.position.CopyFrom(pb.Position(x=instance.position.x, y=instance.position.y))
    life_to_proto(instance.fate, message, keep_days)
    return message


def wanted_of(request: instance_service_pb2.ListInstancesRequest) -> Wanted:
    """Read which instances to list."""
    name = instance_service_pb2.ListInstancesRequest.Order.Name(request.order)
    return Wanted(
        agent_id=request.agent_id,
        screenplay_id=request.screenplay_id,
        conversation_id=request.conversation_id,
        status=status_of(request.status),
        order=Order[name.removeprefix(_ORDER)] if request.order else Order.CREATE_TIME,
        reverse=request.reverse,
        deleted=request.deleted,
    )


def tools_to_proto(
    instance: Instance, of_agent: Sequence[str], combined: Sequence[str]
) -> instance_service_pb2.InstanceMcpConfigs:
    """Print the MCP servers of an instance and of its agent."""
    return instance_service_pb2.InstanceMcpConfigs(
        instance_id=instance.id,
        agent_id=instance.agent_id,
        template_mcps=of_agent,
        instance_mcps=instance.mcp_configs,
        combined=combined,
    )


def kind_of(kind: kin_service_pb2.ParentKind.ValueType) -> Kind:
    """Read a kind of thing of the content service."""
    return Kind[kin_service_pb2.ParentKind.Name(kind).removeprefix(_KIND)]
