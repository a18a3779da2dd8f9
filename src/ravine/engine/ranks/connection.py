"""How ranks find each other, and into which groups they are divided."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ravine.engine.ranks import launcher
from ravine.errors import InputError, RavineError, first_line


class RanksLost(RavineError):
    """Other ranks have died or give no answer. torchrun starts all ranks again, and they go on from
    the newest snapshot."""

    exit_code = launcher.LOST


def groups_of_ranks(wanted: int | None, world: int, programs: int) -> int:
    """The groups of ranks: the more, the less traffic."""
    possible = [n for n in range(1, world + 1) if world % n == 0]
    if wanted is not None and wanted not in possible:
        expected = f"a divisor of the {world} ranks"
        raise InputError("ranks.rows", got=wanted, expected=expected)
    return max(n for n in possible if n <= min(programs, wanted or world))


def own_group(groups: int, size: int, timeout: float) -> Any:
    """The ranks that divide batches with this one; None for all."""
    if groups == 1 or size == 1:
        return None
    limit, own = timedelta(seconds=timeout), None
    for first in range(0, groups * size, size):  # every rank makes every group
        made = dist.new_group(list(range(first, first + size)), timeout=limit)
        own = made if first <= dist.get_rank() < first + size else own
    return own


def connect(where: str, timeout: float) -> bool:
    """Join the other ranks: by NCCL where each has a GPU of its own, else by gloo. Whether ranks share
    a GPU: gloo adds up what lies on it, and sends it from one to all, and no more."""
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if where == "cuda":
        torch.cuda.set_device(local % torch.cuda.device_count())
    own = where == "cuda" and dist.is_nccl_available() and here <= torch.cuda.device_count()
    shared = where == "cuda" and not own
    if dist.is_initialized():
        return shared
    backend = "cpu:gloo,cuda:nccl" if own else "gloo"
    limit = timedelta(seconds=timeout)
    try:
        dist.init_process_group(backend, timeout=limit, **_meeting_place(limit))
    except RuntimeError as error:
        raise RanksLost(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}: not all ranks have come "
            f"within {timeout:g} s ({first_line(error)})"
        ) from None
    atexit.register(_leave)
    return shared


def _leave() -> None:
    """Before the process ends: a group that still has threads then can abort it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _meeting_place(limit: timedelta) -> dict[str, Any]:
    """Where ranks find each other. The agent's store outlives them: it still holds the addresses of
    those that have died, so that every attempt has keys of its own."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=limit)
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    found = dist.PrefixStore(f"ravine attempt {attempt}", store)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return {"store": found, "rank": rank, "world_size": size}
