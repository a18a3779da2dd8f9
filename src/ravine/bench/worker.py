"""One competitor in a process of its own: ``python -m ravine.bench.worker PEER WORK [bf16]
THREADS``.

Each line read, a number of epochs, is answered by one line of JSON; the libraries' own output goes
to the error stream.
"""

from __future__ import annotations

import json
import os
import resource
import sys


def main(peer: str, work: str, bf16: str, threads: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = threads
    from ravine.bench.peers import PEERS

    fit = PEERS[peer][1](work, bf16 == "bf16")
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        seconds = fit(int(line))
        print(
            json.dumps(
                {
                    "seconds": seconds,
                    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            ),
            file=answers,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
