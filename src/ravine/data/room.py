"""Whether data are kept in memory: the one place that decides it for what can be read in pieces."""

from __future__ import annotations

from ravine.machine import memory

MOST_BYTES = 1 << 30  # that are kept, where the process has four times as much
SHARE = 0.25  # of the memory that the process may have yet


def fits(size: float) -> bool:
    """Whether data of so many bytes are kept in memory."""
    return size <= min(MOST_BYTES, SHARE * memory())
