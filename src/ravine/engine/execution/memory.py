"""Freed memory stays with the process: a step's activations come and go, and fresh pages cost more
than the arithmetic on them."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, from malloc.h
# bytes: as much may lie free at the heap's end, and smaller blocks come from the heap
_KEPT = 1 << 30


@cache
def keep_freed_memory() -> bool:
    """Tell the C library's allocator not to hand freed memory back after every tensor; once for the
    process.

    By default glibc maps large blocks afresh and unmaps them when they are freed, so a
    convolutional network of batch 128 takes thousands of page faults each step. Gives whether the
    allocator has taken it; others than glibc's need no telling.
    """
    mallopt = _of_glibc("mallopt")
    return (
        mallopt is not None
        and bool(mallopt(_MMAP_THRESHOLD, _KEPT))
        and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
    )


def give_back_freed_memory() -> bool:
    """Hand what was kept back to the system, when training is over; whether the allocator has given
    anything."""
    trim = _of_glibc("malloc_trim")
    return trim is not None and bool(trim(0))


def _of_glibc(name: str) -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
