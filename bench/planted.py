"""Planted faults: every code of the doctor's list built into healthy recipes, each beside its
healthy twin.

    python bench/planted.py [--codes CODE …] [--tasks TASK …] [--seeds N] [--first N] [--json FILE]
    [--markdown FILE] [--resume]

A fault is an edit of a recipe or of its data, at least three tasks a code: ``digits``
(scikit-learn's, a dense network), ``mnist`` (a part of it, a convolutional network; it needs
``RAVINE_DATA``), ``table`` (customers and whether they stay, made here, columns of very different
scale; or what they spend), ``text`` (the next of made words' characters, from eight before it) and
``chars`` (a recurrent network over the same text). Sensitivity: the planted code is named.
Specificity: the twin raises no alarm. What a program can show before it is trained is examined;
what needs a whole run is followed to its end (marked ``run``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published_data import data_folder
from torch.utils.data import IterableDataset

from ravine import Recipe
from ravine.doctor.examination import examine, follow
from ravine.doctor.finding import Diagnosis
from ravine.doctor.table import codes

Arrays = tuple[np.ndarray, ...]  # x, y, x_val, y_val
Layers = list[dict[str, Any]]


@dataclass(frozen=True)
class Program:
    """A recipe and the data it is trained on."""

    recipe: Recipe
    arrays: Any
    run: bool = False  # judged by its whole plan

    def edit(
        self, edits: dict[str, Any] | None = None, arrays: Any = None, run: bool | None = None
    ) -> Program:
        return Program(
            self.recipe.edit(edits or {}),
            self.arrays if arrays is None else arrays,
            self.run if run is None else run,
        )

    @property
    def layers(self) -> Layers:
        return [dict(layer) for layer in self.recipe.to_dict(explicit=True)["model"]["layers"]]


# --- tasks ----------------------------------------------------------------------------------------


def _program(arrays: Arrays, layers: list[Any], **more: Any) -> Program:
    settings: dict[str, Any] = {
        "optimizer": {"kind": "adam", "lr": 3e-3},
        "stop": {"after": "20ep"},
    } | more
    data = {"source": "arrays", "batch": 64, "test": 0.0} | settings.pop("data", {})
    return Program(Recipe(data=data, model={"layers": layers}, threads=1, **settings), arrays)


def _dense(units: int) -> dict[str, Any]:
    return {"kind": "dense", "units": units}


@cache
def digits() -> Program:
    from sklearn.datasets import load_digits

    found = load_digits()
    x = found.images.astype(np.float32)[:, None]
    layers = ["flatten", _dense(32), "relu", _dense(32), "relu", _dense(10)]
    return _program(
        _cut(x, found.target),
        layers,
        data={"preprocess": [{"kind": "standardize", "per": "channel"}]},
    )


@cache
def mnist() -> Program:
    from ravine.data.download.published import mnist as read

    x, y = (np.asarray(part) for part in read(data_folder())["train"])
    x = x.reshape(-1, 1, 28, 28)[:4000, :, ::2, ::2].astype(np.float32)
    layers = [
        {"kind": "conv", "channels": 8, "kernel": 3, "stride": 2},
        "relu",
        {"kind": "conv", "channels": 16, "kernel": 3, "stride": 2},
        "relu",
        "flatten",
        _dense(32),
        "relu",
        _dense(10),
    ]
    return _program(
        _cut(x, y[:4000].astype(np.int64)),
        layers,
        data={"preprocess": [{"kind": "rescale"}]},
        stop={"after": "15ep"},
    )


def _customers(seed: int = 0, rows: int = 2500) -> tuple[np.ndarray, np.ndarray]:
    """Age, income, months, visits, distance, complaints, two of noise; and a score of how content
    each one is."""
    draw = np.random.default_rng(seed)
    z = draw.normal(size=(rows, 8))
    columns = (45, 12), (52_000, 18_000), (36, 20), (8, 4), (12, 6), (2, 1), (0, 1), (500, 200)
    x = np.stack([mean + width * z[:, i] for i, (mean, width) in enumerate(columns)], 1)
    score = z[:, 0] * z[:, 1] + np.sin(2 * z[:, 2]) + 0.8 * z[:, 3] - z[:, 4] * (z[:, 5] > 0)
    return x.astype(np.float32), score + 0.2 * draw.normal(size=rows)


@cache
def table() -> Program:
    """Which third of contentment a customer is in."""
    x, score = _customers()
    y = np.digitize(score, np.quantile(score, [1 / 3, 2 / 3]))
    layers = [_dense(32), "relu", _dense(32), "relu", _dense(3)]
    return _program(_cut(x, y), layers, data={"preprocess": ["standardize"]})


@cache
def spend() -> Program:
    """A regression: what a customer spends, standardised."""
    x, score = _customers(1)
    y = ((score - score.mean()) / score.std())[:, None].astype(np.float32)
    layers = [_dense(32), "relu", _dense(32), "relu", _dense(1)]
    return _program(_cut(x, y), layers, data={"preprocess": ["standardize"]}, loss="squared")


SAID = (
    "the king and queen of all this land do know that love is not a thing for men who fear to die and so they go "
    "with sword in hand upon the field where none may rest till day is done my lord what news from court"
)
WORDS = SAID.split()
LETTERS = " " + "".join(sorted(set("".join(WORDS))))
CONTEXT = 8


@cache
def _text(size: int) -> np.ndarray:
    """Made text: words in random order, as places in LETTERS."""
    draw = np.random.default_rng(0)
    said = " ".join(draw.choice(WORDS, size // 3))[:size]
    return np.array([LETTERS.index(letter) for letter in said])


@cache
def text() -> Program:
    """The next character from the eight before it (Bengio et al., 2003)."""
    tokens = _text(4000)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, CONTEXT + 1)
    x, y = windows[:, :CONTEXT].astype(np.int64), windows[:, CONTEXT].astype(np.int64)
    cut = int(0.8 * len(x))
    layers = [
        {"kind": "embedding", "size": 8},
        "flatten",
        _dense(48),
        "relu",
        _dense(48),
        "relu",
        _dense(len(LETTERS)),
    ]
    arrays = (x[:cut], y[:cut], x[cut + CONTEXT :], y[cut + CONTEXT :])
    return _program(arrays, layers, stop={"after": "10ep"})


@cache
def chars() -> Program:
    """The next character at every place of sequences of 24."""
    tokens = _text(24 * 400 + 1)
    x, y = tokens[:-1].reshape(-1, 24), tokens[1:].reshape(-1, 24)
    layers = [
        {"kind": "embedding", "size": 8},
        {"kind": "gru", "units": 32, "output": "all"},
        _dense(len(LETTERS)),
    ]
    arrays = tuple(part.astype(np.int64) for part in (x[:320], y[:320], x[320:], y[320:]))
    return _program(
        arrays,
        layers,
        data={"batch": 16},
        stop={"after": "20ep"},
        optimizer={"kind": "adam", "lr": 1e-2},
    )


def _cut(x: np.ndarray, y: np.ndarray, part: float = 0.8) -> Arrays:
    order = np.random.default_rng(0).permutation(len(x))
    kept, held = order[: int(part * len(x))], order[int(part * len(x)) :]
    return x[kept], y[kept], x[held], y[held]


CLASSES: dict[str, Callable[[], Program]] = {
    "digits": digits,
    "mnist": mnist,
    "table": table,
    "text": text,
}
ANY: dict[str, Callable[[], Program]] = {**CLASSES, "chars": chars}


def regressions() -> dict[str, Program]:
    """The tasks with numbers as targets: what customers spend, how much ink a digit takes, how many
    letters t are in a line."""
    d, m, t = digits(), mnist(), text()

    def ink(program: Program) -> Program:
        x, _, v, _ = program.arrays
        a, b = (part.reshape(len(part), -1).mean(1, keepdims=True) for part in (x, v))
        y, w = ((part - a.mean()) / a.std() for part in (a, b))
        return _regression(program, (x, y.astype(np.float32), v, w.astype(np.float32)))

    x, _, v, _ = t.arrays
    a, b = ((part[:, :, None] == np.arange(1, 9)).sum(1).astype(np.float32) for part in (x, v))
    a, b = ((part @ np.arange(1, 9, dtype=np.float32))[:, None] for part in (a, b))
    lines = _regression(t, (x, (a - a.mean()) / a.std(), v, (b - a.mean()) / a.std()))
    return {"table": spend(), "digits": ink(d), "mnist": ink(m), "text": lines}


def _regression(program: Program, arrays: Arrays) -> Program:
    return program.edit(
        {"model.layers": [*program.layers[:-1], _dense(1)], "loss": "squared"}, arrays
    )


# --- what is done to them -------------------------------------------------------------------------


def hidden(layers: Layers, **more: Any) -> Layers:
    """Every hidden weighted layer with more fields."""
    last = len(layers) - 1
    return [
        {**x, **more} if i < last and x["kind"] in ("dense", "conv", "gru") else x
        for i, x in enumerate(layers)
    ]


def sized(layers: Layers, units: int) -> Layers:
    """So many units in every hidden dense layer; one channel where it is one."""
    made = {"dense": {"units": units}, "conv": {"channels": 1} if units == 1 else {}}
    return [{**x, **made.get(x["kind"], {})} for x in layers[:-1]] + layers[-1:]


def activations(layers: Layers, kind: str | None) -> Layers:
    """Other hidden activations, or none."""
    return [
        {"kind": kind} if x["kind"] == "relu" and kind else x
        for x in layers
        if x["kind"] != "relu" or kind
    ]


def deeper(layers: Layers, times: int, kind: str, units: int = 32, **more: Any) -> Layers:
    """More hidden dense layers in front of the last one."""
    block = [{**_dense(units), **more}, {"kind": kind}]
    return [*activations(layers[:-1], kind), *block * times, layers[-1]]


def sorted_stream(arrays: Arrays, seed: int | None = None) -> Any:
    """The training part as a stream in the order of its classes; or in a random one."""
    x, y, v, w = arrays
    order = (
        np.argsort(y.ravel(), kind="stable")
        if seed is None
        else np.random.default_rng(seed).permutation(len(y))
    )
    return {"train": Stream(x[order], y[order]), "validation": (v, w)}


class Stream(IterableDataset):
    """Samples one after the other, always in the same order."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.x, self.y = torch.as_tensor(x), torch.as_tensor(y)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(zip(self.x, self.y, strict=True))

    def __len__(self) -> int:
        return len(self.x)


