"""Chooses how a program runs on this machine. The choice is the execution record: stored, shown,
replayed by resume."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton

from ravine import __version__, durations
from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.execution import trials
from ravine.engine.execution.memory import keep_freed_memory
from ravine.engine.rows.batched import SMALL, DenseNetwork
from ravine.engine.rows.population import Population
from ravine.errors import InputError
from ravine.nn.traits import sees_samples_alone
from ravine.recipe import Recipe

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LITTLE = (
    2**22
)  # multiplications of a dense network's forward pass under which a second thread only waits
GRAPHED = 2**24  # numbers in theta up to which steps on a GPU are captured as graphs
COMPILED = (
    4000  # steps from which on compiling a network, which takes up to a minute, is repaid on a GPU
)
PART, UNITS = (
    64,
    64,
)  # samples in a part of a batch, and recurrent units, from which on parts side by side are faster
WIDE = 2**16  # weights of a dense network from which on bfloat16 products pay for their casts


ROWS = {
    "written out": "dense layers written out",
    "together": "members together",
    "one by one": "members one by one",
}


@dataclass
class Execution:
    """How a program runs: what the pilot chose and why."""

    device: str
    precision: str  # of products; theta itself is float32, or float64 for checks
    # "written out" (batched products, no autograd), "together" (one vmap over all members) or "one
    # by one"
    rows: str
    layout: str = "contiguous"
    threads: int = 1
    workers: int = 1  # threads that run members side by side, each member on one
    parts: int = 1  # of a single member's batch that run side by side, each on one thread
    graphs: bool = False  # whole steps are CUDA graphs
    compiled: bool = False  # the network runs through torch.compile
    why: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        parts = [
            self.device,
            self.precision,
            f"{self.threads} thread{'s' if self.threads != 1 else ''}",
        ]
        parts += ["channels last"] if self.layout == "channels_last" else []
        parts += ["steps as CUDA graphs"] if self.graphs else []
        parts += ["network compiled"] if self.compiled else []
        parts += [f"{self.workers} members side by side"] if self.workers > 1 else []
        parts += [f"batches in {self.parts} parts side by side"] if self.parts > 1 else []
        return ", ".join([*parts, ROWS[self.rows]])

    @property
    def step_threads(self) -> int:
        """Threads of one kernel in a step: others that wait for the next one would take the cores
        from parts of a batch."""
        return 1 if self.parts > 1 else self.threads

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of theta."""
        return torch.float64 if self.precision == "float64" else torch.float32


def prepare(population: Population, recipe: Recipe, pipeline: Pipeline) -> Execution:
    """Choose how a program runs, and set the population up for it.

    By rule where precision and threads are given, or the run is short: equal inputs on a machine
    then give equal records. Else the ways that are open are timed, and the choice is remembered.
    What needs trying is tried: whether a module can be mapped.
    """
    keep_freed_memory()
    execution = choose(recipe, population, pipeline.batch_size)
    if execution.rows == "together":
        batch = pipeline.batch(0)
        few = slice(0, min(16, len(batch.y)))
        population.train()
        reason = population.why_not_mapped(batch.x[few], batch.y[few])
        if reason is not None:
            execution.rows = "one by one"
            execution.why.append(f"members one by one: {reason}")
    execution = _timed(execution, population, recipe, pipeline)
    execution.compiled = _compilable(
        execution, population, durations.steps(recipe.stop.after, pipeline.epoch_steps)
    )
    replay(population, execution)
    if execution.compiled:
        batch = pipeline.batch(0)
        population.train()
        reason = population.why_not_compiled(batch.x, batch.y)
        if reason is not None:
            execution.compiled = False
            execution.why.append(f"network not compiled: {reason}")
            replay(population, execution)
    return execution


