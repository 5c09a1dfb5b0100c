"""Deletions in the messages of deletable things."""

from __future__ import annotations

from typing import TypeAlias

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.persona_pb2 import Persona
from conductor.content.v1.screenplay_pb2 import Screenplay
from services.content.domain.deletions import Life, purge_time
from services.kit.messages import timestamp

Deletable: TypeAlias = Agent | Persona | Screenplay


def life_to_proto(life: Life, message: Deletable, keep_days: float) -> None:
    """Print into the message of a thing when it was deleted and goes for good, if it is deleted.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """
    if life.delete_time is None:
        return
    message.delete_time.CopyFrom(timestamp(life.delete_time))
    if keep_days:
        message.purge_time.CopyFrom(timestamp(purge_time(life.delete_time, keep_days)))
