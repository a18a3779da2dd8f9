"""``ravine`` and ``python -m ravine``: what takes seconds to load is announced first."""

from __future__ import annotations

import atexit
import os
import sys

from ravine.stop_signals import came, raised

# commands that never import PyTorch
_LIGHT = {"catalogue", "report", "serve", "set", "ui"}
_SILENT = {"--help", "--list", "--quiet", "--json", "--version"}


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM end it with one line from here on."""
    try:
        with raised():
            _announce(sys.argv[1:])
            from ravine.app.cli import main as run

            run()
    except KeyboardInterrupt:  # before there was a command
        print("ravine: interrupted", file=sys.stderr, flush=True)
        _end(1)
    except SystemExit as end:
        if came() and isinstance(end.code, int):
            _end(end.code)
        raise


def _end(code: int) -> None:
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
