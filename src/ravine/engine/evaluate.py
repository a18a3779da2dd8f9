"""Loss and metrics of P members on one split of the data, each row through its own module, in evaluation mode."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ravine.catalogue import Part, find
from ravine.data.pipeline import Pipeline

METRICS = {
    "classification": ("accuracy",),
    "sequence": ("accuracy",),
    "multilabel": ("accuracy",),
    "regression": ("rmse", "r2"),
}
LOWER_IS_BETTER = ("loss", "error", "rmse", "mae", "mse", "log_loss", "perplexity", "norm")
Metric = Callable[[Tensor, Tensor], float | np.ndarray]


def better_is(metric: str) -> str:
    """``"min"`` or ``"max"``: the direction in which a metric improves."""
    return "min" if metric.endswith(LOWER_IS_BETTER) else "max"


def metric_functions(task: str, parts: Sequence[Part]) -> dict[str, Metric]:
    """The task's own metrics and those that the recipe names."""
    named = {name: find("metric", name).part() for name in METRICS[task]}
    named |= {part.kind: part for part in parts}
    return {name: _bind(part) for name, part in named.items()}


def _bind(part: Part) -> Metric:
    return functools.partial(find("metric", part.kind).function(), **part.arguments)


@contextlib.contextmanager
def evaluation(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode without gradients; training mode again afterwards."""
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.train(mode)


def evaluate(
    modules: Sequence[nn.Module], pipeline: Pipeline, split: str, metrics: dict[str, Metric],
    run: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """``{"loss": [P], "accuracy": [P], …}`` of objectives (model and loss) on a split; every batch is read once."""
    run = run or (lambda model, x: model(x))
    outputs: list[list[Tensor]] = [[] for _ in modules]
    targets: list[Tensor] = []
    losses = torch.zeros(len(modules), dtype=torch.float64)
    count = 0
    with evaluation(modules):
        for batch in pipeline.split(split):
            targets.append(batch.y)
            count += len(batch.y)
            for i, objective in enumerate(modules):
                output = run(objective.model, batch.x)
                losses[i] += objective.loss(output, batch.y).double().sum().cpu()
                outputs[i].append(output)
        found = {"loss": (losses / max(count, 1)).numpy()}
        target = pipeline.target_units(torch.cat(targets)) if targets else torch.empty(0)
        for name, function in metrics.items():
            each = [function(pipeline.target_units(torch.cat(own)), target) for own in outputs]
            values = np.array(each, dtype=np.float64)
            for place in np.ndindex(values.shape[1:]):  # a matrix: one number for each place, confusion_matrix_0_1
                found["_".join([name, *map(str, place)])] = values[(slice(None), *place)]
    return found
