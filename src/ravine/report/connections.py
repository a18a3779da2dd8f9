"""A server for few people, and its connections: one that asks too slowly is closed, so that whoever opens many of
them and says nothing keeps nobody else out. It needs uvicorn (extra: web)."""

from __future__ import annotations

import signal
import threading
from asyncio import BaseTransport, TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 10.0  # for a whole request, and for each part of an answer to be taken
MOST_WAITING = 32  # connections that have not asked yet; of more the oldest is closed


class Server(uvicorn.Server):
    """A server that SIGHUP ends as SIGTERM does: uvicorn does not know it, and was interrupted amid its loop."""

    _hung_up = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        number = getattr(signal, "SIGHUP", None)
        main = threading.current_thread() is threading.main_thread()
        if number is None or not main or signal.getsignal(number) == signal.SIG_IGN:  # nohup
            with super().capture_signals():
                yield
            return
        before = signal.signal(number, self.hang_up)
        try:
            with super().capture_signals():
                yield
        finally:
            signal.signal(number, before)
        if self._hung_up:  # whoever called the server hears of it, as uvicorn does with the others
            signal.raise_signal(number)

    def hang_up(self, sig: int, frame: FrameType | None) -> None:
        self._hung_up = self.should_exit = True


class Connection(H11Protocol):
    """A connection of uvicorn's that waits SECONDS for a request, head and body, and as long for somebody
    who does not take the answer; streams may last."""

    _since: float | None = None  # when it began to wait for the request that is not whole yet
    _stuck = False  # whether nobody had taken the answer at the last look
    _clock: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        waiting = [c for c in self.connections if isinstance(c, Connection) and c._since]
        if len(waiting) >= MOST_WAITING:
            min(waiting, key=lambda c: c._since or 0.0)._leave()
        self._since = self.loop.time()
        self._clock = self.loop.call_later(SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        whole = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        self._since = None if whole else self._since or self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._since = None
        super().connection_lost(exc)

    def _look(self) -> None:
        full: Any = self.flow.write_paused
        late = self._since is not None and self.loop.time() - self._since >= 0.99 * SECONDS
        if late or (full and self._stuck):
            self._leave()
            return
        self._stuck = bool(full)
        self._clock = self.loop.call_later(SECONDS, self._look)

    def _leave(self) -> None:
        self._since = None
        self.connections.discard(self)  # it counts no more, though its end comes a little later
        self.transport.abort()
