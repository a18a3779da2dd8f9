"""What a trained network does with data it was not trained on, sample by sample, as plain data for the
report: confusion, best and worst samples, calibration, residuals, the layer table, the data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine.data.inspect import examples
from ravine.data.inspect.thumbnails import picture
from ravine.data.pipeline import Pipeline
from ravine.data.tables.decisions import WIDE, places_of
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.programs import Model
from ravine.engine.rows.evaluate import evaluation
from ravine.engine.run import Run
from ravine.engine.weights.stored import Opened
from ravine.measures import number
from ravine.nn.analysis.layer_table import summarise
from ravine.nn.outputs import joined
from ravine.report import overview
from ravine.rundir import RunDir
from ravine.storage.files import to_json, write_text

FILE = "evidence.json"
MOST = 4000  # samples that are looked at
SEQUENCES, SYMBOLS = 256, 256  # of sequences, with at most so many symbols
SHOWN = 8  # best and worst samples
ROWS, LINE = 5, 240  # of a table that are shown; characters of a text
CLASSES = 60  # of which a confusion matrix is shown
_SIDE = 72  # pixels of a picture
_BINS = 10
_POINTS = 600  # of predictions against targets
_COLUMNS = 8  # of a table's row


def write_evidence(loops: Sequence[TrainingLoop], rundir: RunDir, module: Model) -> None:
    """Look at single samples with the best member of a run, and store what is found."""
    best = (overview.summarise(rundir).best or {"member": 0})["member"]
    for loop in loops:
        if best in loop.program.members:
            run = Run(Opened(rundir), best, module=copy.deepcopy(module))
            if type(run.model).forward is nn.Module.forward:  # the parts of a step of one's own
                return
            write_text(rundir.path / FILE, to_json(gather(run, loop.program.pipeline)))


def gather(run: Run, pipeline: Pipeline) -> dict[str, Any]:
    """The evidence of one trained member, on the test part, else on the validation part."""
    found: dict[str, Any] = {"member": run.member, "layers": _layers(run, pipeline)}
    found["data"] = _data(pipeline)
    split = next((name for name in ("test", "validation") if pipeline.has(name)), None)
    if split is None or (pipeline.task == "sequence" and pipeline.outputs > SYMBOLS):
        return found
    found["split"] = split
    if pipeline.task == "sequence":
        return found | _of_steps(run, pipeline, split)
    outputs, y = _outputs(run, pipeline, split, MOST)
    found["samples"] = len(y)
    kind = run.answers.kind
    if kind in ("classes", "binary") and y.numel() == len(y):
        found |= _of_classes(run, pipeline, outputs, y.reshape(-1).long(), split)
    elif kind not in ("classes", "binary", "labels") and outputs.numel() == y.numel():
        found |= _of_values(run, pipeline, outputs, y, split)
    return found


def _outputs(run: Run, pipeline: Pipeline, split: str, most: int) -> tuple[Tensor, Tensor]:
    outputs, targets, heads = [], [], run.answers.kind == "heads"
    with evaluation([run.model]):
        for batch in pipeline.split(split, most):
            outputs.append(joined(run.model(batch.x), heads=heads).float().cpu())
            targets.append(batch.y.cpu())
    return torch.cat(outputs), torch.cat(targets)


def _of_classes(
    run: Run, pipeline: Pipeline, outputs: Tensor, y: Tensor, split: str
) -> dict[str, Any]:
    p = run.answers.probabilities(outputs).double()
    p = torch.cat([1 - p, p], 1) if p.shape[1] == 1 else p  # [N, K]
    names = [str(name) for name in pipeline.classes] or [str(k) for k in range(p.shape[1])]
    predicted = run.answers.classes(outputs).reshape(-1).long()
    own = p[torch.arange(len(y)), y]
    order = own.argsort(stable=True).tolist()
    most, place = p.max(1)
    said = [
        {
            "text": f"{names[int(y[i])]}"
            if place[i] == y[i]
            else f"{names[int(y[i])]} taken for {names[int(place[i])]}",
            "note": f"probability {own[i]:.2g} of its class",
        }
        for i in range(len(y))
    ]
    return {
        **_by_class(names, y, predicted),
        "calibration": _calibration(most, predicted == y),
        "worst": _shown(pipeline, split, order[:SHOWN], said),
        "best": _shown(pipeline, split, order[::-1][:SHOWN], said),
    }


def _by_class(names: Sequence[str], y: Tensor, predicted: Tensor) -> dict[str, Any]:
    """The confusion matrix of classes y [N], and how many of each class were found."""
    counts = torch.zeros(len(names), len(names), dtype=torch.long)
    counts.index_put_((y, predicted), torch.ones(len(y), dtype=torch.long), accumulate=True)
    right, given, of_class = counts.diag(), counts.sum(0), counts.sum(1)
    table = [
        {
            "class": name,
            "samples": int(of_class[k]),
            "recall": float(right[k] / of_class[k]) if of_class[k] else None,
            "precision": float(right[k] / given[k]) if given[k] else None,
        }
        for k, name in enumerate(names)
    ]
    small = len(names) <= CLASSES
    return {
        "confusion": {"classes": list(names), "counts": counts.tolist()} if small else None,
        "per_class": table,
    }


def _of_steps(run: Run, pipeline: Pipeline, split: str) -> dict[str, Any]:
    """The same of sequences, whose samples are all their steps; best and worst are whole sequences."""
    outputs, y = _outputs(run, pipeline, split, SEQUENCES)
    found: dict[str, Any] = {"samples": len(y)}
    if outputs.ndim != 3 or y.shape != outputs.shape[:2] or run.answers.kind != "classes":
        return found
    characters = pipeline.classes if examples.view_of(pipeline) == "text" else ()
    names = [_symbol(name).replace(" ", "␣") for name in pipeline.classes] or [
        str(k) for k in range(outputs.shape[2])
    ]
    y = y.long()
    counted, known = y >= 0, y.clamp_min(0)
    p = run.answers.probabilities(outputs)  # [N, T, K]
    most, place = p.max(2)
    own = p.gather(2, known[..., None])[..., 0].clamp_min(1e-12)
    lengths = counted.sum(1).clamp_min(1)
    losses = -(own.log() * counted).sum(1) / lengths  # [N]
    shares = ((place == y) & counted).sum(1) / lengths
    order = losses.argsort(descending=True, stable=True).tolist()

    def shown(i: int) -> dict[str, Any]:
        steps = counted[i].nonzero().flatten().tolist()
        pieces = [
            _symbol(characters[int(y[i, t])]) if characters else f"{int(y[i, t])} " for t in steps
        ]
        right = [bool(place[i, t] == y[i, t]) for t in steps]
        return {
            "row": i,
            "text": f"{100 * float(shares[i]):.0f} % right",
            "note": f"loss {float(losses[i]):.3g} a step",
            "steps": list(zip(pieces, right, strict=True)),
        }

    return {
        **found,
        **_by_class(names, y[counted], place[counted]),
        "calibration": _calibration(most[counted], (place == y)[counted]),
        "worst": [shown(i) for i in order[: SHOWN // 2]],
        "best": [shown(i) for i in order[::-1][: SHOWN // 2]],
    }


def _symbol(name: str) -> str:
    """A character as it is seen."""
    return {"\n": "⏎", "\t": "⇥"}.get(str(name), str(name))


def _calibration(confidence: Tensor, right: Tensor) -> dict[str, list[Any]]:
    """In bins of confidence: its mean, how often the answer was right, and how many samples."""
    places = (confidence * _BINS).long().clamp(max=_BINS - 1)
    bins = [places == k for k in range(_BINS) if bool((places == k).any())]
    return {
        "confidence": [float(confidence[at].mean()) for at in bins],
        "accuracy": [float(right[at].double().mean()) for at in bins],
        "samples": [int(at.sum()) for at in bins],
    }


def _of_values(
    run: Run, pipeline: Pipeline, outputs: Tensor, y: Tensor, split: str
) -> dict[str, Any]:
    values = run.answers.values(outputs).double().reshape(len(y), -1)[:, 0]
    targets = pipeline.target_units(y.float().reshape(len(y), -1)).double()[:, 0]
    residuals = values - targets
    order = residuals.abs().argsort(stable=True).tolist()
    said = [
        {
            "text": f"{number(float(targets[i]))}, predicted {number(float(values[i]))}",
            "note": f"off by {number(float(residuals[i]))}",
        }
        for i in range(len(y))
    ]
    counts, edges = np.histogram(residuals.numpy(), 24)
    some = np.unique(np.linspace(0, len(y) - 1, min(len(y), _POINTS)).astype(int))
    return {
        "residuals": {"counts": counts.tolist(), "edges": edges.tolist()},
        "predicted": {"target": targets[some].tolist(), "value": values[some].tolist()},
        "worst": _shown(pipeline, split, order[::-1][:SHOWN], said),
        "best": _shown(pipeline, split, order[:SHOWN], said),
    }


def _shown(
    pipeline: Pipeline, split: str, rows: list[int], said: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Samples with their picture or their row of the table."""
    x, _ = pipeline.raw(split, MOST)
    view = examples.view_of(pipeline)
    found = []
    for i in rows:
        one: dict[str, Any] = {"row": i, **said[i]}
        if view == "images":
            one["picture"] = picture(x[i].numpy(), _SIDE)
        elif view == "table":
            one["cells"] = _cells(pipeline, x[i])
        found.append(one)
    return found