def _timed(
    rule: Execution, population: Population, recipe: Recipe, pipeline: Pipeline
) -> Execution:
    """The fastest of the ways that the recipe leaves open: the rule's own where there is no other,
    or no time to try."""
    ways = _ways(rule, recipe, population)
    if not trials.worth_it(ways, durations.steps(recipe.stop.after, pipeline.epoch_steps)):
        return rule
    batch = pipeline.batch(0)
    program = (
        recipe.program,
        population.layout,
        len(population),
        tuple(batch.x.shape),
        __version__,
    )
    found = trials.remembered(*program)
    if found is None:
        found = _try(ways, population, batch)
        if trials.quiet():
            trials.remember(found, *program)
    changes = {
        name: found[name]
        for name in ("precision", "layout", "threads", "workers", "parts")
        if name in found
    }
    return replace(rule, **changes, why=[*rule.why, f"timed here: {found['seconds']}"])


def _try(ways: list[Execution], population: Population, batch: Batch) -> dict[str, Any]:
    buffers = {name: stacked.clone() for name, stacked in population.buffers.items()}

    def enter(way: Execution) -> None:
        torch.set_num_threads(way.step_threads)
        replay(population, way)

    population.train()
    try:
        with kernel_threads(torch.get_num_threads()):
            place, seconds = trials.fastest(
                ways, enter, lambda: population.gradients(batch.x, batch.y, None, 0)
            )
    finally:
        population.restore(buffers)
    named = [
        f"{way.precision} x{way.threads}{' in parts' if way.parts > 1 else ''}" for way in ways
    ]
    told = ", ".join(
        f"{name} {1e3 * least:.2f} ms" for name, least in zip(named, seconds, strict=True)
    )
    return {**ways[place].to_dict(), "seconds": told}


def _ways(rule: Execution, recipe: Recipe, population: Population) -> list[Execution]:
    """The rule's choice first, then the others that change nothing but speed and mixed precision's
    rounding."""
    if rule.device != "cpu":
        return [rule]
    precisions = [rule.precision]
    open_to_both = rule.rows == "one by one" or (
        rule.rows == "written out" and _wide_layers(population)
    )
    if recipe.precision == "auto" and _fast_bfloat16(rule.device) and open_to_both:
        precisions += ["float32"] if rule.precision == "bfloat16" else ["bfloat16"]
    shares = [(rule.threads, rule.parts)]  # threads, parts of a batch
    if recipe.threads == "auto":
        recurrent = any(isinstance(m, nn.RNNBase) for m in population.objectives[0].modules())
        others = {
            (1, 1),
            (rule.threads, 1),
            (rule.threads, rule.threads if recurrent and _divisible(population) else 1),
        }
        shares += sorted(others.difference(shares), reverse=True)
    return [
        replace(rule, precision=p, threads=n, workers=min(rule.workers, n), parts=parts)
        for p in precisions
        for n, parts in shares
    ]


def _wide_layers(population: Population) -> bool:
    """Whether a dense network has layers whose products bfloat16 would take."""
    return any(math.prod(entry.shape) >= SMALL for entry in population.layout.entries)


def replay(population: Population, execution: Execution) -> None:
    """Set a population up as an execution record says."""
    population.chunk = (
        len(population) if execution.rows == "together" and len(population) > 1 else 1
    )
    population.autocast = torch.bfloat16 if execution.precision == "bfloat16" else None
    population.memory_format = (
        torch.channels_last if execution.layout == "channels_last" else torch.contiguous_format
    )
    population.write_out(
        (population.autocast or execution.dtype) if execution.rows == "written out" else None
    )
    population.cast_once(population.autocast if execution.rows == "one by one" else None)
    networks = (
        [objective.model for objective in population.objectives] if execution.compiled else []
    )
    population.compiled = {network: compile_network(network) for network in networks}
    population.workers, population.parts = execution.workers, execution.parts


