"""Imports: what a file holds, held against what there is, and what is to be written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias
