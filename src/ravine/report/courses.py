"""The course of measurements over training: gathered from run directories, aligned, smoothed,
summarised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ravine import measures
from ravine.rundir import RunDir

MOST = 3000  # points on a common x
COLOURED = 100  # members that are drawn one by one where a hue tells them apart
FEW = 8  # members that are still drawn one by one


@dataclass(frozen=True)
class CourseGroup:
    """Members drawn together: values [members, points] over x [points], NaN where a member has
    none."""

    label: str
    x: np.ndarray
    values: np.ndarray

    @property
    def size(self) -> int:
        return len(self.values)


def gather(members: Any, metric: str, *, x: str = "epoch", label: str = "") -> CourseGroup:
    """The course of a metric for a run directory, or for (run directory, member) pairs, on a common
    x; of long runs about 1,500 points."""
    courses = []
    column = {"step": 0, "epoch": 1, "seconds": 2}[x]
    for run, member in _pairs(members):
        found = run.course(member, metric)
        courses.append((found[:, column], found[:, 3]))
    grid = np.unique(np.concatenate([at for at, _ in courses])) if courses else np.empty(0)
    if len(grid) > MOST or (x == "seconds" and len(grid) > 400):
        grid = np.linspace(grid[0], grid[-1], 400 if x == "seconds" else MOST)
    if not len(grid):
        return CourseGroup(label, grid, np.empty((len(courses), 0)))
    return CourseGroup(label, grid, np.array([_at(grid, *course) for course in courses]))


def gather_steps(run: RunDir, points: int = 600) -> CourseGroup:
    """The running mean of each member's step losses over 4 % of the run, at about ``points``
    steps."""
    losses = [run.steps(member) for member in range(len(run.recipes))]
    steps = max(map(len, losses))
    if steps == 0:
        return CourseGroup("", np.empty(0), np.empty((len(losses), 0)))
    at = np.unique(np.linspace(0, steps - 1, min(steps, points)).astype(int))
    values = np.full((len(losses), len(at)), np.nan)
    for row, loss in zip(values, losses, strict=True):
        there = at < len(loss)
        row[there] = smoothed(loss, max(1, steps // 25), at[there])
    return CourseGroup("", at + 1, values)


def smoothed(values: np.ndarray, width: int, at: np.ndarray | None = None) -> np.ndarray:
    """The centred running mean over ``width`` values, fewer at the ends; NaN counts for nothing. Of
    all places, or ``at`` some."""
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.arange(len(values) + 1) if known.all() else np.concatenate([[0], np.cumsum(known)])
    i = np.arange(len(values)) if at is None else at
    reach = np.minimum(np.minimum(i, len(values) - 1 - i), width // 2)
    low, high = i - reach, i + reach + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (total[high] - total[low]) / (count[high] - count[low])
    return np.where(known[i], mean, np.nan)


def _pairs(members: Any) -> list[tuple[RunDir, int]]:
    if isinstance(members, RunDir | str | Path):
        members = [members]
    opened: dict[str, RunDir] = {}

    def run_of(directory: Any) -> RunDir:
        if isinstance(directory, RunDir):
            return directory
        return opened.setdefault(
            str(directory), opened.get(str(directory)) or RunDir.open(directory)
        )

    pairs: list[tuple[RunDir, int]] = []
    for item in members if isinstance(members, Iterable) else [members]:
        if isinstance(item, RunDir | str | Path):
            run = run_of(item)
            pairs += [(run, member) for member in range(len(run.recipes))]
        else:
            directory, member = item if isinstance(item, tuple) else (item.directory, item.member)
            pairs.append((run_of(directory), member))
    return pairs


def _at(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if len(x) == 0:
        return np.full(len(grid), np.nan)
    return np.interp(grid, x, y, left=np.nan, right=np.nan)


def envelope(losses: np.ndarray, points: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least and the largest loss in each of ``points`` stretches of steps, and the steps (from
    1) they begin at."""
    edges = np.unique(np.linspace(0, len(losses), min(points, len(losses)) + 1).astype(int))[:-1]
    filled = np.where(np.isfinite(losses), losses, np.nan)
    low = np.fmin.reduceat(filled, edges)
    return low, np.fmax.reduceat(filled, edges), edges + 1


def confidence(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Half the width of the mean's confidence interval over axis 0, by Student's t; NaN with fewer
    than two values."""
    from scipy.special import stdtrit

    count = np.isfinite(values).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, 0) / count
        spread = np.sqrt(np.nansum((values - mean) ** 2, 0) / (count - 1))
        return np.where(
            count > 1, stdtrit(count - 1, 0.5 + level / 2) * spread / np.sqrt(count), np.nan
        )


def quantiles(values: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Quantiles over the members that have a finite value."""
    here = np.isfinite(values).any(0)
    found = np.full((len(levels), values.shape[1]), np.nan)
    found[:, here] = np.nanpercentile(
        np.where(np.isfinite(values[:, here]), values[:, here], np.nan), levels, axis=0
    )
    return found


def series(run: RunDir, what: str, x: str) -> Iterator[dict[str, Any]]:
    """The lines to draw for what was measured: both splits of a metric, or one quantity of
    training."""
    if what == "step_loss":
        yield from _lines(gather_steps(run), "train", what)
        return
    names = run.metrics
    for name, split in ((f"train_{what}", "train"), (f"val_{what}", "val"), (what, "")):
        if name in names:
            yield from _lines(gather(run, name, x=x), split, name)


def _lines(group: CourseGroup, split: str, name: str) -> Iterator[dict[str, Any]]:
    common = {
        "split": split,
        "metric": name,
        "title": measures.title(name),
        "percent": measures.is_percent(name),
    }
    if group.size > FEW:
        low, middle, high = quantiles(group.values, (5, 50, 95))
        yield {
            **common,
            "label": f"median of {group.size}",
            "x": group.x,
            "y": middle,
            "low": low,
            "high": high,
        }
        return
    for member, values in enumerate(group.values):
        yield {
            **common,
            "label": f"member {member}" if group.size > 1 else "",
            "x": group.x,
            "y": values,
        }


def member_lines(
    run: RunDir, metric: str, hues: Sequence[float | None]
) -> Iterator[dict[str, Any]]:
    """A line for each member, with the hue [0, 1] of its hyper-parameter; none of many members."""
    if len(hues) > COLOURED:
        return
    group = gather(run, metric)
    for line, hue, values in zip(range(group.size), hues, group.values, strict=True):
        common = {"split": "val", "metric": metric, "percent": measures.is_percent(metric)}
        yield {**common, "label": f"member {line}", "x": group.x, "y": values, "hue": hue}
