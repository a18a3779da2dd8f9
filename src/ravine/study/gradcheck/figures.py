"""The picture of a gradient check: relative errors by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ravine.study.panels import (
    CAPTION,
    COLOURS,
    DASHES,
    INK,
    brief,
    legend,
    log_axis,
    panels,
    style,
)

MOST = 40


def errors_figure(table: Sequence[dict[str, Any]], good: float, fair: float) -> Figure:
    """The largest and the median relative error of each tensor, the worst first; two limits
    marked."""
    table = [
        {
            **row,
            **{
                n: row[n] if row[n] is not None else np.inf
                for n in ("relative error", "median error")
            },
        }
        for row in table
    ]
    rows = sorted(table, key=lambda row: -row["relative error"])[:MOST]
    with style():
        figure, (axes,) = panels(1, 1, 5.6, 0.9 + 0.22 * len(rows))
        y = np.arange(len(rows))
        axes.plot(
            [max(row["relative error"], 1e-14) for row in rows],
            y,
            "o",
            color=COLOURS[0],
            ms=4.5,
            label="largest",
        )
        axes.plot(
            [max(row["median error"], 1e-14) for row in rows],
            y,
            "|",
            color=INK,
            ms=8,
            label="median",
        )
        log_axis(axes)
        for limit, label, i in ((good, "right below", 0), (fair, "right at kinks below", 1)):
            axes.axvline(
                limit,
                color=(INK, COLOURS[1])[i],
                ls=DASHES[i + 1],
                lw=1.2,
                label=f"{label} {brief(limit)}",
            )
        axes.set_yticks(y, [f"{row['tensor']} ({row['point']})" for row in rows], fontsize=CAPTION)
        axes.invert_yaxis()
        axes.set_xlabel("relative error")
        legend(axes, 2)
    return figure
