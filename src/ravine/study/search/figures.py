"""The pictures and the page of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from ravine import measures
from ravine.report.overview import show_value
from ravine.study.directory import Study
from ravine.study.page import Page, PageTable, cell
from ravine.study.panels import (
    COLOURS,
    DASHES,
    MARKERS,
    legend,
    log_axis,
    metric_axis,
    panels,
    scaled,
    style,
)
from ravine.study.search.trials import Trial

SHOWN = 6


def page_of(study: Study, summary: dict[str, Any], trials: Sequence[Trial], metric: str) -> Page:
    chosen, default = summary["chosen"], summary["default"]
    values = ", ".join(f"{path} = {show_value(value)}" for path, value in chosen["values"].items())
    best, before = cell(chosen[metric], metric), cell(default[metric], metric)
    test = [
        f"{measures.title(name)} {cell(value, name)}"
        for name, value in chosen.items()
        if name.startswith("test_")
    ]
    rounds = [
        {"method": name, "round": number + 1, "distributions": "; ".join(drawn_from)}
        for name, spaces in summary["spaces"].items()
        for number, drawn_from in enumerate(spaces)
    ]
    tables = [
        PageTable(
            "The best on fresh seeds",
            _sorted(summary["finals"], metric),
            "Mean ± standard deviation over the seeds.",
        ),
        PageTable("All configurations, best first", summary["table"]),
        PageTable("What each round drew from", rounds, best=None),
    ]
    if len(summary["methods"]) > 1:
        tables.insert(0, PageTable("Methods", summary["methods"], best=None))
    return Page(
        title=f"Search of {study.recipe.name}",
        sentences=[
            f"{measures.title(metric)} {best} with {values}; {before} with the recipe as it was."
            if values
            else f"The recipe as it was is kept: {measures.title(metric).lower()} {best}.",
            *_judgement(summary, metric),
            f"{summary['runs']} configurations were tried{_time(summary)}; the best two of each method ran "
            f"again on {summary['finals'][0]['seeds']} fresh seeds, and the best of these on average was chosen.",
            *([f"Measured on the test data, once: {', '.join(test)}."] if test else []),
        ],
        figures={
            **field_figures(trials, metric, summary["spaces"]),
            "progress": ("Best so far", progress_figure(trials, metric)),
        },
        tables=tables,
        reading=[
            "A cloud that slopes or narrows says that the field matters; one that is level says that it does not.",
            "Later rounds crowd where earlier ones were best. If they crowd at the edge of a field's range, widen the range.",
            "Trust the fresh seeds, not the best of the search: the maximum of many noisy numbers is too good.",
        ],
    )


def _judgement(summary: dict[str, Any], metric: str) -> list[str]:
    """What the fresh seeds say against the best of the search."""
    found = []
    rejected = summary["not confirmed"]
    if rejected:
        values = ", ".join(f"{path} = {show_value(v)}" for path, v in rejected["values"].items())
        found.append(
            f"Another architecture was better in the search, but the fresh seeds do not confirm it "
            f"(p = {rejected['p']:.2g}), so it is not kept: {values}."
        )
    sign = 1 if measures.better_is(metric) == "min" else -1
    if sign * (summary["chosen"][metric][0] - summary["default"][metric][0]) > 0:
        found.append(
            "On fresh seeds the recipe as it was is the better one: keep it, or search elsewhere."
        )
    return found


def _time(summary: dict[str, Any]) -> str:
    minutes = summary["minutes"]
    return f" within {minutes:g} minute{'s' * (minutes != 1)}" if minutes else ""


def _sorted(rows: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    sign = 1 if measures.better_is(metric) == "min" else -1
    return sorted(
        rows,
        key=lambda row: sign * row[metric][0] if row[metric][0] == row[metric][0] else math.inf,
    )


def field_figures(
    trials: Sequence[Trial], metric: str, spaces: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, tuple[str, Figure]]:
    """The metric against each varied field; rounds and methods differ in colour and marker. A figure
    for each, so that a narrow page shows them one below the other."""
    paths = list(dict.fromkeys(path for trial in trials for path in trial.values))[:SHOWN]
    groups = list(dict.fromkeys((trial.method, trial.round) for trial in trials))
    found = {}
    for path in paths:
        with style():
            figure, (axes,) = panels(1, 1, 4.2, 2.9)
            for i, group in enumerate(groups):
                own = [t for t in trials if (t.method, t.round) == group and path in t.values]
                label = f"{group[0]}, round {group[1] + 1}" if len(groups) > 1 else None
                _cloud(axes, path, trials, own, metric, i, label)
            if _spread(path, trials, spaces):
                log_axis(axes)
            elif not isinstance(axes.xaxis.get_major_locator(), FixedLocator):
                axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlabel(path)
            metric_axis(axes, metric)
            _crop(axes, scaled(metric, [trial.result.get(metric) for trial in trials]), metric)
            legend(axes, 2)
        found[f"field-{path}"] = (f"What {path} does", figure)
    return found


def _cloud(
    axes: Axes,
    path: str,
    everyone: Sequence[Trial],
    own: Sequence[Trial],
    metric: str,
    i: int,
    label: str | None,
) -> None:
    x = [t.values[path] for t in own]
    y = scaled(metric, [t.result.get(metric) for t in own])
    numbers = all(
        isinstance(t.values[path], int | float) and not isinstance(t.values[path], bool)
        for t in everyone
        if path in t.values
    )
    if not numbers:
        names = sorted({show_value(t.values[path]) for t in everyone if path in t.values})
        jitter = np.linspace(-0.2, 0.2, len(x)) if len(x) > 1 else np.zeros(len(x))
        x = [names.index(show_value(value)) + shift for value, shift in zip(x, jitter, strict=True)]
        axes.set_xticks(range(len(names)), names, rotation=30 if sum(map(len, names)) > 24 else 0)
    axes.plot(
        x,
        y,
        MARKERS[i % len(MARKERS)],
        color=COLOURS[i % len(COLOURS)],
        ms=4.5,
        alpha=0.8,
        label=label,
        mfc="none" if i % 2 else None,
    )


def _spread(
    path: str, trials: Sequence[Trial], spaces: Mapping[str, Sequence[Sequence[str]]]
) -> bool:
    """Whether a field is seen best on a logarithmic axis: drawn evenly in the logarithm, or choices
    far apart."""
    drawn_from = [
        text.removeprefix(f"{path}=")
        for rounds in spaces.values()
        for text in rounds[0]
        if text.startswith(f"{path}=")
    ]
    if any(text.startswith("loguniform:") for text in drawn_from):
        return True
    values = [trial.values[path] for trial in trials if path in trial.values]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    chosen = all(text.startswith("choice:") for text in drawn_from)
    return chosen and numbers and min(values) > 0 and max(values) > 50 * min(values)


def progress_figure(trials: Sequence[Trial], metric: str) -> Figure:
    """The best value so far after each configuration, for each method."""
    better = np.fmin if measures.better_is(metric) == "min" else np.fmax
    with style():
        figure, (axes,) = panels(1, 1, 5.0, 3.0)
        shown = []
        for i, name in enumerate(dict.fromkeys(trial.method for trial in trials)):
            values = better.accumulate(
                scaled(metric, [t.result.get(metric) for t in trials if t.method == name])
            )
            axes.step(
                np.arange(1, len(values) + 1),
                values,
                where="post",
                color=COLOURS[i],
                ls=DASHES[i % len(DASHES)],
                label=name,
            )
            shown.append(values)
        _crop(axes, np.concatenate(shown), metric)
        axes.set_xlabel("configurations tried")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        metric_axis(axes, metric)
        legend(axes)
    return figure


def _crop(axes: Axes, values: np.ndarray, metric: str) -> None:
    """Leave out the worst tenth where it would flatten all the others."""
    finite = values[np.isfinite(values)]
    if len(finite) < 10:
        return
    least = measures.better_is(metric) == "min"
    near, far = (
        (finite.min(), np.percentile(finite, 80))
        if least
        else (finite.max(), np.percentile(finite, 20))
    )
    extreme = finite.max() if least else finite.min()
    if abs(extreme - near) > 3 * abs(far - near) > 0:
        pad = 0.08 * abs(far - near)
        axes.set_ylim((near - pad, far + 3 * pad) if least else (far - 3 * pad, near + pad))
