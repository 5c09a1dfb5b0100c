"""How long tests wait."""

from __future__ import annotations

PATIENCE = 90.0
"""Seconds to wait for what comes at once: many, since the machine may be busy with other things."""
