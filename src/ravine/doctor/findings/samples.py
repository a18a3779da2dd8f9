"""Findings about which samples there are, in which order, and how training and validation differ."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Remedies
from ravine.doctor.findings.learners import area_under_curve
from ravine.doctor.measure.untrained import Untrained

SURE = 0.95


class NotShuffled(Declaration):
    code = "not_shuffled"
    rank = 200
    certain = True
    title = "The samples come in the order of their targets."
    cause = "Every batch holds one class, so that each step pulls the network towards that class."
    leads_to = "Each step undoes the last."
    consequences = ("oscillating", "stuck", "underfitting")
    seen_by = (
        "how often a sample has the class of the one before it, against chance; for numbers, their "
        "correlation."
    )
    what_to_do = "Shuffle the stream."

    ALIKE = 0.5  # correlation of successive targets, 0 where the order is random
    FEWEST = 100  # samples
    ONE_CLASS = 0.98  # share of repeats by chance from which nothing can be said

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        y = program.probe.y  # drawn as training draws them, one after the other
        if program.task == "sequence" or len(y) < cls.FEWEST:
            return
        if y.is_floating_point():
            alike = _successive(y.double().reshape(len(y), -1))
            text = f"in the order in which they come, successive targets correlate by {alike:.2f}"
        else:
            share = program.pipeline.class_counts().double().to(y.device)
            share = share / share.sum().clamp_min(1)
            chance = float(share.square().sum()) if len(share) else 1.0
            same = float((y[1:] == y[:-1]).double().mean())
            alike = (same - chance) / max(1 - chance, 1e-6) if chance < cls.ONE_CLASS else 0.0
            text = f"{same:.0%} of the samples have the class of the one before them; chance gives {chance:.0%}"
        if alike > cls.ALIKE:
            yield Evidence("data.order", text, SURE)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield {"data.order": "shuffle"}, "a new order every epoch"


def _successive(y: Tensor) -> float:
    """The correlation of each row with the next, over all columns that vary."""
    y = y - y.mean(0)
    y = y / y.square().mean(0).sqrt().clamp_min(1e-12)
    return float((y[1:] * y[:-1]).mean())


class SplitMismatch(Declaration):
    code = "split_mismatch"
    rank = 270
    title = "Training and validation data differ in their statistics."
    cause = "The network is trained on one distribution and judged on another."
    leads_to = "Validation does not measure what is trained."
    seen_by = (
        "size, spread and means of the inputs, and shares of the classes, in training and validation; "
        "a linear model that tells their samples apart."
    )
    what_to_do = "Prepare both parts alike, and split at random by class."
    kinds = frozenset({Kind.DATA})

    STRENGTH = 0.92
    FEWEST = 50  # validation samples
    TIMES = 3.0  # size or spread of validation inputs against training inputs, and its inverse
    SHIFT = 1.0  # standard deviations between the means
    SHARE = 0.2  # of the labels that would have to change, beyond what chance gives
    COMPARED, AREA = 100, 0.85  # samples of each part; area of a linear model that tells them apart
    VARIES = 0.05  # of the widest feature's spread: narrower ones are not compared

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        pipeline = program.pipeline
        if not pipeline.has("validation") or pipeline.size("validation") < cls.FEWEST:
            return
        held = program.validation
        if program.probe.x.is_floating_point():
            found = list(cls._inputs(program, held.x))
            yield from found or cls._told_apart(program, held.x)
        if not program.probe.y.is_floating_point() and program.task == "classification":
            a = pipeline.class_counts().double()
            b = held.y.flatten().cpu().bincount(minlength=len(a)).double()
            apart = float((a / a.sum() - b / b.sum()).abs().sum() / 2)
            if apart > cls.SHARE + (pipeline.outputs / float(b.sum())) ** 0.5:
                text = (
                    f"{apart:.0%} of the labels would have to change for training and validation "
                    "to hold the classes in equal shares"
                )
                yield Evidence("labels", text, cls.STRENGTH)

    @classmethod
    def _told_apart(cls, program: Untrained, held: Tensor) -> Iterator[Evidence]:
        """Whether a linear model tells validation samples from training samples."""
        x, v = program.sample()[0].double().flatten(1), held.double().flatten(1)
        n = min(len(x), len(v))
        if n < cls.COMPARED:
            return
        area = area_under_curve(x[:n].cpu(), v[:n].cpu())
        if area > cls.AREA:
            text = (
                f"a linear model tells validation samples from training samples: the area under its "
                f"ROC curve is {area:.2f} on samples that it was not fitted to"
            )
            yield Evidence("validation part", text, cls.STRENGTH)

    @classmethod
    def _inputs(cls, program: Untrained, held: Tensor) -> Iterator[Evidence]:
        augmented = bool(program.recipe.data.augment)
        x = program.sample()[0] if augmented else program.probe.x
        x, v = x.double().flatten(1), held.double().flatten(1)
        spread = x.std(0, correction=0)
        wide = spread > cls.VARIES * spread.max()
        if not bool(wide.any()):
            return
        units = spread.clamp_min(1e-12)
        shift = float(((v.mean(0) - x.mean(0)).abs() / units)[wide].median())
        narrower = float((v.std(0, correction=0) / units)[wide].median())
        ratio = float(v.square().mean().sqrt() / x.square().mean().sqrt().clamp_min(1e-12))
        alike = all(1 / cls.TIMES < value < cls.TIMES for value in (ratio, narrower))
        if not alike or shift > cls.SHIFT:
            text = (
                f"validation inputs are {ratio:.2g} times the size of training inputs and spread "
                f"{narrower:.2g} times as wide; their means differ by {shift:.2g} standard deviations"
            )
            yield Evidence("validation part", text, cls.STRENGTH)


class ValidationLeak(Declaration):
    code = "validation_leak"
    rank = 280
    title = "Validation samples are also in the training part."
    cause = "The network has been trained on samples that judge it."
    leads_to = "Validation looks better than the network is."
    seen_by = (
        "the share of validation samples that are in the training part digit for digit, beyond what "
        "repeats by chance."
    )
    what_to_do = "Split before copying, augmenting or oversampling."
    kinds = frozenset({Kind.DATA})

    SHARE = 0.2  # of the validation samples
    VARIED = 0.05  # the same, where inputs do not repeat by chance

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        pipeline = program.pipeline
        if not pipeline.has("validation") or pipeline.size("validation") < SplitMismatch.FEWEST:
            return
        # equal rows have equal keys
        keys, wanted = map(program.keys, (program.inputs, program.validation.x.flatten(1)))
        leak, least = float(torch.isin(wanted, keys).double().mean()), cls.VARIED
        if not program.varied:
            repeated = 1 - len(keys.unique()) / max(1, len(keys))
            leak, least = leak - 3 * repeated, cls.SHARE
        if leak > least:
            text = f"{leak:.0%} of the validation samples are in the training part, digit for digit"
            yield Evidence("validation part", text, SURE)
