"""What is in the data, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ravine.data.preparation import count_classes
from ravine.data.statistics import Rows, moments

if TYPE_CHECKING:
    from ravine.data.pipeline import Pipeline


def summarize(pipeline: Pipeline) -> dict[str, Any]:
    """Plain data for ``ravine data``: the task, and of each part its size, range, NaN, constant features and class
    balance."""
    return {
        "task": pipeline.task,
        "classes": list(pipeline.classes),
        "outputs": pipeline.outputs,
        "raw_shape": list(pipeline.raw_shape),
        "input_shape": list(pipeline.input_shape),
        "vocabulary": pipeline.vocabulary,
        "parts": {name: _part(pipeline, name) for name in ("train", "validation", "test") if pipeline.has(name)},
    }


def _part(pipeline: Pipeline, name: str) -> dict[str, Any]:
    split = pipeline._parts[name]
    inputs = Rows.of_split(split, 0)
    seen = moments(inputs, "feature")
    total = len(split) * max(1, torch.Size(inputs.shape).numel())
    known = float(torch.as_tensor(seen.count).sum())
    all_seen = moments(inputs, "global")
    row: dict[str, Any] = {
        "samples": len(split),
        "dtype": str(inputs.dtype).removeprefix("torch."),
        "min": float(all_seen.low),
        "max": float(all_seen.high),
        "mean": float(all_seen.mean),
        "deviation": float(all_seen.variance.sqrt()),
        "missing": int(total - known),
        "constant_features": int((seen.high <= seen.low).sum()),
        "features": torch.Size(inputs.shape).numel(),
    }
    if pipeline.task == "regression":
        targets = moments(Rows.of_split(split, 1), "global")
        row["target"] = {
            "min": float(targets.low),
            "max": float(targets.high),
            "mean": float(targets.mean),
            "deviation": float(targets.variance.sqrt()),
        }
    else:
        row["class_counts"] = count_classes(split, pipeline.outputs).tolist()
    return row
