"""What a directory says of itself is signed: a sha256 finds damage, and a mark made with a key that only
this user of this machine has says that it was made here. No torch here."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from ravine.errors import InputError
from ravine.storage.bounded import read_bytes

_KEY_BYTES = 32
_TRUST: ContextVar[bool] = ContextVar("trust", default=False)


def signed(body: Mapping[str, Any], *, here: bool = True) -> dict[str, Any]:
    """The plain data with their sha256 and, if they were made ``here``, this machine's mark."""
    digest = digest_of(body)
    key = _key() if here else b""
    mark = hmac.new(key, digest.encode(), hashlib.sha256).hexdigest() if key else ""
    return {**body, "sha256": digest, "mark": mark}


def verified(about: dict[str, Any], where: str) -> bool:
    """Take sha256 and mark out of the data; whether they were made here.

    Errors: the data are not what was signed.
    """
    digest, mark = about.pop("sha256", None), about.pop("mark", "")
    if digest != digest_of(about):
        raise ValueError(f"{where} is not what was written (sha256 differs)")
    key = _key()
    if not key or not isinstance(mark, str):
        return False
    made = hmac.new(key, str(digest).encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(made.encode(), mark.encode())


@contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """In this block directories that were made elsewhere may read the files that their recipes name."""
    token = _TRUST.set(trust or _TRUST.get())
    try:
        yield
    finally:
        _TRUST.reset(token)


def check_trust(place: Path, made_here: bool, recipe: Any) -> None:
    """Refuse to read what a recipe names that came with a directory of another machine or person."""
    if made_here or _TRUST.get():
        return
    source = recipe.data.source
    named = [getattr(source, "path", None), recipe.start.weights]
    files = [name for name in named if name]
    if files:
        raise InputError(
            str(place),
            got=f"a directory that was not made here, and that would read {', '.join(files)}",
            expected="one that this user made on this machine",
            repair="if you trust it: --trust, or trust=True in Python; or give the data yourself",
        )


@cache
def _key() -> bytes:
    """This user's key on this machine, made when it is first needed; empty where none can be kept."""
    place = user_data_path("ravine") / "mark"
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        made = place.with_name(f".mark.{secrets.token_hex(4)}")
        handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_bytes(_KEY_BYTES))
            os.close(handle)
            with suppress(FileExistsError):  # another process was first
                os.link(made, place)
        finally:
            made.unlink()
    with suppress(OSError, InputError):
        found = read_bytes(place, 1024)
        return found if len(found) == _KEY_BYTES else b""
    return b""


def digest_of(body: Mapping[str, Any]) -> str:
    """sha256 of plain data in one canonical form."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
