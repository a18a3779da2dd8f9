"""Loss and metrics of P members on one split of the data, each row through its own module, in
evaluation mode."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine.catalogue import PREFIX, Part, find
from ravine.data.pipeline import Pipeline
from ravine.engine.rows.objective import Objective
from ravine.engine.rows.own_step import evaluate_steps
from ravine.nn.answers import Answers
from ravine.nn.build import build_loss
from ravine.nn.loss.criterion import exact
from ravine.nn.loss.pairing import wants_vector
from ravine.nn.outputs import joined
from ravine.records import class_of, fields_of, is_named_tuple, made

METRICS = {
    "classification": ("accuracy",),
    "sequence": ("accuracy",),
    "multilabel": ("accuracy",),
    "regression": ("rmse", "r2"),
}
Metric = Callable[..., float | np.ndarray]


def metric_functions(
    answers: Answers, task: str, parts: Sequence[Part], loss: Part | None = None
) -> dict[str, Metric]:
    """The task's own metrics and those that the recipe names, as functions of raw outputs and of
    targets in their units; of several heads, one for each head's own task."""
    if answers.kind == "loss":  # the outputs have no known meaning
        own: dict[str, Metric] = {}
    elif answers.kind == "heads":
        heads: Any = build_loss(loss, None)  # type: ignore[arg-type]
        own = {
            f"head{h}_{_of_head(each)}": _at_head(answers, heads, h)
            for h, each in enumerate(heads.losses)
        }
    else:
        own = {name: _bind(find("metric", name).part(), answers) for name in _own_names(task, loss)}
    return own | {metric_name(part): _bind(part, answers) for part in parts}


def metric_names(task: str, parts: Sequence[Part], loss: Part | None = None) -> list[str]:
    """The names of what ``metric_functions`` measures."""
    if loss is not None and loss.kind == "multi_task":
        heads: Any = build_loss(loss, None)
        own = [f"head{h}_{_of_head(each)}" for h, each in enumerate(heads.losses)]
    else:
        own = [*_own_names(task, loss)]
    return list(dict.fromkeys([*own, *map(metric_name, parts)]))


def metric_name(part: Part) -> str:
    """What a metric is called in a run."""
    return part.kind.removeprefix(PREFIX)


def _own_names(task: str, loss: Part | None) -> tuple[str, ...]:
    return () if loss is not None and loss.kind == "output" else METRICS[task]


def _of_head(loss: nn.Module) -> str:
    return "accuracy" if loss.takes_classes else "rmse"


def _at_head(answers: Answers, heads: Any, h: int) -> Metric:
    function = find("metric", _of_head(heads.losses[h])).function()
    head = answers.heads[h]

    def metric(output: Tensor, target: Tensor) -> float | np.ndarray:
        own, right = heads.heads(output, target)[h]
        if head.kind == "numbers":
            return function(answers.columns(output)[h], right)
        return function(head.scores(own), right)

    return metric


def _bind(part: Part, answers: Answers) -> Metric | OwnMetric:
    function: Metric = functools.partial(part.technique.function(), **part.arguments)
    if part.kind.startswith(PREFIX):
        return OwnMetric(_shaped(function), None if answers.kind == "loss" else answers)
    return lambda output, target: function(answers.scores(output), answers.truth(target))


class OwnMetric:
    """A metric of a person's own. As a loss of theirs it is given all outputs of the network if it can use
    them so, else the answer among them; ``answers`` says what this means, None where nobody knows."""

    def __init__(self, function: Metric, answers: Answers | None):
        self.function, self.answers = function, answers
        self.takes_all: bool | None = None  # of several outputs, once it is known

    def __call__(self, output: Tensor, given: Any, target: Any) -> float | np.ndarray:
        """Of the answer ``output`` among the outputs ``given``."""
        if self.answers is None:
            return self.function(given, target)
        scores, truth = self.answers.scores(output), self.answers.truth(target)
        if isinstance(given, Tensor):
            return self.function(scores, truth)
        if self.takes_all is None:
            self.takes_all = self._can_take(given, scores, truth)
        return self.function(given if self.takes_all else scores, truth)

    def _can_take(self, given: Any, scores: Tensor, truth: Any) -> bool:
        """Where it cannot use the answer either, what is wrong with it is shown on all outputs."""
        for outputs, takes in ((given, True), (scores, False)):
            try:
                float(np.mean(np.asarray(self.function(outputs, truth), dtype=np.float64)))
            except Exception:  # a person's function may fail in any way
                continue
            return takes
        return True


