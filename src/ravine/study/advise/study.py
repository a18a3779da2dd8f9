"""Advice: which error is large, and what to do next, with the numbers behind it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.study import measuring
from ravine.study.directory import Study

SHEET = 40  # worst mistakes that are listed


@dataclass(frozen=True)
class Errors:
    """Errors on the parts of the data, in one unit: 1 - accuracy, or the root mean square error."""

    unit: str
    train: float
    validation: float
    test: float | None = None
    train_dev: float | None = None
    optimal: float | None = None  # human or target level: an estimate of the irreducible error
    reachable: float | None = None  # the best training error that any run of the same model had
    falling: float | None = (
        None  # how much the training loss still fell in the last fifth of the run, as a part of it
    )


def advise(
    run: str | Path | Run,
    *,
    others: Sequence[str | Path | Run] = (),
    human: float | None = None,
    target: float | None = None,
    train_dev: str | None = None,
    member: int = 0,
    model: Any = None,
    data: Any = None,
    out: str | Path | None = None,
    quiet: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Tell the kinds of error of a run apart and say what to do next; gives the study's summary.

    ``human`` (or ``target``): the error people, or the best that can be hoped for, have: an
    estimate of the irreducible error. ``others``: further runs on the same data; their best
    training error bounds what the model can reach (approximation) and shows how far the optimiser
    is from it. ``train_dev``: a source of samples drawn like the training data but not trained on
    (``"csv:held.csv"``), where validation data come from elsewhere. The sheet of worst mistakes on
    validation data is written as ``mistakes.csv`` and a picture.

    error on validation = irreducible + approximation (model too weak) + optimisation (not trained
    to its end) + estimation (too little data) [+ data mismatch].
    """
    if human is not None and target is not None and human != target:
        raise InputError(
            "--human and --target",
            got=[human, target],
            expected="one of them: both stand for the irreducible error",
        )
    opened = run if isinstance(run, Run) else Run(run, member, module=model)
    most = math.inf if measuring.pipeline_of(opened.recipe, data).task == "regression" else 1.0
    for option, value in (("--human", human), ("--target", target)):
        if value is not None and not 0 <= value <= most:
            expected = "an error of at least 0" if most > 1 else "a part of the samples from 0 to 1"
            raise InputError(
                option, got=value, expected=expected, repair="" if most > 1 else "2 % is 0.02"
            )
    more = [other if isinstance(other, Run) else Run(other) for other in others]
    options = {
        "run": str(opened.directory),
        "member": opened.member,
        "others": [str(o.directory) for o in more],
        "human": human,
        "target": target,
        "train_dev": train_dev,
    }
    study = Study.enter(
        "advise", opened.recipe, options, out, model=model, data=data, quiet=quiet, command=command
    )
    errors = Errors(**study.once("errors", lambda: vars(_errors(study, opened, more))))
    mistakes = _mistakes(study, opened)
    return _conclude(study, errors, mistakes)


def _errors(study: Study, run: Run, others: Sequence[Run]) -> Errors:
    pipeline = measuring.pipeline_of(run.recipe, study.data)
    measuring.need(pipeline, "validation")
    unit = {"regression": "rmse"}.get(pipeline.task, "error")
    values = {
        part: _error(run, part, pipeline)
        for part in ("train", "validation", "test")
        if pipeline.has(part)
    }
    held = study.options["train_dev"]
    if held is not None:
        apart = measuring.pipeline_of(
            run.recipe.edit({"data.source": held, "data.validation": 0.0, "data.test": 0.0})
        )
        values["train_dev"] = _error(run, "train", apart)
    same = [other for other in others if other.recipe.model == run.recipe.model]
    reachable = [
        values["train"],
        *(
            _error(other, "train", measuring.pipeline_of(other.recipe, study.data))
            for other in same
        ),
    ]
    known = [
        value for value in (study.options["human"], study.options["target"]) if value is not None
    ]
    return Errors(
        unit,
        values["train"],
        values["validation"],
        values.get("test"),
        values.get("train_dev"),
        known[0] if known else None,
        min(reachable) if same else None,
        _falling(run),
    )


