"""Whether data are kept in memory: the one place that decides it for what can be read in pieces."""

from __future__ import annotations

from ravine.errors import InputError
from ravine.machine import memory

MOST_BYTES = 1 << 30  # that are kept, where the process has four times as much
SHARE = 0.25  # of the memory that the process may have yet


def fits(size: float) -> bool:
    """Whether data of so many bytes are kept in memory."""
    return size <= min(MOST_BYTES, SHARE * memory())


def check_made(field: str, got: int, values: float) -> None:
    """Refuse to make so many numbers of data that do not fit into memory: the kernel would end the process,
    or another one."""
    if 8 * values > memory():
        repair = f"{8 * values / 2**30:,.1f} GiB of numbers do not fit into memory"
        raise InputError(f"data.source.{field}", got=got, expected="fewer", repair=repair)