# --- the faults -----------------------------------------------------------------------------------

Pair = tuple[str, Program, Program]  # task, sick, its healthy twin
SGD = {"kind": "sgd", "lr": 0.05, "momentum": 0.9}
PLANTS: dict[str, Callable[[], Iterator[Pair]]] = {}
# of a loss, a module or a loop of one's own, which no recipe holds: tests/doctor/test_diagnose_programs.py and
# tests/doctor/test_wiring.py plant them
IN_OWN_CODE = (
    "wrong_sign",
    "below_zero",
    "gradients_kept",
    "samples_mixed",
    "random_in_evaluation",
)


def plants(code: str) -> Callable[[Callable[[], Iterator[Pair]]], Callable[[], Iterator[Pair]]]:
    def register(make: Callable[[], Iterator[Pair]]) -> Callable[[], Iterator[Pair]]:
        PLANTS[code] = make
        return make

    return register


def over(
    edit: Callable[[Program], dict[str, Any]], tasks: dict[str, Callable[[], Program]] | None = None
) -> Iterator[Pair]:
    """The same edit of the recipe on several tasks, beside the task as it is."""
    for name, task in (tasks or CLASSES).items():
        yield name, task().edit(edit(task())), task()


def data(
    edit: Callable[[Arrays], Any],
    tasks: dict[str, Callable[[], Program]] | None = None,
    twin: Callable[[Arrays], Any] = lambda arrays: arrays,
) -> Iterator[Pair]:
    """The same edit of the data on several tasks."""
    for name, task in (tasks or CLASSES).items():
        yield name, task().edit(arrays=edit(task().arrays)), task().edit(arrays=twin(task().arrays))


