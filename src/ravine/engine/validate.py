"""Everything that can be wrong with a program is found on a few samples, before anything is
written."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from ravine.catalogue import PREFIX, table
from ravine.data.objects.fields import TARGETS, Fields
from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.given_model import check_gradient
from ravine.engine.loop.calendar import Calendar
from ravine.engine.rows.evaluate import evaluation, metric_functions, metric_name, metric_names
from ravine.engine.rows.frozen import frozen
from ravine.engine.rows.own_step import check_step, is_in_parts, losses_of, model_loss
from ravine.engine.rows.population import Objective, Population
from ravine.engine.rows.torch_rows import check_optimizer, check_parts, is_torch
from ravine.errors import InputError, RavineError, first_line
from ravine.nn.analysis.traits import Trait, any_layer
from ravine.nn.answers import Answers
from ravine.nn.loss.own_loss import OwnLoss
from ravine.nn.outputs import has_answer, joined
from ravine.optim.rows.groups import check_formula
from ravine.recipe import Recipe
from ravine.registering import own_parts

_OF_NUMBERS = ("mse", "rmse", "mae", "r2")
_NO_FIELDS: dict[str, Any] = Fields((), (), ()).to_dict()
_ALWAYS = ("train_loss", "grad_norm", "lr")


def validate(recipes: Sequence[Recipe], pipeline: Pipeline, population: Population) -> Answers:
    """Run model, loss and metrics of one member on a few samples; what does not fit is an
    InputError. Gives what the outputs mean."""
    recipe = recipes[0]
    _check_metrics(recipe, pipeline)
    if not population.layout.size:
        expected = "a module with parameters that require gradients"
        raise InputError(
            "model",
            got="nothing to train",
            expected=expected,
            repair="requires_grad_() lets them move; a function must give a module of layers",
        )
    frozen(population.layout, recipe.start)
    for each in recipes:
        Calendar(each, pipeline)
        _check_class_weights(each, pipeline)
    batch = pipeline.batch(0)
    x, y = batch.x[:4], batch.y[:4]
    objective = population.objectives[0]
    if objective.own_step is not None:
        return _validate_step(recipes, pipeline, objective)
    _check_targets(recipe, pipeline, y)
    with evaluation([objective]):
        given = _outputs(objective, x)
        output = _one(objective, given, x)
        own_loss = isinstance(objective.loss, OwnLoss)
        if not own_loss:
            _check_output(output, y, pipeline)
        _check_one_unit(recipe, output, pipeline)

        def loss(_: Tensor, target: Tensor) -> Any:
            return objective.loss(objective.judged(given), target)

        _compare(f"loss.{recipe.loss.kind}", loss, output, y, pipeline.task)
        answers = _answers_of(recipe, pipeline, objective, x, y, given, output)
        metrics = metric_functions(answers, pipeline.task, recipe.metrics, recipe.loss)
        targets = pipeline.target_units(y)
        measured = ["loss"]
        for name, function in metrics.items():
            value = _compare(f"metrics.{name}", function, output, targets, pipeline.task)
            _check_number(name, value)
            measured += [
                "_".join([name, *map(str, place)]) for place in np.ndindex(np.shape(value))
            ]
    _check_one_number(recipe, objective)
    if any(own_parts([recipe.model, recipe.loss])) or recipe.model.kind == "module":
        check_gradient(objective, x, y)
    for each in recipes:
        if is_torch(each.optimizer):
            check_optimizer(each.optimizer, objective)
        else:
            check_formula(each.optimizer)
        _check_monitor(each, pipeline, measured)
    _check_smallest_batch(objective, pipeline)
    return answers


def _answers_of(
    recipe: Recipe,
    pipeline: Pipeline,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    given: Any,
    output: Tensor,
) -> Answers:
    """What the outputs mean; under a loss of one's own perhaps nothing that is known."""
    parted = objective.form.target_fields is not None
    if parted and recipe.metrics:
        _refuse_metrics(recipe, "targets that are one number or class each")
    fits = not parted and has_answer(given) and _are_answers(output, y, pipeline)
    if isinstance(objective.loss, OwnLoss) and not fits:
        return Answers("loss", "values", units=pipeline.target_units)
    return Answers.of(objective.model, objective.loss, pipeline.task, x, pipeline.target_units)


