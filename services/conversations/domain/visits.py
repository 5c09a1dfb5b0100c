"""How often somebody without a name may come: so many times in any span of so many seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

MOST = 20
WINDOW = 60_000_000
"""Microseconds."""
_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class Visitor:
    """When somebody came, as far as it still counts."""

    org: str
    id: str
    """See `visitor_id`."""
    first_time: int
    """Microseconds since the epoch."""
    times: tuple[int, ...] = ()
    """The same, in order."""
    version: int = 0
    """Of the stored document; 0 before it is stored."""


def visitor_id(address: str) -> str:
    """Make the id of whoever calls from an address, which is not kept itself.

    Of an IPv6 address the network counts, since whoever has one has all of its addresses.

    Args:
        address: as the edge names it, or any text.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        named = address
    else:
        mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
        if isinstance(parsed, IPv6Address) and mapped is None:
            named = f"{int(parsed) >> (128 - _NETWORK_BITS):x}::"
        else:
            named = str(mapped or parsed)
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def counted(times: Sequence[int], now: int) -> tuple[int, ...]:
    """Leave out what is too long ago to count."""
    return tuple(time for time in times if time > now - WINDOW)


def came(times: Sequence[int], now: int) -> tuple[int, ...] | None:
    """Note that somebody comes once more; None when they come too often.

    Those of a clock that is ahead of this one count, too.
    """
    left = counted(times, now)
    return None if len(left) >= MOST else tuple(sorted((*left, now)))


def wait(times: Sequence[int], now: int) -> float:
    """Tell how many seconds somebody who came too often has to wait."""
    left = counted(times, now)
    return max(0.0, (left[-MOST] + WINDOW - now) / 1_000_000) if len(left) >= MOST else 0.0
