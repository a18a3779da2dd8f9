"""Files fetched once into the cache: over https alone, from no private address but one that was named,
capped in size, checked by sha256, moved into place whole."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from ravine.errors import InputError, RavineError
from ravine.storage.files import atomic
from ravine.terminal import console, text_column

_BLOCK = 1 << 18


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Guarded(urllib.request.HTTPSHandler):
    """Connections to ``named``, the host that the person named, and elsewhere to public addresses alone:
    whoever runs a server could otherwise send this machine on to services that trust it."""

    def __init__(self, named: str | None, context: ssl.SSLContext):
        super().__init__(context=context)
        self._named, self._ssl = named, context

    def https_open(self, req: urllib.request.Request) -> Any:
        def connection(host: str, **how: Any) -> http.client.HTTPSConnection:
            made: Any = http.client.HTTPSConnection(host, context=self._ssl, **how)
            target = urlsplit(req.full_url).hostname
            if target != self._named and made.host == target:  # a proxy looks names up itself
                made._create_connection = _connected
            elif target != self._named:
                _require_public(target or "", target or "")
            return made

        return self.do_open(connection, req)


def _connected(address: tuple[str, int], timeout: Any, source: Any = None) -> socket.socket:
    """A connection to a host all of whose addresses are public; its name is looked up once."""
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    for *_, place in found:
        _require_public(str(place[0]), address[0])
    return socket.create_connection((str(found[0][4][0]), address[1]), timeout, source)


def _require_public(address: str, host: str) -> None:
    try:
        public = ipaddress.ip_address(address.partition("%")[0]).is_global
    except ValueError:  # a name
        public = host.lower().rstrip(".") != "localhost"
    if not public:
        raise RavineError(
            f"download: the server sends on to {host}, an address of this machine or its network; "
            "nothing was fetched from there: if that is right, name that host yourself"
        )


def fetch(
    url: str, to: Path, *, sha256: str | None, limit: int, context: ssl.SSLContext | None = None
) -> Path:
    """The file at ``to``, fetched from ``url`` if it is not there: at most ``limit`` bytes, with
    that sha256 where one is stated."""
    if to.exists():
        return to
    _require_https(url)
    opener = urllib.request.build_opener(
        _HttpsOnly, _Guarded(urlsplit(url).hostname, context or ssl.create_default_context())
    )
    request = urllib.request.Request(url, headers={"User-Agent": "ravine"})
    try:
        with opener.open(request, timeout=30) as response, atomic(to) as partial:
            digest = _copy(response, partial, url, limit)
            if sha256 is not None and digest != sha256:
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
    announced = response.headers.get("Content-Length", "")
    announced = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
    too_large = RavineError(
        f"{url}: more than the {limit:,} bytes that are allowed for it; nothing was kept"
    )
    if announced > limit:
        raise too_large
    digest, size = hashlib.sha256(), 0
    columns = (
        text_column("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with (
        Progress(*columns, console=console(), transient=True) as progress,
        partial.open("wb") as file,
    ):
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
