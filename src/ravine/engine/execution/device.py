"""Where a program runs: the device, the threads of its kernels, the dtype of theta."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from ravine.errors import InputError
from ravine.machine import machine


def device(wanted: str) -> str:
    """The device for a recipe's wish, ``"cpu"`` or ``"cuda"``.

    Raises `InputError` where a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device",
            got="cuda",
            expected="a device of this machine",
            repair='use device = "cpu" or "auto"',
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def theta_dtype(precision: str) -> torch.dtype:
    """The dtype of weights and losses: float64 for checks, else float32, whatever the precision of
    products.

    >>> theta_dtype("bfloat16"), theta_dtype("float64")
    (torch.float32, torch.float64)
    """
    return torch.float64 if precision == "float64" else torch.float32


@contextlib.contextmanager
def kernel_threads(count: int) -> Iterator[None]:
    """PyTorch's kernels on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# limits of oneDNN under which it has no products in bfloat16
_WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}


def has_bfloat16(device: str) -> bool:
    """Whether the device has instructions for bfloat16, and the library may use them: not that
    they are faster."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BFLOAT16:
        return False  # its recurrent networks fail in bfloat16 then
    return bool({"amx_bf16", "avx512_bf16", "bf16"} & set(machine()["instructions"]))


def has_tiles(device: str) -> bool:
    """Whether the processor multiplies bfloat16 in tiles (AMX), many times as fast as float32, and
    the library may use them."""
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() not in ("", "DEFAULT", "ALL")
    return device == "cpu" and "amx_bf16" in machine()["instructions"] and not limited
