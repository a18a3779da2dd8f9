"""Findings about the direction in which a loss leads: a loss of a person's own may reward errors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.untrained import Untrained
from ravine.engine.rows.evaluate import evaluation
from ravine.engine.rows.objective import Objective
from ravine.nn.loss.own_loss import OwnLoss

SIZES = (1.0, 3.0, 9.0, 27.0)  # of scores, or of errors in standard deviations of the targets
FEW = 256  # samples
# a loss has no bound where the last enlargement brings more than so many times what the one before brought
KEEPS_ON = 1.5
LEVELS = 1e-6  # of the largest loss, that count as a difference


class WrongSign(Declaration):
    code = "wrong_sign"
    rank = 15
    title = "The loss is smaller for wrong answers than for right ones."
    cause = "Training makes the loss small, so it makes the answers wrong; the sign is the usual reason."
    leads_to = "The loss falls while accuracy falls below chance, or the errors grow."
    consequences = ("below_zero", "stuck", "underfitting")
    seen_by = (
        "a loss of one's own is computed for right answers and for wrong ones of growing size: it "
        "falls as these get worse. Where outputs are not answers (parameters of a density, "
        "embeddings) nothing is concluded; a loss that is merely negative is none of this. Where an optimiser "
        "maximises, the loss's negative is looked at, whatever the loss."
    )
    what_to_do = (
        "Turn the sign: train on the negated loss, or on 1 - score; or leave out maximize=True."
    )
    kinds = frozenset({Kind.START})

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        climbs = bool(program.recipe.optimizer.arguments.get("maximize"))
        own = isinstance(program.loss, OwnLoss)
        if not (own or climbs) or getattr(program.loss, "takes_all", False):
            return
        y = program.probe.y[:FEW]
        with evaluation([Objective(program.model, program.loss)]):
            output = program.model(program.probe.x[:FEW])
        loss = copy.deepcopy(program.loss)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return

        def of(answer: Tensor) -> float:
            try:
                with torch.no_grad():
                    return (-1 if climbs else 1) * float(loss(answer, y).mean())
            except Exception:  # a function may refuse answers that its network cannot give
                return math.nan

        found: Iterator[Evidence] = iter(())
        if program.task == "regression":
            found = _of_numbers(of, output, y)
        elif program.task in ("classification", "multilabel"):
            found = _of_classes(of, output, y, program.pipeline.outputs)
        for seen in found:
            text = f"with maximize=True, of the loss's negative: {seen.text}"
            yield replace(seen, text=text) if climbs else seen


def _of_classes(
    of: Callable[[Tensor], float], output: Tensor, y: Tensor, classes: int
) -> Iterator[Evidence]:
    sign = _signs(output, y, classes)
    if sign is None:
        return
    form = _form(output)
    right = [of(form(size * sign[0])) for size in SIZES]
    wrong = [of(form(size * sign[1])) for size in SIZES]
    endless, bounded = _endless(wrong), not _endless([-value for value in right])
    margin = LEVELS * max(map(abs, right + wrong))
    worse = all(a - b > margin for a, b in zip(right, wrong, strict=True))
    # of distances the smallest is the answer: right ones taken for the largest cost without bound
    if worse and np.isfinite(right + wrong).all() and bounded:
        text = (
            f"sure and right answers have a loss of {right[-1]:.3g}, sure and wrong ones of "
            f"{wrong[-1]:.3g}{', and ever less the surer they are' if endless else ''}"
        )
        yield Evidence("loss", text, 0.95)


def _signs(output: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor] | None:
    """Scores of size 1 for right and for wrong answers; None where outputs are not scores of classes."""
    if y.is_floating_point():
        signs = 2 * y.to(output.dtype) - 1
        return (signs, -signs) if signs.shape == output.shape else None
    if y.dim() != 1 or (y < 0).any():
        return None
    if classes == 2 and output.numel() == len(y):
        signs = (2 * y - 1).to(output.dtype).view_as(output)
        return signs, -signs
    if output.shape != (len(y), classes):
        return None
    right, wrong = (F.one_hot(of % classes, classes).to(output.dtype) for of in (y, y + 1))
    return right, wrong


def _form(output: Tensor) -> Callable[[Tensor], Tensor]:
    """How scores become what the network gives: probabilities, their logarithms, or as they are."""
    several = output.dim() > 1 and output.shape[-1] > 1
    ones = torch.ones_like(output[..., 0]) if several else output
    if several and torch.allclose(output.exp().sum(-1), ones, atol=1e-3):
        return lambda scores: F.log_softmax(scores, -1)
    if (output < 0).any() or (output > 1).any():
        return lambda scores: scores
    if several and torch.allclose(output.sum(-1), ones, atol=1e-3):
        return lambda scores: scores.softmax(-1)
    return torch.sigmoid


def _of_numbers(of: Callable[[Tensor], float], output: Tensor, y: Tensor) -> Iterator[Evidence]:
    if output.numel() != y.numel() or len(output) != len(y) or not y.is_floating_point():
        return
    right = y.view_as(output).to(output.dtype)
    spread = right.std(0, correction=0).clamp_min(1e-6)
    drawn = torch.randn(right.shape, generator=torch.Generator().manual_seed(0)).to(right)
    best, losses = of(right), []
    for errors in (torch.ones_like(right), -torch.ones_like(right), drawn.sign(), drawn):
        found = [of(right + size * spread * errors) for size in SIZES]
        falls = all(a > b for a, b in zip([best, *found], found, strict=False))
        if not (np.isfinite(found).all() and falls and _endless(found)):
            return
        losses.append(found[0])
    text = (
        f"exact answers have a loss of {best:.3g}, answers wrong by a standard deviation of the "
        f"targets {max(losses):.3g}, and ever less the further they are off"
    )
    yield Evidence("loss", text, 0.95)


def _endless(losses: list[float]) -> bool:
    """Whether losses at ``SIZES`` end below zero and fall there without bound."""
    before, last = losses[-3] - losses[-2], losses[-2] - losses[-1]
    return losses[-1] < 0 and last > KEEPS_ON * max(before, 0.0) and last > LEVELS


class BelowZero(Declaration):
    code = "below_zero"
    rank = 16
    title = "The loss runs below zero, faster and faster."
    cause = "A loss that has no lowest value can be made ever smaller without any better answers."
    leads_to = "The outputs grow without bound."
    consequences = ("lr_too_high", "non_finite", "exploding_gradient")
    seen_by = (
        "the loss ends far below zero, several times its first size, and falls in nearly every "
        "twentieth of the run, most in the last ones; or it ends a thousand times below. Log-likelihoods, evidence bounds and "
        "similarities fall less and less."
    )
    what_to_do = "Look at the sign of the loss, or of the part of it that runs away."
    kinds = frozenset({Kind.SIGN})

    TIMES, FAR = 3.0, 1000.0  # its first size
    FASTER = 1.8  # times what the first half of the run brought, the second brings
    FALLING = 0.9  # of the twentieths
    FEWEST = 10  # twentieths

    @classmethod
    def while_learning(cls, course: Course) -> Iterator[Evidence]:
        if course.loop is None:
            return
        curve = course.curves[0]
        levels = np.array(curve.loss) + curve.shift
        if len(levels) < cls.FEWEST or not np.isfinite(levels).all():
            return
        steps, half = -np.diff(levels), len(levels) // 2
        early, late = levels[0] - levels[half], levels[half] - levels[-1]
        quarter = max(1, len(steps) // 4)
        speeds = [steps[: -2 * quarter], steps[-2 * quarter : -quarter], steps[-quarter:]]
        rising = speeds[2].mean() > speeds[1].mean() > speeds[0].mean()
        steadily = rising and (steps > 0).mean() >= cls.FALLING
        times = -levels[-1] / max(1.0, abs(levels[0]))
        far = times > cls.FAR or (times > cls.TIMES and steadily)
        if far and late > cls.FASTER * early:
            text = (
                f"the loss went from {levels[0]:.4g} over {levels[half]:.4g} half-way to "
                f"{levels[-1]:.4g}: it falls faster and faster"
            )
            yield Evidence("loss", text, 0.95)
