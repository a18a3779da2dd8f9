"""Chooses how a program runs on this machine, by rules and, where a run is long enough, by timing.

The choice is the execution record, `Execution`: stored, shown, replayed by resume.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch

from ravine.catalogue import durations
from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.execution import profile, timing
from ravine.engine.execution.denormals import GRAIN
from ravine.engine.execution.device import device, has_bfloat16, has_tiles, kernel_threads
from ravine.engine.execution.execution import Execution
from ravine.engine.execution.memory import keep_freed_memory
from ravine.engine.rows.population import Population
from ravine.engine.rows.torch_rows import is_torch
from ravine.engine.rows.ways import (
    WAYS,
    Dense,
    Native,
    OneByOne,
    Parts,
    Threads,
    Way,
    Workload,
    gcc,
)
from ravine.recipe import Recipe
from ravine.version import VERSION

PROFILED = 10.0  # seconds of a run from which the machine is measured first, where it was not yet
# multiplications of a compiled step's largest layer under which a second thread costs more than it gives
DIVIDED = 2**21
PARTED = 64  # recurrent units from which on a bfloat16 batch is divided where that was not measured
# Not measured on any GPU.
GRAPHED = 2**24  # numbers in theta up to which steps on a GPU are captured as graphs


_RULES_ALONE = ContextVar("rules alone", default=False)


@contextmanager
def by_rules_alone() -> Iterator[None]:
    """Within it nothing is timed: who trains a recipe of a study, and beside what other work, then
    changes no number of it."""
    token = _RULES_ALONE.set(True)
    try:
        yield
    finally:
        _RULES_ALONE.reset(token)


def prepare(population: Population, recipe: Recipe, pipeline: Pipeline) -> Execution:
    """Choose how a program runs, and set the population up for it.

    By rule where precision and threads are given, the run is short, or ``by_rules_alone``: equal inputs
    on a machine then give equal records. Else the ways that are open are timed, and the choice is remembered.
    What needs trying is tried: a way that cannot run the program leaves it to the next.
    """
    keep_freed_memory()
    execution = _by_rules(population, recipe, pipeline)
    if not _RULES_ALONE.get():
        with suppress(_StepFails):  # who takes the first one, or examines it, says why
            if _unmeasured(execution, population, recipe, pipeline):
                execution = _by_rules(population, recipe, pipeline)
            execution = _timed(execution, population, recipe, pipeline)
    replay(population, execution)
    return execution


class _StepFails(Exception):
    """A step of the program itself cannot be taken."""


def _step(population: Population, batch: Batch) -> None:
    try:
        population.gradients(batch.x, batch.y, None, 0)
    except Exception as error:  # a person's own module may fail in any way
        raise _StepFails from error


def _by_rules(population: Population, recipe: Recipe, pipeline: Pipeline) -> Execution:
    """The record that the rules give, where what needs trying agrees."""
    refused: dict[str, str] = {}
    while True:
        execution = choose(recipe, population, pipeline, refused)
        batch = pipeline.batch(0)
        population.train()
        reason = execution.kind.why_not(population, execution.arithmetic, batch.x, batch.y)
        if reason is None:
            return execution
        refused[execution.way] = reason


def replay(population: Population, execution: Execution) -> None:
    """Set a population up as an execution record says."""
    population.way = execution.kind(population, execution.arithmetic)


# --- rules ----------------------------------------------------------------------------------------


def choose(
    recipe: Recipe,
    population: Population,
    pipeline: Pipeline,
    refused: Mapping[str, str] | None = None,
) -> Execution:
    """The execution record that the rules give; ``refused`` are ways that a trial has ruled out."""
    refused = refused or {}
    work = workload(recipe, population, pipeline)
    measured = _profile(work)
    if work.recurrent:
        precision, _ = _precision(recipe, work, OneByOne, measured)
        work = replace(work, parts_pay=_parts_pay(work, measured, precision))
    elif not work.convolutional:
        in_low = _precision(recipe, work, Dense, measured)[0] == "bfloat16"
        work = replace(work, lowered=in_low)
    way, reason = _way(work, refused)
    precision, precise = _precision(recipe, work, way, measured)
    lowered = measured.lowered_from if measured is not None and issubclass(way, Dense) else None
    why = [precise, *(f"not {name}: {text}" for name, text in refused.items())]
    order = _memory_format(work, way, precision, measured)
    return Execution(
        device=work.device,
        precision=precision,
        way=way.name,
        memory_format=order,
        joined=order == "channels_last" and work.device == "cpu" and gcc.found(),
        threads=_threads(recipe, work, way, measured),
        lowered_from=lowered or Execution.lowered_from,
        graphs=work.device == "cuda" and _graphable(recipe, population),
        why=[*why, f"{way.name}: {reason}"],
    )


def workload(recipe: Recipe, population: Population, pipeline: Pipeline) -> Workload:
    """The facts about a program that the rules depend on."""
    return Workload(
        population,
        device(recipe.device),
        torch.get_num_threads() if recipe.threads == "auto" else recipe.threads,
        pipeline.batch_size,
        durations.steps(recipe.stop.after, pipeline.epoch_steps),
    )


def _way(work: Workload, refused: Mapping[str, str]) -> tuple[type[Way], str]:
    """The first way whose rule takes the program."""
    if work.population.sharded:
        return OneByOne, "its parameters are divided among ranks"
    for way in WAYS.values():
        reason = way.rule(work)
        if reason is not None and way.name not in refused:
            return way, reason
    raise AssertionError("one by one takes every program")


def _sections(work: Workload) -> tuple[str, ...]:
    """The sections of the machine's profile that tell most about a program."""
    if work.convolutional:
        return ("convolution",)
    return ("recurrent", "parts") if work.recurrent else ("dense", "threads")


