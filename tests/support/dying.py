"""What the crash tests of several ranks train: ``torchrun … dying.py PROGRAM MEMBERS DIRECTORY HOW SEED
ATTEMPTS [shard]`` trains as ``crash.py`` does, in float64. In each of the first attempts a random rank comes to
an end at a random block: it is ``killed``, or it ``hangs``."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import crash
import ravine
from ravine import Recipe
from ravine.engine.loop import loop
from ravine.report import run_page


def recipes(
    program: str, members: int, directory: Path, timeout: float = 600.0, shard: bool = False
) -> list[Recipe]:
    edits = {"precision": "float64", "ranks.timeout": timeout, "ranks.shard": shard}
    return [recipe.edit(edits) for recipe in crash.recipes(program, members, directory)]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hangs() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(120)


def at_block(block: int, what) -> None:
    blocks = iter(range(1, block + 1))
    original = loop.TrainingLoop._block

    def counted(self: loop.TrainingLoop, last: int) -> None:
        original(self, last)
        if next(blocks, 0) == block:
            what()

    loop.TrainingLoop._block = counted


def main(
    program: str, members: str, place: str, how: str, seed: str, attempts: str, *shard: str
) -> None:
    loop.BLOCK_SECONDS = loop.SNAPSHOT_SECONDS = 0.0
    run_page.write_report = lambda rundir: None
    attempt, ranks = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["WORLD_SIZE"])
    draw = random.Random(f"{seed} {attempt}")
    if attempt < int(attempts) and int(os.environ["RANK"]) == draw.randrange(ranks):
        at_block(draw.randint(3, 20), {"killed": killed, "hangs": hangs}[how])
    timeout = 600.0 if how == "killed" else 3.0
    chosen = recipes(program, int(members), Path(place), timeout, bool(shard))
    ravine.train_many(chosen, out=place, quiet=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
