"""Simple learners (ridge regression, nearest neighbours) that find out whether there is a signal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ravine.data.pipeline import Batch
from ravine.doctor.measure.linear import standardized
from ravine.doctor.measure.untrained import COMPARED, ENTROPIES, Untrained

ENOUGH = 200  # samples without which nothing can be said
WIDEST = 400  # features that the learners take; wider inputs are projected
PENALTIES = (0.1, 10.0)  # of the ridge, in units of the kernel's mean diagonal
NEIGHBOURS = 10
LEAST = 0.2  # of a class's share, that is predicted for it at least


@dataclass(frozen=True)
class Correlation:
    """The best correlation of predictions with targets, and what chance gives."""

    best: float
    by_chance: float
    samples: int


def correlation_found(program: Untrained, shift: int = 0) -> Correlation | None:
    """Fit simple learners to one half of some training samples and predict the other half.

    With a ``shift``, the targets of the rows that many places later. None where there are too few samples,
    or nothing that varies. Kept with the program: several findings ask, of each of its members.
    """
    if shift not in program.learned:
        program.learned[shift] = _of_halves(program, shift)
    return program.learned[shift]


def _of_halves(program: Untrained, shift: int) -> Correlation | None:
    halves = _halves(program, shift)
    return None if halves is None else _found(program, *halves)


def _halves(program: Untrained, shift: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Features and targets of one half of some training samples, and of the other; None of too few."""
    features, targets = _plain_table(program, *program.sample(shift))
    n = len(features) // 2
    if 2 * n < ENOUGH:
        return None
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    a, b = order[:n], order[n : 2 * n]
    return features[a], targets[a], features[b], targets[b]


def explained(program: Untrained) -> float | None:
    """The share of the constant predictor's loss that simple learners take away, on samples not fitted
    to: of classes of the cross-entropy, where the loss is one, else of the variance. None where that
    cannot be told from chance."""
    found, halves = correlation_found(program), _halves(program)
    if found is None or halves is None or found.best <= found.by_chance:
        return None
    if program.task == "classification" and program.loss_kind in ENTROPIES:
        return _of_entropy(*halves)
    return found.best**2


def _of_entropy(x: Tensor, t: Tensor, asked: Tensor, truth: Tensor) -> float:
    """The same of the cross-entropy, of classes t [n, K] as 0 and 1: what is predicted for these, kept
    away from 0, is taken for probabilities."""
    x, asked = standardized(x, asked)
    share = t.mean(0).clamp_min(0.5 / len(t))

    def loss(chances: Tensor) -> float:
        chances = chances.maximum(LEAST * share)
        return -float((truth * (chances / chances.sum(1, keepdim=True)).log()).sum(1).mean())

    best = min(loss(share + guess) for guess in _predictions(x, t - t.mean(0), asked))
    return max(0.0, 1 - best / loss(share.expand_as(truth)))


def correlation_across(program: Untrained, held: Batch) -> Correlation | None:
    """Fit simple learners to training samples and predict those of another part."""
    fitted = _plain_table(program, *program.sample())
    asked = _plain_table(program, held.x, held.y)
    if len(fitted[0]) < ENOUGH / 2 or fitted[0].shape[1] != asked[0].shape[1]:
        return None
    return _found(program, *fitted, *asked)


def _found(
    program: Untrained, x: Tensor, t: Tensor, asked: Tensor, truth: Tensor
) -> Correlation | None:
    """The best correlation of what learners fitted to x and t predict for the samples asked."""
    x, asked = standardized(x, asked)
    truth, t = truth - t.mean(0), t - t.mean(0)
    if not x.shape[1] or float(truth.abs().max()) == 0:
        return None
    free = max(1, t.shape[1] - (1 if program.task == "classification" and t.shape[1] > 1 else 0))
    # the standard deviation of the correlation without a signal
    noise = (len(asked) * free) ** -0.5
    best = max(_correlation(guess, truth) for guess in _predictions(x, t, asked))
    return Correlation(best, 4 * noise, len(asked))


