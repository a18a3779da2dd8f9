"""Snapshots: safetensors and a manifest. The manifest comes last, so it alone makes a directory a
snapshot.

``arrays-*.safetensors`` is written and fsynced under a name of its own; then ``manifest.json``,
which names that file and holds the sha256 of every array and of itself, is renamed into place. So a
snapshot can be replaced, and a process killed, at any moment: the directory then holds the old one or
the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ravine.errors import RavineError, first_line
from ravine.storage.bounded import MOST_SETTINGS, exists, parse_json, read_text
from ravine.storage.files import sync, write_text

_FORMAT = 1
_NATIVE = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8}
# an array of any other dtype is kept as its bytes
_NATIVE |= {
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
}


class Found(NamedTuple):
    """The newest intact snapshot, and why newer ones were passed over."""

    path: Path
    arrays: dict[str, Tensor]
    facts: dict[str, Any]
    skipped: list[str]


def write(directory: Path, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write arrays and facts (JSON) as one snapshot, durably; an existing one is replaced in
    one move.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "step-000000500"
    >>> write(place, {"theta": torch.ones(2, 3)}, {"step": 500})
    >>> arrays, facts = read(place)
    >>> arrays["theta"].shape, facts
    (torch.Size([2, 3]), {'step': 500})
    """
    directory = Path(directory)
    _make(directory)
    plain = {name: _plain(array) for name, array in arrays.items()}
    name = f"arrays-{secrets.token_hex(4)}.safetensors"
    described = {key: _describe(array) for key, array in plain.items()}
    body = {"format": _FORMAT, "file": name, "arrays": described, "facts": dict(facts)}
    text = json.dumps({**body, "sha256": _digest(body)}, indent=1)
    try:
        save_file(_storable(plain), directory / name)
        sync(directory / name)
        write_text(directory / "manifest.json", text)
    except BaseException:
        _forget(directory, name)
        raise
    for stale in directory.iterdir():
        if stale.name not in (name, "manifest.json"):
            stale.unlink()


def _forget(directory: Path, name: str) -> None:
    """Take away what a failure left of a snapshot, such as a full disk: no half file stays."""
    with suppress(OSError):
        place = directory / "manifest.json"
        if place.exists() and name in place.read_text(encoding="utf-8"):
            return  # it was named before the failure: it counts
        (directory / name).unlink(missing_ok=True)
        directory.rmdir()  # unless an older snapshot is in it


def read(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The arrays and facts of a snapshot, every hash checked; damage is a RavineError that names
    the array."""
    directory = Path(directory)
    manifest = _manifest(directory)
    try:
        stored = load_file(directory / manifest["file"])
    except (OSError, SafetensorError) as error:
        raise _damaged(directory, f"{manifest['file']}: {error}") from None
    arrays = {}
    for name, entry in manifest["arrays"].items():
        if name not in stored:
            raise _damaged(directory, f"array {name!r} is missing")
        if _hash(stored[name]) != entry["sha256"]:
            raise _damaged(directory, f"array {name!r} is not what was written (sha256 differs)")
        try:
            typed = _typed(stored[name], getattr(torch, entry["dtype"]))
            arrays[name] = typed.reshape(entry["shape"])
        except (RuntimeError, TypeError, OverflowError) as error:
            raise _damaged(directory, f"array {name!r}: {first_line(error)}") from None
    return arrays, manifest["facts"]


def facts(directory: Path) -> dict[str, Any]:
    """The facts alone, without reading the arrays."""
    return _manifest(Path(directory))["facts"]


def newest(paths: Sequence[Path]) -> Found:
    """The first intact snapshot of a list, newest first; with none it is a RavineError that says
    what each lacked."""
    skipped: list[str] = []
    for path in paths:
        try:
            return Found(path, *read(path), skipped)
        except RavineError as error:
            skipped.append(str(error))
    raise RavineError("no intact snapshot: " + ("; ".join(skipped) or "none was written yet"))


def prune(paths: Sequence[Path], keep: int = 2) -> None:
    """Remove all but the ``keep`` newest snapshots of a list, newest first, and what interrupted
    writers left."""
    complete = [path for path in paths if (path / "manifest.json").exists()]
    for path in set(paths) - set(complete[:keep]):
        with suppress(FileNotFoundError):
            # first, so that half a removal is not half a snapshot
            (path / "manifest.json").unlink()
        shutil.rmtree(path, ignore_errors=True)


def _manifest(directory: Path) -> dict[str, Any]:
    if not exists(directory / "manifest.json"):
        raise _damaged(directory, "it has no manifest: its writing was interrupted")
    try:
        text = read_text(directory / "manifest.json", MOST_SETTINGS)
        manifest = parse_json(text, "manifest.json")
        if not isinstance(manifest, dict):
            raise ValueError("it is no table")
        digest = manifest.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(directory, f"manifest.json: {error}") from None
    if _digest(manifest) != digest:
        raise _damaged(directory, "manifest.json is not what was written (sha256 differs)")
    if not _well_formed(manifest):
        raise _damaged(directory, "manifest.json is not of a form that Ravine writes")
    return manifest


def _well_formed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest names a plain file beside it, and says of arrays what they can be."""
    file, arrays, facts = (manifest.get(name) for name in ("file", "arrays", "facts"))
    return (
        isinstance(file, str)
        and re.fullmatch(r"arrays-[0-9a-f]{8}\.safetensors", file) is not None
        and isinstance(facts, dict)
        and isinstance(arrays, dict)
        and all(
            isinstance(entry, dict)
            and isinstance(entry.get("sha256"), str)
            and isinstance(getattr(torch, str(entry.get("dtype")), None), torch.dtype)
            and isinstance(entry.get("shape"), list)
            and all(type(size) is int and size >= 0 for size in entry["shape"])
            for entry in arrays.values()
        )
    )


def _make(directory: Path) -> None:
    """Make a directory and its parents; each new name is on disk before what it holds."""
    if not directory.is_dir():
        _make(directory.parent)
        directory.mkdir(exist_ok=True)
        sync(directory.parent)


def _plain(array: Tensor) -> Tensor:
    return array.detach().to("cpu").resolve_conj().resolve_neg().contiguous()


def _storable(plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """safetensors takes each storage once: a second array in the same storage is copied."""
    seen: set[int] = set()
    storable = {}
    for name, array in plain.items():
        place = array.untyped_storage().data_ptr()
        array = array if array.dtype in _NATIVE else _bytes(array)
        storable[name] = array.clone() if place in seen else array
        seen.add(place)
    return storable


def _describe(array: Tensor) -> dict[str, Any]:
    return {
        "dtype": str(array.dtype).removeprefix("torch."),
        "shape": list(array.shape),
        "sha256": _hash(array),
    }


def _bytes(array: Tensor) -> Tensor:
    # contiguous: this is all of it
    return array.as_strided((array.numel(),), (1,)).view(torch.uint8)


def _typed(array: Tensor, dtype: torch.dtype) -> Tensor:
    # a clone is aligned for every dtype
    return array if array.dtype == dtype else array.clone().view(dtype)


def _hash(array: Tensor) -> str:
    return hashlib.sha256(_bytes(array).numpy().data).hexdigest()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _damaged(directory: Path, what: str) -> RavineError:
    return RavineError(f"snapshot {directory}: {what}")
