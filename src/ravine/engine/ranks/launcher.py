"""Several processes of one command: started by torchrun's agent, and what they know of each other
without PyTorch."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ravine.errors import InputError
from ravine.machine import memory
from ravine.storage.files import write_text

_RANK_BYTES = 200 << 20  # that a process takes at least: what PyTorch is, without data or model
RESTARTS = 3  # of all ranks, after one has died
LOST = 75  # exit code of a rank that the others have left alone
_OWN = {1, 2}  # exit codes of a rank with an error of its own: starting it again would not help


def launched() -> bool:
    """Whether torchrun has started this process, as one of a run's ranks."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def silent() -> bool:
    """Whether this is a rank beside the one that writes, and speaks for all."""
    return launched() and os.environ["RANK"] != "0"


def check_ranks(wanted: int | None) -> None:
    """Refuse a number of ranks that is not the one that torchrun has started."""
    started = int(os.environ["WORLD_SIZE"])
    if wanted not in (None, started):
        expected = f"{started}, as torchrun has started, or no --ranks"
        raise InputError("--ranks", got=wanted, expected=expected)


def refuse_ranks(command: str) -> None:
    """Refuse a command that several processes must not run at once."""
    if launched() and os.environ["WORLD_SIZE"] != "1":
        expected = "train or resume under torchrun"
        raise InputError(command, got="several ranks", expected=expected, repair="run it alone")


def launch(arguments: Sequence[str], ranks: int, restarts: int = RESTARTS) -> int:
    """Run ``python -m ravine`` with these arguments as so many ranks on this machine, by torchrun's
    elastic agent; the exit code.

    A rank that is killed is started again, with all others, at most ``restarts`` times: they go on from
    the newest snapshot. A rank that ends with an error of its own ends the run.
    """
    if (most := int(min(memory() / _RANK_BYTES, 1e4))) < ranks:
        expected = f"at most {max(1, most)}, for which this machine has memory"
        raise InputError("--ranks", got=ranks, expected=expected)
    from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    class Agent(LocalElasticAgent):
        def _monitor_workers(self, worker_group: object) -> RunResult:
            result = super()._monitor_workers(worker_group)
            codes = {rank: failure.exitcode for rank, failure in result.failures.items()}
            if _OWN.intersection(codes.values()):
                self._remaining_restarts = 0
            elif codes:
                _say_lost(codes, self._remaining_restarts)
            return result

    logging.disable(logging.ERROR)  # what a rank has said in a line is not repeated in ten
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    place = RendezvousParameters("c10d", "localhost:0", uuid.uuid4().hex, 1, 1, is_host=True)
    spec = WorkerSpec(
        "ravine",
        ranks,
        get_rendezvous_handler(place),
        entrypoint=sys.executable,
        args=("-m", "ravine", *arguments),
        max_restarts=restarts,
        monitor_interval=0.1,
    )
    try:
        result = Agent(spec, DefaultLogsSpecs()).run()
    except SignalException:  # the ranks have said that they were interrupted
        return 1
    finally:
        logging.disable(logging.NOTSET)
    codes = {failure.exitcode for failure in result.failures.values()}
    return max(codes & _OWN, default=1) if codes else 0


def _say_lost(codes: Mapping[int, int], left: int) -> None:
    """Say which ranks were killed, and whether all start again."""
    ended = -signal.SIGTERM  # by the agent, after another rank
    killed = [f"rank {n} by {_signal(code)}" for n, code in codes.items() if 0 > code != ended]
    what = f"killed: {', '.join(killed)}" if killed else "ranks were lost"
    then = "all ranks start again" if left else "no more restarts; ravine resume goes on"
    print(f"ravine: {what}; {then} from the newest snapshot", file=sys.stderr, flush=True)


def _signal(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


# --- between the ranks, and between a rank and the one that is started in its place ---------------


def _notes() -> Path:
    """A folder of the agent's on this machine, which goes when the agent ends."""
    return Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[2]


def first_to_say(message: str) -> bool:
    """Whether no other rank has said this: each of them finds the same fault."""
    if not launched():
        return True
    digest = hashlib.sha256(message.encode()).hexdigest()
    with suppress(FileExistsError):
        (_notes() / f"said-{digest[:32]}").touch(exist_ok=False)
        return True
    return False


def begun(call: int) -> str | None:
    """The run directory that the ranks had begun in this call before one of them died."""
    note = _notes() / f"run-{call}"
    return note.read_text(encoding="utf-8") if note.exists() else None


def remember(call: int, directory: str) -> None:
    """Note which run directory this call has begun."""
    write_text(_notes() / f"run-{call}", directory)
