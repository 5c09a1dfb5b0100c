"""Archives as messages."""

from __future__ import annotations

from conductor.content.v1 import archive_service_pb2 as pb
from services.content.convert.findings import finding_to_proto
from services.content.domain.archives import Layout
from services.content.domain.imports import Action, ImportItem, ImportReport, Progress


def layout_of(layout: pb.ArchiveLayout.ValueType) -> Layout:
    """Read what an archive is to be like."""
    is_directory = layout == pb.ARCHIVE_LAYOUT_DIRECTORY
    return Layout.DIRECTORY if is_directory else Layout.BACKUP


def progress_to_proto(progress: Progress) -> pb.ArchiveProgress:
    """Print how far something is."""
    phase = pb.ArchiveProgress.Phase.Value(f"PHASE_{progress.phase.name}")
    return pb.ArchiveProgress(phase=phase, done=progress.done, total=progress.total)


def exported(part: Progress | bytes) -> pb.ExportArchiveResponse:
    """Print a part of an archive, or how far it is."""
    if isinstance(part, bytes):
        return pb.ExportArchiveResponse(chunk=part)
    return pb.ExportArchiveResponse(progress=progress_to_proto(part))


def imported(step: Progress | ImportReport) -> pb.ImportArchiveResponse:
    """Print how far an import is, or what happened."""
    if isinstance(step, Progress):
        return pb.ImportArchiveResponse(progress=progress_to_proto(step))
    return pb.ImportArchiveResponse(report=report_to_proto(step))


def report_to_proto(report: ImportReport) -> pb.ImportReport:
    """Print what happened."""
    return pb.ImportReport(
        dry_run=report.dry_run,
        created=report.counts[Action.CREATED],
        overwritten=report.counts[Action.OVERWRITTEN],
        kept=report.counts[Action.KEPT],
        unchanged=report.counts[Action.UNCHANGED],
        items=map(_item, report.items),
        findings=map(finding_to_proto, report.findings),
    )


def _item(item: ImportItem) -> pb.ImportItem:
    return pb.ImportItem(
        action=pb.ImportItem.Action.Value(f"ACTION_{item.action.name}"),
        kind=item.kind,
        id=item.id,
        name=item.name,
        detail=item.detail,
    )
