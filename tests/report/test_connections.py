"""Whoever holds connections open keeps nobody out: of the live page and of a run's predictions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

pytest.importorskip("uvicorn", reason="the extra web is not installed")
import uvicorn

from ravine.report import connections
from ravine.report.server import listening

SECONDS = 0.4
HEAD = b"Host: localhost\r\n"


async def application(scope, receive, send):
    """Reads the body and answers; /long is a stream, /large more than any buffer holds."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/long":
        for _ in range(30):
            await send({"type": "http.response.body", "body": b"here", "more_body": True})
            await asyncio.sleep(SECONDS / 8)
    body = bytes(1 << 26) if scope["path"] == "/large" else b"done"
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(monkeypatch):
    """A server that waits less long."""
    monkeypatch.setattr(connections, "SECONDS", SECONDS)
    settings = {"lifespan": "off", "limit_concurrency": 64, "http": connections.Connection}
    with listening("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            application, log_config=None, log_level="critical", access_log=False, **settings
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = server.force_exit = True
        thread.join(10)


def asked(port: int, sent: bytes) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.sendall(sent)
    return made


def answer(made: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    try:
        while part := made.recv(1 << 20):
            found += part
    except ConnectionError:
        pass
    return found


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\n" + HEAD,
        b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 9\r\n\r\n{",
    ],
)
def test_two_hundred_that_do_not_ask_keep_nobody_out(port, sent):
    held = [asked(port, sent) for _ in range(200)]
    with asked(port, b"GET / HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n") as made:
        assert b"done" in answer(made)
    began = time.monotonic()
    assert [answer(made) for made in held] == [b""] * 200  # all are closed, soon
    assert time.monotonic() - began < 20 * SECONDS
    for made in held:
        made.close()


def test_one_that_sends_byte_by_byte_is_closed(port):
    made, began = asked(port, b"GET / HTTP/1.1\r\nHost: "), time.monotonic()
    with made, contextlib.suppress(ConnectionError):
        while time.monotonic() - began < 30 * SECONDS:
            made.sendall(b"a")
            time.sleep(SECONDS / 10)
    assert time.monotonic() - began < 20 * SECONDS


def test_one_that_takes_no_answer_is_closed(port):
    with asked(port, b"GET /large HTTP/1.1\r\n" + HEAD + b"\r\n") as made:
        time.sleep(5 * SECONDS)
        assert len(answer(made)) < 1 << 26


def test_a_stream_may_last_and_a_connection_ask_again(port):
    with asked(port, b"GET /long HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n") as made:
        assert answer(made).count(b"here") == 30  # far longer than a request may take
    with asked(port, b"") as made:
        for _ in range(3):
            made.sendall(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
            found = b""
            while not found.endswith((b"done", b"0\r\n\r\n")):
                found += made.recv(1000)
            time.sleep(SECONDS / 2)
