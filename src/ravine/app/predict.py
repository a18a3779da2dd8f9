"""``ravine predict``: a file or folder in, predictions out, atomically and never over an existing
file; ``ravine evaluate``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ravine.data.read import text
from ravine.doctor.new_data import unlike_training
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.storage.files import atomic, new_file, write_text
from ravine.terminal import visible


def evaluated(
    run: Any, data: Path | None, split: str | None
) -> tuple[dict[str, str], dict[str, float]]:
    """What was measured on, and its loss and metrics: a part of the run's data, or other ``data``."""
    if data is None:
        split = split or "test"
        return {"split": split}, run.evaluate(split)
    if split is not None:
        expected = "the run's own data, which has parts; new data is taken whole"
        raise InputError("--split", got=f"{split}, of {data}", expected=expected)
    return {"data": str(data)}, run.evaluate(data=data)


def predict_file(
    run: Run, source: Path | None, out: Path, augment: int = 0, costs: str | None = None
) -> int:
    """Predict every input of a file or folder; write one CSV row each: input, a table's identifiers,
    prediction and, for classes, probabilities in four digits. ``augment``: mean over so many
    augmented copies too. ``costs``: the answers of least expected cost under this matrix."""
    matrix = None if costs is None else costs_of(costs)
    if source is None:
        raise InputError(
            "predict", expected="INPUT: a file or folder in the form of the training data"
        )
    if not source.exists():
        raise InputError("predict", got=str(source), expected="a file or folder that exists")
    new_file(out)
    inputs, names = run.pipeline.read(source)
    for warning in unlike_training(run.pipeline, inputs):
        print(visible(f"warning: {source.name}: {warning}"), file=sys.stderr)
    predictions = run.predict(inputs, augment=augment, costs=matrix)
    columns: dict[str, np.ndarray] = {"input": np.array(names)}
    columns |= _identifiers(run, source)
    if predictions.ndim > 1 and predictions.shape[1] > 1:
        columns |= {f"prediction_{k}": predictions[:, k] for k in range(predictions.shape[1])}
    else:
        columns["prediction"] = predictions.reshape(len(predictions))
    if run.pipeline.task == "classification":
        probabilities = run.predict_proba(inputs, augment=augment)
        if probabilities.shape[1] == len(run.pipeline.classes):
            columns |= {
                f"p_{name}": np.round(probabilities[:, k].astype(float), 4)
                for k, name in enumerate(run.pipeline.classes)
            }
    _write_csv(out, columns)
    return len(names)


def costs_of(text: str) -> list[list[float]]:
    """A cost matrix from the command line: rows by semicolons, numbers by commas.

    >>> costs_of("0,1; 5,0")
    [[0.0, 1.0], [5.0, 0.0]]
    """
    try:
        return [[float(cell) for cell in row.split(",")] for row in text.split(";")]
    except ValueError:
        raise InputError(
            "--costs", got=text, expected='numbers: rows by semicolons, e.g. "0,1;5,0"'
        ) from None


def _identifiers(run: Run, source: Path) -> dict[str, np.ndarray]:
    facts = run.pipeline.preparation.facts
    if "decisions" not in facts:
        return {}
    from ravine.data.tables.load import identifiers  # it brings pandas

    return {name: np.array(cells) for name, cells in identifiers(source, facts).items()}


def prompt_of(source: Path) -> str:
    """The text that a sample goes on from."""
    if not source.is_file():
        raise InputError("predict", got=str(source), expected="a text file that exists")
    return text.read(source)


def sample_file(
    run: Run, out: Path, *, length: int, prompt: str, temperature: float, seed: int
) -> int:
    """Write text sampled from a character model; gives the number of characters."""
    new_file(out)
    text = run.sample(length, prompt=prompt, temperature=temperature, seed=seed)
    write_text(out, text, new=True)
    return len(text)


def _write_csv(out: Path, columns: dict[str, np.ndarray]) -> None:
    with atomic(out, new=True) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
