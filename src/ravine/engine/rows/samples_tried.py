"""A network, its loss and its metrics on a few samples: what does not fit gets one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ravine.catalogue import PREFIX, table
from ravine.data.pipeline import Pipeline
from ravine.engine.rows.evaluate import (
    Metric,
    evaluation,
    measured,
    metric_functions,
    metric_name,
)
from ravine.engine.rows.objective import Objective
from ravine.errors import InputError, RavineError, first_line, place_of
from ravine.nn.answers import Answers
from ravine.nn.outputs import joined
from ravine.recipe import Recipe

_OF_NUMBERS = ("mse", "rmse", "mae", "r2")
_ALWAYS = ("train_loss", "grad_norm", "lr")


def measured_names(
    metrics: Mapping[str, Metric],
    objective: Objective,
    given: Any,
    output: Tensor,
    targets: Tensor,
    task: str,
) -> list[str]:
    """The names of the numbers that metrics give, each tried on a few samples."""
    names = []
    for name, function in metrics.items():

        def metric(_: Tensor, target: Tensor, function: Metric = function) -> Any:
            return measured(function, objective, output, given, target)

        value = compared(f"metrics.{name}", metric, output, targets, task)
        _check_number(name, value)
        names += ["_".join([name, *map(str, place)]) for place in np.ndindex(np.shape(value))]
    return names


def own_metrics(
    recipe: Recipe, pipeline: Pipeline, objective: Objective, answers: Answers
) -> list[str]:
    """The names of what own metrics give beside a step: they see all that the model gives for the
    inputs."""
    if not recipe.metrics:
        return []
    batch = pipeline.batch(0)
    x, targets = batch.x[:4], pipeline.target_units(batch.y[:4])
    with evaluation([objective]):
        try:
            given = outputs_of(objective, x)
            output = one_output(objective, given, x)
        except InputError:
            raise InputError(
                "metrics",
                got=", ".join(metric_name(part) for part in recipe.metrics),
                expected="a model that can be called with the inputs of a batch",
                repair='return the number from the step: {"loss": loss, "NAME": number}',
            ) from None
        metrics = metric_functions(answers, pipeline.task, recipe.metrics, recipe.loss)
        return measured_names(metrics, objective, given, output, targets, pipeline.task)


def refuse_named_metrics(recipe: Recipe, expected: str) -> None:
    """Metrics by name judge answers; one's own are given the outputs as they are."""
    named = [metric_name(part) for part in recipe.metrics if not part.kind.startswith(PREFIX)]
    if named:
        raise InputError(
            "metrics",
            got=", ".join(named),
            expected=expected,
            repair="a function of your own, metrics=[f]: f(output, target) is given what the network "
            'and the data give; or return the number from the step: {"loss": loss, "NAME": number}',
        )


def outputs_of(objective: Objective, x: Tensor) -> Any:
    """What the model gives for a few samples."""
    try:
        return objective.model(x)
    except RavineError:
        raise
    except Exception as error:  # a person's module may fail in any way
        raise InputError(
            "model",
            got=f"a module that fails on inputs {shape_of(x)} ({x.dtype})",
            expected="a module for this data",
            repair=f"{type(error).__name__}: {first_line(error)}{place_of(error)}",
        ) from None


def one_output(objective: Objective, given: Any, x: Tensor) -> Tensor:
    """The outputs as one tensor: those of several heads side by side, where the loss is for them."""
    output = joined(given, heads=objective.heads)
    if output.dim() and len(output) != len(x):
        raise InputError(
            "model",
            got=f"outputs {shape_of(output)} for {len(x)} samples",
            expected=f"a row for each sample: {len(x)} x …",
            repair="keep the first axis of the inputs; what needs whole batches is a step=",
        )
    return output


def compared(
    where: str, function: Callable[[Tensor, Tensor], Any], output: Tensor, y: Tensor, task: str
) -> Any:
    try:
        return function(output, y)
    except RavineError:
        raise
    except Exception as error:
        raise InputError(
            where,
            got=f"outputs {shape_of(output)} for targets {shape_of(y)} ({y.dtype})",
            expected=f"outputs that it can compare with the targets of {task}",
            repair="; ".join(
                filter(
                    None, (first_line(error) + place_of(error), _advice(where, error, output, y))
                )
            ),
        ) from None


def _advice(where: str, error: Exception, output: Tensor, y: Tensor) -> str:
    """What usually helps where a loss or a metric cannot compare outputs with targets."""
    if where.startswith("metrics"):
        return "it is given scores and targets: lambda output, target: f(target, output.argmax(1))"
    if isinstance(error, TypeError) and "argument" in str(error):
        return "a loss of anything but (output, target) is computed in a step= of (model, batch)"
    whole = not y.is_floating_point() or bool((y == y.round()).all())
    if y.is_floating_point() and whole and output.dim() == 2 and output.shape[1] > 1:
        return "targets that are floats are values; classes are whole numbers: y.long()"
    if not y.is_floating_point() and output.shape[1:] == (1,):
        return 'one output for two classes: y.float(), or loss="binary_cross_entropy" by name'
    if not y.is_floating_point() and y.dim() == 1 and output.dim() == 2:
        return "targets are the classes [B] (rows with a single 1 are read so): cross_entropy"
    return ""


def _check_number(name: str, value: Any) -> None:
    """A metric gives a number, or a matrix of them."""
    try:
        whole = value is not None and np.asarray(value, np.float64) is not None
    except (TypeError, ValueError, RuntimeError):
        whole = False
    if not whole:
        raise InputError(
            f"metrics.{name}",
            got=f"a {type(value).__name__}",
            expected="a number",
            repair="for several numbers give several functions, metrics=[one, other], or a tensor",
        )


def check_metrics(recipe: Recipe, pipeline: Pipeline) -> None:
    """Metrics of classes do not apply to regressions, and the other way round."""
    names = [metric_name(part) for part in recipe.metrics]
    for part in recipe.metrics:
        if part.kind.startswith(PREFIX) and names.count(metric_name(part)) > 1:
            raise InputError(
                "metrics",
                got=f"{metric_name(part)} twice",
                expected="metrics of different names",
                repair="define them with def",
            )
    for part in recipe.metrics:
        if part.kind.startswith(PREFIX):
            continue
        of_numbers = part.kind in _OF_NUMBERS
        if of_numbers != (pipeline.task == "regression") and pipeline.task != "multilabel":
            known = [
                name
                for name in table("metric")
                if (name in _OF_NUMBERS) == (pipeline.task == "regression")
            ]
            whole = pipeline.task == "regression"
            raise InputError(
                "metrics",
                got=part.kind,
                expected=f"for {pipeline.task}: {', '.join(known)}",
                repair="floats are values; classes are whole numbers: y.long()" if whole else "",
            )


def check_monitor(
    recipe: Recipe, pipeline: Pipeline, metrics: list[str], more: Sequence[str] = ()
) -> None:
    validation = [f"val_{name}" for name in metrics] if pipeline.has("validation") else ["val_loss"]
    known = [*_ALWAYS, *validation, *more]
    if recipe.stop.monitor not in known:
        raise InputError(
            "stop.monitor", got=recipe.stop.monitor, expected=f"one of {', '.join(known)}"
        )


def shape_of(x: Tensor) -> str:
    return " x ".join(map(str, x.shape))
