"""Findings about the columns of people's own tables: features that give the target away, numbers that
are no measurements, headers among the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ravine.data.tables.leaks import leak
from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.findings.records import numbers_in_use
from ravine.doctor.measure.untrained import FIRST, Untrained

SURE, NOTE, HINT = 0.92, 0.4, 0.2
SEPARATES = "separates the classes"  # honest features may do that
FEWEST = 100  # samples


def _is_table(program: Untrained) -> bool:
    x = program.probe.x
    return x.is_floating_point() and x.dim() == 2 and x.shape[1] > 1


def _raw(program: Untrained) -> tuple[Tensor, list[str]]:
    """Raw training inputs of a table [n, columns], before anything is scaled or cut, and how each
    column is called; missing values are NaN."""
    x = program.pipeline.raw("train", FIRST)[0].double().cpu()
    columns = program.pipeline.preparation.facts.get("columns") or ()
    if len(columns) == x.shape[1]:
        return x, [f"column {one['name']}" for one in columns]
    return x, [f"input feature {i}" for i in range(x.shape[1])]


class TargetLeak(Declaration):
    code = "target_leak"
    rank = 285
    title = "A feature is the target."
    cause = "The answer is among the inputs, directly or as another name for it."
    leads_to = "The network is right on these data, and useless where the answer is not known."
    seen_by = (
        "a feature of a table that is the target but for its units, rises with it everywhere, or has "
        "one value (or a narrow band) for each class; of a sequence, the input of the same step. "
        "A feature whose correlation with the targets is over 0.999 is an alarm, but for series in "
        "time; one whose values each have one target is a note, and so is a column that the reader of "
        "tables has left out."
    )
    what_to_do = "Leave the feature out."
    kinds = frozenset({Kind.DATA})
    surer_by = 0.0

    SAME = 0.999  # share of the steps of sequences whose target is their input
    WIDEST = 2000  # features that are looked at
    SERIES = (
        0.5  # correlation of successive targets, from which the last value may nearly be the next
    )

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        left_out = [
            f"column {one['name']} is left out: {one['why']}"
            for one in program.pipeline.preparation.facts.get("decisions", ())
            if one["kind"] == "leak"
        ]
        if left_out:
            yield Evidence("columns", "; ".join(left_out), NOTE)
        x, y = program.sample()
        if program.task == "sequence":
            same = x.shape == y.shape and not x.is_floating_point()
            if same and float((x == y).double().mean()) > cls.SAME:
                text = "the target of nearly every step is its own input, not the next one"
                yield Evidence("sequences", text, SURE)
            return
        one = y.reshape(len(y), -1).shape[1] == 1
        if len(x) >= FEWEST and _is_table(program) and one:
            yield from cls._of_table(program)

    @classmethod
    def _of_table(cls, program: Untrained) -> Iterator[Evidence]:
        classes = program.pipeline.outputs if program.task == "classification" else 0
        (x, names), y = _raw(program), program.pipeline.raw("train", FIRST)[1]
        if (classes and y.is_floating_point()) or x.dim() != 2 or y.numel() != len(x):
            return
        values, target = x.numpy(), y.double().flatten().cpu().numpy()
        columns = program.pipeline.preparation.facts.get("columns") or ()
        kinds = [one["kind"] for one in columns] if len(columns) == len(names) else []
        found = [
            (name, leak({"kind": kinds[i] if kinds else "number"}, values[:, i], target, classes))
            for i, name in enumerate(names[: cls.WIDEST])
        ]
        named = [(name, one) for name, one in found if one is not None]
        for name, one in sorted(named, key=lambda pair: not pair[1].copy)[:1]:
            in_order = not classes and abs(_successive(target)) > cls.SERIES
            near = not classes and not in_order
            strength = SURE if one.copy or near else HINT if SEPARATES in one.why else NOTE
            yield Evidence(name, f"{name}: {one.why}", strength)
            return
        shown = cls._indicators(values, target, classes)
        if shown:
            text = f"input features {', '.join(map(str, shown))} say which class it is, each of one"
            yield Evidence("input features", text, SURE)

    @staticmethod
    def _indicators(values: np.ndarray, target: np.ndarray, classes: int) -> list[int]:
        """Features of two values that together say every class but one."""
        found: dict[int, int] = {}
        most, least = values.max(0), values.min(0)
        two = ((values == most) | (values == least)).all(0) & (most > least)
        for i in np.flatnonzero(two) if classes > 2 else ():
            high = values[:, i] == most[i]
            inside = np.unique(target[high])
            if len(inside) == 1 and not (target[~high] == inside[0]).any():
                found[int(inside[0])] = int(i)
        return sorted(found.values()) if len(found) >= classes - 1 else []


def _kind(program: Untrained, place: int) -> str:
    """What a table's column was read as; empty where that is not known."""
    columns = program.pipeline.preparation.facts.get("columns") or ()
    return str(columns[place]["kind"]) if place < len(columns) else ""


