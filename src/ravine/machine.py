"""The machine and the versions: stored with every run, and beside every measured figure."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

# kinds of instructions on which the speed of products depends
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def machine() -> dict[str, Any]:
    """System, processor, cores, kinds of instructions, and GPU where PyTorch is loaded.

    Nothing is imported for it, so that it may be asked anywhere.
    """
    found: dict[str, Any] = {
        "system": platform.platform(),
        "cpu": _cpu("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "instructions": [kind for kind in _INSTRUCTIONS if kind in _flags()],
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those packages that are installed, none of which is imported.

    >>> sorted(versions(["numpy", "no-such-package"]))
    ['numpy', 'python']
    """
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _flags() -> list[str]:
    return (_cpu("flags") or _cpu("Features")).split()


@cache
def _cpu(field: str) -> str:
    """A field of the first processor in Linux's own list; empty elsewhere."""
    with suppress(OSError):
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(rf"^{field}\s*:\s*(.+)$", listed, re.MULTILINE)
        return found[1].strip() if found else ""
    return ""
