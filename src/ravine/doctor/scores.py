"""How good outputs are, sample by sample, and the paired test of whether one program's are better
than another's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ravine.data.pipeline import Batch, Pipeline
from ravine.doctor.experiment import threshold
from ravine.recipe import Recipe

SURE = 0.05  # what probabilities that are sure and right count beside being right
PRESS = 0.05  # gain of a seed that counts half as much as the largest
LOST = -1.0  # score of a member that is lost
WORST = -10.0  # least share of a sample in R²


@dataclass(frozen=True)
class Score:
    """One member on some samples: each sample's share in accuracy or R², and in accuracy how near
    its probabilities are.

    >>> Score(np.array([1.0, 0.0]), np.array([0.9, 0.4])).value   # 0.5 + 0.05 x 0.65
    0.5325
    """

    right: (
        np.ndarray
    )  # [N], 0 or 1 (a mean over labels or places); of a regression 1 - squared error / variance
    near: np.ndarray  # [N], 1 - Brier score; zeros in a regression

    @property
    def metric(self) -> float:
        return max(float(self.right.mean()), WORST)

    @property
    def shares(self) -> np.ndarray:
        return self.right + SURE * self.near

    @property
    def value(self) -> float:
        return round(max(float(self.shares.mean()), WORST), 12)


def lost(samples: int) -> Score:
    return Score(np.full(samples, LOST), np.zeros(samples))


def score(pipeline: Pipeline, recipe: Recipe, output: Tensor, batch: Batch) -> Score:
    """What outputs are worth on a batch; of no worth where they are not finite."""
    y, output = batch.y.cpu(), output.detach().cpu()
    if not bool(torch.isfinite(output).all()):
        return lost(len(y))
    if pipeline.task == "regression":
        return _regression(pipeline.target_units(output), pipeline.target_units(y))
    p, truth = probabilities(output, y, recipe, pipeline.task)
    near = 1 - (p - truth).square().sum(-1) / (1 if pipeline.task != "multilabel" else p.shape[-1])
    right = _right(output, y, recipe, pipeline.task)
    return Score(right.flatten(1).mean(1).numpy(), near.reshape(len(y), -1).mean(1).numpy())


def _regression(output: Tensor, target: Tensor) -> Score:
    target = target.double().reshape(len(target), -1)
    output = output.double().reshape(len(target), -1)
    if output.shape != target.shape:
        return lost(len(target))
    spread = (target - target.mean(0)).square().mean().clamp_min(1e-12)
    share = 1 - (output - target).square().mean(1) / spread
    return Score(share.numpy(), np.zeros(len(target)))


def _right(output: Tensor, y: Tensor, recipe: Recipe, task: str) -> Tensor:
    """Whether each answer is right [n, ...]; places without a label count as right in every
    program."""
    limit = threshold(recipe, task)
    if task == "multilabel":
        return ((output > limit) == (y > 0.5)).double()
    if y.is_floating_point() and y.dim() == output.dim() and y.shape[-1] > 1:
        y = y.argmax(-1)
    y = y.reshape(output.shape[:-1])
    answer = (output[..., 0] > limit).long() if output.shape[-1] == 1 else output.argmax(-1)
    return ((answer == y.long()) | (y < 0)).double().reshape(len(y), -1)


def probabilities(output: Tensor, y: Tensor, recipe: Recipe, task: str) -> tuple[Tensor, Tensor]:
    """The probabilities that outputs say, and the truth as 0 and 1, both [n, ..., K]."""
    single = output.shape[-1] == 1
    said = recipe.loss.arguments.get("input") == "probabilities" or recipe.loss.kind in (
        "squared",
        "absolute",
        "huber",
    )
    p = output.double()
    if not said:
        p = p.sigmoid() if single or task == "multilabel" else p.softmax(-1)
    p = p.clamp(0, 1)
    if single:
        return p, y.double().reshape(p.shape)
    if task != "multilabel":
        p = p / p.sum(-1, keepdim=True).clamp_min(1e-9)
    if y.shape == output.shape:
        return p, y.double()
    return p, torch.nn.functional.one_hot(
        y.long().clamp_min(0).reshape(output.shape[:-1]), output.shape[-1]
    ).double()


def averaged(outputs: Sequence[Tensor], recipe: Recipe, task: str) -> Tensor:
    """The outputs of an ensemble: mean values, or scores of the mean probabilities."""
    said = recipe.loss.arguments.get("input") == "probabilities" or recipe.loss.kind in (
        "squared",
        "absolute",
        "huber",
    )
    if task == "regression" or said:
        return torch.stack(list(outputs)).mean(0)
    if task == "multilabel" or outputs[0].shape[-1] == 1:
        return torch.logit(torch.stack([o.double().sigmoid() for o in outputs]).mean(0), eps=1e-12)
    return torch.stack([o.double().softmax(-1) for o in outputs]).mean(0).clamp_min(1e-12).log()


def paired(gains: np.ndarray, *, samples: bool = True) -> float:
    """One-sided p of "no better" for gains [seeds, N] of the same seeds on the same samples: the
    larger of two t-tests.

    Over seeds: of their mean gains g pressed to g / (|g| + PRESS), so that a seed on which the
    other program fails wholly is one more win and no outlier. Over samples: of the mean gain of
    each over the seeds; left out where the samples were not drawn apart. Measured in steps of 1/N,
    no gain is surer than such a step's own variance.

    >>> paired(np.array([[1.0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]), samples=False) < 0.01
    True
    >>> paired(np.array([[1.0, -1, 0, 0], [0, 1, -1, 0], [0, 0, 0, 0]]))
    0.5
    """
    gains = gains.clip(WORST, -WORST)
    n = gains.shape[1]
    by_seed, step = gains.mean(1), 1 / (12 * n**2)
    pressed = by_seed / (np.abs(by_seed) + PRESS)
    slope = PRESS / (np.abs(by_seed) + PRESS) ** 2
    p = _t_test(pressed, float(np.mean(slope**2)) * step)
    return max(p, _t_test(gains.mean(0), step)) if samples and n > 1 else p


def _t_test(gains: np.ndarray, least: float) -> float:
    variance = max(float(gains.var(ddof=1)), least)
    return float(stats.t.sf(float(gains.mean()) / math.sqrt(variance / len(gains)), len(gains) - 1))
