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
        "instructions": [kind for kind in _INSTRUCTIONS if kind in flags()],
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def memory() -> float:
    """Bytes that this process may take yet: what the machine has free, within the limits of the
    process (``ulimit -v``) and of its control group; infinite where nothing is known.

    >>> memory() > 0
    True
    """
    return min(_free(), _unreserved(), _of_group())


def _free() -> float:
    text = _text("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return 1024.0 * int(found[1]) if found else float("inf")


def _unreserved() -> float:
    """Address space under ``ulimit -v``."""
    limit = re.search(r"^Max address space\s+(\d+)", _text("/proc/self/limits"), re.MULTILINE)
    used = re.search(r"^VmSize:\s+(\d+) kB", _text("/proc/self/status"), re.MULTILINE)
    if not limit or not used:
        return float("inf")
    return max(0.0, int(limit[1]) - 1024.0 * int(used[1]))


def _of_group() -> float:
    """What the control group leaves, its cache of files taken for free."""
    group = re.search(r"^0::(/.*)$", _text("/proc/self/cgroup"), re.MULTILINE)
    if not group:
        return float("inf")
    folder, least = Path("/sys/fs/cgroup") / group[1].lstrip("/"), float("inf")
    for place in (folder, *folder.parents):
        limit, used = _text(place / "memory.max").strip(), _text(place / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            cached = re.search(r"^file (\d+)", _text(place / "memory.stat"), re.MULTILINE)
            left = int(limit) - int(used) + (int(cached[1]) if cached else 0)
            least = min(least, float(max(0, left)))
        if place == Path("/sys/fs/cgroup"):
            break
    return least


def _text(path: str | Path) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those packages that are installed, none of which is imported.

    >>> sorted(versions(["numpy", "no-such-package"]))
    ['numpy', 'python']
    """
    found = {"python": platform.python_version()}
    return found | {package: known for package in packages if (known := _version(package))}


@cache  # each is read from a file, and every run asks for a dozen
def _version(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def flags() -> list[str]:
    """What the processor says of its instructions."""
    return (_cpu("flags") or _cpu("Features")).split()


@cache
def _cpu(field: str) -> str:
    """A field of the first processor in Linux's own list; empty elsewhere."""
    with suppress(OSError):
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(rf"^{field}\s*:\s*(.+)$", listed, re.MULTILINE)
        return found[1].strip() if found else ""
    return ""