def _validate_step(recipes: Sequence[Recipe], pipeline: Pipeline, objective: Objective) -> Answers:
    """A step of one's own on a few samples. Outputs have a meaning where they fit the targets."""
    recipe, batch = recipes[0], pipeline.batch(0)
    few = Batch(batch.x[:4], batch.y[:4], batch.index[:4])
    measured = check_step(objective, few)
    if is_in_parts(objective.own_step):
        check_parts(recipe)
    answers = step_answers(objective, pipeline)
    if answers.kind == "loss" and recipe.metrics:
        _refuse_metrics(recipe, "a model whose output fits the targets")
    names = metric_names(pipeline.task, recipe.metrics, recipe.loss)
    known = [*measured, *(names if answers.kind != "loss" else ())]
    for each in recipes:
        if is_torch(each.optimizer):
            check_optimizer(each.optimizer, objective)
        else:
            check_formula(each.optimizer)
        for path in ("regularize.hard_negatives", "regularize.adversarial", "loss.class_weights"):
            if each.get(path) != Recipe().get(path):
                repair = "do it in the step itself"
                got = "a step of one's own"
                raise InputError(path, got=got, expected="loss=, not step=", repair=repair)
        _check_monitor(each, pipeline, known, [f"train_{name}" for name in measured])
    return answers


def _refuse_metrics(recipe: Recipe, expected: str) -> None:
    raise InputError(
        "metrics",
        got=", ".join(metric_name(part) for part in recipe.metrics),
        expected=expected,
        repair='return the number from the step: {"loss": loss, "NAME": number}',
    )


def step_answers(objective: Objective, pipeline: Pipeline) -> Answers:
    """What the model's outputs mean beside a step of one's own: what they would mean under the loss of
    the task, where they are as many as the targets; else nothing."""
    nothing = Answers("loss", "values")
    if objective.form.target_fields is not None:
        return nothing  # targets of several kinds
    batch = pipeline.batch(0)
    try:
        with evaluation([objective]):
            output = joined(objective.model(batch.x[:4]), heads=False)
    except Exception:  # a model may be made for its step alone
        return nothing
    if not isinstance(output, Tensor) or len(output) != len(batch.x[:4]):
        return nothing
    fits = output.shape[-1] == pipeline.outputs and output.dim() == 2
    if pipeline.task == "sequence":
        fits = output.shape == (*batch.y[:4].shape, pipeline.outputs)
    if not fits or (pipeline.task == "sequence" and _shifts(objective, batch, output)):
        return nothing
    units = pipeline.target_units
    return Answers.of(objective.model, objective.loss, pipeline.task, batch.x[:4], units)


def _shifts(objective: Objective, batch: Batch, output: Tensor) -> bool:
    """Whether a model that gives its loss itself compares its outputs with the next token each, as causal
    language models do: then they are no answers to the targets of their own places."""
    if objective.own_step is not model_loss:
        return False
    few = Batch(batch.x[:4], batch.y[:4], batch.index[:4])
    with evaluation([objective]):
        own = float(losses_of(model_loss, objective.model, few, objective.form)[0].mean())
    after = output[:, :-1].flatten(0, 1).float(), few.y[:, 1:].flatten()
    return math.isclose(own, float(functional.cross_entropy(*after)), rel_tol=1e-4)


def _outputs(objective: Objective, x: Tensor) -> Any:
    """What the model gives for a few samples."""
    try:
        return objective.model(x)
    except RavineError:
        raise
    except Exception as error:  # a person's module may fail in any way
        raise InputError(
            "model",
            got=f"a module that fails on inputs {_shape(x)} ({x.dtype})",
            expected="a module for this data",
            repair=f"{type(error).__name__}: {first_line(error)}",
        ) from None


def _one(objective: Objective, given: Any, x: Tensor) -> Tensor:
    """The outputs as one tensor: those of several heads side by side, where the loss is for them."""
    output = joined(given, heads=objective.heads)
    if output.dim() and len(output) != len(x):
        raise InputError(
            "model",
            got=f"outputs {_shape(output)} for {len(x)} samples",
            expected=f"a row for each sample: {len(x)} x …",
            repair="keep the first axis of the inputs; what needs whole batches is a step=",
        )
    return output


