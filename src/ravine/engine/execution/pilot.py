"""Chooses how a program runs on this machine, by rules and, where a run is long enough, by timing.

The choice is the execution record, `Execution`: stored, shown, replayed by resume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ravine.catalogue import durations
from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.execution import timing
from ravine.engine.execution.device import device, kernel_threads, multiplies_bfloat16
from ravine.engine.execution.execution import Execution
from ravine.engine.execution.memory import keep_freed_memory
from ravine.engine.rows.population import Population
from ravine.engine.rows.torch_rows import is_torch
from ravine.engine.rows.ways import WAYS, Dense, OneByOne, Parts, Threads, Way, Workload
from ravine.engine.rows.ways.dense import SMALL
from ravine.recipe import Recipe
from ravine.version import VERSION

# Measured on two Intel cores with AMX (docs/speed.md); not on other processors.
LITTLE = 2**22  # multiplications of a dense forward pass under which a second thread only waits
WIDE = 2**16  # weights of a dense network from which on bfloat16 products pay for their casts
# Not measured on any GPU.
GRAPHED = 2**24  # numbers in theta up to which steps on a GPU are captured as graphs


def prepare(population: Population, recipe: Recipe, pipeline: Pipeline) -> Execution:
    """Choose how a program runs, and set the population up for it.

    By rule where precision and threads are given, or the run is short: equal inputs on a machine
    then give equal records. Else the ways that are open are timed, and the choice is remembered.
    What needs trying is tried: a way that cannot run the program leaves it to the next.
    """
    keep_freed_memory()
    refused: dict[str, str] = {}
    while True:
        execution = choose(recipe, population, pipeline, refused)
        batch = pipeline.batch(0)
        population.train()
        reason = execution.kind.why_not(population, execution.arithmetic, batch.x, batch.y)
        if reason is None:
            break
        refused[execution.way] = reason
    execution = _timed(execution, population, recipe, pipeline)
    replay(population, execution)
    return execution


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
    way, reason = _way(work, refused)
    precision, precise = _precision(recipe, work, way)
    why = [precise, *(f"not {name}: {text}" for name, text in refused.items())]
    return Execution(
        device=work.device,
        precision=precision,
        way=way.name,
        memory_format=_memory_format(work, way, precision),
        threads=_threads(recipe, work, way),
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
    for way in WAYS.values():
        reason = way.rule(work)
        if reason is not None and way.name not in refused:
            return way, reason
    raise AssertionError("one by one takes every program")


def _precision(recipe: Recipe, work: Workload, way: type[Way]) -> tuple[str, str]:
    """The precision of products, and why."""
    if recipe.precision != "auto":
        return recipe.precision, f"{recipe.precision}: the recipe says so"
    wide = way is Dense and work.population.layout.weights >= WIDE
    if not multiplies_bfloat16(work.device):
        return "float32", "float32: the processor has no faster units for bfloat16"
    if not (work.convolutional or work.recurrent or wide):
        return "float32", "float32: products do not dominate"
    return "bfloat16", "bfloat16: the processor multiplies it natively, and products dominate"


def _memory_format(work: Workload, way: type[Way], precision: str) -> str:
    """Channels last is the order that convolution libraries compute in; vmap cannot keep it."""
    last = work.convolutional and way.calls_modules and precision != "float64"
    return "channels_last" if last else "contiguous"


def _threads(recipe: Recipe, work: Workload, way: type[Way]) -> int:
    multiplications = work.population.layout.weights * work.members * work.batch
    little = way is Dense and multiplications < LITTLE
    return 1 if recipe.threads == "auto" and little else work.threads


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
    if recipe.precision == "auto" and multiplies_bfloat16(rule.device) and _mixes(rule, work):
        precisions += ["float32"] if rule.precision == "bfloat16" else ["bfloat16"]
    ways = [(rule.way, rule.threads)]
    if recipe.threads == "auto":
        whole = OneByOne.name if rule.way == Parts.name else rule.way
        alone = OneByOne.name if rule.way == Threads.name else whole
        parts = [(Parts.name, rule.threads)] if Parts.possible(work) else []
        ways += [*parts, (whole, rule.threads), (alone, 1)]
    return [
        replace(rule, precision=precision, way=way, threads=threads)
        for precision in precisions
        for way, threads in dict.fromkeys(ways)
    ]


def _mixes(rule: Execution, work: Workload) -> bool:
    """Whether bfloat16 products are open to a way: of dense networks, those with wide layers."""
    wide = any(math.prod(entry.shape) >= SMALL for entry in work.population.layout.entries)
    return rule.kind.calls_modules or (rule.kind is Dense and wide)


def _try(variants: list[Execution], population: Population, batch: Batch) -> dict[str, Any]:
    buffers = {name: stacked.clone() for name, stacked in population.buffers.items()}

    def apply(variant: Execution) -> None:
        torch.set_num_threads(variant.step_threads)
        replay(population, variant)

    def step() -> None:
        population.gradients(batch.x, batch.y, None, 0)

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