def _cells(pipeline: Pipeline, row: Tensor) -> list[tuple[str, str]]:
    values = row.flatten().double().numpy()[None]
    described = pipeline.preparation.facts.get("columns") or [
        {"name": f"x{i}", "kind": "number"} for i in range(values.shape[1])
    ]
    columns = [
        examples.TableColumn(
            c["name"], values[:, at.start], tuple(c.get("categories", ())), c["kind"]
        )
        for c, at in places_of(described)
        if c["kind"] not in WIDE
    ]
    return [(column.name, column.cell(0)) for column in columns[:_COLUMNS]]


def _layers(run: Run, pipeline: Pipeline) -> dict[str, Any]:
    return summarise(run.copy_model(), pipeline.input_shape, vocabulary=pipeline.vocabulary)


def _data(pipeline: Pipeline) -> dict[str, Any]:
    """How many samples the parts have, by class where there are classes, and some of them."""
    names = ("train", "validation", "test")
    found: dict[str, Any] = {"parts": {n: pipeline.size(n) for n in names if pipeline.has(n)}}
    view = examples.view_of(pipeline)
    if view == "table":
        found["rows"] = _first_rows(pipeline)
    elif view in ("text", "tokens"):
        found["lines"] = [line[:LINE] for line in examples.lines_of(pipeline, SHOWN // 2)]
    if pipeline.task != "classification":
        return found
    counts = pipeline.class_counts().flatten().tolist()
    found["classes"] = [
        {"class": str(n), "count": int(c)} for n, c in zip(pipeline.classes, counts, strict=False)
    ]
    if view == "images":
        groups = examples.by_class(pipeline, 4, 12)
        found["pictures"] = [
            {"class": group.title, "pictures": [picture(x, _SIDE) for x in group.x]}
            for group in groups
        ]
    return found


def _first_rows(pipeline: Pipeline) -> dict[str, Any]:
    """A few rows of a table: the names of its first columns and of its targets, and their cells."""
    rows = examples.table_of(pipeline, min(ROWS, pipeline.size("train")))
    columns = [*rows.columns[:_COLUMNS], *rows.targets]
    count = len(columns[0].values) if columns else 0
    return {
        "heads": [column.name for column in columns],
        "inputs": min(_COLUMNS, len(rows.columns)),
        "left_out": max(0, len(rows.columns) - _COLUMNS),
        "cells": [[column.cell(i) for column in columns] for i in range(count)],
    }