def _successive(values: np.ndarray) -> float:
    """The correlation of each value with the next one: near 1 in a series in time."""
    return float(np.corrcoef(values[1:], values[:-1])[0, 1]) if values.std() > 0 else 0.0


class IdentifierFeature(Declaration):
    code = "identifier_feature"
    rank = 286
    title = "A feature is a row number."
    cause = (
        "It says which sample it is: of samples in the order of their classes it gives them away."
    )
    leads_to = "What is learned of it is useless for samples that are not in the file."
    seen_by = (
        "a feature of a table whose numbers are all different and fill a range without large gaps. "
        "It is an alarm where its order is the targets' order, else a note; of dates it says that the parts "
        "are drawn at random."
    )
    what_to_do = "Leave the feature out; judge a series in time by rows that come later."
    kinds = frozenset({Kind.DATA})
    surer_by = 0.0

    ALIKE = 0.5  # of neighbours by its order, beyond chance
    IN_TIME = (
        "targets are alike by {:.0%} beyond chance; the parts are drawn at random, so that rows just before "
        "and after each test row were trained on. To know how well later rows are predicted, divide the rows "
        'by it: data.source.columns.{} = "order"'
    )

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        if not _is_table(program) or len(program.probe.x) < FEWEST:
            return
        (x, names), y = _raw(program), program.targets.cpu()
        if x.dim() != 2 or len(x) != len(y):
            return
        for i, name in enumerate(names):
            if not numbers_in_use(x[:, i]):
                continue
            alike = cls._alike(x[:, i], y)
            text = f"{name} is different in every row and leaves out few numbers"
            if alike > cls.ALIKE and _kind(program, i) == "date":
                bare = name.removeprefix("column ")
                text = f"{name} puts the rows in time, and in its order {cls.IN_TIME.format(alike, bare)}"
            elif alike > cls.ALIKE:
                text += f"; in its order, targets are alike by {alike:.0%} beyond chance"
            yield Evidence(name, text, SURE if alike > cls.ALIKE else NOTE)
            return

    @staticmethod
    def _alike(order: Tensor, y: Tensor) -> float:
        """How much neighbours by a feature's order have the same class, or near targets."""
        y = y[order.argsort()].flatten().double() if y.numel() == len(y) else y[:0].double()
        if not len(y) or not bool((y != y[0]).any()):
            return 0.0
        if bool((y == y.round()).all()):
            same = float((y[1:] == y[:-1]).double().mean())
            chance = float((y.unique(return_counts=True)[1] / len(y)).square().sum())
            return (same - chance) / max(1 - chance, 1e-6)
        return float(torch.corrcoef(torch.stack([y[1:], y[:-1]]))[0, 1])


