"""The one table of what is measured: its title, its unit, which way it improves, and whether it is
a fraction that people read as per cent.

Schedules, stops, halving, searches, tables, pictures, the terminal and the web page read it here. A
name is looked up by its last words: ``val_accuracy``, ``head0_accuracy`` and ``best val_accuracy``
are all accuracies. A metric that is not in the table is taken to be better the larger it is; give
one that is not a name that ends as one in the table does (``gap_error``, ``tail_loss``), or set
``stop.mode`` and the schedule's ``mode``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Better = Literal["min", "max"]
NOT_METRICS = ("member", "epoch", "step", "seconds")  # the other fields of an epoch's row


@dataclass(frozen=True)
class Measure:
    """What one measured number is; ``better`` is None where neither way is better."""

    title: str
    better: Better | None
    percent: bool = False
    unit: str = ""


MEASURES = {
    # metrics of the catalogue (nn/metrics.py)
    "accuracy": Measure("accuracy", "max", percent=True),
    "mean_cost": Measure("mean cost", "min"),
    "balanced_accuracy": Measure("balanced accuracy", "max", percent=True),
    "top_k": Measure("top-k accuracy", "max", percent=True),
    "error": Measure("error", "min", percent=True),
    "precision": Measure("precision", "max", percent=True),
    "recall": Measure("recall", "max", percent=True),
    "f1": Measure("F1", "max", percent=True),
    "roc_auc": Measure("ROC AUC", "max"),
    "log_loss": Measure("log-loss", "min", unit="nat"),
    "perplexity": Measure("perplexity", "min"),
    "confusion_matrix": Measure("confusion matrix", None),  # a cell: see find
    "mse": Measure("MSE", "min"),
    "rmse": Measure("RMSE", "min"),
    "mae": Measure("MAE", "min"),
    "r2": Measure("R²", "max"),
    # what every run measures
    "loss": Measure("loss", "min"),
    "step_loss": Measure("loss of each step", "min"),
    "grad_norm": Measure("gradient norm", "min"),
    "lr": Measure("learning rate", None),
    "seconds": Measure("seconds", "min", unit="s"),
    # what studies measure besides
    "error_rate": Measure("error rate", "min", percent=True),
    "ece": Measure("ECE", "min"),
    "brier": Measure("Brier score", "min"),
}


def declare(name: str, better: Better | None) -> None:
    """Say in which direction a metric of a person's own improves; None leaves it to its name.

    >>> declare("misfit", "min"); better_is("val_misfit")
    'min'
    """
    if better is not None:
        MEASURES[name] = Measure(name.replace("_", " "), better)


_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_JUDGES = ("accuracy", "f1", "r2", "rmse", "mae", "loss")  # a run is judged by the first it has


def find(metric: str) -> Measure:
    """What a metric is, by the last words of its name; the title keeps the words before them.

    >>> find("val_perplexity").better, find("grad_norm").better, find("my_score").better
    ('min', 'min', 'max')
    >>> find("head0_rmse").title
    'head0 RMSE'

    A cell of the confusion matrix counts right answers on the diagonal and wrong ones beside it.

    >>> find("val_confusion_matrix_1_1").better, find("val_confusion_matrix_0_1").better
    ('max', 'min')
    """
    what = split_of(metric)[1]
    cell = re.fullmatch(r"(.*confusion_matrix)_(\d+)_(\d+)", what)
    if cell:
        better: Better = "max" if cell[2] == cell[3] else "min"
        return Measure(what.replace("_", " "), better)
    words = re.split("[_ ]", what)
    for first in range(len(words)):
        known = MEASURES.get("_".join(words[first:]))
        if known:
            return replace(known, title=" ".join([*words[:first], known.title]))
    return Measure(" ".join(words), "max")


def split_of(metric: str) -> tuple[str, str]:
    """The split a metric was measured on, and what it measures.

    >>> split_of("val_accuracy"), split_of("lr")
    (('val', 'accuracy'), ('', 'lr'))
    """
    split, _, rest = metric.partition("_")
    return (split, rest) if split in _SPLITS and rest else ("", metric)


def title(metric: str) -> str:
    """The metric in words.

    >>> title("val_accuracy"), title("test_rmse"), title("grad_norm")
    ('Validation accuracy', 'Test RMSE', 'Gradient norm')
    """
    split, words = split_of(metric)[0], find(metric).title
    text = f"{_SPLITS[split]} {words}" if split else words
    return text[:1].upper() + text[1:]


def is_percent(metric: str) -> bool:
    """Whether a metric is a fraction that people read as a percentage."""
    return find(metric).percent


def better_is(metric: str) -> Better:
    """``"min"`` or ``"max"``: the direction in which a metric improves; ``"max"`` where neither is
    known to be better.

    >>> better_is("val_perplexity"), better_is("val_accuracy")
    ('min', 'max')
    """
    return find(metric).better or "max"


def sign(metric: str) -> int:
    """1 where less is better, else -1: of two values the one whose product with it is smaller is
    better."""
    return 1 if better_is(metric) == "min" else -1


def show(metric: str, value: Any) -> str:
    """A value as people read it.

    >>> show("val_accuracy", 0.98123), show("val_loss", 0.0712345), show("lr", 3e-5), show("val_loss", float("nan"))
    ('98.12 %', '0.0712', '3e-05', 'not finite')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if not math.isfinite(value):
        return "not finite"
    measure = find(metric)
    if measure.unit == "s":
        return duration(value)
    if measure.percent:
        return f"{100 * value:.2f} %"
    return f"{value:,}" if isinstance(value, int) else number(value)


def number(value: float) -> str:
    """Three significant digits, four from ten on; thousands apart.

    >>> number(0.1), number(12.3456), number(12345.6), number(0.0), number(3e-5)
    ('0.100', '12.35', '12,346', '0', '3e-05')
    """
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e7 else f"{value:.3g}"
    if size < 1e-4:
        return f"{value:.3g}"
    return f"{value:#.4g}".rstrip(".") if size >= 10 else f"{value:#.3g}"


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(0.84), duration(12.34), duration(125), duration(7260)
    ('0.8 s', '12 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def judged_by(metrics: Iterable[str]) -> str | None:
    """What a run is judged by among the metrics it has, without their split.

    >>> judged_by(["val_loss", "val_accuracy", "lr"])
    'accuracy'
    """
    measured = {what for split, what in map(split_of, metrics) if split}
    ranked = [judge for judge in _JUDGES if judge in measured]
    ranked += sorted(what for what in measured if what.endswith(_JUDGES))
    return next(iter(ranked + sorted(measured)), None)


def best(rows: Iterable[Mapping[str, Any]], metric: str) -> Mapping[str, Any] | None:
    """The row with the best value of a metric; what is not finite is never best, and the earliest
    of equals is.

    >>> best([{"a_loss": 2.0}, {"a_loss": float("nan")}, {"a_loss": 1.0}], "a_loss")
    {'a_loss': 1.0}
    """
    finite = [
        row
        for row in rows
        if isinstance(row.get(metric), int | float) and math.isfinite(row[metric])
    ]
    direction = sign(metric)
    return min(finite, key=lambda row: direction * row[metric], default=None)
