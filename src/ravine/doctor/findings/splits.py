"""Findings about how the parts of the data differ, and what they share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ravine.data.pipeline import Batch
from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.findings.learners import area_under_curve, correlation_across, correlation_found
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.repeats import keys_of
from ravine.doctor.measure.untrained import Untrained

SURE = 0.95
FEWEST = 50  # samples of a part


def _held(program: Untrained) -> Iterator[tuple[str, Batch]]:
    """The validation and the test part, where they are large enough to say something."""
    for part in ("validation", "test"):
        if program.pipeline.has(part) and program.pipeline.size(part) >= FEWEST:
            yield part, program.held(part)


class SplitMismatch(Declaration):
    code = "split_mismatch"
    rank = 270
    title = "Training data differ from validation or test data."
    cause = "The network is trained on one distribution and judged on another."
    leads_to = "Validation does not measure what is trained."
    seen_by = (
        "size, spread and means of the inputs, feature by feature and together; the spread of "
        "targets; shares of the classes; a linear model that tells the parts' samples apart; simple "
        "learners that predict other training samples but not those of the part. One feature of a "
        "table that lies elsewhere (a date, where the parts are of different years) is a note."
    )
    what_to_do = "Prepare both parts alike, and split at random by class."
    kinds = frozenset({Kind.DATA})
    surer_by = 0.0

    STRENGTH, NOTE = 0.92, 0.4
    TIMES = 3.0  # size or spread of validation inputs against training inputs, and its inverse
    SHIFT = 1.0  # standard deviations between the means
    FEATURE_TIMES, FEATURE_SHIFT = 10.0, 5.0  # the same, of one feature or of the targets
    APART = 0.5  # largest distance of a feature's two distribution functions
    SHARE = 0.2  # of the labels that would have to change, beyond what chance gives
    COMPARED, AREA = 100, 0.85  # samples of each part; area of a linear model that tells them apart
    VARIES = 0.05  # of the widest feature's spread: narrower ones are not compared
    OFTEN = 10  # samples of a part that must have another value than the usual one
    LOST = 0.3  # of the correlation among training samples that must be left on the part
    CLEAR = 3.0  # times what chance gives, that the former must be

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        for part, held in _held(program):
            found: list[tuple[str, float]] = []
            if program.probe.x.is_floating_point() and program.task != "sequence":
                x = program.sample()[0].double().flatten(1).cpu()
                v = held.x.double().flatten(1).cpu()
                told = (cls._inputs(x, v), cls._features(x, v), cls._told_apart(x, v))
                found = next((list(one) for one in map(list, told) if one), [])
            found += cls._targets(program, held)
            for text, strength in found:
                yield Evidence(f"{part} part", text.replace("validation", part), strength)

    @classmethod
    def given_course(cls, program: Untrained, course: Course) -> Iterator[Evidence]:
        """Whether the inputs say of the part's targets what they say of the training targets."""
        for part, held in _held(program):
            own = correlation_found(program) if program.task != "sequence" else None
            if own is None or own.best < cls.CLEAR * own.by_chance:
                return
            across = correlation_across(program, held)
            if across is not None and across.best < min(cls.LOST * own.best, across.by_chance):
                text = (
                    f"simple learners fitted to training samples predict the targets of others with a "
                    f"correlation of {own.best:.2f}, those of the {part} part with {across.best:.2f}: "
                    "its labels belong to other samples, or are numbered in another way"
                )
                yield Evidence(f"{part} part", text, cls.STRENGTH)

    @classmethod
    def _targets(cls, program: Untrained, held: Batch) -> Iterator[tuple[str, float]]:
        y, v = program.targets.cpu(), held.y.cpu()
        if program.task == "regression":
            y, v = y.double().reshape(len(y), -1), v.double().reshape(len(v), -1)
            for text, strength in cls._features(y, v) if y.shape[1] == v.shape[1] else ():
                if strength >= cls.STRENGTH:
                    yield text.replace("input feature", "target"), strength
        elif program.task == "classification" and not y.is_floating_point():
            a = program.pipeline.class_counts().double().cpu()
            b = v.flatten().bincount(minlength=len(a)).double()
            apart = float((a / a.sum() - b / b.sum()).abs().sum() / 2)
            if apart > cls.SHARE + (program.pipeline.outputs / float(b.sum())) ** 0.5:
                text = (
                    f"{apart:.0%} of the labels would have to change for training and validation "
                    "to hold the classes in equal shares"
                )
                yield text, cls.STRENGTH

    @classmethod
    def _features(cls, x: Tensor, v: Tensor) -> Iterator[tuple[str, float]]:
        """The feature [n, f] whose distribution differs most."""
        if not x.shape[1]:
            return
        apart = distances(x, v)
        order = apart.argsort(descending=True)
        for i in (int(i) for i in order[:20] if apart[i] > cls.APART):
            units = float(x[:, i].std(correction=0)) or 1e-12
            narrower = float(v[:, i].std(correction=0)) / units
            shift = float((v[:, i].mean() - x[:, i].mean()).abs()) / units
            other = narrower > cls.FEATURE_TIMES or 0 < narrower < 1 / cls.FEATURE_TIMES
            if not other and shift <= cls.FEATURE_SHIFT:
                continue
            text = (
                f"input feature {i} is spread {narrower:.2g} times as wide in the validation part as "
                f"in training, and its mean is {shift:.2g} standard deviations away"
            )
            yield text, cls.STRENGTH
            return

    @classmethod
    def _told_apart(cls, x: Tensor, v: Tensor) -> Iterator[tuple[str, float]]:
        """Whether a linear model tells validation samples from training samples."""
        n = min(len(x), len(v))
        if n < cls.COMPARED:
            return
        area = area_under_curve(x[:n], v[:n])
        if area <= cls.AREA:
            return
        apart, strength, rest = distances(x, v), cls.STRENGTH, ""
        if x.shape[1] > 1:
            first = int(apart.argmax())
            kept = torch.arange(x.shape[1]) != first
            if area_under_curve(x[:n, kept], v[:n, kept]) <= cls.AREA:
                strength, rest = cls.NOTE, f", by input feature {first} alone"
        text = (
            f"a linear model tells validation samples from training samples{rest}: the area under "
            f"its ROC curve is {area:.2f} on samples that it was not fitted to"
        )
        yield text, strength

    @classmethod
    def _inputs(cls, x: Tensor, v: Tensor) -> Iterator[tuple[str, float]]:
        spread = x.std(0, correction=0)
        wide = spread > cls.VARIES * spread.max()
        # a rare category says nothing of a part in which few samples can have it
        often = (x != x.median(0).values).double().mean(0)
        wide &= often * min(len(x), len(v)) >= cls.OFTEN
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
            yield text, cls.STRENGTH


