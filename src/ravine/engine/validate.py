"""Everything that can be wrong with a program is found on a few samples, before anything is
written."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from ravine.data.objects.fields import TARGETS, Fields
from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.given_model import check_gradient
from ravine.engine.loop.calendar import Calendar
from ravine.engine.rows.evaluate import (
    evaluation,
    metric_functions,
    metric_names,
)
from ravine.engine.rows.frozen import frozen
from ravine.engine.rows.own_step import check_step, is_in_parts, losses_of, model_loss
from ravine.engine.rows.population import Objective, Population
from ravine.engine.rows.samples_tried import (
    check_metrics,
    check_monitor,
    compared,
    measured_names,
    one_output,
    outputs_of,
    own_metrics,
    refuse_named_metrics,
    shape_of,
)
from ravine.engine.rows.torch_rows import check_optimizer, check_parts, is_torch
from ravine.errors import InputError, first_line
from ravine.nn.analysis.traits import Trait, any_layer
from ravine.nn.answers import Answers
from ravine.nn.build import class_weights
from ravine.nn.loss.own_loss import OwnLoss
from ravine.nn.outputs import has_answer, joined
from ravine.optim.rows.groups import check_formula
from ravine.recipe import Recipe
from ravine.registering import own_parts

_NO_FIELDS: dict[str, Any] = Fields((), (), ()).to_dict()


def validate(recipes: Sequence[Recipe], pipeline: Pipeline, population: Population) -> Answers:
    """Run model, loss and metrics of one member on a few samples; what does not fit is an
    InputError. Gives what the outputs mean."""
    recipe = recipes[0]
    check_metrics(recipe, pipeline)
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
        given = outputs_of(objective, x)
        output = one_output(objective, given, x)
        own_loss = isinstance(objective.loss, OwnLoss)
        if not own_loss:
            _check_output(output, y, pipeline)
        _check_one_unit(recipe, output, pipeline)

        def loss(_: Tensor, target: Tensor) -> Any:
            return objective.loss(objective.judged(given), target)

        compared(f"loss.{recipe.loss.kind}", loss, output, y, pipeline.task)
        answers = _answers_of(recipe, pipeline, objective, x, y, given, output)
        metrics = metric_functions(answers, pipeline.task, recipe.metrics, recipe.loss)
        targets = pipeline.target_units(y)
        names = measured_names(metrics, objective, given, output, targets, pipeline.task)
        known = ["loss", *names]
    _check_one_number(recipe, objective)
    if any(own_parts([recipe.model, recipe.loss])) or recipe.model.kind == "module":
        check_gradient(objective, x, y)
    for each in recipes:
        if is_torch(each.optimizer):
            check_optimizer(each.optimizer, objective)
        else:
            check_formula(each.optimizer)
        check_monitor(each, pipeline, known)
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
    if parted:
        refuse_named_metrics(recipe, "targets that are one number or class each")
    fits = not parted and has_answer(given) and _are_answers(output, y, pipeline)
    if isinstance(objective.loss, OwnLoss) and not fits:
        return Answers("loss", "values", units=pipeline.target_units)
    return Answers.of(objective.model, objective.loss, pipeline.task, x, pipeline.target_units)


def _validate_step(recipes: Sequence[Recipe], pipeline: Pipeline, objective: Objective) -> Answers:
    """A step of one's own on a few samples. Outputs have a meaning where they fit the targets."""
    recipe, batch = recipes[0], pipeline.batch(0)
    few = Batch(batch.x[:4], batch.y[:4], batch.index[:4])
    found = check_step(objective, few)
    if is_in_parts(objective.own_step):
        check_parts(recipe)
    answers = step_answers(objective, pipeline)
    if answers.kind == "loss":
        refuse_named_metrics(recipe, "a model whose output fits the targets")
        names = own_metrics(recipe, pipeline, objective, answers)
    else:
        names = metric_names(pipeline.task, recipe.metrics, recipe.loss)
    known = [*found, *names]
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
        check_monitor(each, pipeline, known, [f"train_{name}" for name in found])
    return answers


def step_answers(objective: Objective, pipeline: Pipeline) -> Answers:
    """What the model's outputs mean beside a step of one's own: what they would mean under the loss of
    the task, where they are as many as the targets; else nothing."""
    nothing = Answers("loss", "values")
    if objective.form.target_fields is not None or not objective.form.labelled:
        return nothing  # targets of several kinds, or none
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


def _check_targets(recipe: Recipe, pipeline: Pipeline, y: Tensor) -> None:
    """Inputs alone, and classes of pixels, have nothing that a loss of the task could compare with."""
    if recipe.loss.kind == "auto" and y.dim() > 2 and not y.is_floating_point():
        raise InputError(
            "loss",
            got=f"targets of whole numbers {shape_of(y)}",
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
    smoothing = recipe.loss.arguments.get("label_smoothing") or 0.0
    if weights is None or not smoothing or recipe.loss.kind != "cross_entropy":
        return
    w = class_weights(weights, pipeline.class_counts().tolist())
    if w is None or not len(w):
        return
    spread, seen = smoothing / len(w), w > 0
    smallest, largest = float(w[seen].min()), float(w.max())
    if spread * largest > (1 - smoothing + spread) * smallest:
        raise InputError(
            "loss.label_smoothing",
            got=f"{smoothing:g} beside class weights from {smallest:.3g} to {largest:.3g}",
            expected="no smoothing: weighed by its class, the part that it gives to a rare class outweighs a "
            "frequent one, whose samples are then answered with the rare class",
            repair="--set loss.label_smoothing=0",
        )
