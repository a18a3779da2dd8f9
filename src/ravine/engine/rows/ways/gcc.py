"""C files of this folder: compiled by GCC once a machine, and kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from ravine.machine import flags
from ravine.storage.files import atomic

COMPILER = "gcc"  # its OpenMP is the library that PyTorch has loaded; another would start threads of its own
OPTIONS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp")
SECONDS = 60  # for compiling, which takes under two


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The functions of a C file; None where this machine has no compiler."""
    try:
        return ctypes.CDLL(str(_compiled(source)))
    except (OSError, subprocess.SubprocessError):
        return None


def found() -> bool:
    """Whether this machine has the compiler."""
    return shutil.which(COMPILER) is not None


def _compiled(source: Path) -> Path:
    """The library's file; it is compiled where the user's cache has none for this source, compiler and processor."""
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise FileNotFoundError(COMPILER)
    about = Path(compiler).resolve().stat()
    parts = (source.read_text(), compiler, about.st_size, about.st_mtime, OPTIONS, flags())
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()
    path = user_cache_path("ravine") / "compiled" / f"{source.stem}-{digest[:32]}.so"
    if not path.exists():
        with atomic(path) as partial:
            to = ("-shared", "-fPIC", str(source), "-o", str(partial), "-lm")
            command = [compiler, *OPTIONS, *to]
            subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    return path
