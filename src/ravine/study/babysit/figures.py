"""The picture of one batch overfitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ravine.study.panels import COLOURS, DASHES, FAINT, brief, legend, log_axis, panels, style


def overfit_figure(courses: Sequence[np.ndarray], rates: Sequence[float], goal: float) -> Figure:
    """The loss of one batch trained again and again, for several learning rates."""
    with style():
        figure, (axes,) = panels(1, 1, 4.6, 3.0)
        for i, (course, rate) in enumerate(zip(courses, rates, strict=True)):
            axes.plot(
                np.arange(1, len(course) + 1),
                np.maximum(course, 1e-8),
                color=COLOURS[i],
                ls=DASHES[i % len(DASHES)],
                label=f"lr {brief(rate)}",
            )
        axes.axhline(goal, color=FAINT, lw=0.8, ls=(0, (2, 2)), label="goal")
        log_axis(axes, "y")
        axes.set_xlabel("step")
        axes.set_ylabel("Loss of the one batch")
        legend(axes, 3)
    return figure
