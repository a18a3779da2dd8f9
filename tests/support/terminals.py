"""Commands in pseudo-terminals of given widths. PyTorch is loaded once, by one process that starts each
command as a copy of itself; ``python -m ravine`` itself is what the copy runs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time


def in_terminals(wanted):
    """The lines that each command writes, and after how many seconds it first wrote; of ``wanted``,
    which are (columns, arguments, folder)."""
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "CI")}
    said = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(
            [(columns, arguments, str(folder)) for columns, arguments, folder in wanted]
        ),
        env=environment | {"TERM": "xterm", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = []
    for code, first, written in json.loads(said.stdout):
        assert code == 0, written
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
        found.append(([line for line in re.split(r"[\r\n]+", plain) if line], first))
    return found


def _one(columns, arguments, folder):
    process, screen = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.chdir(folder)
        sys.argv = ["ravine", *arguments]
        _as_in_a_new_process()
        try:
            from ravine.__main__ import main

            main()
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code or 0)
        os._exit(0)
    began, first, written = time.monotonic(), None, b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        first = time.monotonic() - began if first is None else first
        written += piece
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code, first, written.decode()


def _as_in_a_new_process():
    """Streams on the terminal, and consoles that were made when modules were loaded made again."""
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, mode) for i, mode in enumerate("rww"))
    for name in [name for name in sys.modules if name.startswith("ravine.app")]:
        del sys.modules[name]


if __name__ == "__main__":
    import torch._dynamo  # noqa: F401

    import ravine.app.cli
    import ravine.doctor.judgement
    import ravine.engine.evidence
    import ravine.report.run_page
    import ravine.training.train  # noqa: F401

    print(json.dumps([_one(*each) for each in json.load(sys.stdin)]))
