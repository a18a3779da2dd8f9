"""Who may ask the page that Ravine serves: whoever has its token, from its own page, for little at a
time."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

COOKIE = "ravine"
MOST_QUERY = 4096  # bytes
MOST_BODY = 1 << 20  # bytes
ASGI = Callable[[Mapping[str, Any], Any, Any], Awaitable[None]]


class Access:
    """ASGI middleware. A request from another site's page is refused, and one that is too large, and,
    where there is a ``token``, one that has it neither as ``?token=`` nor as the cookie that the first
    page set."""

    def __init__(self, app: ASGI, token: str | None = None, most_body: int = MOST_BODY):
        self.app, self.token, self.most_body = app, token, most_body

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":  # no page of Ravine's opens a websocket
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {k.decode("latin1").lower(): v.decode("latin1") for k, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        named = self.token is not None and self._named(scope)

        async def sent(message: dict[str, Any]) -> None:
            if named and message["type"] == "http.response.start":
                cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                message = {
                    **message,
                    "headers": [*message["headers"], (b"set-cookie", cookie.encode())],
                }
            await send(message)

        await self.app(scope, receive, sent)

    def _refusal(
        self, scope: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[int, str] | None:
        length = headers.get("content-length", "0")
        if len(scope["query_string"]) > MOST_QUERY or len(scope["path"]) > MOST_QUERY:
            return 414, "the address is too long"
        if not length.isdecimal() or int(length) > self.most_body or "transfer-encoding" in headers:
            return 413, f"at most {self.most_body:,} bytes, their number stated first"
        origin = headers.get("origin")
        if origin is not None and _place(origin) != headers.get("host"):
            return 403, "asked from another site's page"
        if headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/":
            return 403, "asked from another site's page"
        if self.token is not None and not (self._named(scope) or self._kept(headers)):
            return 401, "open the address that ravine serve printed: it holds the token"
        return None

    def _named(self, scope: Mapping[str, Any]) -> bool:
        try:
            asked = parse_qs(scope["query_string"].decode("latin1"), max_num_fields=50)
        except ValueError:  # more fields than any page of Ravine's sends
            return False
        return self._is_token(asked.get("token", [""])[0])

    def _kept(self, headers: Mapping[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # half an address
        return None


async def _answer(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