class PlaceholderValues(Declaration):
    code = "placeholder_values"
    rank = 55
    title = "A column holds numbers that stand apart from all others."
    cause = "A code for a missing value, such as -999, or a slip is read as a measurement."
    leads_to = "It is far from all real values, and moves the mean and the scale of the column."
    consequences = ("inputs_unscaled", "targets_unscaled", "underfitting")
    seen_by = (
        "one largest or smallest number of a column of inputs or targets, in at least 1 % of the "
        "rows, over ten interquartile ranges away from the median, and far from all others; or fewer "
        "numbers that hold nearly all of the column's variance."
    )
    what_to_do = "Leave the cell empty; the reader fills it in."
    kinds = frozenset({Kind.DATA})

    SHARE, AWAY, DISTINCT = 0.01, 10.0, 20
    GAP = 0.5  # to the nearest other number, as a part of the range of the others
    FEW, VARIANCE = 0.005, 0.99  # share of the rows, and of the variance that they hold

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        if len(program.targets) < FEWEST or program.task == "sequence":
            return
        if _is_table(program):
            x, names = _raw(program)
            for i, name in enumerate(names if x.dim() == 2 else ()):
                column = x[:, i][x[:, i].isfinite()]
                if len(column) < FEWEST:
                    continue
                if text := cls._odd(column) or cls._slips(column):
                    yield Evidence(name, f"{name}: {text}", SURE)
                    return
        y = program.targets
        if program.task == "regression" and y.numel() == len(y):
            y = program.pipeline.target_units(y).flatten().double()
            if text := cls._odd(y) or cls._slips(y):
                yield Evidence("targets", f"targets: {text}", SURE)

    @classmethod
    def _odd(cls, column: Tensor) -> str:
        for odd in (float(column.min()), float(column.max())):
            there = column == odd
            rest, share = column[~there], float(there.double().mean())
            if not cls.SHARE <= share < 0.5 or len(rest.unique()) < cls.DISTINCT:
                continue
            away, isolated = cls._distance(rest, odd)
            if isolated and away > cls.AWAY:
                return (
                    f"{share:.0%} of the rows hold {odd:.6g}, {away:.0f} interquartile ranges away "
                    "from the median"
                )
        return ""

    @classmethod
    def _slips(cls, column: Tensor) -> str:
        """A few numbers beside which all others look alike."""
        most = max(1, int(cls.FEW * len(column)))
        far = (column - column.median()).abs().topk(most).indices
        among = torch.ones(len(column), dtype=torch.bool).index_fill_(0, far, False)
        rest = column[among]
        off = (column - rest.mean()).square()
        if float(off[far].sum()) <= cls.VARIANCE * float(off.sum()):
            return ""
        least = min((float(column[i]) for i in far), key=lambda v: abs(v - rest.mean()))
        away, isolated = cls._distance(rest, float(column[far[0]]))
        if not isolated or away <= 10 * cls.AWAY or len(rest.unique()) < cls.DISTINCT:
            return ""
        count = int((off > 0.5 * (least - rest.mean()) ** 2).sum()) if most > 1 else 1
        return (
            f"{min(count, most)} of {len(column)} numbers lie up to {away:.3g} interquartile ranges "
            "away from the median: all others look alike beside them"
        )

    @classmethod
    def _distance(cls, rest: Tensor, odd: float) -> tuple[float, bool]:
        """Interquartile ranges between a number and the median of the others, and whether it is far
        from all of them."""
        some = rest[:: max(1, len(rest) // 5000)]
        low, middle, high = (float(some.quantile(q)) for q in (0.25, 0.5, 0.75))
        if high <= low:
            return 0.0, False
        gap = float((rest - odd).abs().min())
        return abs(odd - middle) / (high - low), gap > cls.GAP * float(rest.max() - rest.min())


class HeaderRow(Declaration):
    code = "header_row"
    rank = 5
    title = "A header was read as a sample, or a sample as the header."
    cause = "The file was read as if it had no header, or as if it had one."
    leads_to = "One row is not what it says, and the columns may have the wrong names."
    consequences = ("labels_shifted",)
    seen_by = (
        "a sample that is 0, 1, 2, … (the numbers of the columns); columns of a file that are named by "
        "numbers with fractions."
    )
    what_to_do = "Read the file with the right `header`."
    kinds = frozenset({Kind.DATA})

    COLUMNS = 4  # fewest columns that can be told

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        decided = program.pipeline.preparation.facts.get("decisions", ())
        names = [str(one["name"]) for one in decided]
        numbers = [name for name in names if _is_fraction(name)]
        if numbers:
            text = (
                f"columns are named {', '.join(numbers[:3])}: a row of the file was read as names"
            )
            yield Evidence("columns", text, SURE)
            return
        if not _is_table(program) or program.probe.x.shape[1] < cls.COLUMNS:
            return
        x = program.pipeline.raw("train", len(program.targets))[0]
        if x.dim() != 2 or x.shape[1] < cls.COLUMNS:
            return
        count = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        for first in (0, 1):
            rows = (x == count + first).all(1).nonzero().flatten()
            if len(rows) == 1:
                text = f"sample {int(rows[0])} of the training part is {first}, {first + 1}, {first + 2}, …"
                yield Evidence("inputs", f"{text}: the numbers of the columns", SURE)


def _is_fraction(name: str) -> bool:
    try:
        return not float(name).is_integer()
    except ValueError:
        return False
