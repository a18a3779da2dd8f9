"""What the live page is made of: its files, the list of runs, curves, reports, what is asked of runs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ravine.errors import InputError
from ravine.report.courses import series
from ravine.report.run_index import RunIndex, details
from ravine.rundir.requests import ask
from ravine.storage.files import plain

_WEB = Path(__file__).parent / "web"
_PULSE = 1.0  # seconds between two looks for what has changed
_LOOKS = 5  # times in a pulse that a stream looks whether the server ends
_LONGEST = 2000  # bytes of what is asked
# styles inline: uPlot places its parts by them
_OWN_FILES_ONLY = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:",
    "Referrer-Policy": "no-referrer",  # the token may stand in the address
}
_NOTHING_ELSE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data: 'self'",
    "Referrer-Policy": "no-referrer",
}


class Pages:
    """The answers of the server."""

    def __init__(self, directory: Path, *, may_ask: bool):
        self.listed, self.may_ask = RunIndex(directory), may_ask
        self._in_turn = threading.Lock()
        self.ends = False  # whether the server is to end: streams then end by themselves

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.index),
            Route("/api/runs", self.runs),
            Route("/api/events", self.events),
            Route("/api/curves", self.curves),
            Route("/api/run", self.run),
            Route("/api/act", self.act, methods=["POST"]),
            Route("/report", self.report),
            Route("/study", self.study),
            Mount("/web", StaticFiles(directory=_WEB)),
        ]

    @asynccontextmanager
    async def begun(self, app: Starlette) -> AsyncIterator[None]:
        """The list is made when the server begins, not when the first page asks for it."""
        threading.Thread(target=self.listed.listing, daemon=True).start()
        yield

    def index(self, request: Request) -> Response:
        return FileResponse(_WEB / "index.html", headers=_OWN_FILES_ONLY)

    def runs(self, request: Request) -> Response:
        return JSONResponse(plain(self.listed.listing()))

    def events(self, request: Request) -> Response:
        """The list again whenever it has changed (server-sent events)."""

        async def stream() -> AsyncIterator[str]:
            before = ""
            while not self.ends and not await request.is_disconnected():
                found = await run_in_threadpool(lambda: json.dumps(plain(self.listed.listing())))
                yield f"data: {found}\n\n" if found != before else ": still here\n\n"
                before = found
                for _ in range(_LOOKS):
                    await asyncio.sleep(0 if self.ends else _PULSE / _LOOKS)

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)

    def curves(self, request: Request) -> Response:
        asked = request.query_params
        x = asked.get("x", "epoch")
        # Python runs one thread at a time: several curves at once take longer than one by one
        with self._in_turn, self.listed.reading(asked.get("run", "")) as run:
            lines = series(
                run, asked.get("metric", "loss"), x if x in ("step", "seconds") else "epoch"
            )
            return JSONResponse(plain({"series": list(lines)}))

    def run(self, request: Request) -> Response:
        with self.listed.reading(request.query_params.get("run", "")) as run:
            return JSONResponse(plain(details(run) | {"may_ask": self.may_ask}))

    def report(self, request: Request) -> Response:
        from ravine.report.run_page import render  # it brings the drawing library

        with self.listed.reading(request.query_params.get("run", "")) as run:
            return HTMLResponse(render(run), headers=_NOTHING_ELSE)

    def study(self, request: Request) -> Response:
        path = self.listed.study(request.query_params.get("id", "")) / "report.html"
        if not path.is_file():
            raise InputError("study", expected="a study that has written its report")
        return FileResponse(path, headers=_NOTHING_ELSE)

    async def act(self, request: Request) -> Response:
        """Stop a run, ask it for a snapshot, or change its learning rate."""
        if not self.may_ask:
            return JSONResponse({"error": "this server only shows runs"}, 403)
        body = await request.body()
        asked = json.loads(body) if len(body) <= _LONGEST else None
        if not isinstance(asked, dict):
            raise InputError("request", got=type(asked).__name__, expected="an object")

        def do() -> None:
            with self.listed.open(str(asked.get("run", ""))) as run:
                kind, value = str(asked.get("kind", "")), asked.get("value")
                ask(run, kind, "optimizer.lr" if kind == "set" else "", value)

        await run_in_threadpool(do)
        return JSONResponse({"asked": asked.get("kind")})


def refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404 if request.method == "GET" else 400)
