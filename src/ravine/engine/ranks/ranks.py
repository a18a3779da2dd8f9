"""The processes that train one run together. They are PyTorch's: torchrun starts them,
``torch.distributed`` is what they speak through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ravine.data.pipeline import Batch
from ravine.engine.directory_record import DirectoryRecord
from ravine.engine.execution.device import device
from ravine.engine.loop.record import Memory
from ravine.engine.ranks import launcher
from ravine.engine.ranks.batch_norm import SynchronizedStatistics
from ravine.engine.ranks.connection import RanksLost, connect, groups_of_ranks, own_group
from ravine.engine.ranks.forwarded import Call, ForwardedRecord, Unwritten, encode, perform
from ravine.errors import RavineError, first_line
from ravine.nn.randomized import drawing_part
from ravine.optim.clipping import row_norms
from ravine.recipe import Recipe
from ravine.rundir import RunDir

_T = TypeVar("_T")
_calls = count()  # of training in this process: alike on all ranks
Requests = Callable[[], Sequence[Any]]  # to a run, from outside: see rundir.requests
Divided = tuple[Batch, Tensor | None]


class Ranks:
    """One process that trains alone: it decides, it writes, and it takes every batch whole."""

    size = 1  # ranks that divide each batch
    leads = True  # decides for the ranks that divide a batch
    writes = True  # has the run directory
    groups = 1  # of ranks, each with its own members
    averages = False  # buffers, where statistics of batches are not synchronised
    shards = False  # each rank has a part of every parameter; see ``sharded``

    def decide(self, choose: Callable[[], _T]) -> _T:
        """What the leading rank chooses: what depends on a clock, or on a person's code, must be the
        same for all. Numbers, texts, lists, and tables by text."""
        return choose()

    def measured(self, measure: Callable[[], _T]) -> _T:
        """What is measured by running the network: by the leading rank, or by all where each has a part
        of it."""
        return self.decide(measure)

    def norms(self, rows: Tensor) -> Tensor:
        """The Euclidean norms [P] of rows, of which each rank may have a part."""
        return row_norms(rows)

    def meet(self, asked: bool) -> bool:
        """Whether any rank was asked to stop; what other ranks have recorded is written."""
        return asked

    def mine(self, number: int) -> bool:
        """Whether this rank trains the program of this number."""
        return True

    def all_of(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        """Tables of all ranks, this one's among them."""
        return [own]

    def record(self, rundir: RunDir, number: int) -> DirectoryRecord | Memory:
        """The record of a program."""
        return DirectoryRecord(rundir, number)

    def requests(self, take: Requests) -> Requests:
        """What gives the requests to a run to every rank, from ``take``, which gives them to one."""
        return take

    def finish(self) -> bool:
        """Wait until all ranks have ended; whether any was asked to stop."""
        return False

    def begun(self) -> str | None:
        """The run directory that these ranks had begun in this call, before one of them died."""
        return None

    def agreed(self, recipes: Sequence[Recipe], module: Any) -> Sequence[Recipe]:
        """The recipes of the rank that writes: a plan by minutes, which each has timed, is another one
        on each. A module that was made in Python gets the weights that it has there: each process
        may have drawn its own."""
        return recipes

    def directory(self, create: Callable[[], RunDir]) -> RunDir:
        """The run directory, created by the rank that writes; the others read."""
        return create()

    def divided(
        self, batch: Batch, weight: Tensor | None, total: Callable[[Tensor], float], theta: Tensor
    ) -> Any:
        """A context in which this rank's part of a batch is run, which is what the context gives, with
        weights [P, B] by which the parts' mean losses add up to the batch's."""
        raise AssertionError("one process takes batches whole")

    def total(self, batch: Batch, total: Callable[[Tensor], float]) -> float:
        """What the mean over a batch divides by, by ``total`` of targets."""
        # members with samples of their own share a step's sizes
        return total(batch.y if batch.index.dim() == 1 else batch.y[0])

    def add(self, grad: Tensor, losses: Tensor, *, summed: bool = False) -> None:
        """Add up what the ranks have found for their parts, in place: losses [P], and grad [P, D] unless
        it is ``summed`` already."""

    def add_recorded(self, objectives: Sequence[Any], before: Sequence[Mapping[str, Any]]) -> None:
        """Add up what steps of a person's own have recorded since ``before``."""

    def average(self, buffers: Mapping[str, Tensor]) -> None:
        """Average buffers that each rank has changed by its own part of the batch."""


