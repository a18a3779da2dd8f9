"""``ravine`` and ``python -m ravine``: what takes seconds to load is announced first."""

from __future__ import annotations

import sys

# commands that never import PyTorch
_LIGHT = {"catalogue", "report", "serve", "set", "ui"}
_SILENT = {"--help", "--quiet", "--json", "--version"}


def main() -> None:
    """Run the command line."""
    given = sys.argv[1:]
    if (
        given
        and not given[0].startswith("-")
        and given[0] not in _LIGHT
        and not _SILENT.intersection(given)
    ):
        print("loading PyTorch …", file=sys.stderr, flush=True)
    from ravine.app.cli import main as run

    run()


if __name__ == "__main__":
    main()
