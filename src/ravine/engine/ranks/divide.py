"""A program whose batches are divided among ranks: how it runs then, and what cannot be divided."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ravine.data.objects.stream import Ordered
from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.execution import pilot
from ravine.engine.execution.execution import Execution
from ravine.engine.programs import Program
from ravine.engine.ranks.buckets import Buckets
from ravine.engine.ranks.ranks import Joined, Ranks
from ravine.engine.rows.own_step import is_in_parts
from ravine.engine.rows.torch_rows import OwnOptimizer, is_torch
from ravine.engine.rows.ways import OneByOne, Stepped
from ravine.engine.rows.ways.way import close
from ravine.errors import InputError
from ravine.nn.analysis.traits import Trait, any_layer
from ravine.nn.loss.own_loss import OwnLoss
from ravine.nn.normalization import BatchNorm

# Bytes of a gradient from which it is added up within the backward pass: one of 5 MB took 0.76 of the
# time so, one of 0.3 MB the same (bench/ranks.py, two CPU processes). Not measured on any GPU.
OVERLAPPED = 2 << 20
FEW = 8  # samples a rank on which dividing is tried


def divided(program: Program, ranks: Ranks) -> Program:
    """The program as it runs on several ranks: all in the way that the leading rank has chosen.

    Raises `InputError` where a batch cannot be divided.
    """
    if not isinstance(ranks, Joined) or ranks.size == 1:
        return program
    population = program.population
    objective = population.objectives[0]
    _refuse(program)
    _refuse_closures(program)
    _check_data(program, ranks)
    own = population.global_seeds is not None or isinstance(objective.loss, OwnLoss)
    own = own or objective.own_step is not None
    statistics = any_layer(objective, Trait.BATCH_STATISTICS)
    wanted = program.recipes[0].ranks.sync_batch_norm
    ranks.synchronizes = wanted and (statistics or own)
    ranks.averages = not wanted and bool(population.saved_buffers())
    execution = Execution.from_dict(ranks.decide(program.execution.to_dict))
    execution = replace(execution, graphs=False)
    waits = ranks.synchronizes and execution.kind is not Stepped  # for other ranks, in a pass
    if waits or ranks.shards:
        execution = replace(execution, way=OneByOne.name)
    pilot.replay(population, execution)
    if own and wanted:
        _try(program, ranks)
    plain = execution.kind is OneByOne and len(population) == 1 and not ranks.shards
    if plain and population.grad.nbytes >= OVERLAPPED:
        population.buckets = Buckets(population, ranks.begin_sum)
        why = [*execution.why, "its gradient is added up within the backward pass"]
        execution = replace(execution, why=why)
    pipeline = program.pipeline
    if program.folds is None and not ranks.any(not pipeline.reads_parts):
        pipeline = pipeline.in_parts(ranks.part_of)
    return replace(program, execution=execution, pipeline=pipeline)


def _refuse(program: Program) -> None:
    """What is known to look at the samples of a batch together."""
    objective = program.population.objectives[0]
    repair = "train it in one process, or divide members: ranks.rows"
    if any(each.mines for each in program.population.objectives):
        expected = "1.0 where a batch is divided: the hardest are found among all samples"
        raise InputError("regularize.hard_negatives", expected=expected, repair=repair)
    if any(isinstance(m, BatchNorm) and m.ghost for m in objective.modules()):
        expected = "whole batches: ghost batches would be other ones on each number of ranks"
        raise InputError("model", got="batch norm with ghost", expected=expected, repair=repair)
    if is_in_parts(objective.own_step):
        expected = "a step with one loss where a batch is divided: parts step at once"
        raise InputError("step", got="a step in parts", expected=expected, repair=repair)


def _refuse_closures(program: Program) -> None:
    for recipe, objective in zip(program.recipes, program.population.objectives, strict=False):
        if is_torch(recipe.optimizer) and OwnOptimizer(recipe.optimizer, objective).needs_closure:
            name = recipe.optimizer.technique.name.removeprefix("own:")
            raise InputError(
                "optimizer",
                got=f"{name}, whose step calls a closure",
                expected="one step from one gradient where a batch is divided",
                repair="train it in one process, or divide members: ranks.rows",
            )


def _check_data(program: Program, ranks: Joined) -> None:
    """Refuse samples that a person's program has drawn anew in each process."""
    own = program.pipeline.digest
    if ranks.any(own != ranks.decide(lambda: own)):
        raise InputError(
            "data",
            got="other samples on one rank than on another",
            expected="the same on all",
            repair="draw them with a fixed seed, or let all ranks read the same files",
        )


