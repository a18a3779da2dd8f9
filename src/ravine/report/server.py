"""The live page: the runs and studies under a directory, with their curves while they are written.

It answers this machine alone and imports no torch. It only reads, but for three things that are asked
of a running run by whoever has the token that the server printed: stop, a snapshot, another learning
rate.
"""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ravine.errors import InputError, RavineError
from ravine.report.access import Access

if TYPE_CHECKING:
    from starlette.applications import Starlette


def serve(
    directory: str | Path, *, port: int = 8700, host: str = "127.0.0.1", open_: bool = False
) -> None:
    """Serve the runs under a directory until interrupted; ``open_`` opens the page in a browser."""
    directory = Path(directory)
    if not directory.is_dir():
        repair = "train something first, or name the directory of your runs"
        raise InputError("serve", got=str(directory), expected="a directory of runs", repair=repair)
    token = secrets.token_urlsafe(24)
    app = application(directory, [host, "localhost"], token=token)
    import uvicorn

    from ravine.report.connections import Connection, Server

    with listening(host, port) as listener:
        address = f"http://{host}:{listener.getsockname()[1]}/?token={token}"
        print(f"Ravine shows {directory} at {address}  (Ctrl-C ends)", flush=True)
        if open_:
            webbrowser.open(address)
        # a page that listens for what is new must not hold the server when it is to end
        config = uvicorn.Config(
            app,
            log_config=None,  # uvicorn's would close the handlers of whoever calls
            log_level="error",
            access_log=False,
            limit_concurrency=64,
            http=Connection,
            timeout_graceful_shutdown=1,
        )

        class Live(Server):
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                app.state.pages.ends = True
                super().handle_exit(sig, frame)

            def hang_up(self, sig: int, frame: FrameType | None) -> None:
                app.state.pages.ends = True
                super().hang_up(sig, frame)

        Live(config).run(sockets=[listener])


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
    request must have. Without one nothing can be asked of a run."""
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from ravine.report.pages import Pages, refused
    except ImportError:
        repair = "pip install 'ravine[web]'"
        raise InputError(
            "serve", expected="the packages starlette and uvicorn", repair=repair
        ) from None
    pages = Pages(Path(directory), may_ask=token is not None)
    made = Starlette(
        routes=pages.routes(),
        lifespan=pages.begun,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts or ["*"]),
            Middleware(Access, token=token),
        ],
        exception_handlers={RavineError: refused, ValueError: refused},
    )
    made.state.pages = pages
    return made
