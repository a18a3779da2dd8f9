"""Findings about labels and about what the inputs say of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Edits, Remedies
from ravine.doctor.findings.learners import correlation_found
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.untrained import DISTANCES, FIRST, Untrained
from ravine.doctor.remedies import proper_output
from ravine.nn.answers import Answers
from ravine.nn.outputs import shown
from ravine.nn.stack import evaluated


class LabelsInvalid(Declaration):
    code = "labels_invalid"
    rank = 10
    certain = True
    title = "The labels are not in the form that the loss reads."
    cause = (
        "The loss interprets each target as a probability or a class; these targets are neither."
    )
    leads_to = "The network is trained for something else than the task."
    consequences = ("stuck", "underfitting")
    seen_by = (
        "targets outside 0 to 1 where the loss reads probabilities; rows of class probabilities "
        "that do not sum to 1."
    )
    what_to_do = "Encode the labels as the loss expects them."

    SURE = 0.95
    OFF_SUM = 0.01  # by which a row may miss the sum of 1, and share of the rows that may

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        y, loss = program.targets, program.loss_kind
        if loss not in ("binary_cross_entropy", "cross_entropy", "kl") or not y.is_floating_point():
            return
        outside = float(((y < 0) | (y > 1)).double().mean())
        if outside > 0:
            text = (
                f"{outside:.0%} of the targets lie outside 0 to 1 ({float(y.min()):g} "
                f"to {float(y.max()):g}), where {loss} has no meaning"
            )
            yield Evidence("targets", text, cls.SURE)
            return
        exclusive = loss != "binary_cross_entropy" and program.task != "multilabel"
        if exclusive and y.dim() == 2 and y.shape[1] > 1:
            off = float(((y.sum(1) - 1).abs() > cls.OFF_SUM).double().mean())
            if off > cls.OFF_SUM:
                text = f"{off:.0%} of the rows of targets do not sum to 1, as probabilities of classes do"
                yield Evidence("targets", text, cls.SURE)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from proper_output(case)


class NoSignal(Declaration):
    code = "no_signal"
    rank = 80
    title = "The inputs say nothing about the targets."
    cause = "Inputs or targets are all alike, or simple learners predict no better than chance."
    leads_to = "No training can beat the constant predictor."
    consequences = ("stuck", "underfitting")
    seen_by = (
        "ridge regression (on the features, and on their squares) and nearest neighbours, fitted to "
        "one half of up to 2,000 training samples, predict the other half no better than chance, and "
        "the network's own skill on validation samples is under 3 %; not of classes that have fewer "
        "than 20 samples together beside the most frequent one. Or all inputs, or all targets, are equal."
    )
    what_to_do = (
        "Look at the data: shuffled labels, the wrong column, features without information."
    )
    kinds = frozenset({Kind.DATA})

    ALL_EQUAL, EQUAL_TARGETS, CHANCE, WEAK = 0.95, 0.4, 0.9, 0.45  # strengths
    # of what chance gives (four standard deviations): random targets stay below 2.5 of them, of a
    # signal that is weak for so few samples more is seen
    SURELY = 0.625
    HELD = 0.03  # skill on validation samples that shows a signal
    FEWEST = 20  # samples of other classes than the most frequent one
    NOISE = 0.7  # of the best epoch's skill on one validation sample: two standard deviations

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        x, y = program.probe.x, program.targets
        if len(x) > 3 and x.is_floating_point() and cls._all_equal(program):
            yield Evidence(
                "inputs", f"all {len(x)} inputs that were looked at are equal", cls.ALL_EQUAL
            )
        elif len(y) > 3 and bool((y == y[:1]).all()):
            # the first of sorted samples may be alike, and a loss of one's own may read no targets;
            # one class alone is learned, which is of no use but no fault of the program
            numbers = program.task == "regression" and program.loss_kind in DISTANCES
            sure = numbers and len(y) == program.pipeline.size("train")
            strength = cls.ALL_EQUAL if sure else cls.EQUAL_TARGETS
            yield Evidence("targets", f"all {len(y)} targets are equal", strength)

    @staticmethod
    def _all_equal(program: Untrained) -> bool:
        """Whether the inputs are equal as they are: augmentation makes equal ones differ."""
        x = program.probe.x
        if program.recipe.data.augment:
            return len(program.keys) > 3 and len(program.keys.unique()) == 1
        return bool((x == x[:1]).all())

    @classmethod
    def _nearly_one_class(cls, program: Untrained) -> bool:
        """Whether so few training samples are of other classes that half of them teach nothing."""
        counts = program.pipeline.class_counts()
        return len(counts) > 1 and float(counts.sum() - counts.max()) < cls.FEWEST

    @classmethod
    def given_course(cls, program: Untrained, course: Course) -> Iterator[Evidence]:
        if shows_signal(course) or cls._nearly_one_class(program):
            return
        found = correlation_found(program)
        if found is not None and found.best <= found.by_chance:
            text = (
                f"simple learners trained on {found.samples} samples predict the targets of "
                f"{found.samples} others with a correlation of {max(found.best, 0):.3f}; "
                f"chance gives up to {found.by_chance:.3f}"
            )
            sure = found.best <= cls.SURELY * found.by_chance
            yield Evidence("inputs and targets", text, cls.CHANCE if sure else cls.WEAK)


def shows_signal(course: Course) -> bool:
    """Whether validation samples show that there is something to learn, at the end or, beyond the noise
    of so many, at best: what is learned by heart later hides it. Training samples do, where there are
    none."""
    held = [curve for curve in course.curves if curve.val_loss and curve.finite]
    for curve in held:
        noise = NoSignal.NOISE / max(1, curve.val_samples) ** 0.5
        ends, best = (curve.base.skill(v) for v in (curve.val_loss[-1], min(curve.val_loss)))
        if ends > NoSignal.HELD or best > max(NoSignal.HELD, noise):
            return True
    return not held and course.plain


class ClassImbalance(Declaration):
    code = "class_imbalance"
    rank = 90
    title = "Nearly all samples are of a few classes."
    cause = "The loss is nearly minimal if the network always answers with the frequent classes."
    leads_to = "The rare classes are ignored."
    seen_by = (
        "one class holds over 90 % of the samples, others under 5 %, and of the samples of these rare "
        "classes (of the validation part, or of the training part where it has fewer than 5) less than "
        "a tenth is answered right. Where the network learns the rare classes it is a note, not an alarm; so it is "
        "before a plan's end, where it ranks their validation samples above others."
    )
    what_to_do = (
        'More samples of the rare classes. `loss.class_weights = "balanced"`, without label smoothing, '
        "finds more of them, at the price of false alarms."
    )
    kinds = frozenset({Kind.DATA, Kind.SHARES})

    surer_by = 0.0

    SUSPECT, IGNORED_RARE = 0.4, 0.9  # strengths
    FREQUENT, RARE = 0.9, 0.05
    IGNORED = 0.1  # share of right answers under which the rare classes are ignored
    ENOUGH = 100  # steps after which that can be said
    FEWEST, MOST = 5, 256  # samples of rare classes that are asked
    MEMBERS = 3  # that are asked
    LEARNS = 2.0  # standard errors by which rare samples must be ranked above others

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        share = cls._shares(program)
        if share is not None:
            yield Evidence("labels", cls._told(share), cls.SUSPECT)

    @classmethod
    def given_course(cls, program: Untrained, course: Course) -> Iterator[Evidence]:
        enough = course.over or course.steps >= cls.ENOUGH
        share = cls._shares(program) if enough and course.finite else None
        if share is None:
            return
        rare = share < cls.RARE
        part, (x, y), others = cls._samples(program, rare)
        curves = course.finite[: cls.MEMBERS]
        right = [_share_right(program, curve, x, y) for curve in curves]
        if float(np.median(right)) < cls.IGNORED:
            if not course.over and part == "validation":
                apart = [_told_apart(program, curve, x, others, rare) for curve in curves]
                if float(np.median(apart)) > cls.LEARNS:
                    return  # whether it will answer with what it ranks already, the whole plan says
            of = f"{len(y)} {part} samples of classes under {cls.RARE:.0%}"
            text = f"{cls._told(share)}; of {of} {np.median(right):.0%} are answered right"
            yield Evidence("labels", text, cls.IGNORED_RARE)

    @classmethod
    def _shares(cls, program: Untrained) -> Tensor | None:
        """Each class's share of the samples, where nearly all are of a few classes."""
        y = program.targets
        if program.task != "classification" or y.is_floating_point():
            return None
        counts = y.flatten().bincount(minlength=program.pipeline.outputs).double()
        share = counts / counts.sum()
        uneven = share.max() > cls.FREQUENT and share[share > 0].min() < cls.RARE
        return share if uneven else None

    @classmethod
    def _told(cls, share: Tensor) -> str:
        most, rare = float(share.max()), float(share[share > 0].min())
        return f"the most frequent class holds {most:.1%} of the samples, the rarest {rare:.1%}"

    @classmethod
    def _samples(
        cls, program: Untrained, rare: Tensor
    ) -> tuple[str, tuple[Tensor, Tensor], Tensor]:
        """Samples of rare classes: the part's name, inputs and targets; and inputs of other samples."""
        for part in ("validation", "training"):
            name = "train" if part == "training" else part
            if not program.pipeline.has(name):
                continue
            batches = [*program.pipeline.split(name, limit=FIRST, batch=4096)]
            x, y = (torch.cat([getattr(one, place) for one in batches]) for place in "xy")
            kept = rare[y.flatten()]
            if int(kept.sum()) >= cls.FEWEST or part == "training":
                break
        return part, (x[kept][: cls.MOST], y[kept][: cls.MOST]), x[~kept][: cls.MOST]

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        edits: Edits = {"loss.class_weights": "balanced"}
        if case.recipe.loss.arguments.get("label_smoothing"):
            edits["loss.label_smoothing"] = 0.0  # weighed by class, it would ask for the rare ones
        yield edits, "weigh the classes by their rarity"


