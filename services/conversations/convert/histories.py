"""Histories, and what runs came to, as messages of the protos."""

from __future__ import annotations

from conductor.conversations.v1 import instance_pb2 as pb
from services.conversations.domain.histories import Link, Outcome, Totals, Whose
from services.kit.messages import timestamp


def whose_of(agent_id: str, instance_id: str) -> Whose:
    """Read whose history is meant."""
    return Whose(agent_id, instance_id)


def entry_to_proto(link: Link) -> pb.HistoryEntry:
    """Print a run of a history."""
    run = link.run
    return pb.HistoryEntry(
        execution_id=run.execution_id,
        agent_id=run.agent_id,
        instance_id=run.instance_id,
        conversation_id=run.conversation_id,
        user_input=run.question,
        ai_response=run.answer,
        succeeded=run.outcome is Outcome.SUCCEEDED,
        error_reason=run.error_reason,
        duration_ms=run.duration / 1000,
        end_time=timestamp(link.create_time),
    )


def statistics_to_proto(totals: Totals) -> pb.InstanceStatistics:
    """Print what runs came to."""
    printed = pb.InstanceStatistics(
        task_count=totals.count,
        success_count=totals.succeeded,
        error_count=totals.failed,
        cancelled_count=totals.cancelled,
        success_rate=totals.success_rate,
        total_execution_time_ms=totals.duration / 1000,
    )
    if totals.average_duration is not None:
        printed.average_execution_time_ms = totals.average_duration / 1000
        printed.last_task_duration_ms = totals.last_duration / 1000
        printed.last_execution.CopyFrom(timestamp(totals.last_time))
    return printed
