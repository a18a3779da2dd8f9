"""Files fetched once into the cache: over https alone, from no private address but one that was named,
capped in size, checked by sha256, moved into place whole."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import socket
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from ravine.errors import InputError, RavineError
from ravine.storage.files import atomic
from ravine.terminal import console, text_column

_BLOCK = 1 << 18
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_LOCAL = (
    "localhost",
    "local",
    "localdomain",
    "internal",
    "lan",
    "home",
    "arpa",
)  # no names of the internet
SILENT = 30  # seconds that a server may send nothing
PATIENCE = 60  # seconds after which it must have sent SLOWEST bytes in each second so far
SLOWEST = 1024


class NotThere(RavineError):
    """The server has no such file."""


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        fp.close()  # else its body is read, of whatever length
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Timed(ssl.SSLSocket):
    """A connection that ends where the server sends too slowly: byte by byte, of a header or of the file, it
    could hold a person up for years."""

    _began, _got = 0.0, 0

    def recv_into(self, *room: Any, **how: Any) -> int:
        now = time.monotonic()
        self._began = self._began or now
        if now - self._began > PATIENCE + self._got / SLOWEST:
            raise TimeoutError("the server sends too slowly")
        got = super().recv_into(*room, **how)
        self._got += got
        return got


class _Guarded(urllib.request.HTTPSHandler):
    """Connections to ``named``, the host that the person named, and elsewhere to public addresses alone:
    whoever runs a server could otherwise send this machine on to services that trust it."""

    def __init__(self, named: str | None, context: ssl.SSLContext):
        super().__init__(context=context)
        context.sslsocket_class = _Timed
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
    if not _public(address):
        raise RavineError(
            f"download: the server sends on to {host[:100]}, an address of this machine or its network; "
            "nothing was fetched from there: if that is right, name that host yourself"
        )


def _public(address: str) -> bool:
    """Whether an address, or a name that a proxy is going to look up, is one of the internet."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _public_name(address.lower().rstrip("."))
    within = [found]
    if isinstance(found, ipaddress.IPv6Address):  # that lead to an address of version 4
        if found in _TRANSLATED:
            within.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
        within += [each for each in (found.sixtofour, *(found.teredo or ())) if each]
    return all(each.is_global and not each.is_multicast for each in within)


def _public_name(name: str) -> bool:
    try:
        return _public(socket.inet_ntoa(socket.inet_aton(name)))  # 127.1, 0x7f000001
    except OSError:
        return "." in name and name.rpartition(".")[2] not in _LOCAL


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
        with opener.open(request, timeout=SILENT) as response, atomic(to) as partial:
            _require_whole(response, url, checked=sha256 is not None)
            digest = _copy(response, partial, url, limit)
            if sha256 is not None and digest != sha256:
                raise RavineError(
                    f"{url}: got sha256 {digest}; expected {sha256}; the file was not kept; "
                    f"try again, or put the right file at {to}"
                )
    except RavineError:
        raise
    # a ValueError: the address that the server sends on to is none
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        kind = NotThere if getattr(error, "code", None) == 404 else RavineError
        raise kind(
            f"{url}: could not be fetched ({' '.join(str(reason).split())[:200]}); check the network, or put the file at {to}, "
            "or set RAVINE_DATA to a folder that holds the data"
        ) from None
    return to


def _require_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise InputError("download", got=url, expected="an address that begins with https://")


def _require_whole(response: Any, url: str, *, checked: bool) -> None:
    """Refuse an answer that need not be the file: a part of it, packed, a page that asks to log in, or,
    where no sha256 is known, one whose end nobody could tell from a cut."""
    packed = response.headers.get("Content-Encoding", "identity").strip().lower()
    kind = response.headers.get_content_type()
    if response.status != 200:
        what = f"answers {response.status}, which is not the whole file"
    elif packed not in ("", "identity"):
        what = f"sends it packed ({packed[:40]}), which was not asked for"
    elif not checked and kind == "text/html":
        what = "sends a web page instead of the file"
    elif not checked and response.length is None and not response.chunked:
        what = "does not say how long the file is, so that nobody could tell whether all of it came"
    else:
        return
    raise RavineError(f"{url}: the server {what}; nothing was kept")


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
