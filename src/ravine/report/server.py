"""A page that lists the runs under a directory and draws their curves, live while they are being
written.

It only reads, answers this machine alone, and imports no torch. The page asks for JSON every other
second.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ravine import measures
from ravine.errors import InputError, RavineError, first_line
from ravine.files import plain
from ravine.recipe import Recipe
from ravine.report import overview
from ravine.report.access import Access
from ravine.report.courses import FEW, CourseGroup, gather, gather_steps, quantiles
from ravine.rundir import RunDir

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_WEB = Path(__file__).parent / "web"
_MOST_RUNS = 5000
_DEPTH = 4  # studies hold runs: so far below the directory they are looked for
_LISTED = ("model.kind", "data.source.kind", "optimizer.kind", "optimizer.lr", "data.batch", "seed")
_OWN_FILES_ONLY = {"Content-Security-Policy": "default-src 'self'"}
_NOTHING_ELSE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
}


def serve(directory: str | Path, *, port: int = 8700, host: str = "127.0.0.1") -> None:
    """Serve the runs under a directory until interrupted."""
    directory = Path(directory)
    if not directory.is_dir():
        repair = "train something first, or name the directory of your runs"
        raise InputError("serve", got=str(directory), expected="a directory of runs", repair=repair)
    token = secrets.token_urlsafe(24)
    app = application(directory, [host, "localhost"], token=token)
    import uvicorn

    with listening(host, port) as listener:
        address = f"http://{host}:{listener.getsockname()[1]}/?token={token}"
        print(f"Ravine shows {directory} at {address}  (Ctrl-C ends)", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, limit_concurrency=64)
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; InputError where the port is taken."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            repair = f"try --port {port + 1} ({error.strerror})"
            raise InputError("serve", got=port, expected="a free port", repair=repair) from None
        yield listener


def application(
    directory: str | Path, hosts: list[str] | None = None, *, token: str | None = None
) -> Starlette:
    """The server as an ASGI application; ``hosts`` are the names it answers to, ``token`` is what a
    request must have."""
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import FileResponse, HTMLResponse, JSONResponse
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles
    except ImportError:
        repair = "pip install 'ravine[web]'"
        raise InputError(
            "serve", expected="the packages starlette and uvicorn", repair=repair
        ) from None
    listed = RunIndex(Path(directory))

    def index(request: Request) -> Response:
        return FileResponse(_WEB / "index.html", headers=_OWN_FILES_ONLY)

    def runs(request: Request) -> Response:
        return JSONResponse(plain({"directory": str(directory), "runs": listed.rows()}))

    def curves(request: Request) -> Response:
        asked = request.query_params
        x = asked.get("x", "epoch")
        with listed.reading(asked.get("run", "")) as run:
            lines = series(
                run, asked.get("metric", "loss"), x if x in ("step", "seconds") else "epoch"
            )
            return JSONResponse(plain({"series": list(lines)}))

    def report(request: Request) -> Response:
        from ravine.report.run_page import render

        with listed.reading(request.query_params.get("run", "")) as run:
            return HTMLResponse(render(run), headers=_NOTHING_ELSE)

    def absent(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=404)

    routes = [
        Route("/", index),
        Route("/api/runs", runs),
        Route("/api/curves", curves),
        Route("/report", report),
    ]
    return Starlette(
        routes=[*routes, Mount("/web", StaticFiles(directory=_WEB))],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts or ["*"]),
            Middleware(Access, token=token),
        ],
        exception_handlers={RavineError: absent},
    )


class RunIndex:
    """The runs under a directory, by their path within it; what has not changed is not read
    again."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._known: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """One row for every run, the newest first."""
        rows = []
        for name, path in self._paths():
            stamp = _stamp(path)
            if (
                name not in self._known
                or self._known[name][0] != stamp
                or self._known[name][1]["state"] == "running"
            ):
                try:
                    with RunDir.open(path) as run:
                        self._known[name] = (stamp, {"id": name, **row(run)})
                except Exception:  # being made, being removed, or damaged in whatever way
                    continue
            rows.append(self._known[name][1])
            if len(rows) >= _MOST_RUNS:
                break
        return sorted(rows, key=lambda one: str(one["created"]), reverse=True)

    def open(self, name: str) -> RunDir:
        """A run by its name; a name that is not listed is not found, whatever lies there."""
        path = dict(self._paths()).get(name)
        if path is None:
            raise InputError("run", got=name, expected="a run that is listed")
        return RunDir.open(path)

    @contextmanager
    def reading(self, name: str) -> Iterator[RunDir]:
        """A run by its name; whatever is wrong with it is one clear error."""
        with self.open(name) as run:
            try:
                yield run
            except RavineError:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {first_line(error)}"
                raise RavineError(
                    f"run {name}: it cannot be shown, its files are damaged ({what})"
                ) from None

    def _paths(self) -> Iterator[tuple[str, Path]]:
        top = str(self.directory)
        for here, folders, files in os.walk(top):
            if "recipe.json" in files and "metrics.sqlite" in files:
                folders.clear()
                yield Path(here).relative_to(top).as_posix(), Path(here)
            elif len(Path(here).relative_to(top).parts) >= _DEPTH:
                folders.clear()
            folders[:] = [folder for folder in folders if not folder.startswith(".")]


def row(run: RunDir) -> dict[str, Any]:
    """What the list of runs shows of one."""
    seen = overview.summarise(run)
    best = dict(seen.best or seen.members[0])
    first = run.recipes[0]
    names = run.metrics
    whats = [what for split, what in map(measures.split_of, names) if split in ("train", "val")]
    apart = [name for name in ("lr", "grad_norm") if name in names]
    wanted = [
        f"{split}_{what}" for what in (seen.judged_by, "loss") for split in ("test", "val", "train")
    ]
    curves = [*dict.fromkeys(whats), *apart, *(["step_loss"] if seen.steps > 1 else [])]
    return {
        "name": seen.name,
        "state": "diverged" if seen.diverged == len(seen.members) else seen.state,
        "created": seen.created,
        "members": len(seen.members),
        "steps": seen.steps,
        "epochs": seen.epochs,
        "total_epochs": seen.total_epochs,
        "seconds": seen.seconds,
        "time": measures.duration(seen.seconds),
        "sentences": overview.sentences(seen),
        "judged_by": seen.judged_by,
        "headline": _headline(seen.judged_by, best),
        "best": {name: best[name] for name in wanted if name in best},
        "findings": len(run.events("finding")),
        "curves": curves,
        "measures": {name: asdict(measures.find(name)) for name in curves},
        "recipe": {path: _field(first, path) for path in _LISTED}
        | dict.fromkeys(seen.varies, "varies"),
    }


def _headline(judged_by: str | None, best: dict[str, Any]) -> dict[str, Any] | None:
    """The number a run is judged by, and how it is written: ``97.50 % accuracy (val)``."""
    for split, note in (("test", ""), ("val", " (val)"), ("train", " (train)")):
        value = best.get(f"{split}_{judged_by}")
        if judged_by and value is not None:
            text = f"{measures.show(judged_by, value)} {measures.find(judged_by).title}{note}"
            return {"value": value, "text": text}
    return None


def series(run: RunDir, what: str, x: str) -> Iterator[dict[str, Any]]:
    """The lines to draw for what was measured: both splits of a metric, or one quantity of
    training."""
    if what == "step_loss":
        yield from _lines(gather_steps(run), "train", what)
        return
    names = run.metrics
    for name, split in ((f"train_{what}", "train"), (f"val_{what}", "val"), (what, "")):
        if name in names:
            yield from _lines(gather(run, name, x=x), split, name)


def _lines(group: CourseGroup, split: str, name: str) -> Iterator[dict[str, Any]]:
    common = {
        "split": split,
        "metric": name,
        "title": measures.title(name),
        "percent": measures.is_percent(name),
    }
    if group.size > FEW:
        low, middle, high = quantiles(group.values, (5, 50, 95))
        yield {
            **common,
            "label": f"median of {group.size}",
            "x": group.x,
            "y": middle,
            "low": low,
            "high": high,
        }
        return
    for member, values in enumerate(group.values):
        yield {
            **common,
            "label": f"member {member}" if group.size > 1 else "",
            "x": group.x,
            "y": values,
        }


def _field(recipe: Recipe, path: str) -> Any:
    try:
        return recipe.get(path)
    except InputError:
        return None


def _stamp(path: Path) -> tuple[float, ...]:
    names = ("recipe.json", "metrics.sqlite", "metrics.sqlite-wal")
    stats = [place.stat() for place in map(path.joinpath, names) if place.exists()]
    return tuple(number for stat in stats for number in (stat.st_mtime, stat.st_size))
