"""All members that a study has trained, for its page: a line each, coloured by a hyper-parameter; parallel
coordinates; how much each field matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ravine import measures
from ravine.errors import RavineError
from ravine.recipe import fields
from ravine.report.overview import places, show_value, summarise, varying
from ravine.rundir import RunDir
from ravine.storage.files import plain

MOST = 200  # members that are drawn
LEAST = 8  # members from which importance is estimated
_POINTS = 200  # of a line
_AXES = 7


def members_of(path: Path) -> dict[str, Any]:
    """What the page draws of the runs under a study's directory; empty where fewer than two members
    were trained, or they differ in nothing but their seeds."""
    found = _members(path)
    paths = _fields([one["recipe"] for one in found])
    judges = {one["metric"] for one in found}
    if len(found) < 2 or not paths or len(judges) != 1:
        return {}
    metric = judges.pop()
    values = {p: [dict_of(one["recipe"]).get(p) for one in found] for p in paths}
    results = [one["result"] for one in found]
    matters = importance(values, results) if len(found) >= LEAST else {}
    ranked = sorted(paths, key=lambda p: -matters.get(p, 0.0))[:_AXES]
    hues = places(values[ranked[0]])
    lines = [
        {
            "name": f"{one['name']}, {ranked[0]} = {show_value(values[ranked[0]][i])}",
            "x": one["x"],
            "y": one["y"],
            "hue": 0.5 if hues[i] is None else hues[i],
            "percent": measures.is_percent(metric),
            "split": "val",
        }
        for i, one in enumerate(found)
        if one["x"]
    ]
    curve = {"title": measures.title(metric), "x": "epoch", "lines": lines}
    return plain(
        {
            "field": ranked[0],
            "curves": [curve],
            "parallel": _parallel(ranked, values, results, metric, found),
            "importance": [
                {"field": p, "part": matters[p]} for p in sorted(matters, key=lambda p: -matters[p])
            ],
        }
    )


def _fields(recipes: list[Any]) -> list[str]:
    """The fields in which recipes differ; a field that not all have, such as the momentum of one optimiser,
    follows from another."""
    paths = [path for path in varying(recipes) if path != "seed"] if recipes else []
    held = [dict_of(recipe) for recipe in recipes]
    return [path for path in paths if all(path in one for one in held)] or paths


def dict_of(recipe: Any) -> dict[str, Any]:
    return {path: value for path, value, _ in fields(recipe)}


def _members(path: Path) -> list[dict[str, Any]]:
    """The members of all stages: recipe, final result, course of what they are judged by."""
    found: list[dict[str, Any]] = []
    for place in sorted((path / "runs").glob("*")) if (path / "runs").is_dir() else []:
        try:
            with RunDir.open(place) as run:
                seen = summarise(run)
                metric = f"val_{seen.judged_by}"
                for member, row in enumerate(seen.members[: MOST - len(found)]):
                    course = run.course(member, metric, _POINTS)
                    found.append(
                        {
                            "name": f"{place.name} {member}",
                            "recipe": run.recipes[member],
                            "metric": metric,
                            "result": row.get(metric),
                            "x": course[:, 1].tolist(),
                            "y": course[:, 3].tolist(),
                        }
                    )
        except RavineError:
            continue  # a stage that was never begun
    return found


def importance(values: dict[str, list[Any]], results: list[float | None]) -> dict[str, float]:
    """The part of the results' variance that a random forest gives to each field (Hutter et al., "An
    efficient approach for assessing hyperparameter importance", 2014); empty where they do not vary."""
    from sklearn.ensemble import RandomForestRegressor  # it takes a second

    known = [i for i, r in enumerate(results) if r is not None and np.isfinite(r)]
    y = np.array([results[i] for i in known], float)
    if len(known) < LEAST or not y.std() > 0:
        return {}
    ranks = y.argsort().argsort()  # one result that explodes must not explain everything
    columns = [[-1.0 if p is None else p for p in places(found)] for found in values.values()]
    x = np.array(columns, float).T[known]
    forest = RandomForestRegressor(200, min_samples_leaf=2, random_state=0, n_jobs=1).fit(x, ranks)
    return dict(zip(values, forest.feature_importances_.tolist(), strict=True))


def _parallel(
    paths: list[str],
    values: dict[str, list[Any]],
    results: list[Any],
    metric: str,
    found: list[dict[str, Any]],
) -> dict[str, Any]:
    """The axes, the result last, and where each member crosses them."""
    columns = {**{p: values[p] for p in paths}, metric: results}
    at = {name: places(column) for name, column in columns.items()}
    hues = at[metric] if measures.better_is(metric) == "max" else _turned(at[metric])
    axes = []
    for name, column in columns.items():
        known = [(p, v) for p, v in zip(at[name], column, strict=True) if p is not None]
        low, high = min(known, key=lambda k: k[0])[1], max(known, key=lambda k: k[0])[1]
        show = [measures.show(name, v) if name == metric else _shown(v) for v in (low, high)]
        title = measures.title(name) if name == metric else name
        axes.append({"name": title, "low": show[0], "high": show[1]})
    rows = [
        {
            "label": f"{one['name']}: {measures.show(metric, one['result'])}",
            "places": [at[name][i] for name in columns],
            "hue": 0.0 if hues[i] is None else hues[i],
        }
        for i, one in enumerate(found)
    ]
    return {"axes": axes, "rows": rows}


def _turned(found: list[float | None]) -> list[float | None]:
    return [None if place is None else 1 - place for place in found]


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else show_value(value)