def _share_right(program: Untrained, curve: Curve, x: Tensor, y: Tensor) -> float:
    """The share of samples whose class a member answers, as it is now."""
    found = _answers(program, curve, x)
    if found is None:
        return math.nan
    answers, outputs = found
    right = answers.classes(outputs).flatten() == answers.truth(y).flatten()
    return float(right.double().mean())


def _told_apart(program: Untrained, curve: Curve, x: Tensor, others: Tensor, rare: Tensor) -> float:
    """By how many standard errors of chance a member's probability of rare classes ranks their
    samples above others."""
    asked = [_answers(program, curve, some) for some in (x, others) if len(some)]
    if len(asked) < 2 or None in asked:
        return 0.0
    p, q = (
        one[0].by_class(one[1])[..., rare].sum(-1).flatten() for one in asked if one is not None
    )
    above = (p[:, None] > q).double().mean() + (p[:, None] == q).double().mean() / 2
    return float(above - 0.5) / math.sqrt((1 / len(p) + 1 / len(q)) / 12)


def _answers(program: Untrained, curve: Curve, x: Tensor) -> tuple[Answers, Tensor] | None:
    """How a member's outputs for some inputs are read, and the outputs, as it is now."""
    if curve.network is None:
        return None
    with curve.network() as model, evaluated(model):
        answers = Answers.of(model, program.loss, program.task, x[:4])
        return answers, torch.cat([shown(model(some)) for some in x.split(512)])
