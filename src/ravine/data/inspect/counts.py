"""What is in the data, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ravine.data.pipeline import Pipeline
from ravine.data.preprocessing.preparation import count_classes
from ravine.data.preprocessing.statistics import Moments, Rows, moments
from ravine.data.tables.decisions import places_of

SPREAD = ("min", "max", "mean", "deviation")  # of all numbers of a part
_MOST_NAMED = 100  # constant features, and columns of arrays


def summarize(pipeline: Pipeline) -> dict[str, Any]:
    """Plain data for ``ravine data``: the task, and of each part its size, range, missing values,
    constant features and class balance; of tables, each column of the training part."""
    described = pipeline.preparation.facts.get("columns")
    names = ("train", "validation", "test")
    found = {
        "task": pipeline.task,
        "classes": list(pipeline.classes),
        "outputs": pipeline.outputs,
        "raw_shape": list(pipeline.raw_shape),
        "input_shape": list(pipeline.input_shape),
        "vocabulary": pipeline.vocabulary,
        "parts": {name: _part(pipeline, name, described) for name in names if pipeline.has(name)},
    }
    if described:
        facts = pipeline.preparation.facts
        found["columns"] = _columns(pipeline, described)
        found |= {name: facts[name] for name in ("decisions", "written", "targets", "target_why")}
    return found


def _part(pipeline: Pipeline, name: str, described: list[dict[str, Any]] | None) -> dict[str, Any]:
    split = pipeline.part(name)
    inputs = Rows.of_split(split, 0)
    features = torch.Size(inputs.shape).numel()
    seen = moments(inputs, "feature")
    constant = (seen.high <= seen.low).flatten().nonzero().flatten().tolist()
    row: dict[str, Any] = {
        "samples": len(split),
        "dtype": str(inputs.dtype).removeprefix("torch."),
        **_range(inputs, seen, described),
        "missing": int(
            len(split) * max(1, features)
            - float(torch.as_tensor(seen.count).expand_as(seen.mean).sum())
        ),
        "constant_features": len(constant),
        "features": features,
    }
    if described or len(inputs.shape) == 1:
        named = _constant_columns(described, constant) if described else constant
        row |= {"constant": named[:_MOST_NAMED]} if named else {}
    if pipeline.task == "regression":
        row["target"] = _spread(moments(Rows.of_split(split, 1), "global"))
    else:
        row["class_counts"] = count_classes(split, pipeline.outputs).tolist()
    return row


def _constant_columns(described: list[dict[str, Any]], constant: list[int]) -> list[Any]:
    """The columns of a table of which every number is constant; of a text some always are."""
    always = set(constant)
    columns = places_of(described)
    return [c["name"] for c, place in columns if always.issuperset(range(place.start, place.stop))]


def _range(
    inputs: Rows, seen: Moments, described: list[dict[str, Any]] | None
) -> dict[str, float | None]:
    """Range, mean and deviation of all numbers; codes of categories are not numbers."""
    if not described:
        return _spread(moments(inputs, "global"))
    numbers = [p.start for c, p in places_of(described) if c["kind"] == "number"]
    if not numbers:
        return dict.fromkeys(SPREAD)
    chosen = Rows((len(numbers),), inputs.dtype, lambda: (x[:, numbers] for x in inputs.chunks()))
    return _spread(moments(chosen, "global"))


def _columns(pipeline: Pipeline, described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each column of the training part holds."""
    split = pipeline.part("train")
    x = torch.cat([chunk for chunk, _ in split.chunks()])
    return [
        {"name": c["name"], "kind": c["kind"], **_column(c, x[:, place.start])}
        for c, place in places_of(described)
    ]


def _column(column: Mapping[str, Any], values: Tensor) -> dict[str, Any]:
    known = values[~torch.isnan(values)]
    found: dict[str, Any] = {"missing": len(values) - len(known), "different": len(known.unique())}
    if not len(known):
        return found
    if column["kind"] == "text":
        return {"missing": found["missing"]}
    if column["kind"] != "category":
        spread = {
            "min": known.min(),
            "median": known.median(),
            "max": known.max(),
            "mean": known.mean(),
        }
        return found | {name: float(value) for name, value in spread.items()}
    counts = known[known >= 0].long().bincount(minlength=len(column["categories"]))
    order = counts.argsort(descending=True, stable=True).tolist()
    return found | {
        "most": {column["categories"][k]: int(counts[k]) for k in order[:5] if counts[k]}
    }


def _spread(seen: Moments) -> dict[str, float | None]:
    numbers = seen.low, seen.high, seen.mean, seen.variance.sqrt()
    return dict(zip(SPREAD, map(float, numbers), strict=True))