def _error(run: Run, split: str, pipeline: Any) -> float:
    """1 - accuracy, or the root mean square error, of the trained network in evaluation mode,
    without augmentation."""
    found = measuring.measure([run], split, pipeline=pipeline)
    return 1 - float(found["accuracy"][0]) if "accuracy" in found else float(found["rmse"][0])


def _falling(run: Run) -> float | None:
    losses = run.losses[np.isfinite(run.losses)]
    fifth = len(losses) // 5
    if fifth < 5:
        return None
    before, after = losses[-2 * fifth : -fifth].mean(), losses[-fifth:].mean()
    return float((before - after) / before) if before > 0 else 0.0


# --- the flow chart -------------------------------------------------------------------------------


def parts_of(errors: Errors) -> list[dict[str, Any]]:
    """The error taken apart from the irreducible to the test data, each with what it rests on."""
    low = errors.optimal if errors.optimal is not None else 0.0
    best = errors.reachable if errors.reachable is not None else errors.train
    rows = [
        _part(
            "irreducible",
            errors.optimal,
            "the level given"
            if errors.optimal is not None
            else "not known: give --human or --target",
        )
    ]
    if errors.reachable is not None:
        rows.append(
            _part(
                "approximation",
                max(0.0, best - low),
                f"best training error of this model {best:.4g} over the level",
            )
        )
        rows.append(
            _part(
                "optimisation",
                errors.train - best,
                f"training error {errors.train:.4g} over the best of this model",
            )
        )
    else:
        rows.append(
            _part(
                "approximation + optimisation",
                max(0.0, errors.train - low),
                f"training error {errors.train:.4g} over the level",
            )
        )
    middle = errors.validation if errors.train_dev is None else errors.train_dev
    rows.append(
        _part(
            "estimation",
            middle - errors.train,
            f"error {middle:.4g} on held-out data over training error",
        )
    )
    if errors.train_dev is not None:
        rows.append(
            _part(
                "data mismatch",
                errors.validation - errors.train_dev,
                "validation over held-out training data",
            )
        )
    if errors.test is not None:
        rows.append(
            _part(
                "choice on validation data",
                errors.test - errors.validation,
                f"test error {errors.test:.4g} over validation",
            )
        )
    return rows


def _part(name: str, size: float | None, why: str) -> dict[str, Any]:
    return {"part": name, "size": size, "rests on": why}


def next_steps(errors: Errors, noise: float) -> list[dict[str, str]]:
    """The flow chart of bias and variance: what to do about every gap, from the training error on;
    gaps under ``noise`` are no gaps. ``share``: of bias and variance together."""
    low = errors.optimal if errors.optimal is not None else 0.0
    bias = errors.train - low
    middle = errors.validation if errors.train_dev is None else errors.train_dev
    variance = middle - errors.train
    mismatch = errors.validation - errors.train_dev if errors.train_dev is not None else 0.0
    chosen = errors.test - errors.validation if errors.test is not None else 0.0
    total = max(bias, 0.0) + max(variance, 0.0)
    steps = []
    if bias > noise:
        problem = f"high bias: the training error is {_size(errors, bias)} above what is possible"
        steps.append(
            {"problem": problem, "share": _share(bias, total), "do": _against_bias(errors)}
        )
    if variance > noise:
        steps.append(
            {
                "problem": f"high variance: held-out data cost {_size(errors, variance)} more than training data",
                "share": _share(variance, total),
                "do": "more data or augmentation; weight decay, dropout, early stopping; an ensemble; a smaller network last",
            }
        )
    if mismatch > noise:
        steps.append(
            {
                "problem": f"data mismatch: validation data cost {_size(errors, mismatch)} more than held-out training data",
                "do": "make the training data more like the validation data: collect, or synthesise what the mistakes show",
            }
        )
    if chosen > 2 * noise:
        steps.append(
            {
                "problem": f"chosen on validation data: the test error is {_size(errors, chosen)} higher",
                "do": "a larger or a fresh validation part",
            }
        )
    if not steps:
        steps.append(
            {
                "problem": "no gap is larger than chance",
                "do": "read the mistakes one by one; the labels may be what is left",
            }
        )
    return steps