def _multilabel(program: Program) -> Program:
    """Three yes-or-no answers about each class."""

    def labels(y: np.ndarray) -> np.ndarray:
        return np.stack([y % 2, y % 3 > 0, y > y.mean()], 1).astype(np.int64)

    x, y, v, w = program.arrays
    edits = {"model.layers": [*program.layers[:-1], _dense(3)], "loss": "binary_cross_entropy"}
    return program.edit(edits, (x, labels(y), v, labels(w)))


@plants("labels_invalid")
def _labels_invalid() -> Iterator[Pair]:
    for name, task in CLASSES.items():
        twin = _multilabel(task())
        x, y, v, w = twin.arrays
        factor, offset = {"digits": (2, -1), "mnist": (255, 0), "table": (1, 1), "text": (2, -1)}[
            name
        ]
        y, w = ((factor * part + offset).astype(np.float32) for part in (y, w))
        yield name, twin.edit(arrays=(x, y, v, w)), twin


@plants("wrong_output_units")
def _wrong_output_units() -> Iterator[Pair]:
    return over(lambda p: {"model.layers": [*p.layers[:-1], _dense(p.layers[-1]["units"] - 1)]})


@plants("loss_output_mismatch")
def _loss_output_mismatch() -> Iterator[Pair]:
    yield from over(lambda p: {"model.layers": [*p.layers, {"kind": "softmax"}]})
    twin = _multilabel(digits())
    yield (
        "digits",
        twin.edit({"model.layers": [*twin.layers, {"kind": "softmax"}], "loss": "squared"}),
        twin,
    )
    yield "table", table().edit({"model.layers": [*table().layers, {"kind": "sigmoid"}]}), table()


