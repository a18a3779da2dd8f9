"""How good outputs are, sample by sample, and the paired test of whether one program's are better
than another's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ravine.data.pipeline import Batch, Pipeline
from ravine.nn.answers import Answers

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


def score(pipeline: Pipeline, answers: Answers, output: Tensor, batch: Batch) -> Score:
    """What outputs are worth on a batch; of no worth where they are not finite."""
    y, output = batch.y.cpu(), output.detach().cpu()
    if not bool(torch.isfinite(output).all()):
        return lost(len(y))
    if pipeline.task == "regression":
        return _regression(pipeline.target_units(output), pipeline.target_units(y))
    p, truth = probabilities(output, y, answers)
    near = 1 - (p - truth).square().sum(-1) / (1 if pipeline.task != "multilabel" else p.shape[-1])
    right = _right(output, y, answers)
    return Score(right.flatten(1).mean(1).numpy(), near.reshape(len(y), -1).mean(1).numpy())


def _regression(output: Tensor, target: Tensor) -> Score:
    target = target.double().reshape(len(target), -1)
    output = output.double().reshape(len(target), -1)
    if output.shape != target.shape:
        return lost(len(target))
    spread = (target - target.mean(0)).square().mean().clamp_min(1e-12)
    share = 1 - (output - target).square().mean(1) / spread
    return Score(share.numpy(), np.zeros(len(target)))


def _right(output: Tensor, y: Tensor, answers: Answers) -> Tensor:
    """Whether each answer is right [n, ...]; places without a label count as right in every
    program."""
    answer, y = answers.classes(output), answers.truth(y)
    if answers.kind == "labels":
        return (answer == (y > 0.5)).double()
    y = y.reshape(answer.shape)
    return ((answer == y.long()) | (y < 0)).double().reshape(len(y), -1)


def probabilities(output: Tensor, y: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
    """The probabilities that outputs say, and the truth as 0 and 1, both [n, ..., K]."""
    p = answers.probabilities(output)
    if answers.kind == "binary":
        return p, y.double().reshape(p.shape)
    if y.shape == p.shape:
        return p, y.double()
    truth = y.long().clamp_min(0).reshape(p.shape[:-1])
    return p, torch.nn.functional.one_hot(truth, p.shape[-1]).double()


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
