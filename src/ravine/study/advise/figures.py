"""The pictures and the page of advice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ravine.report.sheets import image_sheet
from ravine.study.directory import Study
from ravine.study.page import Page, PageTable
from ravine.study.panels import CAPTION, COLOURS, FAINT, INK, panels, style

_NAMES = {
    "optimal": "possible",
    "train": "training",
    "train_dev": "training, held out",
    "validation": "validation",
    "test": "test",
}


def page_of(study: Study, summary: dict[str, Any], inputs: np.ndarray | None) -> Page:
    figures = {"errors": ("Errors from the possible to the test data", errors_figure(summary))}
    if inputs is not None and inputs.ndim == 4 and summary["mistakes"]:
        figures["mistakes"] = (
            "Worst mistakes on validation data: target > predicted",
            mistakes_figure(summary["mistakes"], inputs),
        )
    tables = [
        PageTable("What to do next", summary["next"]),
        PageTable("Error decomposition", _shown(summary), best=None),
    ]
    if summary["confusions"]:
        tables.append(PageTable("Most common confusions", summary["confusions"], best=None))
    if summary["mistakes"]:
        tables.append(
            PageTable("Worst mistakes (mistakes.csv)", summary["mistakes"][:20], best=None)
        )
    known = {
        name: summary["errors"][key]
        for key, name in _NAMES.items()
        if summary["errors"][key] is not None
    }
    levels = "; ".join(f"{name} {_show(summary, value)}" for name, value in known.items())
    wrong = (
        f"{summary['wrong']} of {summary['of']} validation samples are wrong. "
        if summary["errors"]["unit"] == "error"
        else "Errors are root mean squares in the target's unit. "
    )
    return Page(
        title=f"Advice for {study.recipe.name}",
        sentences=[
            *_answer(summary),
            f"Errors: {levels}.",
            f"{wrong}{_noise(summary)}",
        ],
        figures=figures,
        tables=tables,
        reading=[
            "Bias and variance may both be large: the shares say where most of the error is.",
            "Work on the first large step of the staircase: the errors to its right cannot fall below it.",
            "Without a human or target level the irreducible error counts as bias: give one where you can.",
            "Tag each mistake by its cause (blurred, mislabelled, rare). The tag that holds most is the next project.",
        ],
    )


def _answer(summary: dict[str, Any]) -> list[str]:
    """What is large and what to do about it; bias and variance together where both are."""
    steps, diagnosis = summary["next"], summary["diagnosis"]
    both = [step for step in steps if "share" in step]
    found = f"The doctor calls the run {diagnosis['verdict']}: {diagnosis['why']}."
    if len(both) < 2 or diagnosis["findings"]:
        first = steps[0]
        return [f"{first['problem'][0].upper()}{first['problem'][1:]}. Next: {first['do']}.", found]
    bias, variance = both
    return [
        found,
        f"High bias and high variance: bias is {_show(summary, summary['bias'])} ({bias['share']} of the two), "
        f"variance {_show(summary, summary['variance'])} ({variance['share']}).",
        f"Against bias: {bias['do']}. Against variance: {variance['do']}.",
    ]


def _noise(summary: dict[str, Any]) -> str:
    """How large a gap may be by chance, and of what."""
    noise = summary["noise_of"]
    said = f"Gaps smaller than {_show(summary, summary['noise'])} are within {noise['words']}"
    if noise["of_seeds"] is None:
        return f"{said}; what another seed would change is not known (give runs of other seeds as further runs)."
    parts = (_show(summary, noise[name]) for name in ("of_samples", "of_seeds"))
    return f"{said} ({' and '.join(parts)})."


def _show(summary: dict[str, Any], value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if summary["errors"]["unit"] == "error" else f"{value:.4g}"


def _shown(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**row, "size": _show(summary, row["size"])} for row in summary["parts"]]


def errors_figure(summary: dict[str, Any]) -> Figure:
    """A staircase of errors, the gaps written on it."""
    errors = summary["errors"]
    names = [name for name in _NAMES if errors[name] is not None]
    scale = 100 if errors["unit"] == "error" else 1
    values = [scale * errors[name] for name in names]
    with style():
        figure, (axes,) = panels(1, 1, 1.2 + 1.05 * len(names), 3.0)
        axes.bar(
            range(len(names)),
            values,
            color=[FAINT if name == "optimal" else COLOURS[0] for name in names],
            width=0.6,
        )
        for i, value in enumerate(values):
            axes.annotate(
                f"{value:.3g}",
                (i, value),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=CAPTION,
            )
            if i:
                gap = value - values[i - 1]
                axes.annotate(
                    f"{gap:+.3g}",
                    (i - 0.5, max(value, values[i - 1])),
                    (0, 14),
                    textcoords="offset points",
                    ha="center",
                    color=INK,
                    fontweight="bold",
                )
        axes.set_xticks(range(len(names)), [_NAMES[name].replace(", ", ",\n") for name in names])
        axes.set_ylabel("Error in %" if errors["unit"] == "error" else "Root mean square error")
        axes.margins(y=0.2)
    return figure


def mistakes_figure(rows: list[dict[str, Any]], inputs: np.ndarray, columns: int = 8) -> Figure:
    """Inputs with their target and what was predicted, the worst first."""
    lines = []
    for start in range(0, min(len(rows), 4 * columns), columns):
        part = rows[start : start + columns]
        captions = [f"{row['target']} > {row['predicted']}" for row in part]
        lines.append(
            (
                f"loss {part[0]['loss']:.2g}" if math.isfinite(part[0]["loss"]) else "",
                inputs[start : start + len(part)],
                captions,
            )
        )
    with style():
        return image_sheet(lines, "")
