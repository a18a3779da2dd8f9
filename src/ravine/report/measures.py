"""What a measured number is called, in which unit it is shown, and which way it improves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_WORDS = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
}
_PERCENT = ("accuracy", "error", "error_rate", "precision", "recall", "f1")
_LOWER_IS_BETTER = ("loss", "error", "error_rate", "rmse", "mae", "mse", "norm")
_FIRST = (
    "accuracy",
    "f1",
    "r2",
    "rmse",
    "mae",
    "loss",
)  # the metric a run is judged by: the first of these it has


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
    split, what = split_of(metric)
    words = _WORDS.get(what, what.replace("_", " "))
    text = f"{_SPLITS[split]} {words}" if split else words
    return text[:1].upper() + text[1:]


def is_percent(metric: str) -> bool:
    """Whether a metric is a fraction that people read as a percentage."""
    return split_of(metric)[1].endswith(_PERCENT)


def better_is(metric: str) -> str:
    """``"min"`` or ``"max"``: the direction in which a metric improves."""
    return "min" if metric.endswith(_LOWER_IS_BETTER) else "max"


def show(metric: str, value: Any) -> str:
    """A value as people read it.

    >>> show("val_accuracy", 0.98123), show("val_loss", 0.0712345), show("lr", 3e-5), show("val_loss", float("nan"))
    ('98.12 %', '0.0712', '3e-05', 'not finite')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if not math.isfinite(value):
        return "not finite"
    if metric in ("seconds", "best_seconds"):
        return duration(value)
    if is_percent(metric):
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
    ranked = [first for first in _FIRST if first in measured]
    ranked += sorted(what for what in measured if what.endswith(_FIRST))
    return next(iter(ranked + sorted(measured)), None)


def best(
    rows: Iterable[Mapping[str, Any]], metric: str, better: str | None = None
) -> Mapping[str, Any] | None:
    """The row with the best value of a metric; what is not finite is never best, and the earliest
    of equals is.

    >>> best([{"a_loss": 2.0}, {"a_loss": float("nan")}, {"a_loss": 1.0}], "a_loss")
    {'a_loss': 1.0}
    """
    sign = 1 if (better or better_is(metric)) == "min" else -1
    finite = [
        row
        for row in rows
        if isinstance(row.get(metric), int | float) and math.isfinite(row[metric])
    ]
    return min(finite, key=lambda row: sign * row[metric], default=None)
