"""``ravine`` and ``python -m ravine``: what takes seconds to load is announced first."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

from ravine.stop_signals import came, raised

# commands that never import PyTorch
_LIGHT = {"catalogue", "report", "serve", "set", "ui"}
_SILENT = {"--help", "--list", "--quiet", "--json", "--version"}


def main() -> None:
    """Run the command line; Ctrl-C, SIGTERM and SIGHUP end it with one line from here on."""
    try:
        with raised():
            _announce(sys.argv[1:])
            from ravine.app.cli import main as run

            run()
    except (KeyboardInterrupt, Exception) as error:  # before there was a command
        if not isinstance(error, KeyboardInterrupt) and not came():
            raise
        _interrupted()
    except SystemExit as end:
        if came() and end.code == 130:  # of Typer, which met it outside the command
            _interrupted()
        if came() and isinstance(end.code, int):
            _end(end.code)
        raise


def _interrupted() -> NoReturn:
    print("ravine: interrupted", file=sys.stderr, flush=True)
    _end(1)


def _end(code: int) -> NoReturn:
    """End after a signal. By sys.exit Python would end by the signal, where that met code which an
    extension ran."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def _announce(given: list[str]) -> None:
    if (
        given
        and not given[0].startswith("-")
        and given[0] not in _LIGHT
        and not _SILENT.intersection(given)
        and "TORCHELASTIC_RUN_ID" not in os.environ  # one of several processes, started by one
    ):
        print("loading PyTorch …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
