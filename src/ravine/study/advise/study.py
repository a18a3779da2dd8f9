"""Advice: which error is large, and what to do next, with the numbers that say so."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import nn

from ravine.catalogue import Whole
from ravine.doctor.finding import SUSPECTED
from ravine.doctor.judgement import judge
from ravine.doctor.table import diagnosis_table
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.storage.files import atomic
from ravine.study import measuring
from ravine.study.advise.figures import page_of
from ravine.study.advise.flow_chart import Errors, next_steps, parts_of
from ravine.study.advise.noise import Noise, noise_of
from ravine.study.declare import Common, Conclusion, study
from ravine.study.directory import Study

HARDLY = 0.02  # of a loss: changes up to this part say nothing
SHEET = 40  # worst mistakes that are listed


@study
def advise(
    study: Study,
    run: Run,
    *,
    others: Sequence[Run] = (),
    human: float | None = None,
    target: float | None = None,
    train_dev: str | None = None,
    member: Whole = 0,
    **common: Unpack[Common],
) -> Conclusion:
    """Bias or variance? Which errors are large, what to do next, and the worst mistakes.

    ``human`` (or ``target``): the error people, or the best that can be hoped for, have: an
    estimate of the irreducible error. ``others``: further runs on the same data; their best
    training error bounds what the model can reach (approximation) and shows how far the optimiser
    is from it. ``train_dev``: a source of samples drawn like the training data but not trained on
    (``"csv:held.csv"``), where validation data come from elsewhere. The sheet of worst mistakes on
    validation data is written as ``mistakes.csv`` and a picture.

    error on validation = irreducible + approximation (model too weak) + optimisation (not trained
    to its end) + estimation (too little data) [+ data mismatch].

    Args:
        human: The error that people make: 0.02 is 2 %.
        target: The error to be reached, where no human level is known.
        train_dev: A source drawn like the training data, not trained on.
        member: Which member of the run directory.
    """
    if human is not None and target is not None and human != target:
        raise InputError(
            "--human and --target",
            got=[human, target],
            expected="one of them: both estimate the irreducible error",
        )
    most = math.inf if measuring.pipeline_of(run.recipe, study.data).task == "regression" else 1.0
    for option, value in (("--human", human), ("--target", target)):
        if value is not None and not 0 <= value <= most:
            expected = "an error of at least 0" if most > 1 else "a part of the samples from 0 to 1"
            raise InputError(
                option, got=value, expected=expected, repair="" if most > 1 else "2 % is 0.02"
            )
    errors = Errors(**study.once("errors", lambda: vars(_errors(study, run, others))))
    noise = Noise(**study.once("noise", lambda: vars(_noise(study, run, others))))
    diagnosis = study.once("diagnosis", lambda: _diagnosis(study, run))
    return _conclude(study, errors, noise, _mistakes(study, run), diagnosis)


def _diagnosis(study: Study, run: Run) -> dict[str, Any]:
    """What the doctor says of the run: its verdict and findings, as plain data."""
    module = study.model if isinstance(study.model, nn.Module) or callable(study.model) else None
    found = judge(run.directory, member=run.member, module=module, arrays=study.data)
    table = diagnosis_table(found)
    findings = [one for one in table["findings"] if one["strength"] >= SUSPECTED]
    return {"verdict": found.verdict, "why": found.why, "findings": findings}


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
        _past_best(run),
    )


def _noise(study: Study, run: Run, others: Sequence[Run]) -> Noise:
    """Of the validation samples, and of those other runs that differ from this one in their seed alone."""

    def program(one: Run) -> str:
        return one.recipe.edit({"seed": 0}).hash

    pipeline = measuring.pipeline_of(run.recipe, study.data)
    seeds = {run.recipe.seed: run}
    for other in others:
        if program(other) == program(run):
            seeds.setdefault(other.recipe.seed, other)
    outputs = measuring.outputs_on([run], "validation", pipeline=pipeline)
    classes = pipeline.task == "classification"
    errors = [_error(one, "validation", pipeline) for one in seeds.values()]
    if classes:
        wrong = outputs.probabilities[0].argmax(1) != outputs.targets.long().reshape(-1).numpy()
        return noise_of(wrong.astype(float), "error", errors)
    apart = (outputs.values[0].double() - outputs.targets.double()).flatten(1)  # [N, ...]
    return noise_of(apart.square().mean(1).numpy(), "rmse", errors)


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


def _past_best(run: Run) -> dict[str, float] | None:
    """The epoch whose weights are kept, and by which parts the training loss fell and the validation loss
    rose from there to the end; None where they did not, or hardly."""
    best, rows = run.result.get("best_step"), run.metrics
    if not isinstance(best, int) or not {"train_loss", "val_loss"} <= set(rows):
        return None
    rows = rows[["step", "epoch", "train_loss", "val_loss"]].dropna()
    kept = rows[rows["step"] <= best]
    if not len(kept) or len(kept) == len(rows):
        return None
    there, end = kept.iloc[-1], rows.iloc[-1]
    if not (there["train_loss"] > 0 and there["val_loss"] > 0):
        return None
    fell, rose = (float(end[name] / there[name] - 1) for name in ("train_loss", "val_loss"))
    if -fell <= HARDLY or rose <= HARDLY:
        return None
    return {"epoch": float(there["epoch"]), "of": float(end["epoch"]), "fell": -fell, "rose": rose}


# --- mistakes -------------------------------------------------------------------------------------


def _mistakes(study: Study, run: Run) -> dict[str, Any]:
    """The validation samples with the largest errors."""
    pipeline = measuring.pipeline_of(run.recipe, study.data)
    outputs = measuring.outputs_on([run], "validation", pipeline=pipeline)
    found = (_confused if pipeline.task == "classification" else _far_off)(outputs)
    order, rows = found.pop("order"), found["rows"]
    _write_csv(study.path / "mistakes.csv", rows)
    raw, _ = pipeline.raw("validation", pipeline.size("validation"))
    inputs = raw[order].cpu().numpy() if rows else None
    return {**found, "of": len(outputs.targets), "inputs": inputs}


def _confused(outputs: measuring.Outputs) -> dict[str, Any]:
    """The wrong classes of largest loss, and the pairs of classes most often confused."""
    p, y = torch.from_numpy(outputs.probabilities[0]), outputs.targets.long().reshape(-1)
    names = list(outputs.pipeline.classes) or [str(k) for k in range(p.shape[1])]
    loss = -p[torch.arange(len(y)), y].clamp_min(1e-12).log()
    wrong = (p.argmax(1) != y).nonzero().flatten()
    order = wrong[loss[wrong].argsort(descending=True)][:SHEET]
    rows = [
        {
            "sample": int(i),
            "target": names[int(y[i])],
            "predicted": names[int(p[i].argmax())],
            "confidence": float(p[i].max()),
            "loss": float(loss[i]),
        }
        for i in order
    ]
    pairs = Counter((names[int(y[i])], names[int(p[i].argmax())]) for i in wrong.tolist())
    common = [{"target": a, "predicted": b, "count": n} for (a, b), n in pairs.most_common(10)]
    return {"order": order, "rows": rows, "common": common, "count": len(wrong)}


def _far_off(outputs: measuring.Outputs) -> dict[str, Any]:
    """The values furthest from their targets."""
    values, targets = outputs.values[0], outputs.targets
    error = (values.double() - targets.double()).reshape(len(targets), -1)
    size = error.square().sum(1).sqrt()
    order = size.argsort(descending=True)[:SHEET]
    rows = [
        {
            "sample": int(i),
            "target": targets[i].flatten().tolist(),
            "predicted": values[i].flatten().tolist(),
            "error": float(size[i]),
        }
        for i in order
    ]
    return {"order": order, "rows": rows, "common": [], "count": len(targets)}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["sample"])
        writer.writeheader()
        writer.writerows(rows)


def _conclude(
    study: Study,
    errors: Errors,
    noise: Noise,
    mistakes: dict[str, Any],
    diagnosis: dict[str, Any],
) -> Conclusion:
    parts = parts_of(errors)
    steps = next_steps(errors, noise.size, diagnosis["findings"], noise.words)
    summary = {
        "errors": vars(errors),
        "parts": parts,
        "next": steps,
        "bias": errors.bias,
        "variance": errors.variance,
        "noise": noise.size,
        "noise_of": {**vars(noise), "words": noise.words},
        "diagnosis": diagnosis,
        "mistakes": mistakes["rows"],
        "confusions": mistakes["common"],
        "wrong": mistakes["count"],
        "of": mistakes["of"],
    }
    return summary, page_of(study, summary, mistakes["inputs"])
