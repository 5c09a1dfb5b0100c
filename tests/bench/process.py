"""What a process takes of the machine, as Linux tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from time import clock_gettime


@dataclass(frozen=True, slots=True)
class Usage:
    """Reads what a process takes."""

    pid: int

    def memory(self) -> float:
        """Resident memory, MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None, status
        return int(found[1]) / 1024

    def processor(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        # The clock of another process is its id in the upper bits: `clock_getcpuclockid(3)` of Linux.
        return clock_gettime(~self.pid << 3 | 2)
