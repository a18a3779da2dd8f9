"""Files fetched once into the cache: over https alone, capped in size, checked by sha256, moved into place whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import tempfile
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ravine.errors import InputError, RavineError

_BLOCK = 1 << 18


def data_root() -> Path:
    """Where data are looked for first: ``RAVINE_DATA`` where that is set, else the cache."""
    named = os.environ.get("RAVINE_DATA")
    return Path(named).expanduser() if named else cache_root()


def cache_root() -> Path:
    """Where Ravine writes what it fetched or decoded."""
    return user_cache_path("ravine") / "data"


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, to: Path, *, sha256: str, limit: int, context: ssl.SSLContext | None = None) -> Path:
    """The file at ``to``, fetched from ``url`` if it is not there: at most ``limit`` bytes, with that sha256."""
    if to.exists():
        return to
    _require_https(url)
    opener = urllib.request.build_opener(
        _HttpsOnly, urllib.request.HTTPSHandler(context=context or ssl.create_default_context())
    )
    request = urllib.request.Request(url, headers={"User-Agent": "ravine"})
    try:
        with opener.open(request, timeout=30) as response, atomic(to) as partial:
            digest = _copy(response, partial, url, limit)
            if digest != sha256:
                raise RavineError(
                    f"{url}: got sha256 {digest}; expected {sha256}; the file was not kept; "
                    f"try again, or put the right file at {to}"
                )
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise RavineError(
            f"{url}: could not be fetched ({reason}); check the network, or put the file at {to}, "
            "or set RAVINE_DATA to a folder that holds the data"
        ) from None
    return to


def _require_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise InputError("download", got=url, expected="an address that begins with https://")


def _copy(response: Any, partial: Path, url: str, limit: int) -> str:
    announced = int(response.headers.get("Content-Length") or 0)
    too_large = RavineError(f"{url}: more than the {limit:,} bytes that are allowed for it; nothing was kept")
    if announced > limit:
        raise too_large
    digest, size = hashlib.sha256(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress, partial.open("wb") as file:
        task = progress.add_task(Path(urlsplit(url).path).name, total=announced or None)
        while block := response.read(_BLOCK):
            size += len(block)
            if size > limit:
                raise too_large
            digest.update(block)
            file.write(block)
            progress.advance(task, len(block))
    if announced and size < announced:
        raise OSError(f"the connection ended after {size:,} of {announced:,} bytes")
    return digest.hexdigest()


class atomic:
    """A path to write to that takes the place of ``to`` once all went well, and vanishes otherwise."""

    def __init__(self, to: Path):
        self.to = to

    def __enter__(self) -> Path:
        self.to.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{self.to.name}.", dir=self.to.parent)
        os.close(handle)
        self.partial = Path(name)
        return self.partial

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            os.replace(self.partial, self.to)
        else:
            self.partial.unlink(missing_ok=True)
