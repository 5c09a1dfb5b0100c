"""What only the embedded store has: a file that may be something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.execution.stores import COLLECTIONS, LOGS
from services.kit.storage.ports import UnreadableStoreError
from services.kit.storage.sqlite import SqliteStore


async def test_a_file_that_is_no_database_is_refused_with_a_sentence_and_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "execution.db"
    path.write_text("this is a letter, not a database\n" * 100)
    with pytest.raises(UnreadableStoreError, match=r"execution\.db cannot be read"):
        await SqliteStore.open(path, COLLECTIONS, LOGS)
    assert path.read_text().startswith("this is a letter")
