"""Findings about the rows of people's own data: which label belongs to which sample, what a column
holds, and samples that are no samples."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.findings.labels import NoSignal, shows_signal
from ravine.doctor.findings.learners import correlation_found
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.untrained import Untrained

SURE = 0.92
FEWEST = 100  # samples


class LabelsShifted(Declaration):
    code = "labels_shifted"
    rank = 6
    title = "The labels are shifted by a row."
    cause = "Each sample has the label of its neighbour, as when one file has a header and the other has none."
    leads_to = "The network is trained on labels that belong to other samples."
    consequences = ("no_signal", "stuck", "underfitting")
    seen_by = (
        "simple learners predict the targets no better than chance, but predict those of the row "
        "before or behind."
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
        for shift, row in ((1, "behind"), (-1, "before")):
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
        "nearly as many classes as samples; or whole numbers that rise by one from row to row."
    )
    what_to_do = "Name the column that is to be predicted."
    kinds = frozenset({Kind.DATA})

    CLASSES = 0.5  # of the number of samples
    GAPS = 3.0  # numbers that are passed over for each one that is there

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        y, n = program.targets.flatten(), len(program.targets)
        if n < FEWEST or program.task not in ("classification", "regression") or len(y) != n:
            return
        if program.task == "classification" and not y.is_floating_point():
            if (classes := len(y.unique())) > cls.CLASSES * n:
                yield Evidence("targets", f"{classes} classes for {n} samples", SURE)
            return
        steps = y.double().diff()
        smallest = float(steps.min()) if len(steps) else 0.0
        whole = smallest > 0 and bool((steps / smallest % 1 < 1e-6).all())
        if whole and float(steps.sum()) < cls.GAPS * n * smallest:
            text = (
                f"the targets of {n} samples rise from row to row in steps of {smallest:.3g}, from "
                f"{float(y[0]):.4g} to {float(y[-1]):.4g}"
            )
            yield Evidence("targets", text, SURE)


class TargetLeak(Declaration):
    code = "target_leak"
    rank = 285
    title = "A feature is the target."
    cause = "The answer is among the inputs, directly or as another name for it."
    leads_to = "The network is right on these data, and useless where the answer is not known."
    seen_by = (
        "a feature of a table whose correlation with the target is 1, or whose values name the "
        "classes one to one."
    )
    what_to_do = "Leave the feature out."
    kinds = frozenset({Kind.DATA})

    CORRELATION = 0.99999

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        x, y = program.sample()
        y = y.reshape(len(y), -1)
        table = x.is_floating_point() and x.dim() == 2 and x.shape[1] > 1
        if len(x) < FEWEST or not table or y.shape[1] != 1:
            return
        if program.task == "regression":
            names = cls._lines(x.double(), y.double())
            how = "is the target but for a factor and a constant"
        elif program.task == "classification" and not y.is_floating_point():
            names, how = cls._names(x, y.flatten()), "has one value for each class"
        else:
            return
        for name in names[:1]:
            yield Evidence(f"input feature {name}", f"input feature {name} {how}", SURE)

    @classmethod
    def _lines(cls, x: Tensor, y: Tensor) -> list[int]:
        x, y = x - x.mean(0), y - y.mean(0)
        alike = (x * y).sum(0).abs() / (x.norm(dim=0) * y.norm(dim=0)).clamp_min(1e-12)
        return [int(i) for i in (alike > cls.CORRELATION).nonzero().flatten()]

    @staticmethod
    def _names(x: Tensor, y: Tensor) -> list[int]:
        classes, found = len(y.unique()), []
        for i in range(x.shape[1] if classes > 1 else 0):
            values, places = x[:, i].unique(return_inverse=True)
            if (
                len(values) == classes
                and len((places * (int(y.max()) + 1) + y).unique()) == classes
            ):
                found.append(i)
        return found


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
        differs = (x != x[:, :1]).any(1)  # blank samples are a finding of their own
        _, places, counts = program.keys(x[differs]).unique(return_inverse=True, return_counts=True)
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
    seen_by = "the image that occurs most often, digit for digit."
    what_to_do = "Leave them out, or read them again."
    kinds = frozenset({Kind.DATA})

    SHARE, COPIES = 0.02, 5

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        if program.probe.x.dim() != 4 or len(program.targets) < FEWEST:
            return
        _, counts = program.keys(program.inputs).unique(return_counts=True)
        most, n = int(counts.max()), int(counts.sum())
        if n > most >= max(cls.COPIES, cls.SHARE * n):
            yield Evidence("inputs", f"{most} of {n} training images are equal", SURE)


class PlaceholderValues(Declaration):
    code = "placeholder_values"
    rank = 55
    title = "A column holds a number that stands for a missing value."
    cause = "A code such as -999 is read as a measurement."
    leads_to = "It is far from all real values, and moves the mean and the scale of the column."
    consequences = ("inputs_unscaled", "underfitting")
    seen_by = (
        "the largest or smallest number of a column, in at least 1 % of the rows, over ten "
        "interquartile ranges away from the median, and far from all other numbers of the column."
    )
    what_to_do = "Leave the cell empty; the reader fills it in."
    kinds = frozenset({Kind.DATA})

    SHARE, AWAY, DISTINCT = 0.01, 10.0, 20
    GAP = 0.5  # to the nearest other number, as a part of the range of the others

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        x = program.probe.x
        if not x.is_floating_point() or x.dim() != 2 or len(x) < FEWEST:
            return
        x = program.sample()[0].double()
        for i in range(x.shape[1]):
            for odd in (float(x[:, i].min()), float(x[:, i].max())):
                there = x[:, i] == odd
                rest, share = x[~there, i], float(there.double().mean())
                if not cls.SHARE <= share < 0.5 or len(rest.unique()) < cls.DISTINCT:
                    continue
                low, middle, high = (float(rest.quantile(q)) for q in (0.25, 0.5, 0.75))
                gap = float((rest - odd).abs().min())
                isolated = gap > cls.GAP * float(rest.max() - rest.min())
                if high > low and isolated and abs(odd - middle) > cls.AWAY * (high - low):
                    away = abs(odd - middle) / (high - low)
                    text = (
                        f"{share:.0%} of input feature {i} are one number, {away:.0f} interquartile "
                        "ranges away from the median"
                    )
                    yield Evidence(f"input feature {i}", text, SURE)
                    return