def _compare(
    where: str, function: Callable[[Tensor, Tensor], Any], output: Tensor, y: Tensor, task: str
) -> Any:
    try:
        return function(output, y)
    except RavineError:
        raise
    except Exception as error:
        raise InputError(
            where,
            got=f"outputs {_shape(output)} for targets {_shape(y)} ({y.dtype})",
            expected=f"outputs that it can compare with the targets of {task}",
            repair="; ".join(filter(None, (first_line(error), _advice(where, error, output, y)))),
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


def _check_targets(recipe: Recipe, pipeline: Pipeline, y: Tensor) -> None:
    """Inputs alone, and classes of pixels, have nothing that a loss of the task could compare with."""
    if recipe.loss.kind == "auto" and y.dim() > 2 and not y.is_floating_point():
        raise InputError(
            "loss",
            got=f"targets of whole numbers {_shape(y)}",
            expected="a loss of your own for them",
            repair="for a class of each pixel loss=torch.nn.CrossEntropyLoss(); floats are values",
        )
    if recipe.loss.kind == "auto" and "target_fields" in pipeline.preparation.facts:
        raise InputError(
            "loss",
            got="targets of several kinds",
            expected="a loss of your own for them",
            repair="loss=lambda output, target: …, which is given them by name or in order",
        )
    if recipe.loss.kind == "auto" and pipeline.preparation.facts.get("unlabelled"):
        names = Fields.from_dict(pipeline.preparation.facts.get("fields", _NO_FIELDS)).names
        got = f"inputs without targets{': ' if names else ''}{', '.join(names)}"
        expected = f"a target called {', '.join(TARGETS)}" if names else "(x, y), or a loss"
        given = "rename the one that is to be predicted" if names else "data=(x, y)"
        repair = f"{given}; what is learned from inputs alone is a step= of (model, batch)"
        raise InputError("data", got=got, expected=expected, repair=repair)


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


def _check_output(output: Tensor, y: Tensor, pipeline: Pipeline) -> None:
    """Classes without an output unit cannot be learned. More units than classes are allowed; the
    doctor reports them."""
    if (
        pipeline.task not in ("classification", "sequence")
        or y.is_floating_point()
        or output.dim() != y.dim() + 1
    ):
        return
    units = output.shape[-1]
    if 1 < units < pipeline.outputs:
        raise InputError(
            "model",
            got=f"{units} output units",
            expected=f"{pipeline.outputs}: the data has {pipeline.outputs} classes",
            repair=f"give the last layer {pipeline.outputs} units",
        )


def _are_answers(output: Tensor, y: Tensor, pipeline: Pipeline) -> bool:
    """Whether outputs can be read as answers to the targets. Under a loss of one's own they may be
    something else: quantiles of a number, thresholds between classes in order."""
    if pipeline.task == "regression":
        return output.numel() == y.numel()
    if pipeline.task == "multilabel":
        return output.shape == y.shape
    steps = 2 if pipeline.task == "sequence" else 1
    units = output.shape[-1] if output.dim() > steps else 1
    if output.dim() not in (steps, steps + 1) or (steps == 2 and output.shape[:2] != y.shape[:2]):
        return False
    return units >= pipeline.outputs or (units == 1 and pipeline.outputs == 2)


def _check_one_unit(recipe: Recipe, output: Tensor, pipeline: Pipeline) -> None:
    """A softmax over one unit is always 1: nothing could be learned."""
    if (
        recipe.loss.kind == "auto"
        and pipeline.task == "classification"
        and output.dim() == 2
        and output.shape[1] == 1
    ):
        raise InputError(
            "model",
            got="one output unit",
            expected=f"{pipeline.outputs}, one for each class",
            repair='or loss = "binary_cross_entropy"' if pipeline.outputs == 2 else "",
        )


def _check_smallest_batch(objective: Objective, pipeline: Pipeline) -> None:
    """Batch normalisation of one vector has no variance: an epoch's last batch must not be a single
    sample."""
    size = pipeline.train_size % pipeline.batch_size
    alone = pipeline.batch_size == 1 or (size == 1 and pipeline.data.last_batch == "keep")
    if objective.sharded or not alone or not any_layer(objective, Trait.BATCH_STATISTICS):
        return
    model = copy.deepcopy(objective.model).train()
    try:
        model(pipeline.batch(0).x[:1])
    except ValueError as error:
        raise InputError(
            "data.batch",
            got="a batch of one sample",
            expected="two samples or more, for batch normalisation",
            repair='data.last_batch = "drop", or another data.batch'
            if pipeline.batch_size > 1
            else first_line(error),
        ) from None


def _check_metrics(recipe: Recipe, pipeline: Pipeline) -> None:
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


def _check_monitor(
    recipe: Recipe, pipeline: Pipeline, metrics: list[str], more: Sequence[str] = ()
) -> None:
    validation = [f"val_{name}" for name in metrics] if pipeline.has("validation") else ["val_loss"]
    known = [*_ALWAYS, *validation, *more]
    if recipe.stop.monitor not in known:
        raise InputError(
            "stop.monitor", got=recipe.stop.monitor, expected=f"one of {', '.join(known)}"
        )


def _check_one_number(recipe: Recipe, objective: Objective) -> None:
    """One number for a batch cannot be weighed sample by sample."""
    if not getattr(objective.loss, "one_number", False):
        return
    for path in ("regularize.hard_negatives", "data.bootstrap"):
        if recipe.get(path) != Recipe().get(path):
            raise InputError(
                path,
                got="a loss that gives one number for a batch",
                expected="a loss for each sample",
                repair='give [B], for example with reduction="none"',
            )


def _check_class_weights(recipe: Recipe, pipeline: Pipeline) -> None:
    weights = recipe.loss.class_weights
    if isinstance(weights, tuple) and len(weights) != pipeline.outputs:
        raise InputError(
            "loss.class_weights",
            got=f"{len(weights)} weights",
            expected=f"{pipeline.outputs}, one for each class",
        )


def _shape(x: Tensor) -> str:
    return " x ".join(map(str, x.shape))