def _share(gap: float, total: float) -> str:
    return f"{100 * gap / total:.0f} %"


def _size(errors: Errors, gap: float) -> str:
    return f"{100 * gap:.1f} points" if errors.unit == "error" else f"{gap:.4g}"


def _against_bias(errors: Errors) -> str:
    if errors.reachable is not None and errors.train - errors.reachable > 0.5 * (
        errors.train - (errors.optimal or 0.0)
    ):
        return "optimise better: this model reached less in another run; tune the rate (ravine lr), another optimiser, longer"
    if errors.falling is not None and errors.falling > 0.05:
        return f"train longer: the training loss still fell by {100 * errors.falling:.0f} % in the last fifth of the run"
    return "a larger network or another architecture; less regularisation; better optimisation (ravine lr)"


# --- mistakes -------------------------------------------------------------------------------------


def _mistakes(study: Study, run: Run) -> dict[str, Any]:
    """The validation samples with the largest errors."""
    pipeline = measuring.pipeline_of(run.recipe, study.data)
    outputs = measuring.outputs_on([run], "validation", pipeline=pipeline)
    target = outputs.targets
    if pipeline.task == "classification":
        p = torch.from_numpy(outputs.probabilities[0])
        y = target.long().reshape(-1)
        names = list(pipeline.classes) or [str(k) for k in range(p.shape[1])]
        size = -p[torch.arange(len(y)), y].clamp_min(1e-12).log()
        wrong = (p.argmax(1) != y).nonzero().flatten()
        order = wrong[size[wrong].argsort(descending=True)][:SHEET]
        rows = [
            {
                "sample": int(i),
                "target": names[int(y[i])],
                "predicted": names[int(p[i].argmax())],
                "confidence": float(p[i].max()),
                "loss": float(size[i]),
            }
            for i in order
        ]
        pairs: dict[tuple[str, str], int] = {}
        for i in wrong.tolist():
            pair = (names[int(y[i])], names[int(p[i].argmax())])
            pairs[pair] = pairs.get(pair, 0) + 1
        common = [
            {"target": a, "predicted": b, "count": n}
            for (a, b), n in sorted(pairs.items(), key=lambda item: -item[1])[:10]
        ]
        count = len(wrong)
    else:
        error = (outputs.values[0].double() - target.double()).reshape(len(target), -1)
        size = error.square().sum(1).sqrt()
        order = size.argsort(descending=True)[:SHEET]
        rows = [
            {
                "sample": int(i),
                "target": target[i].flatten().tolist(),
                "predicted": outputs.values[0][i].flatten().tolist(),
                "error": float(size[i]),
            }
            for i in order
        ]
        common, count = [], len(target)
    _write_csv(study.path / "mistakes.csv", rows)
    raw, _ = pipeline.raw("validation", pipeline.size("validation"))
    return {
        "rows": rows,
        "common": common,
        "count": count,
        "of": len(target),
        "inputs": raw[order].cpu().numpy() if len(rows) else None,
    }


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["sample"])
        writer.writeheader()
        writer.writerows(rows)


def _conclude(study: Study, errors: Errors, mistakes: dict[str, Any]) -> dict[str, Any]:
    from ravine.study.advise.figures import page_of

    noise = 0.0
    if errors.unit == "error":
        noise = 1.96 * math.sqrt(
            max(errors.validation * (1 - errors.validation), 1e-4) / max(mistakes["of"], 1)
        )
    low = errors.optimal or 0.0
    middle = errors.validation if errors.train_dev is None else errors.train_dev
    parts, steps = parts_of(errors), next_steps(errors, noise or 0.02 * errors.validation)
    summary = {
        "errors": vars(errors),
        "parts": parts,
        "next": steps,
        "bias": errors.train - low,
        "variance": middle - errors.train,
        "noise": noise,
        "mistakes": mistakes["rows"],
        "confusions": mistakes["common"],
        "wrong": mistakes["count"],
        "of": mistakes["of"],
    }
    return study.finish(summary, page_of(study, summary, mistakes["inputs"]))