def distances(a: Tensor, b: Tensor) -> Tensor:
    """The largest distance of the two distribution functions (Kolmogorov and Smirnov) of each column
    of a [n, f] and b [m, f].

    >>> distances(torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [3.0]]))
    tensor([0.5000], dtype=torch.float64)
    """
    values, order = torch.cat([a, b]).sort(0)
    first = (order < len(a)).double()
    apart = (first / len(a) - (1 - first) / len(b)).cumsum(0).abs()
    ends = torch.ones_like(values, dtype=torch.bool)
    ends[:-1] = values[1:] != values[:-1]
    return (apart * ends).max(0).values


class ValidationLeak(Declaration):
    code = "validation_leak"
    rank = 280
    title = "Validation or test samples are also in the training part."
    cause = "The network has been trained on samples that judge it."
    leads_to = "Validation looks better than the network is."
    seen_by = (
        "the share of validation samples that are in the training part digit for digit, beyond what "
        "repeats by chance (rows of a table do where many agree in all columns but one); or, of images "
        "and of tables of many columns, that are a tenth as far from a training sample as from the "
        "tenth nearest, and far more so than training samples are from each other."
    )
    what_to_do = "Split before copying, augmenting or oversampling."
    kinds = frozenset({Kind.DATA})

    SHARE = 0.2  # of the validation samples
    VARIED = 0.05  # the same, where inputs do not repeat by chance
    # columns, samples that are looked at, and their projections
    WIDE, LOOKED_AT, MIX = 16, 500, 32
    NEAR, TENTH = 0.1, 10
    MOST = 0.5  # of the samples, from which near ones are copies however many are among training samples

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        for part, held in _held(program):
            inputs, asked = program.inputs, held.x.flatten(1)
            leak = cls._copied(program, part, asked)
            if leak:
                text = f"{leak:.0%} of the {part} samples are in the training part, digit for digit"
                yield Evidence(f"{part} part", text, SURE)
                continue
            wide = program.varied and program.independent >= cls.WIDE
            near, among = cls._near(inputs, asked) if wide else (0.0, 0.0)
            if near > min(cls.VARIED + 3 * among, cls.MOST):
                text = (
                    f"{near:.0%} of the {part} samples are nearly a training sample: changed copies"
                )
                yield Evidence(f"{part} part", text, SURE)

    @classmethod
    def _copied(cls, program: Untrained, part: str, asked: Tensor) -> float:
        """The share of the samples asked that are training samples; 0 where it may be by chance."""
        rows = program.repeats_with(part)
        keys, wanted = rows.keys[: -len(asked)], rows.keys[-len(asked) :]
        copied = torch.isin(wanted, keys)
        if rows.beyond_chance(copied) > cls.VARIED:
            return float(copied.double().mean())
        leak = float(torch.isin(keys_of(asked), program.keys).double().mean())
        repeated = 1 - len(program.keys.unique()) / max(1, len(program.keys))
        return leak if leak - 3 * repeated > cls.SHARE else 0.0

    @classmethod
    def _near(cls, inputs: Tensor, asked: Tensor) -> tuple[float, float]:
        """The share of the asked rows that are far nearer to one training row than to others; and of
        training rows."""
        if len(inputs) <= cls.TENTH + 1:
            return 0.0, 0.0
        generator = torch.Generator().manual_seed(2)
        mix = torch.randn(inputs.shape[1], cls.MIX, generator=generator).to(inputs.device)
        there = inputs.float() @ mix
        shares = []
        for rows, first in ((asked[: cls.LOOKED_AT].float() @ mix, 0), (there[: cls.LOOKED_AT], 1)):
            away = torch.cdist(rows, there)  # of training rows the nearest is the row itself
            near = away.topk(cls.TENTH + first, largest=False).values[:, first:]
            shares.append(float((near[:, 0] < cls.NEAR * near[:, -1]).double().mean()))
        return shares[0], shares[1]
