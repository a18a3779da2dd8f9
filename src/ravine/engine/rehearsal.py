"""Everything that can be wrong with a program is found on a few samples, before anything is written."""

from __future__ import annotations

from torch import Tensor

from ravine.data.pipeline import Pipeline
from ravine.engine import starting
from ravine.engine.evaluate import evaluation, metric_functions
from ravine.engine.population import Objective
from ravine.engine.programs import Program
from ravine.errors import InputError, RavineError
from ravine.recipe import Recipe

_ALWAYS = ("train_loss", "grad_norm", "lr")


def rehearse(program: Program) -> None:
    """Run model, loss and metrics of one member on a few samples; what does not fit is an InputError."""
    recipe, pipeline = program.recipes[0], program.pipeline
    metrics = metric_functions(pipeline.task, recipe.metrics)
    starting.frozen(program.population.layout, recipe.start)
    for each in program.recipes:
        _check_monitor(each, pipeline, list(metrics))
        _check_class_weights(each, pipeline)
    batch = pipeline.batch(0)
    x, y = batch.x[:4], batch.y[:4]
    objective = program.population.objectives[0]
    with evaluation([objective]):
        output = _output(objective, x)
        _check_output(output, y, pipeline)
        try:
            objective.loss(output, y)
        except RavineError:
            raise
        except Exception as error:
            raise InputError(
                f"loss.{recipe.loss.kind}", got=f"outputs {_shape(output)} for targets {_shape(y)} ({y.dtype})",
                expected=f"outputs that this loss can compare with the targets of {pipeline.task}", repair=_first_line(error),
            ) from None


def _output(objective: Objective, x: Tensor) -> Tensor:
    try:
        output = objective.model(x)
    except RavineError:
        raise
    except Exception as error:  # a person's module may fail in any way
        raise InputError(
            "model", got=f"a module that fails on inputs {_shape(x)} ({x.dtype})", expected="a module for this data",
            repair=f"{type(error).__name__}: {_first_line(error)}",
        ) from None
    if not isinstance(output, Tensor):
        raise InputError("model", got=f"an output of type {type(output).__name__}", expected="one tensor")
    return output


def _check_output(output: Tensor, y: Tensor, pipeline: Pipeline) -> None:
    """Classes that have no output unit cannot be learned; more units than classes are the doctor's business."""
    if pipeline.task not in ("classification", "sequence") or y.is_floating_point() or output.dim() != y.dim() + 1:
        return
    units = output.shape[-1]
    if 1 < units < pipeline.outputs:
        raise InputError(
            "model", got=f"{units} output units", expected=f"{pipeline.outputs}: the data has {pipeline.outputs} classes",
            repair=f"give the last layer {pipeline.outputs} units",
        )


def _check_monitor(recipe: Recipe, pipeline: Pipeline, metrics: list[str]) -> None:
    validation = [f"val_{name}" for name in ("loss", *metrics)] if pipeline.has("validation") else ["val_loss"]
    known = [*_ALWAYS, *validation]
    if recipe.stop.monitor not in known:
        raise InputError("stop.monitor", got=recipe.stop.monitor, expected=f"one of {', '.join(known)}")


def _check_class_weights(recipe: Recipe, pipeline: Pipeline) -> None:
    weights = recipe.loss.class_weights
    if isinstance(weights, tuple) and len(weights) != pipeline.outputs:
        raise InputError("loss.class_weights", got=f"{len(weights)} weights", expected=f"{pipeline.outputs}, one for each class")


def _shape(x: Tensor) -> str:
    return " x ".join(map(str, x.shape))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__

