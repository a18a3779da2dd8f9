"""Findings about the rows of people's own data: which label belongs to which sample, and samples
that are no samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.findings.labels import NoSignal, shows_signal
from ravine.doctor.findings.learners import correlation_found
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.untrained import Untrained

SURE = 0.92
FEWEST = 100  # samples
GAPS = 3.0  # steps that row numbers take for each one that is in use
WHOLE = 0.02  # by which the steps of standardised whole numbers may miss a multiple of the smallest


class LabelsShifted(Declaration):
    code = "labels_shifted"
    rank = 6
    title = "The labels are shifted by a row."
    cause = "Each sample has the label of its neighbour, as when one file has a header and the other has none."
    leads_to = "The network is trained on labels that belong to other samples."
    consequences = ("no_signal", "stuck", "underfitting")
    seen_by = (
        "simple learners predict the targets no better than chance, but predict those of the row "
        "before or after."
    )
    what_to_do = "Read inputs and labels by the same rows."
    kinds = frozenset({Kind.DATA})

    TIMES = 2.0  # of what chance gives, that the shifted correlation must reach

    @classmethod
    def given_course(cls, program: Untrained, course: Course) -> Iterator[Evidence]:
        if shows_signal(course) or program.task == "sequence":
            return
        own = correlation_found(program)
        if own is None or own.best > own.by_chance:
            return
        for shift, row in ((1, "after"), (-1, "before")):
            found = correlation_found(program, shift)
            if found is not None and found.best > cls.TIMES * found.by_chance:
                text = (
                    f"simple learners predict the targets of the rows {row} with a correlation of "
                    f"{found.best:.2f}, those of the rows themselves with {max(own.best, 0):.3f} "
                    f"(chance gives up to {own.by_chance:.3f})"
                )
                yield Evidence("targets", text, NoSignal.CHANCE)
                return


class TargetIdentifier(Declaration):
    code = "target_identifier"
    rank = 7
    title = "The targets are row numbers or names of single samples."
    cause = "They say which sample it is, not what is to be predicted: probably the wrong column."
    leads_to = "There is nothing in the inputs that could predict them."
    consequences = ("no_signal", "stuck", "underfitting", "overfitting", "targets_unscaled")
    seen_by = (
        "nearly as many classes as samples; or numbers that are all different and fill a range "
        "without large gaps, which simple learners cannot predict."
    )
    what_to_do = "Name the column that is to be predicted."
    kinds = frozenset({Kind.DATA})

    CLASSES = 0.5  # of the number of samples
    PREDICTED = 0.7  # correlation of predictions, from which the targets are no mere numbers

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        y = program.targets.flatten()
        named = program.task == "classification" and not y.is_floating_point()
        classes = len(y.unique()) if named else 0
        if len(y) >= FEWEST and classes > cls.CLASSES * len(y):
            yield Evidence("targets", f"{classes} classes for {len(y)} samples", SURE)

    @classmethod
    def given_course(cls, program: Untrained, course: Course) -> Iterator[Evidence]:
        y, n = program.targets.flatten(), len(program.targets)
        if program.task != "regression" or len(y) != n or not numbers_in_use(y):
            return
        found = correlation_found(program)
        if found is not None and found.best < cls.PREDICTED:
            text = (
                f"the targets of {n} samples are all different, from {float(y.min()):.4g} to "
                f"{float(y.max()):.4g} in equal steps with few left out"
            )
            yield Evidence("targets", text, SURE)


def numbers_in_use(values: Tensor) -> bool:
    """Whether values [n] are all different and fill a range in equal steps, as row numbers do."""
    if len(values) < FEWEST or len(values[:FEWEST].unique()) < FEWEST:
        return False
    steps = np.diff(np.sort(values.double().cpu().numpy()))
    if not np.isfinite(steps).all() or (smallest := steps.min()) <= 0:
        return False
    if steps.sum() >= GAPS * len(values) * smallest:
        return False
    return bool(np.abs(steps / smallest - np.round(steps / smallest)).max() < WHOLE)


class ConflictingLabels(Declaration):
    code = "conflicting_labels"
    rank = 8
    title = "The same samples have different labels."
    cause = "A sample is in the data several times, under several classes."
    leads_to = "The classes cannot be told apart, however good the network."
    consequences = ("underfitting",)
    seen_by = "samples that are equal digit for digit and of different classes, where inputs do not repeat by chance."
    what_to_do = "Keep each sample once, under one label."
    kinds = frozenset({Kind.DATA})

    SHARE = 0.02  # of the samples

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        y = program.targets
        if program.task != "classification" or y.is_floating_point() or len(y) < FEWEST:
            return
        if not program.varied:
            return
        x = program.inputs
        # Blank samples are a finding of their own.
        differs = (x != x[:, :1]).any(1) & program.repeats.told
        _, places, counts = program.keys[differs].unique(return_inverse=True, return_counts=True)
        labels = y.flatten()[differs]
        if len(labels) < FEWEST:
            return
        both = places * (int(labels.max()) + 1) + labels
        _, own, alike = both.unique(return_inverse=True, return_counts=True)
        share = float((alike[own] < counts[places]).double().mean())
        if share > cls.SHARE:
            text = f"{share:.0%} of the training samples are there again under another label"
            yield Evidence("labels", text, SURE)


class BlankSamples(Declaration):
    code = "blank_samples"
    rank = 9
    title = "Many images are one and the same."
    cause = "They are blank, or could not be read: their labels belong to something else."
    leads_to = "They teach the network to guess, and hide how good it is."
    consequences = ("underfitting",)
    seen_by = (
        "the image that occurs most often, digit for digit. Where all of these have one label, and hardly "
        "any other sample has it, that may be what the class looks like: it is a note."
    )
    what_to_do = "Leave them out, or read them again."
    kinds = frozenset({Kind.DATA})
    surer_by = 0.0

    SHARE, COPIES = 0.02, 5
    NOTE = 0.4
    OF_CLASS = 0.9  # of the samples with their label, where they are the class

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        if program.probe.x.dim() != 4 or len(program.targets) < FEWEST:
            return
        _, places, counts = program.keys.unique(return_inverse=True, return_counts=True)
        most, n = int(counts.max()), int(counts.sum())
        if not n > most >= max(cls.COPIES, cls.SHARE * n):
            return
        blank, y = places == counts.argmax(), program.targets.reshape(n, -1)
        theirs = (y == y[blank][:1]).all(1)  # who has the label of the first of them
        text = f"{most} of {n} training images are equal"
        if bool(theirs[blank].all()) and most >= cls.OF_CLASS * int(theirs.sum()):
            text += f", nearly all of the {int(theirs.sum())} samples with their label"
            yield Evidence("inputs", text, cls.NOTE)
        else:
            yield Evidence("inputs", text, SURE)


class DuplicatedSamples(Declaration):
    code = "duplicated_samples"
    rank = 288
    title = "Samples are in the training part several times."
    cause = "A class or a file was read twice, or samples were copied on purpose."
    leads_to = "Each counts as often as it occurs; a split made after the copying puts copies on both sides."
    seen_by = (
        "samples that are equal digit for digit and of one label, where inputs do not repeat by "
        "chance. It is an alarm where one class was copied that was not rare; else a note: copies may be "
        "meant."
    )
    what_to_do = "Keep each sample once; weigh classes by `loss.class_weights`."
    kinds = frozenset({Kind.DATA})
    surer_by = 0.0

    SHARE = 0.02  # of the samples
    NOTE = 0.4
    ONE_CLASS = 0.9  # of the copies
    ENOUGH = 0.7  # of the other classes' samples, that a class has which needs no copies

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        y = program.targets
        if len(y) < FEWEST or program.task == "sequence":
            return
        rows = program.repeats
        _, places, counts = rows.keys.unique(return_inverse=True, return_counts=True)
        if rows.beyond_chance(counts[places] > 1) < cls.SHARE:
            return
        again = (counts[places] > 1) & rows.told
        share = float(again.double().mean())
        text = f"{share:.0%} of the training samples are there more than once"
        strength = cls.NOTE
        if program.task == "classification" and not y.is_floating_point():
            of = y.flatten()[again].bincount(minlength=program.pipeline.outputs)
            which = int(of.argmax())
            if int(of[which]) > cls.ONE_CLASS * int(again.sum()):
                text += f", nearly all of class {which}"
                each = y.flatten().bincount(minlength=len(of)).double()
                copies = int(again.sum()) - len(places[again].unique())
                others = each[torch.arange(len(each), device=each.device) != which]
                if each[which] - copies >= cls.ENOUGH * others.median():
                    text, strength = f"{text}, which had enough without copies", SURE
        yield Evidence("samples", text, strength)