ALONE = Ranks()


class Joined(Ranks):
    """One of several processes. Each takes its part of every batch."""

    def __init__(self, recipe: Recipe, programs: int):
        self.timeout = recipe.ranks.timeout
        self.share_a_gpu = connect(device(recipe.device), self.timeout)
        self.call = 0  # of training in this process
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.groups = groups_of_ranks(recipe.ranks.rows, self.world, programs)
        self.size = self.world // self.groups
        self.place, self.index = divmod(self.rank, self.size)  # of its group, and in it
        self.group = own_group(self.groups, self.size, self.timeout)
        self.leads, self.writes = self.index == 0, self.rank == 0
        self.calls: list[Call] = []  # of records, to be sent
        self.rundir: RunDir | None = None  # where this rank writes
        self._take: Requests = tuple
        self._taken: list[Any] = []
        self.rounded = torch.bfloat16 if recipe.ranks.reduce == "bfloat16" else None
        self.synchronizes = False  # statistics of batches; see ``divide``
        self.shards = recipe.ranks.shard and self.size > 1

    def __deepcopy__(self, memo: Any) -> Joined:
        return self

    @contextmanager
    def _answered(self, within: bool = False) -> Iterator[None]:
        """``within`` what else may fail: a network's pass."""
        try:
            yield
        except RuntimeError as error:  # of torch.distributed: there is no narrower class for all
            if within and not _of_ranks(error):
                raise
            slow = "timed out" in str(error).lower()
            what = f"gave no answer for {self.timeout:g} s" if slow else "has ended"
            raise RanksLost(
                f"rank {self.rank} of {self.world}: another rank {what} "
                f"({first_line(error)}); torchrun starts all of them again where it may, else "
                f"ravine resume goes on from the newest snapshot"
            ) from None

    # --- decisions --------------------------------------------------------------------------------

    def decide(self, choose: Callable[[], _T]) -> _T:
        if self.size == 1:
            return choose()
        return self._decided(choose, self.place * self.size, self.group)

    def _decided(self, choose: Callable[[], _T], by: int, group: Any) -> _T:
        """What rank ``by`` of a group chooses."""
        if self.rank != by:
            found = json.loads(self._broadcast(b"", by, group))
            if "error" in found:
                raise RavineError(found["error"])
            return found["chosen"]
        try:
            chosen = choose()
        except Exception as error:  # the others wait for an answer, whatever it is
            text = json.dumps({"error": str(error) or type(error).__name__})
            self._broadcast(text.encode(), by, group)
            raise
        self._broadcast(json.dumps({"chosen": chosen}, default=float).encode(), by, group)
        return chosen

    def _broadcast(self, text: bytes, by: int, group: Any) -> bytes:
        with self._answered():
            size = torch.tensor(len(text))
            dist.broadcast(size, by, group)
            held = torch.empty(int(size), dtype=torch.uint8)
            if self.rank == by:
                held.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
            dist.broadcast(held, by, group)
        return held.numpy().tobytes()

    def measured(self, measure: Callable[[], _T]) -> _T:
        if not self.shards:
            return self.decide(measure)
        with self._answered(within=True):
            found = measure()
        return self.decide(lambda: found)

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank that divides these batches."""
        found = torch.tensor(float(flag), dtype=torch.float64)
        self._sum(found)
        return bool(found)

    def all_of(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._decided(lambda: own, rank, None) for rank in range(self.world)]

    # --- members on several groups of ranks -------------------------------------------------------

    def mine(self, number: int) -> bool:
        return number % self.groups == self.place

    def record(self, rundir: RunDir, number: int) -> DirectoryRecord | Memory:
        if not self.leads:
            return Unwritten(rundir)
        if not self.writes:
            return ForwardedRecord(rundir, number, self.calls)
        self.rundir = rundir
        return DirectoryRecord(rundir, number)

    def requests(self, take: Requests) -> Requests:
        self._take = take
        return self._requested if self.groups > 1 else lambda: self.decide(take)

    def _requested(self) -> list[Any]:
        taken, self._taken = self._taken, []
        return taken

    def meet(self, asked: bool) -> bool:
        return self._meet(asked, False)[0]

    def finish(self) -> bool:
        asked, live = self._meet(False, True)
        while live:
            again, live = self._meet(False, True)
            asked = asked or again
        return self._meet(asked, True)[0]  # all is written before any rank reads the run

    def _meet(self, asked: bool, over: bool) -> tuple[bool, bool]:
        """Whether any rank was asked to stop, and whether any has not ended. Rank 0 writes what the
        others have recorded."""
        sent = encode(self.calls) if self.calls else torch.empty(0, dtype=torch.uint8)
        self.calls.clear()
        flags = torch.tensor([asked, not over, len(sent)])
        found = [torch.empty_like(flags) for _ in range(self.world)]
        with self._answered():
            dist.all_gather(found, flags)
            if len(sent):
                dist.send(sent, 0)
        for rank, (_, _, length) in enumerate(torch.stack(found).tolist()):
            if self.writes and length:
                received = torch.empty(length, dtype=torch.uint8)
                with self._answered():
                    dist.recv(received, rank)
                assert self.rundir is not None
                perform(received, self.rundir)
        if self.groups > 1:
            self._taken += self._decided(lambda: list(self._take()), 0, None)
        asked_any, live, _ = torch.stack(found).amax(0).tolist()
        return bool(asked_any), bool(live)

    def begun(self) -> str | None:
        self.call = next(_calls)
        return self.decide(lambda: launcher.begun(self.call))

    def agreed(self, recipes: Sequence[Recipe], module: Any) -> Sequence[Recipe]:
        self._align(module)
        own = [recipe.to_dict(explicit=True) for recipe in recipes]
        found = self._decided(lambda: own, 0, None)
        return recipes if found == own else [Recipe(**fields) for fields in found]

    @torch.no_grad()
    def _align(self, module: Any) -> None:
        if not isinstance(module, nn.Module):
            return
        for held in (*module.parameters(), *module.buffers()):
            if is_lazy(held):  # it has no weights yet
                continue
            sent = held.detach().cpu().contiguous().flatten().view(torch.uint8)
            with self._answered():
                dist.broadcast(sent, 0)
            held.copy_(sent.view(held.dtype).view_as(held))

    def directory(self, create: Callable[[], RunDir]) -> RunDir:
        made: list[RunDir] = []

        def path() -> str:
            made.append(create())
            return str(made[0].path.resolve())

        found = self._decided(path, 0, None)
        launcher.remember(self.call, found)
        return made[0] if made else RunDir.open(found)

    # --- a batch in parts -------------------------------------------------------------------------

    @contextmanager
    def divided(
        self, batch: Batch, weight: Tensor | None, total: Callable[[Tensor], float], theta: Tensor
    ) -> Iterator[Divided]:
        whole = batch.size
        if whole < self.size:  # too few samples for all: each rank takes them, and one counts
            with self._passes():
                yield batch, _weighted(weight, float(self.leads), len(theta), whole, theta)
            return
        first, count = self.part_of(whole)
        part = batch
        if batch.part is None:  # it was read whole
            rows = slice(first, first + count)
            part = Batch(batch.x[rows], batch.y[rows], batch.index[rows])
            weight = None if weight is None else weight[:, rows]
        share = total(part.y) / (self.total(batch, total) or 1.0)
        with drawing_part((first, count, whole)), self._statistics(), self._passes():
            yield part, _weighted(weight, share, len(theta), count, theta)

    def total(self, batch: Batch, total: Callable[[Tensor], float]) -> float:
        if batch.part is None:
            return super().total(batch, total)
        self._sum(found := torch.tensor(total(batch.y), dtype=torch.float64))
        return float(found)

    def part_of(self, samples: int) -> tuple[int, int]:
        """The first sample of this rank, and how many it takes: they differ by one at most. Too few for
        all are taken by each."""
        if samples < self.size:
            return 0, samples
        least, more = divmod(samples, self.size)
        return self.index * least + min(self.index, more), least + (self.index < more)

    @contextmanager
    def _statistics(self) -> Iterator[None]:
        if not self.synchronizes:
            yield
            return
        with SynchronizedStatistics(self.gathered):
            yield

    def _passes(self) -> AbstractContextManager[None]:
        """What surrounds a pass: where parameters are divided, ranks send them to each other in it."""
        return self._answered(within=True) if self.shards else nullcontext()

    def gathered(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks that divide a batch [ranks, ...]."""
        sent = (tensor.cpu() if self.share_a_gpu else tensor).contiguous()
        found = [torch.empty_like(sent) for _ in range(self.size)]
        with self._answered():
            dist.all_gather(found, sent, self.group)
        return torch.stack(found).to(tensor.device)

    def _sum(self, tensor: Tensor) -> None:
        with self._answered():
            dist.all_reduce(tensor, group=self.group)

    def gather_rows(self, rows: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """The ranks' rows [P, D_r], of these widths, on the one that writes; nothing on the others."""
        padded = torch.nn.functional.pad(rows, (0, max(widths) - rows.shape[1]))
        found = [torch.empty_like(padded) for _ in widths] if self.writes else None
        with self._answered():
            dist.gather(padded, found)
        pairs = zip(found or [], widths, strict=False)
        return [each[:, :width] for each, width in pairs]

    def norms(self, rows: Tensor) -> Tensor:
        norms = row_norms(rows)
        if not self.shards:
            return norms
        self._sum(squares := norms.double().square())
        return squares.sqrt().to(norms.dtype)

    def add(self, grad: Tensor, losses: Tensor, *, summed: bool = False) -> None:
        alone = not (summed or self.shards)  # else the backward pass has added gradients up
        end = self.begin_sum(grad) if alone else _nothing_sent
        self._sum(losses)  # on its way together with the gradients
        end()

    def begin_sum(self, grad: Tensor) -> Callable[[], None]:
        """Begin to add up gradients in place, and what waits for the end."""
        sent = grad if self.rounded is None else grad.to(self.rounded)
        with self._answered():
            work = dist.all_reduce(sent, group=self.group, async_op=True)

        def end() -> None:
            with self._answered():
                work.wait()
            if sent is not grad:
                grad.copy_(sent)

        return end

    def add_recorded(self, objectives: Sequence[Any], before: Sequence[Mapping[str, Any]]) -> None:
        for objective, past in zip(objectives, before, strict=True):
            names = sorted(objective.recorded)
            if not names:
                continue
            known = torch.tensor([past.get(n, [0.0, 0]) for n in names], dtype=torch.float64)
            now = torch.tensor([objective.recorded[n] for n in names], dtype=torch.float64)
            self._sum(new := now - known)
            totals = (known + new).tolist()
            objective.recorded = {n: [t, round(c)] for n, (t, c) in zip(names, totals, strict=True)}

    def average(self, buffers: Mapping[str, Tensor]) -> None:
        # one message: a small one takes as long as a larger one
        floats = [each for each in buffers.values() if each.is_floating_point()]
        if not floats:
            return
        self._sum(sent := torch.cat([each.double().flatten() for each in floats]))
        sizes = [each.numel() for each in floats]
        for each, mean in zip(floats, (sent / self.size).split(sizes), strict=True):
            each.copy_(mean.view_as(each))


def _nothing_sent() -> None:
    """The end of a message that is not sent."""


def _of_ranks(error: RuntimeError) -> bool:
    """Whether an error is of the messages between ranks, not of what is computed."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text


def _weighted(
    weight: Tensor | None, share: float, members: int, samples: int, like: Tensor
) -> Tensor:
    """Weights of samples times the share of their part [P, B]."""
    if weight is None:
        return like.new_full((members, samples), share)
    return weight * share


def joined(recipe: Recipe, programs: int = 1) -> Ranks:
    """The ranks of this run: those that torchrun has started, else this process alone.

    Where the run has several ``programs``, or members that can be several, they are divided among as
    many groups of ranks, or among ``ranks.rows``.
    """
    return Joined(recipe, programs) if launcher.launched() else ALONE
