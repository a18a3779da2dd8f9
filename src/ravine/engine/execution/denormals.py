"""Numbers too small for their format's full precision count as zero while networks train.

A processor takes a hundred cycles and more for each. Adam's momentum of a weight that gets no
gradient any more decays to one and stays there: after two epochs of LeNet on MNIST a quarter of
all.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TINY = 1e-39  # denormal in float32
GRAIN = 2**15  # numbers of a kernel from which PyTorch gives a further thread its own
_SOFT = 1  # omp_pause_soft of OpenMP 5


@contextmanager
def denormals_flushed() -> Iterator[bool]:
    """Denormal results and operands of this thread's kernels are zero, on all their threads; else
    nothing is changed.

    The mode belongs to a thread, and OpenMP's take it over from the one that starts them: so those
    that wait are let go, and new ones start. Gives whether denormals are flushed.

    >>> with denormals_flushed() as flushed:
    ...     float(torch.tensor(1e-39) * 1.0) == 0.0 or not flushed
    True
    """
    before = _flushes(1)
    try:
        _set(True)
        flushed = _flushes(torch.get_num_threads())
        if not flushed:
            _set(before)
        yield flushed
    finally:
        _set(before)


def _set(on: bool) -> None:
    torch.set_flush_denormal(on)
    pause = (
        None
        if sys.platform == "win32"
        else getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    )
    if pause is not None:
        pause(_SOFT)


def _flushes(threads: int) -> bool:
    """Whether so many threads flush; their products are looked at as bits, since a denormal may
    compare as zero."""
    return not bool((torch.full((GRAIN * threads,), _TINY) * 1.0).view(torch.int32).any())