def _profile(work: Workload) -> profile.Profile | None:
    """What was measured of this machine, if it was."""
    return profile.profile(*_sections(work), measure=False) if work.device == "cpu" else None


def _unmeasured(
    execution: Execution, population: Population, recipe: Recipe, pipeline: Pipeline
) -> bool:
    """Measure this machine where it was not yet, and the run is so long that it pays; whether that
    was done."""
    work = workload(recipe, population, pipeline)
    many = timing.worth_it([execution, execution], work.steps) and not population.sharded
    if work.device != "cpu" or not many or not profile.missing(*_sections(work)):
        return False
    batch, seconds = pipeline.batch(0), []
    buffers = {name: stacked.clone() for name, stacked in population.buffers.items()}
    try:
        with kernel_threads(execution.step_threads):
            replay(population, execution)
            for _ in range(2):
                began = time.perf_counter()
                _step(population, batch)
                seconds.append(time.perf_counter() - began)
    finally:
        population.restore(buffers)
    if min(seconds) * work.steps < PROFILED:
        return False
    profile.profile(*_sections(work))
    return True


def _precision(
    recipe: Recipe, work: Workload, way: type[Way], measured: profile.Profile | None
) -> tuple[str, str]:
    """The precision of products, and why."""
    if recipe.precision != "auto":
        return recipe.precision, f"{recipe.precision}: the recipe says so"
    if not has_bfloat16(work.device):
        return "float32", "float32: the processor has no instructions for bfloat16"
    large = work.convolutional or work.recurrent
    if not large and not issubclass(way, Dense):
        return "float32", "float32: products do not dominate"
    if measured is None:
        if large and (work.device == "cuda" or has_tiles(work.device)):
            return "bfloat16", "bfloat16: the processor has units for it, and products dominate"
        return "float32", "float32: this machine has not been measured"
    what, gain = _gain(work, measured)
    precision = "bfloat16" if gain >= profile.GAIN else "float32"
    return precision, f"{precision}: {what} are {gain:.2f} times as fast in bfloat16 here"


def _gain(work: Workload, measured: profile.Profile) -> tuple[str, float]:
    """What the machine's profile says of a program's products: float32 over bfloat16."""
    if work.convolutional:
        return "convolutions", measured.convolution_gain
    if work.recurrent:
        return f"recurrent layers of {work.units} units", measured.recurrent_gain(work.units)
    return (
        f"dense layers of {_widest(work):,} weights",
        measured.dense_gain(_widest(work)) if measured.lowered_from else 0.0,
    )


def _widest(work: Workload) -> int:
    """Weights of the largest layer."""
    return max((math.prod(entry.shape) for entry in work.population.layout.entries), default=0)


def _parts_pay(work: Workload, measured: profile.Profile | None, precision: str) -> bool:
    """Whether parts of a recurrent batch are faster than the whole; measured with 128 samples."""
    if work.batch < profile.BATCH or not work.units:
        return False
    gain = None if measured is None else measured.parts_gain(work.units, precision)
    if gain is None:
        return precision == "bfloat16" and work.units >= PARTED
    return gain > 1.0


def _memory_format(
    work: Workload, way: type[Way], precision: str, measured: profile.Profile | None
) -> str:
    """Channels last is the order that convolution libraries compute in, unless the machine's profile
    says otherwise; vmap cannot keep it."""
    last = work.convolutional and way.calls_modules and precision != "float64"
    if last and measured is not None:
        kept, plain = (measured.convolution(precision, f) for f in ("channels_last", "contiguous"))
        last = kept < profile.GAIN * plain
    return "channels_last" if last else "contiguous"