def _plain_table(program: Untrained, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Samples as features [n, f] and targets [n, t], float64 on the CPU."""
    x, y = x.cpu(), y.cpu()
    if program.task == "sequence":
        return _steps_of(x, y, program.pipeline.outputs)
    if not x.is_floating_point() and x.dim() == 2:
        x = _of_tokens(x)
    x = x.double().flatten(1)
    x = _narrowed(x)
    classes = program.task == "classification" and not y.is_floating_point()
    y = one_hot(y.flatten(), max(2, program.pipeline.outputs)) if classes else y
    return x, y.double().reshape(len(y), -1)


def _narrowed(x: Tensor) -> Tensor:
    """At most WIDEST features: random projections of what is wider."""
    if x.shape[1] <= WIDEST:
        return x
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(x.shape[1], WIDEST, generator=generator, dtype=torch.float64)
    return x @ mix / x.shape[1] ** 0.5


def _of_tokens(x: Tensor) -> Tensor:
    """Each place one-hot where that is not too wide, else how often each token occurs."""
    many = int(x.max()) + 1
    if many * x.shape[1] <= 2 * WIDEST:
        return one_hot(x, many)
    return torch.zeros(len(x), many).scatter_add_(1, x, torch.ones(x.shape))


def _steps_of(x: Tensor, y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Steps of sequences: this input and the one before it, with this step's class."""
    now, before = x[:, 1:].flatten(0, 1), x[:, :-1].flatten(0, 1)
    target = y[:, 1:].flatten()
    kept = torch.randperm(len(target), generator=torch.Generator().manual_seed(3))
    kept = kept[target[kept] >= 0][:COMPARED]
    if not x.is_floating_point():
        now, before = (one_hot(part, int(x.max()) + 1) for part in (now, before))
    features = torch.cat([now.flatten(1)[kept], before.flatten(1)[kept]], 1).double()
    return features, one_hot(target[kept], outputs).double()


def _predictions(x: Tensor, t: Tensor, asked: Tensor) -> Iterator[Tensor]:
    """Ridge regression on the features and on them and their squares; nearest neighbours."""
    wide, wide_asked = (torch.cat([part, part.square() - 1], 1) for part in (x, asked))
    for a, b in ((x, asked), (wide, wide_asked)):
        for penalty in PENALTIES:
            yield b @ _ridge(a, t, penalty)
    near = torch.cdist(asked, x).topk(min(NEIGHBOURS, len(x)), largest=False).indices
    yield t[near].mean(1)


def _ridge(x: Tensor, t: Tensor, penalty: float) -> Tensor:
    """The weights [f, t] of ridge regression; the penalty is in units of the kernel's mean diagonal.

    One linear system as wide as there are features or samples, whichever are fewer.
    """
    few = x.shape[1] < len(x)
    gram = x.T @ x if few else x @ x.T
    scale = penalty * float(x.square().sum()) / len(x)
    ridge = gram + scale * torch.eye(len(gram), dtype=x.dtype)
    return torch.linalg.solve(ridge, x.T @ t) if few else x.T @ torch.linalg.solve(ridge, t)


def _correlation(guess: Tensor, t: Tensor) -> float:
    guess, t = guess - guess.mean(0), t - t.mean(0)
    return float((guess * t).sum() / (guess.norm() * t.norm()).clamp_min(1e-12))


def area_under_curve(one: Tensor, other: Tensor) -> float:
    """How well ridge regression tells two sets of rows [n, f] apart: the area under its ROC curve,
    0.5 by chance; fitted to the first half of each and measured on the second."""
    both = _narrowed(torch.cat([one, other]))
    spread, n = both.std(0, correction=0), len(one)
    if not bool((spread > 1e-9).any()):
        return 0.5
    both = ((both - both.mean(0)) / spread.clamp_min(1e-9))[:, spread > 1e-9]
    fitted = torch.zeros(len(both), dtype=torch.bool)
    fitted[: n // 2], fitted[n : n + len(other) // 2] = True, True
    label = torch.ones(len(both), 1, dtype=torch.float64)
    label[:n] = -1.0
    x, asked = both[fitted], both[~fitted]
    score = (asked @ _ridge(x, label[fitted], 1.0)).flatten()
    held = label[~fitted].flatten() > 0
    return float((score[held][:, None] > score[~held][None]).double().mean())