@contextlib.contextmanager
def kernel_threads(count: int) -> Iterator[None]:
    """PyTorch's kernels on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose(recipe: Recipe, population: Population, batch: int) -> Execution:
    """The execution record that the rules give for a population and its batches."""
    where, module = device(recipe.device), population.objectives[0]
    convolutional = any(isinstance(m, _CONVOLUTIONS) for m in module.modules())
    recurrent = any(isinstance(m, nn.RNNBase) for m in module.modules())
    dense = DenseNetwork.refuses(population.objectives, population.layout) is None
    heavy = convolutional or recurrent or (dense and population.layout.weights >= WIDE)
    precision, why = _precision(recipe, where, heavy)
    rows = "written out" if dense else "one by one"
    if not dense and len(population) > 1:
        rows = (
            "together" if not recurrent and (where == "cuda" or not convolutional) else "one by one"
        )
        if rows == "one by one":
            why.append(
                "members one by one: convolutions and recurrence are faster so on this device"
            )
    threads = torch.get_num_threads() if recipe.threads == "auto" else recipe.threads
    if (
        recipe.threads == "auto"
        and dense
        and population.layout.weights * len(population) * batch < LITTLE
    ):
        threads = 1
    aside = (
        where == "cpu"
        and rows == "one by one"
        and (convolutional or recurrent)
        and population.global_seeds is None
    )
    return Execution(
        device=where,
        precision=precision,
        rows=rows,
        layout="channels_last"
        if convolutional and rows == "one by one" and precision != "float64"
        else "contiguous",
        threads=threads,
        workers=min(threads, len(population)) if aside else 1,
        parts=threads
        if recurrent and _divisible(population) and _repays_parts(module, batch // threads)
        else 1,
        graphs=where == "cuda" and _graphable(recipe, population),
        why=why,
    )


def _divisible(population: Population) -> bool:
    """Whether parts of a batch can run side by side: one member, whose layers and loss see each
    sample alone."""
    objective = population.objectives[0]
    alone = (
        len(population) == 1 and population.device.type == "cpu" and population.global_seeds is None
    )
    return (
        alone
        and not objective.mines
        and not objective.attacks
        and sees_samples_alone(objective.model)
    )


def _repays_parts(module: nn.Module, samples: int) -> bool:
    """Whether a recurrent network's kernels, which threads share poorly, are so long that parts of
    a batch are faster."""
    units = [m.hidden_size for m in module.modules() if isinstance(m, nn.RNNBase)]
    return samples >= PART and min(units) >= UNITS


def compile_network(network: nn.Module) -> Callable[[Tensor], Any]:
    """A network as kernels of its own, made at the first call for each shape of batch."""
    return torch.compile(lambda x: network(x), dynamic=False)


def _compilable(execution: Execution, population: Population, steps: int) -> bool:
    """Whether one network trains on a GPU for so long that compiling it is repaid. Dense ones are
    written out instead."""
    alone = execution.device == "cuda" and execution.rows == "one by one" and len(population) == 1
    return alone and population.global_seeds is None and steps >= COMPILED and has_triton()


def _graphable(recipe: Recipe, population: Population) -> bool:
    """Whether a step is the same kernels every time, and so many small ones that launching them is
    what takes the time."""
    small = population.theta.numel() <= GRAPHED
    return (
        small
        and recipe.optimizer.accumulate == 1
        and population.global_seeds is None
        and not recipe.regularize.weight_noise
    )


def _precision(recipe: Recipe, where: str, heavy: bool) -> tuple[str, list[str]]:
    if recipe.precision != "auto":
        return recipe.precision, [f"{recipe.precision}: the recipe says so"]
    if heavy and _fast_bfloat16(where):
        return "bfloat16", ["bfloat16: the processor multiplies it natively, and products dominate"]
    return "float32", ["float32: nothing faster keeps its accuracy here"]


def machine() -> dict[str, Any]:
    """What a figure must carry: the machine and the versions."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": platform.machine(),
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def device(wanted: str) -> str:
    """The device for a recipe's wish."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device",
            got="cuda",
            expected="a device of this machine",
            repair='use device = "cpu" or "auto"',
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _fast_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
