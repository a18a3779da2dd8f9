"""What measures the loss at many points of a network's parameter space, in the way that is fastest
here: found by trying."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ravine.data.pipeline import Pipeline
from ravine.data.source import Batch
from ravine.engine.execution import timing
from ravine.engine.points import Points
from ravine.engine.programs import Model
from ravine.recipe import Recipe
from ravine.study.landscape.grouped import Grouped

ALONE = "one at a time"
TOGETHER = (8, 64)  # rows of networks that run as products over all members
GROUPED = (2, 4, 8)  # rows, and more, of convolutional networks that run as grouped convolutions


@dataclass
class Instrument:
    """Measures points of a run's network; ``way`` says how many together, and how."""

    recipe: Recipe
    pipeline: Pipeline
    module: Model
    buffers: Mapping[str, Tensor]
    _made: dict[str, Points] = field(default_factory=dict)

    def points(self, way: str) -> Points:
        """``"one at a time"``, ``"64 together"`` or ``"4 by grouped convolutions"``."""
        if way not in self._made:
            width = 1 if way == ALONE else int(way.split()[0])
            points = Points(
                self.recipe, self.pipeline, self.module, buffers=self.buffers, width=width
            )
            if way.endswith("convolutions"):
                points.outputs = Grouped(points.population)
            self._made[way] = points
        return self._made[way]

    def ways(self, most: int) -> list[str]:
        """One at a time, and those ways that this network can take, of at most so many points."""
        alone = self.points(ALONE)
        if Grouped.takes(alone.population.objectives[0].model):
            found = [
                f"{_even(width, most)} by grouped convolutions"
                for width in GROUPED
                if width <= most
            ]
        else:
            pair = Points(self.recipe, self.pipeline, self.module, width=2)
            widths = TOGETHER if pair.execution.kind.together else ()
            found = [
                f"{_even(min(width, most), most)} together"
                for width in widths
                if min(width, most) > 1
            ]
        return list(dict.fromkeys([ALONE, *found]))

    def fastest(self, theta: Tensor, batches: Sequence[Batch]) -> dict[str, Any]:
        """The way that takes the least time for all these points, and the seconds a point of each.
        One at a time stays unless another way is plainly faster."""
        ways, few = self.ways(len(theta)), list(batches[:1])
        entered: list[Points] = []

        def apply(way: str) -> None:
            entered[:] = [self.points(way)]

        def step() -> None:
            entered[0].measure(theta[: entered[0].width], few)

        def units(way: str) -> float:
            """Points a step, the last turn's empty rows among its costs."""
            return len(theta) / math.ceil(len(theta) / self.points(way).width)

        place, least = timing.fastest(ways, apply, step, units)
        return {"way": ways[place], "seconds a point": dict(zip(ways, least, strict=True))}


def _even(width: int, most: int) -> int:
    """The width from this one to less than twice it that leaves the fewest rows of the last turn
    empty.

    >>> _even(4, 25), _even(2, 25), _even(64, 25)
    (5, 2, 25)
    """
    widths = range(min(width, most), min(2 * width, most + 1))
    return min(widths or [most], key=lambda w: (-most % w, w))
