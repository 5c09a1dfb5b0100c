"""Update masks: which fields of a thing an update changes."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.kit.errors import invalid


def fields_of(
    message: Message, mask: FieldMask, updatable: frozenset[str], at: str
) -> frozenset[str]:
    """Tell which fields of a message an update changes: those the mask names, else those it has.

    A message has a field when an `optional` one is there, whatever it holds, and when a list is not
    empty; so clearing a list needs a mask. What the message has beside the updatable fields is passed
    over, since whoever sends back what was read has all of it.

    Args:
        updatable: the names of the fields that may change.
        at: the field of the request that holds the message.

    Raises:
        DomainError: INVALID_REQUEST, when the mask names anything else, or nothing is to change.
    """
    choices = ", ".join(sorted(updatable))
    if mask.paths:
        for path in mask.paths:
            if path not in updatable:
                raise invalid("update_mask", f"may name {choices}; `{path}` is none of them")
        return frozenset(mask.paths)
    present = {field.name for field, _ in message.ListFields()}
    changed = present & updatable
    if not changed:
        raise invalid("update_mask", f"must name what changes, or {at} must have it: {choices}")
    return frozenset(changed)