def _threads(
    recipe: Recipe, work: Workload, way: type[Way], measured: profile.Profile | None
) -> int:
    if recipe.threads != "auto" or not issubclass(way, Dense):
        return work.threads
    if way is Native and _widest(work) * work.members * work.batch < DIVIDED:
        return 1
    largest = _widest(work) * work.members * work.batch
    gain = None if measured is None else measured.threads_gain(largest)
    if gain is not None:
        return work.threads if gain > 1.0 else 1
    return work.threads if math.sqrt(_widest(work)) * work.members * work.batch >= GRAIN else 1


def _graphable(recipe: Recipe, population: Population) -> bool:
    """Whether a step is the same kernels every time, and so many small ones that launching them is
    what takes the time."""
    small = population.theta.numel() <= GRAPHED
    same = recipe.optimizer.accumulate == 1 and not recipe.regularize.weight_noise
    return small and same and population.global_seeds is None and not is_torch(recipe.optimizer)


# --- timing ---------------------------------------------------------------------------------------


def _timed(
    rule: Execution, population: Population, recipe: Recipe, pipeline: Pipeline
) -> Execution:
    """The fastest of the variants that the recipe leaves open: the rule's own where there is no
    other, or no time to try."""
    work = workload(recipe, population, pipeline)
    if population.sharded:  # ranks wait for each other in each step: none may try by itself
        return rule
    variants = _variants(rule, recipe, work)
    if not timing.worth_it(variants, work.steps):
        return rule
    batch = pipeline.batch(0)
    shape = tuple(batch.x.shape)
    program = (recipe.program, population.layout, len(population), shape, VERSION, sorted(WAYS))
    found = timing.remembered(*program)
    if found is None:
        found = _try(variants, population, batch)
        if timing.quiet():
            timing.remember(found, *program)
    changes = {name: found[name] for name in ("precision", "way", "memory_format", "threads")}
    return replace(rule, **changes, why=[*rule.why, f"timed here: {found['seconds']}"])


def _variants(rule: Execution, recipe: Recipe, work: Workload) -> list[Execution]:
    """The rule's choice first, then the others that change nothing but speed and mixed precision's
    rounding."""
    if rule.device != "cpu":
        return [rule]
    precisions = [rule.precision]
    if recipe.precision == "auto" and has_bfloat16(rule.device) and _mixes(rule, work):
        precisions += ["float32"] if rule.precision == "bfloat16" else ["bfloat16"]
    ways = [(rule.way, rule.threads)]
    if recipe.threads == "auto":
        whole = OneByOne.name if rule.way == Parts.name else rule.way
        alone = OneByOne.name if rule.way == Threads.name else whole
        parts = [(Parts.name, rule.threads)] if Parts.possible(work) else []
        ways += [*parts, (whole, rule.threads), (alone, 1)]
    variants = [
        replace(rule, precision=precision, way=_computed(way, precision, work), threads=threads)
        for precision in precisions
        for way, threads in dict.fromkeys(ways)
    ]
    # a library may have a product of all members that is faster than one for each
    return variants + [replace(rule, way=Dense.name)] * (rule.way == Native.name)


def _computed(way: str, precision: str, work: Workload) -> str:
    """Of dense networks the way that has this precision: the compiled function has float32 alone."""
    if way not in (Native.name, Dense.name):
        return way
    lowered = replace(work, lowered=precision != "float32")
    return Native.name if Native.rule(lowered) is not None else Dense.name


def _mixes(rule: Execution, work: Workload) -> bool:
    """Whether bfloat16 products are open to a way: of dense networks, those with wide layers."""
    wide = _widest(work) >= rule.lowered_from
    return rule.kind.calls_modules or (issubclass(rule.kind, Dense) and wide)


def _try(variants: list[Execution], population: Population, batch: Batch) -> dict[str, Any]:
    buffers = {name: stacked.clone() for name, stacked in population.buffers.items()}

    def apply(variant: Execution) -> None:
        torch.set_num_threads(variant.step_threads)
        replay(population, variant)

    def step() -> None:
        _step(population, batch)

    population.train()
    try:
        with kernel_threads(torch.get_num_threads()):
            place, seconds = timing.fastest(variants, apply, step)
    finally:
        population.restore(buffers)
    in_parts = [" in parts" if variant.way == Parts.name else "" for variant in variants]
    shown = ", ".join(
        f"{variant.precision} x{variant.threads}{parts} {1e3 * least:.2f} ms"
        for variant, parts, least in zip(variants, in_parts, seconds, strict=True)
    )
    return {**variants[place].to_dict(), "seconds": shown}
