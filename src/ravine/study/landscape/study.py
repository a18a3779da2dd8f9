"""Loss landscapes: the loss on a grid of parameter vectors, each point a row of theta, evaluated
many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, Unpack

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ravine.catalogue import Count, Positive, Whole, durations
from ravine.data.source import Batch
from ravine.engine import snapshot
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.layout import Layout
from ravine.rundir import RunDir
from ravine.study import measuring
from ravine.study.declare import Common, Conclusion, study
from ravine.study.directory import Study
from ravine.study.landscape.directions import filter_normalised, principal, roughness
from ravine.study.landscape.figures import page_of, write_interactive
from ravine.study.landscape.instrument import ALONE, Instrument
from ravine.study.live import LiveTable
from ravine.study.signature import Split


@dataclass(frozen=True)
class Solution:
    """A trained network as a point: its weights [D], its buffers, and where to measure."""

    run: Run
    theta: Tensor
    buffers: dict[str, Tensor]
    layout: Layout
    instrument: Instrument
    batches: list[Batch]


@dataclass(frozen=True)
class Grid:
    """Coordinates of a surface; ``at(i)`` gives the points of its i-th line [points, D]."""

    x: np.ndarray
    y: np.ndarray  # one value for a line
    at: Callable[[int], Tensor]
    # [points, ...] of a line, where they change along it
    buffers: dict[str, Tensor] = field(default_factory=dict)


@study
def landscape(
    study: Study,
    run: Run,
    other: Run | None = None,
    *,
    kind: Literal["plane", "line", "between", "path"] = "plane",
    points: Annotated[int, Field(strict=True, ge=3)] = 25,
    reach: Positive = 1.0,
    split: Split = "train",
    samples: Count = 1000,
    seed: Whole = 0,
    **common: Unpack[Common],
) -> Conclusion:
    """The loss around one or two trained networks: lines, planes, interpolation, the training
    path.

    ``plane``: ``points`` x ``points`` along two random directions, normalised filter by filter,
    from -``reach`` to ``reach``. ``line``: one such direction. ``between``: the straight line from
    ``run`` to ``other``, from half its length before to half after. ``path``: the plane of the two
    principal directions of the training path, which is trained again from the run's recipe. With
    ``other``, planes and lines of both are drawn side by side on the same samples and scale. The loss
    is measured on the first ``samples`` of a part of the data, in evaluation mode, with the running
    statistics as they are (``between``: they change along with the weights). The fastest way to
    evaluate many points together is found by trying.

    Args:
        kind: What is drawn around or between the runs.
        points: Points along each direction.
        reach: How far, in sizes of the filters.
        split: The part of the data on which the loss is measured.
        samples: Samples on which the loss is measured.
        seed: Of the random directions.

    Source: Goodfellow et al. (interpolation), 2015; Li et al., 2018.
    """
    runs = [one for one in (run, other) if one is not None]
    if kind == "between" and len(runs) < 2:
        raise InputError(
            "landscape",
            got="one run",
            expected="two runs to go between",
            repair="name the other run too",
        )
    solutions = [_solution(r, study.data, split, samples) for r in runs]
    grids: list[tuple[Grid, dict[str, Any] | None]]
    if kind == "between":
        grids = [(_between(solutions, points), None)]
    elif kind == "path":
        grids = [_path_grid(study, solutions[0], points)]
    else:
        grids = [
            (_random_grid(one, points, reach, seed, kind == "plane"), None) for one in solutions
        ]
    found = [_surface(study, solutions[i], grid, i, extra) for i, (grid, extra) in enumerate(grids)]
    return _conclude(study, solutions, found)


def _solution(run: Run, data: Any, split: str, samples: int) -> Solution:
    slots = run.slots
    buffers = {
        name.removeprefix("final_buffer/"): value
        for name, value in slots.items()
        if name.startswith("final_buffer/")
    }
    recipe = (
        run.recipe
        if run.recipe.precision == "float64"
        else run.recipe.edit({"precision": "float32"})
    )
    pipeline = measuring.pipeline_of(recipe, data)
    measuring.need(pipeline, split)
    instrument = Instrument(
        recipe, pipeline, run._module if callable(run._module) else None, buffers
    )
    batches = list(pipeline.split(split, limit=samples, batch=250))
    return Solution(run, run.theta, buffers, run.layout, instrument, batches)


# --- grids ----------------------------------------------------------------------------------------


def _random_grid(solution: Solution, points: int, reach: float, seed: int, plane: bool) -> Grid:
    x = np.linspace(-reach, reach, points)
    first = filter_normalised(solution.theta, solution.layout, seed, 0)
    second = filter_normalised(solution.theta, solution.layout, seed, 1)
    y = x if plane else np.zeros(1)
    return Grid(
        x,
        y,
        lambda i: (
            solution.theta + torch.from_numpy(x).to(first)[:, None] * first + float(y[i]) * second
        ),
    )


def _between(solutions: Sequence[Solution], points: int) -> Grid:
    one, other = solutions
    if one.layout != other.layout:
        raise InputError(
            "landscape", got="two networks of different shapes", expected="runs of the same model"
        )
    x = np.linspace(-0.5, 1.5, points)
    t = torch.from_numpy(x)

    def between(a: Tensor, b: Tensor, t: Tensor) -> Tensor:  # [points, ...]
        if not a.is_floating_point():
            return a.expand(points, *a.shape)
        return a + t.to(a).view(-1, *[1] * a.dim()) * (b - a)

    buffers = {
        name: between(value, other.buffers[name], t.clamp(0, 1))
        for name, value in one.buffers.items()
    }
    return Grid(x, np.zeros(1), lambda i: between(one.theta, other.theta, t), buffers)


def _path_grid(study: Study, solution: Solution, points: int) -> tuple[Grid, dict[str, Any]]:
    """Train the recipe again, keep its weights on the way, and span the plane in which the path
    mostly runs."""
    recipe = study.recipe
    amount, unit = durations.parse(recipe.stop.after)
    steps = min(int(amount), 50) if unit == "ep" else 20
    places = [f"{float(amount * k / steps):.6g}{unit}" for k in range(steps + 1)]
    with LiveTable(f"path of {recipe.name}", "val_loss", 1, quiet=study.quiet) as live:
        runs = study.train(
            "path", [recipe], trace=places, report=live.stage("path", [recipe], [{}])
        )
    path = torch.cat(
        [
            snapshot.read(place)[0]["theta"]
            for place in RunDir.open(runs[0].directory).trace_snapshots(0)
        ]
    )
    directions, places_on, explained = principal(path)
    low, high = places_on.min(0).values, places_on.max(0).values
    pad = 0.2 * (high - low).clamp_min(1e-6)
    x, y = (np.linspace(float(low[i] - pad[i]), float(high[i] + pad[i]), points) for i in (0, 1))
    end = path[-1]
    grid = Grid(
        x,
        y,
        lambda i: (
            end + torch.from_numpy(x).to(end)[:, None] * directions[0] + float(y[i]) * directions[1]
        ),
    )
    return grid, {"path": places_on.tolist(), "explained": explained}


# --- measuring ------------------------------------------------------------------------------------


def _surface(
    study: Study, solution: Solution, grid: Grid, number: int, extra: dict[str, Any] | None
) -> dict[str, Any]:
    """Every line of the grid, each computed once; the speed of packed against single evaluation."""
    speed = study.once(
        f"surface-{number}/speed", lambda: solution.instrument.fastest(grid.at(0), solution.batches)
    )
    places = [f"surface-{number}/line-{i:03d}" for i in range(len(grid.y))]
    lines = [
        study.once(place, partial(_line, solution, grid, i, speed["way"]))
        for i, place in enumerate(places)
    ]
    loss = np.array([[np.nan if v is None else v for v in line["loss"]] for line in lines])
    names = [name for name in lines[0] if name != "loss"]
    name, place = solution.run.recipe.name, solution.run.directory.name
    return {
        "name": name if name == place else f"{name} ({place})",
        "x": grid.x,
        "y": grid.y,
        "loss": loss,
        **{name: [line[name] for line in lines] for name in names},
        "roughness": round(roughness(loss), 6),  # what is left of 0 is rounding
        "speed": speed,
        **(extra or {}),
    }


def _line(solution: Solution, grid: Grid, i: int, way: str) -> dict[str, Any]:
    found = solution.instrument.points(way).measure(
        grid.at(i), solution.batches, buffers=grid.buffers
    )
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


def _conclude(
    study: Study, solutions: Sequence[Solution], found: list[dict[str, Any]]
) -> Conclusion:
    folder = study.path / "figures"
    folder.mkdir(exist_ok=True)
    pictures = (
        [write_interactive(folder, study.recipe.name, found)] if len(found[0]["y"]) > 1 else []
    )
    samples = sum(len(batch.y) for batch in solutions[0].batches)
    summary = {
        "landscape": study.options["kind"],
        "split": study.options["split"],
        "samples": samples,
        "surfaces": [
            {
                "name": one["name"],
                "roughness": one["roughness"],
                "least loss": float(np.nanmin(one["loss"])),
                "largest loss": float(np.nanmax(one["loss"])),
                "not finite": int((~np.isfinite(one["loss"])).sum()),
                "evaluated": one["speed"]["way"],
                "seconds a point": one["speed"]["seconds a point"][one["speed"]["way"]],
                "seconds a point, one at a time": one["speed"]["seconds a point"][ALONE],
            }
            for one in found
        ],
        "grids": found,
    }
    return summary, page_of(study, summary, found, pictures)