@plants("output_range")
def _output_range() -> Iterator[Pair]:
    for (name, twin), kind in zip(
        regressions().items(), ("sigmoid", "relu", "tanh", "sigmoid"), strict=True
    ):
        yield name, twin.edit({"model.layers": [*twin.layers, {"kind": kind}]}), twin


@plants("inputs_unscaled")
def _inputs_unscaled() -> Iterator[Pair]:
    for name in ("digits", "mnist", "table"):
        twin = CLASSES[name]().edit({"optimizer": SGD})
        x, y, v, w = twin.arrays
        factor = {"digits": 1000.0, "mnist": 100.0, "table": 1.0}[name]
        yield name, twin.edit({"data.preprocess": []}, (x * factor, y, v * factor, w)), twin


@plants("targets_unscaled")
def _targets_unscaled() -> Iterator[Pair]:
    for name, twin in regressions().items():
        x, y, v, w = twin.arrays
        yield name, twin.edit(arrays=(x, 1e6 * (y + 5), v, 1e6 * (w + 5))), twin


@plants("symmetric_init")
def _symmetric_init() -> Iterator[Pair]:
    return over(lambda p: {"model.init": {"weights": {"kind": "constant", "value": 0.05}}})


@plants("no_signal")
def _no_signal() -> Iterator[Pair]:
    def shuffled(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        draw = np.random.default_rng(0)
        return x, draw.permutation(y), v, draw.permutation(w)

    return data(shuffled)


@plants("lr_too_high")
def _lr_too_high() -> Iterator[Pair]:
    yield from over(lambda p: {"optimizer.lr": 1.0})
    for name in ("digits", "table"):
        twin = CLASSES[name]().edit({"optimizer": SGD})
        yield name, twin.edit({"optimizer.lr": 10.0}), twin


@plants("lr_too_low")
def _lr_too_low() -> Iterator[Pair]:
    yield from over(lambda p: {"optimizer.lr": 1e-6}, ANY)
    for name in ("digits", "table"):
        twin = CLASSES[name]().edit({"optimizer": SGD})
        yield name, twin.edit({"optimizer.lr": 1e-5}), twin


@plants("frozen_weights")
def _frozen_weights() -> Iterator[Pair]:
    return over(lambda p: {"start.freeze": ["*"]}, ANY)


@plants("init_scale")
def _init_scale() -> Iterator[Pair]:
    small = {"model.init": {"weights": {"kind": "normal", "std": 1e-4}}}
    for name in ("digits", "mnist"):
        twin = CLASSES[name]().edit({"optimizer": SGD})
        yield name, twin.edit(small), twin
    yield from over(lambda p: {"model.init": {"weights": {"kind": "normal", "std": 5.0}}})


@plants("no_hidden_nonlinearity")
def _no_hidden_nonlinearity() -> Iterator[Pair]:
    return over(lambda p: {"model.layers": activations(p.layers, None)})


@plants("dead_units")
def _dead_units() -> Iterator[Pair]:
    return over(
        lambda p: {
            "model.layers": hidden(p.layers, init={"biases": {"kind": "constant", "value": -20.0}})
        }
    )


@plants("saturated_units")
def _saturated_units() -> Iterator[Pair]:
    wrong = {"biases": {"kind": "constant", "value": 20.0}}
    for name, task in CLASSES.items():
        for kind in ("sigmoid", "tanh"):
            twin = task().edit(
                {"model.layers": activations(task().layers, kind), "optimizer.lr": 1e-2}
            )
            yield name, twin.edit({"model.layers": hidden(twin.layers, init=wrong)}), twin


@plants("vanishing_gradient")
def _vanishing_gradient() -> Iterator[Pair]:
    for name, task in CLASSES.items():
        init = {"weights": {"kind": "glorot_uniform"}}
        sick = deeper(task().layers, 10, "sigmoid", init=init)
        yield (
            name,
            task().edit({"model.layers": sick, "optimizer": SGD}),
            task().edit({"optimizer": SGD}),
        )


@plants("exploding_gradient")
def _exploding_gradient() -> Iterator[Pair]:
    for name, task in CLASSES.items():
        init = {"weights": {"kind": "normal", "std": 1.0}}
        sick = deeper(task().layers, 10, "relu", init=init)
        yield (
            name,
            task().edit({"model.layers": sick, "optimizer": SGD}),
            task().edit({"optimizer": SGD}),
        )


@plants("non_finite")
def _non_finite() -> Iterator[Pair]:
    for name, task in regressions().items():
        twin = task.edit({"optimizer": SGD})
        yield name, twin.edit({"optimizer.lr": 100.0}), twin


@plants("optimizer_unsuited")
def _optimizer_unsuited() -> Iterator[Pair]:
    """Rprop, which goes by signs, on small batches. (The table's three classes it learns.)"""
    noisy = {"optimizer": {"kind": "rprop"}, "data.batch": 8}
    return over(lambda p: noisy, {"digits": digits, "mnist": mnist, "text": text})


@plants("over_regularised")
def _over_regularised() -> Iterator[Pair]:
    yield from over(lambda p: {"loss": {"kind": "cross_entropy", "l2": 1.0}})
    dropout = {"kind": "dropout", "rate": 0.98}
    yield from over(
        lambda p: {"model.layers": [*p.layers[:-1], dropout, p.layers[-1]]},
        {"digits": digits, "table": table},
    )


@plants("augmentation_destructive")
def _augmentation_destructive() -> Iterator[Pair]:
    for name, wrong, mild in (
        ("digits", {"kind": "noise", "std": 100.0}, {"kind": "noise", "std": 1.0}),
        ("mnist", {"kind": "erase", "p": 1.0, "scale": (0.98, 1.0)}, {"kind": "erase", "p": 0.5}),
        (
            "table",
            {"kind": "feature_dropout", "rate": 0.95},
            {"kind": "feature_dropout", "rate": 0.05},
        ),
        ("text", {"kind": "time_shift", "steps": 7}, {"kind": "time_mask", "steps": 1}),
    ):
        task = CLASSES[name]()
        yield name, task.edit({"data.augment": [wrong]}), task.edit({"data.augment": [mild]})


@plants("not_shuffled")
def _not_shuffled() -> Iterator[Pair]:
    return data(sorted_stream, twin=lambda arrays: sorted_stream(arrays, seed=0))


@plants("batch_too_large")
def _batch_too_large() -> Iterator[Pair]:
    return over(lambda p: {"data.batch": "full", "optimizer.lr": 1e-3})


@plants("batch_too_small")
def _batch_too_small() -> Iterator[Pair]:
    for name in ("digits", "mnist", "table", "text"):
        task = CLASSES[name]()
        twin = task.edit({"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}})
        yield name, twin.edit({"data.batch": 1}), twin


@plants("too_few_epochs")
def _too_few_epochs() -> Iterator[Pair]:
    return over(lambda p: {"stop.after": "1ep", "optimizer.lr": 5e-4})


@plants("capacity_too_small")
def _capacity_too_small() -> Iterator[Pair]:
    return over(lambda p: {"model.layers": sized(p.layers, 1)})


@plants("behind_linear")
def _behind_linear() -> Iterator[Pair]:
    """Nine of ten signals are dropped before the last layer: it learns, but little."""
    tasks = {"digits": digits(), "mnist": mnist(), "ink": regressions()["digits"]}
    for name, task in tasks.items():
        dropped = [*task.layers[:-1], {"kind": "dropout", "rate": 0.9}, task.layers[-1]]
        sick = {"model.layers": dropped, "stop.after": "6ep"}
        yield name, task.edit(sick, run=True), task.edit(run=True)


@plants("overfitting")
def _overfitting() -> Iterator[Pair]:
    """A fortieth of the samples, one label in three wrong, and ten times the units, for long."""
    for name, task in CLASSES.items():
        x, y, v, w = task().arrays
        draw = np.random.default_rng(0)
        few = np.concatenate(
            [
                draw.choice(np.flatnonzero(y == k), max(1, len(y) // 20 // (y.max() + 1)))
                for k in np.unique(y)
            ]
        )
        y = y[few]
        wrong = draw.random(len(y)) < 0.3
        y[wrong] = draw.permutation(y[wrong])
        sick = {"model.layers": sized(task().layers, 256), "data.batch": 16, "stop.after": "60ep"}
        yield name, task().edit(sick, (x[few], y, v, w), run=True), task().edit(run=True)


@plants("split_mismatch")
def _split_mismatch() -> Iterator[Pair]:
    def scaled(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        return x, y, v / 10, w

    def other_classes(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        kept = np.isin(w, np.unique(y)[: (y.max() + 1) // 3 + 1])
        return x, y, v[kept], w[kept]

    yield from data(scaled, {"digits": digits, "mnist": mnist, "table": table})
    yield from data(other_classes, {"digits": digits, "mnist": mnist, "text": text, "table": table})


@plants("validation_leak")
def _validation_leak() -> Iterator[Pair]:
    def leaked(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        return np.concatenate([x, v[: len(v) // 2]]), np.concatenate([y, w[: len(v) // 2]]), v, w

    return data(leaked, {"digits": digits, "mnist": mnist, "table": table})


@plants("labels_shifted")
def _labels_shifted() -> Iterator[Pair]:
    def shifted(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        return x, np.roll(y, 1), v, np.roll(w, 1)

    return data(shifted, {"digits": digits, "mnist": mnist, "table": table})


@plants("target_identifier")
def _target_identifier() -> Iterator[Pair]:
    """The number of the row in the place of what is to be predicted."""

    def numbered(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        rows = np.arange(len(y) + len(w), dtype=np.float32)[:, None]
        return x, rows[: len(y)], v, rows[len(y) :]

    for name, task in regressions().items():
        yield name, task.edit(arrays=numbered(task.arrays)), task


def as_table(program: Program) -> Program:
    """The same with inputs of one axis, standardised."""
    x, y, v, w = program.arrays
    x, v = (part.reshape(len(part), -1).astype(np.float32) for part in (x, v))
    return program.edit({"data.preprocess": ["standardize"]}, (x, y, v, w))


def tables() -> dict[str, Program]:
    return {name: as_table(task()) for name, task in TABLES.items()}


TABLES = {"table": table, "digits": digits, "spend": spend}


@plants("target_leak")
def _target_leak() -> Iterator[Pair]:
    """The answer as one more feature: of tables, and of digits as tables."""

    def leaking(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.concatenate([x, 3.0 + 2.0 * y.reshape(len(y), -1)], 1, dtype=np.float32)

    for name, task in tables().items():
        x, y, v, w = task.arrays
        yield name, task.edit(arrays=(leaking(x, y), y, leaking(v, w), w)), task


@plants("identifier_feature")
def _identifier_feature() -> Iterator[Pair]:
    """The number of the row as one more feature, of rows in the order of their targets."""
    for name, task in tables().items():
        x, y, v, w = task.arrays
        place = np.concatenate([y, w]).ravel().argsort(kind="stable").argsort().astype(np.float32)
        rows = np.split(place[:, None], [len(y)])
        x, v = (np.concatenate([part, row], 1) for part, row in zip((x, v), rows, strict=True))
        yield name, task.edit(arrays=(x, y, v, w)), task


@plants("header_row")
def _header_row() -> Iterator[Pair]:
    """The numbers of the columns as the first sample."""
    for name, task in tables().items():
        x, y, v, w = task.arrays
        head = np.arange(x.shape[1], dtype=np.float32)[None]
        arrays = np.concatenate([head, x]), np.concatenate([y[:1], y]), v, w
        yield name, task.edit(arrays=arrays), task


@plants("duplicated_samples")
def _duplicated_samples() -> Iterator[Pair]:
    """The samples of one class twice."""

    def doubled(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        return np.concatenate([x, x[y == 1]]), np.concatenate([y, y[y == 1]]), v, w

    return data(doubled, {"digits": digits, "mnist": mnist, "table": table})


@plants("conflicting_labels")
def _conflicting_labels() -> Iterator[Pair]:
    """A tenth of the samples once more, under the next class."""

    def twice(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        some = np.random.default_rng(0).permutation(len(y))[: len(y) // 10]
        other = (y[some] + 1) % (y.max() + 1)
        return np.concatenate([x, x[some]]), np.concatenate([y, other]), v, w

    return data(twice, {"digits": digits, "mnist": mnist, "table": table})


@plants("blank_samples")
def _blank_samples() -> Iterator[Pair]:
    """One image in ten is all zeros."""

    def blank(part: np.ndarray) -> np.ndarray:
        part = part.copy()
        part[np.random.default_rng(0).random(len(part)) < 0.1] = 0
        return part

    small = digits().edit({"optimizer.lr": 1e-3})
    for name, task in (("digits", digits()), ("mnist", mnist()), ("digits slow", small)):
        x, y, v, w = task.arrays
        yield name, task.edit(arrays=(blank(x), y, blank(v), w)), task


@plants("placeholder_values")
def _placeholder_values() -> Iterator[Pair]:
    """Missing values as -999, in one row of twenty of the third column."""

    def coded(part: np.ndarray) -> np.ndarray:
        part = part.copy()
        part[np.random.default_rng(0).random(len(part)) < 0.05, 2] = -999.0
        return part

    small = table().edit({"optimizer.lr": 1e-3})
    for name, task in (("table", table()), ("spend", spend()), ("table slow", small)):
        x, y, v, w = task.arrays
        yield name, task.edit(arrays=(coded(x), y, coded(v), w)), task


@plants("class_imbalance")
def _class_imbalance() -> Iterator[Pair]:
    """One class keeps all its samples, every other one in a hundred."""

    def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        most = np.bincount(y).argmax()
        rows = [
            np.flatnonzero(y == k) if k == most else np.flatnonzero(y == k)[:1]
            for k in np.unique(y)
        ]
        kept = np.concatenate(rows)
        return x[kept], y[kept]

    def imbalanced(arrays: Arrays) -> Arrays:
        x, y, v, w = arrays
        most = np.bincount(y).argmax()
        return *thinned(x, y), v[w == most], w[w == most]

    return data(imbalanced, {"mnist": mnist, "table": table, "text": text})


@plants("oscillating")
def _oscillating() -> Iterator[Pair]:
    for name, task in regressions().items():
        twin = task.edit(
            {
                "optimizer": {"kind": "rmsprop", "lr": 1e-3},
                "model.layers": activations(task.layers, "silu"),
            }
        )
        yield name, twin.edit({"optimizer.lr": 0.3, "data.batch": 8}), twin


@plants("stuck")
def _stuck() -> Iterator[Pair]:
    """All gradients clipped to nothing."""
    return over(lambda p: {"optimizer": {"kind": "sgd", "lr": 0.05}, "clip": {"norm": 1e-6}})


@plants("underfitting")
def _underfitting() -> Iterator[Pair]:
    for name, task in CLASSES.items():
        yield (
            name,
            task().edit({"optimizer": {"kind": "sgd", "lr": 1e-3}, "stop.after": "5ep"}, run=True),
            task().edit(run=True),
        )


# --- the suite ------------------------------------------------------------------------------------


@dataclass
class Row:
    """One planted program, or one twin, and what the doctor says of it."""

    code: str
    task: str
    seed: int
    twin: bool
    verdict: str
    codes: list[str]
    seconds: float
    why: str = ""


def diagnose(program: Program, seed: int) -> Diagnosis:
    """As ``ravine doctor`` does it: examined, and followed to the plan's end where that says too
    little or is asked for."""
    recipe = program.recipe.edit({"seed": 1000 * seed, "data.seed": seed})
    if program.run:
        return follow(recipe, arrays=program.arrays)
    found = examine(recipe, arrays=program.arrays)
    return follow(recipe, arrays=program.arrays) if found.verdict == "uncertain" else found


def suite(
    wanted: list[str], tasks: list[str], seeds: range, done: set[tuple[str, str, int]]
) -> Iterator[Row]:
    """Every planted program and its twin; a twin that several faults share is diagnosed once."""
    seen: dict[tuple[str, int], Row] = {}
    for code in wanted:
        for place, (task, sick, twin) in enumerate(PLANTS[code]()):
            name = f"{task}.{place}"
            for seed in seeds:
                if (tasks and task not in tasks) or (code, name, seed) in done:
                    continue
                yield _row(code, name, seed, sick, False)
                key = (
                    f"{twin.recipe.hash} {twin.run} {id(twin.arrays) if _shared(twin) else (code, place)}",
                    seed,
                )
                if key not in seen:
                    seen[key] = _row(code, name, seed, twin, True)
                held = seen[key]
                yield Row(code, name, seed, True, held.verdict, held.codes, held.seconds, held.why)


def _shared(twin: Program) -> bool:
    return any(twin.arrays is task().arrays for task in ANY.values())


def _row(code: str, task: str, seed: int, program: Program, twin: bool) -> Row:
    began = time.monotonic()
    found = diagnose(program, seed)
    return Row(
        code,
        task,
        seed,
        twin,
        found.verdict,
        found.codes,
        round(time.monotonic() - began, 2),
        found.why,
    )


def table_of(rows: list[Row]) -> list[dict[str, Any]]:
    """Per code and overall: how many plants, named first or second, named at all, detected; twins
    without alarm."""
    lines = []
    for code in [*codes(), "all"]:
        own = [row for row in rows if code in (row.code, "all")]
        sick, twins = [row for row in own if not row.twin], [row for row in own if row.twin]
        if sick:
            found = {
                "first_or_second": sum(r.verdict == "sick" and r.code in r.codes[:2] for r in sick),
                "named": sum(r.verdict == "sick" and r.code in r.codes for r in sick),
                "detected": sum(r.verdict == "sick" for r in sick),
                "quiet": sum(r.verdict != "sick" for r in twins),
            }
            tasks = sorted({row.task.split(".")[0] for row in sick})
            seconds = max(row.seconds for row in own)
            lines.append(
                {
                    "code": code,
                    "tasks": tasks,
                    "plants": len(sick),
                    "twins": len(twins),
                    **found,
                    "seconds": seconds,
                }
            )
    return lines


def markdown(lines: list[dict[str, Any]]) -> str:
    head = "| code | tasks | planted runs | named first or second | named | detected | twins without alarm | slowest (s) |"
    made = [head, "|---|---|---|---|---|---|---|---|"]
    for line in lines:
        name = "**all**" if line["code"] == "all" else f"`{line['code']}`"
        shares = [
            f"{line[key] / line['plants']:.0%}" for key in ("first_or_second", "named", "detected")
        ]
        quiet = f"{line['quiet'] / max(1, line['twins']):.0%}"
        tasks = ", ".join(line["tasks"]) if line["code"] != "all" else ""
        made.append(
            f"| {name} | {tasks} | {line['plants']} | {' | '.join(shares)} | {quiet} | {line['seconds']:.1f} |"
        )
    return "\n".join(made) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    planted = [code for code in codes() if code in PLANTS]
    parser.add_argument("--codes", nargs="*", default=planted, choices=planted)
    parser.add_argument("--tasks", nargs="*", default=[], choices=list(ANY))
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        help="the first one: of the order; 1,000 times it, of the weights",
    )
    parser.add_argument("--json", type=Path, help="rows and table, written after every program")
    parser.add_argument("--markdown", type=Path, help="the table")
    parser.add_argument("--resume", action="store_true", help="go on from the rows of --json")
    asked = parser.parse_args()
    rows: list[Row] = []
    if asked.resume and asked.json and asked.json.is_file():
        rows = [Row(**row) for row in json.loads(asked.json.read_text())["rows"]]
    done = {(row.code, row.task, row.seed) for row in rows if row.twin}
    rows = [row for row in rows if (row.code, row.task, row.seed) in done]
    for row in suite(asked.codes, asked.tasks, range(asked.first, asked.first + asked.seeds), done):
        rows.append(row)
        wrong = (
            (row.verdict == "sick")
            if row.twin
            else (row.verdict != "sick" or row.code not in row.codes)
        )
        kind = "twin" if row.twin else "sick"
        mark = "  <--" if wrong else ""
        said = f"{row.code:<24} {row.task:<9} {row.seed} {kind} {row.verdict:<9} {row.seconds:5.1f} s  {', '.join(row.codes)}{mark}"
        print(said, file=sys.stderr, flush=True)
        if asked.json:
            asked.json.write_text(
                json.dumps({"rows": [asdict(r) for r in rows], "table": table_of(rows)}, indent=1)
            )
    made = markdown(table_of(rows))
    print(made)
    if asked.markdown:
        asked.markdown.write_text(made)


if __name__ == "__main__":
    main()