def measured(
    function: Metric | OwnMetric, objective: Objective, output: Tensor, given: Any, target: Tensor
) -> float | np.ndarray:
    """A metric of the answers ``output`` among the outputs ``given``, and of targets in their units."""
    if not isinstance(function, OwnMetric):
        return function(output, target)
    form = objective.form
    parted = form is not None and form.target_fields is not None
    return function(output, given, form.target(target) if parted else target)


def _together(given: Sequence[Any]) -> Any:
    """The outputs for several batches as those for one, of the same classes."""
    first = given[0]
    if isinstance(first, Tensor):
        return torch.cat(list(given)) if first.dim() else first
    in_order = isinstance(first, tuple | list) and not is_named_tuple(first)
    if in_order:
        return type(first)(_together(each) for each in zip(*given, strict=True))
    fields = fields_of(first)
    if fields is None:
        return first
    columns = {name: [(fields_of(one) or {})[name] for one in given] for name in fields}
    return made(class_of(first), {name: _together(each) for name, each in columns.items()})


def _shaped(function: Metric) -> Metric:
    """A metric of a person's own with targets [N] where it compares each output with its own target
    only so."""

    def metric(output: Any, target: Any) -> float | np.ndarray:
        vector = isinstance(target, Tensor) and wants_vector(function, output, target)
        return function(output, target[:, 0] if vector else target)

    return metric


@contextlib.contextmanager
def evaluation(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every part is in the mode in which it was."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        # FSDP2 keeps the storage into which it gathers parameters: training could not use what was made
        # in inference mode
        sharded = any(getattr(module, "sharded", False) for module in modules)
        with torch.no_grad() if sharded else torch.inference_mode():
            yield
    finally:
        for part, mode in before:
            part.training = mode


def evaluate(
    modules: Sequence[Objective],
    pipeline: Pipeline,
    split: str,
    metrics: dict[str, Metric],
    run: Callable[[nn.Module, Tensor], Any] | None = None,
) -> dict[str, np.ndarray]:
    """``{"loss": [P], "accuracy": [P], …}`` of objectives (model and loss) on a split; every batch
    is read once."""
    own_step = bool(modules) and modules[0].own_step is not None
    found = evaluate_steps(modules, pipeline.split(split)) if own_step else {}
    if own_step and not metrics:
        return found
    run = run or (lambda model, x: model(x))
    outputs: list[list[Tensor]] = [[] for _ in modules]
    whole: list[list[Any]] = [[] for _ in modules]  # as the networks give them
    keeps = any(isinstance(function, OwnMetric) for function in metrics.values())
    targets: list[Tensor] = []
    losses = torch.zeros(len(modules), dtype=torch.float64)
    count = 0.0  # of samples, or the sum of their class weights
    with evaluation(modules):
        for batch in pipeline.split(split):
            targets.append(batch.y)
            count += modules[0].loss.total(batch.y) if modules else 0.0
            for i, objective in enumerate(modules):
                given = run(objective.model, batch.x)
                output = exact(joined(given, heads=objective.heads))
                if not own_step:
                    judged = output if isinstance(given, Tensor) else objective.judged(given)
                    losses[i] += objective.loss(judged, batch.y).double().sum().cpu()
                outputs[i].append(output)
                whole[i] += [output if isinstance(given, Tensor) else given] if keeps else []
        found = found or {"loss": (losses / (count or 1.0)).numpy()}
        target = pipeline.target_units(torch.cat(targets)) if targets else torch.empty(0)
        gathered = [
            (own, torch.cat(each), _together(all_of) if keeps else None)
            for own, each, all_of in zip(modules, outputs, whole, strict=True)
        ]
        for name, function in metrics.items():
            each = [measured(function, *own, target) for own in gathered]
            values = np.array(each, dtype=np.float64)
            # a matrix: one number for each place, confusion_matrix_0_1
            for place in np.ndindex(values.shape[1:]):
                found["_".join([name, *map(str, place)])] = values[(slice(None), *place)]
    return found