def _unlike(pipeline: Pipeline, few: int) -> Batch:
    """Samples whose parts differ as much as those of any batch: ordered by their targets, and of classes
    the rarest too. A mean that divides by weights of classes is another one on each part then."""
    part = pipeline.part("train")
    labels: Tensor | None = getattr(part, "labels", None)
    by_number = not isinstance(part, Ordered) and not pipeline.data.augment
    if pipeline.classes and by_number and labels is not None and labels.dim() == 1:
        rows = _of_each_class(labels.cpu(), few)
        x, y = part.take(rows)
        y = y.to(pipeline.device, torch.int64)
        batch = Batch(pipeline.preprocessed(pipeline.encoded(x)), y, rows.to(pipeline.device))
    else:
        batch = pipeline.batch(0)
    order = batch.y.reshape(len(batch.y), -1).double().sum(1).argsort(stable=True)
    chosen = order[torch.linspace(0, len(order) - 1, min(few, len(order))).round().long()]
    return Batch(batch.x[chosen], batch.y[chosen], batch.index[chosen])


def _of_each_class(labels: Tensor, most: int) -> Tensor:
    """Places of at most so many labels [N]: one of each class, the rarest class first, then another of
    each."""
    order = labels.argsort(stable=True)
    counts = labels[order].unique_consecutive(return_counts=True)[1]
    turn = torch.cat([torch.arange(int(count)) for count in counts])
    size = counts.repeat_interleave(counts)
    return order[(turn * len(order) + size).argsort(stable=True)[:most]]


@torch.no_grad()
def _try(program: Program, ranks: Joined) -> None:
    """What is a person's own may do anything with a batch: few samples, divided, must have the gradient
    that they have together."""
    population, batch = program.population, _unlike(program.pipeline, FEW * ranks.size)
    few = len(batch.y)
    population.train()
    population.seed_step(0)
    before = {name: stacked.clone() for name, stacked in population.buffers.items()}
    share = population.theta.new_full((len(population), few), 1 / ranks.size)  # all add theirs
    population.gradients(batch.x, batch.y, share if ranks.shards else None, 0)
    population.gather_buffers()
    whole = population.grad.clone()
    buffers = {name: stacked.clone() for name, stacked in population.saved_buffers().items()}
    population.restore(before)
    total = population.objectives[0].loss.total
    with ranks.divided(batch, None, total, population.theta) as (part, weight):
        losses = population.gradients(part.x, part.y, weight, 0)
    ranks.add(population.grad, losses)
    population.gather_buffers()
    rounded = program.execution.arithmetic.products is not None
    same = close(population.grad, whole, rounded)
    same = same and all(close(population.buffers[n], b, rounded) for n, b in buffers.items())
    population.restore(before)
    for objective in population.objectives:
        objective.recorded = {}
    if ranks.any(not same):
        raise InputError(
            "ranks",
            got="a model, loss or step of your own whose gradient changes where a batch is divided",
            expected="one that sees each sample alone and draws nothing from PyTorch's generator",
            repair="draw in layers (nn.Dropout), give a loss for each sample (weights of classes: "
            "loss.class_weights), or train it in one process; sync_batch_norm = false takes each rank's part as a batch of its own",
        )
