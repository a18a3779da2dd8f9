"""Faults that people make with their own data, each in data that are sound but for it, and what the
doctor names.

    python bench/own_faults.py [--only WORD …] [--seeds N] [--json]

A fault is *named* if one of the codes that say what is wrong is among the findings, *detected* if
there is any alarm. The data: scikit-learn's digits, and made customers (``bench/planted.py``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from planted import Arrays, Program, _dense, chars, digits, sorted_stream, spend, table

from ravine.doctor.examination import examine

FAULTS: dict[str, tuple[tuple[str, ...], Callable[[], Program]]] = {}


def fault(name: str, *codes: str) -> Callable[[Callable[[], Program]], Callable[[], Program]]:
    def enter(make: Callable[[], Program]) -> Callable[[], Program]:
        FAULTS[name] = (codes, make)
        return make

    return enter


def changed(task: Program, change: Callable[..., Arrays], **edits: Any) -> Program:
    return task.edit({k.replace("__", "."): v for k, v in edits.items()}, change(*task.arrays))


def draw() -> np.random.Generator:
    return np.random.default_rng(7)


@fault("labels shifted by a row", "labels_shifted")
def _shifted() -> Program:
    return changed(digits(), lambda x, y, v, w: (x, np.roll(y, 1), v, np.roll(w, 1)))


@fault("labels of a table shifted by a row, the other way", "labels_shifted")
def _shifted_back() -> Program:
    return changed(table(), lambda x, y, v, w: (x, np.roll(y, -1), v, np.roll(w, -1)))


@fault("labels shuffled", "no_signal")
def _shuffled() -> Program:
    return changed(table(), lambda x, y, v, w: (x, draw().permutation(y), v, draw().permutation(w)))


@fault("a class twice in the data before the split", "validation_leak")
def _doubled() -> Program:
    def twice(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        x, y = np.concatenate([x, v]), np.concatenate([y, w])
        x, y = np.concatenate([x, x[y == 3]]), np.concatenate([y, y[y == 3]])
        order, cut = draw().permutation(len(y)), int(0.7 * len(y))
        return x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]]

    return changed(digits(), twice)


@fault("a class twice in the training part", "duplicated_samples")
def _doubled_in_training() -> Program:
    def twice(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        return np.concatenate([x, x[y == 3]]), np.concatenate([y, y[y == 3]]), v, w

    return changed(digits(), twice)


@fault("a class under two names", "conflicting_labels")
def _two_names() -> Program:
    def named(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        return (
            np.concatenate([x, x[y == 3]]),
            np.concatenate([y, np.full((y == 3).sum(), 10)]),
            np.concatenate([v, v[w == 3]]),
            np.concatenate([w, np.full((w == 3).sum(), 10)]),
        )

    layers = [*digits().layers[:-1], _dense(11)]
    return changed(digits(), named, model__layers=layers)


@fault("the price in other units among the features of the price", "target_leak")
def _leak() -> Program:
    def leaking(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        return (
            np.hstack([x, 1.1 * y + 7]).astype("f4"),
            y,
            np.hstack([v, 1.1 * w + 7]).astype("f4"),
            w,
        )

    return changed(spend(), leaking)


@fault("the class as a number among the features", "target_leak")
def _leak_of_class() -> Program:
    def leaking(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        return (
            np.hstack([x, y[:, None]]).astype("f4"),
            y,
            np.hstack([v, w[:, None]]).astype("f4"),
            w,
        )

    return changed(table(), leaking)


@fault("the row number as the target", "target_identifier")
def _numbered() -> Program:
    def numbered(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        rows = np.arange(len(y) + len(w), dtype="f4")[:, None]
        return x, rows[: len(y)], v, rows[len(y) :]

    return changed(spend(), numbered)


@fault("a target column that is constant", "no_signal")
def _constant() -> Program:
    return changed(spend(), lambda x, y, v, w: (x, np.ones_like(y), v, np.ones_like(w)))


@fault("training and validation from different cameras", "split_mismatch")
def _cameras() -> Program:
    """The other camera is a little darker, and its pictures have a bright column."""

    def other(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        v = 0.85 * v
        v[..., 0] += 2.0
        return x, y, v, w

    return changed(digits(), other)


@fault("new data that are not scaled", "split_mismatch")
def _not_scaled() -> Program:
    def scaled(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        return ((x - x.mean(0)) / x.std(0)).astype("f4"), y, v, w

    return changed(table(), scaled, data__preprocess=[])


@fault("the last classes are nearly all in validation", "split_mismatch")
def _last_classes() -> Program:
    def cut(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        x, y = np.concatenate([x, v]), np.concatenate([y, w])
        order = np.argsort(y, kind="stable")
        first, last = np.split(order, [len(y) * 3 // 4])
        few = np.concatenate([first, last[::15]])
        return x[few], y[few], x[last], y[last]

    return changed(digits(), cut)


@fault("duplicates across the split", "validation_leak")
def _duplicates() -> Program:
    def copied(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        some = draw().permutation(len(y))[: len(w) // 8]
        return x, y, np.concatenate([v, x[some]]), np.concatenate([w, y[some]])

    return changed(digits(), copied)


@fault("a class oversampled before the split", "validation_leak")
def _oversampled() -> Program:
    def over(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        x, y = np.concatenate([x, v]), np.concatenate([y, w])
        rare = np.flatnonzero(y == 0)[:60]
        kept = np.concatenate([np.flatnonzero(y != 0), np.repeat(rare, 12)])
        order, cut = draw().permutation(kept), int(0.75 * len(kept))
        return x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]]

    return changed(table(), over)


@fault("one picture in ten could not be read and is black", "blank_samples")
def _black() -> Program:
    def black(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        x = x.copy()
        x[draw().random(len(x)) < 0.1] = 0
        return x, y, v, w

    return changed(digits(), black)


@fault("all pictures are zero", "no_signal")
def _zero() -> Program:
    return changed(digits(), lambda x, y, v, w: (0 * x, y, 0 * v, w))


@fault("missing values as -999", "placeholder_values")
def _placeholders() -> Program:
    def coded(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        x = x.copy()
        x[draw().random(len(x)) < 0.05, 0] = -999
        return x, y, v, w

    return changed(table(), coded)


@fault("columns of very different scale, as they are", "inputs_unscaled")
def _unscaled() -> Program:
    return table().edit({"data.preprocess": [], "optimizer": {"kind": "sgd", "lr": 0.01}})


@fault("prices as they are", "targets_unscaled")
def _prices() -> Program:
    return changed(
        spend(), lambda x, y, v, w: (x, 2e5 + 8e4 * y, v, 2e5 + 8e4 * w), stop__after="10ep"
    )


@fault("rows sorted by class and streamed", "not_shuffled")
def _sorted() -> Program:
    return table().edit(arrays=sorted_stream(table().arrays))


@fault("yes and no as numbers, sorted and streamed", "not_shuffled")
def _sorted_numbers() -> Program:
    x, y, v, w = table().arrays
    yes, held = ((part[:, None] == 0).astype("f4") for part in (y, w))
    layers = [*table().layers[:-1], _dense(1)]
    edits = {"model.layers": layers, "loss": "binary_cross_entropy"}
    return table().edit(edits, sorted_stream((x, yes, v, held)))


@fault("a softmax over one unit, with an absolute error", "loss_output_mismatch")
def _one_unit() -> Program:
    def yes(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        return x, 1 * (y == 0), v, 1 * (w == 0)

    layers = [*table().layers[:-1], _dense(1), {"kind": "softmax"}]
    return changed(table(), yes, model__layers=layers, loss="absolute")


@fault("every layer frozen", "frozen_weights")
def _frozen() -> Program:
    return digits().edit({"start.freeze": ["*"]})


@fault("one class hardly there", "class_imbalance")
def _rare() -> Program:
    def rare(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        noise = draw().normal(size=x.shape).astype("f4")
        few = np.flatnonzero((y == 0) | (np.arange(len(y)) % 60 == 0))
        held = np.flatnonzero((w == 0) | (np.arange(len(w)) % 60 == 0))
        return x[few] + 3 * x.std(0) * noise[few], y[few], v[held], w[held]

    return changed(table(), rare)


@fault("probabilities in per cent", "labels_invalid")
def _per_cent() -> Program:
    def cents(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        return (
            x,
            (100.0 * (y[:, None] > 0)).astype("f4"),
            v,
            (100.0 * (w[:, None] > 0)).astype("f4"),
        )

    layers = [*table().layers[:-1], _dense(1)]
    return changed(table(), cents, model__layers=layers, loss="binary_cross_entropy")


@fault("the logarithm of the price among the features", "target_leak")
def _leak_of_logarithm() -> Program:
    def leaking(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        low = min(y.min(), w.min()) - 1
        x, v = np.hstack([x, np.log(y - low)]), np.hstack([v, np.log(w - low)])
        return x.astype("f4"), y, v.astype("f4"), w

    return changed(spend(), leaking)


@fault("the classes as indicators among the features", "target_leak")
def _leak_of_indicators() -> Program:
    def leaking(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        each = np.eye(3, dtype="f4")
        return np.hstack([x, each[y]]), y, np.hstack([v, each[w]]), w

    return changed(table(), leaking)


@fault("a sequence whose target is its own input", "target_leak")
def _own_input() -> Program:
    return changed(chars(), lambda x, y, v, w: (x, x, v, v))


@fault("the row number as a feature of rows sorted by class", "identifier_feature")
def _row_number() -> Program:
    def numbered(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        x, y = np.concatenate([x, v]), np.concatenate([y, w])
        order = np.argsort(y, kind="stable")
        x = np.hstack([x[order], np.arange(len(y), dtype="f4")[:, None]])
        mixed, cut = draw().permutation(len(y)), int(0.8 * len(y))
        a, b = mixed[:cut], mixed[cut:]
        return x[a], y[order][a], x[b], y[order][b]

    return changed(table(), numbered)


@fault("a customer number as the target, rows shuffled", "target_identifier")
def _customer_number() -> Program:
    def numbered(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        mixed = draw().permutation(len(y) + len(w)).astype("f4")[:, None] + 10_000
        return x, mixed[: len(y)], v, mixed[len(y) :]

    return changed(spend(), numbered)


@fault("the numbers of the columns as the first row", "header_row")
def _header() -> Program:
    def headed(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        first = np.arange(x.shape[1], dtype="f4")[None]
        return np.concatenate([first, x]), np.concatenate([y[:1], y]), v, w

    return changed(table(), headed)


@fault("targets of -999 where none is known", "placeholder_values")
def _target_placeholders() -> Program:
    def coded(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        return x, np.where(draw().random(y.shape) < 0.03, -999, y).astype("f4"), v, w

    return changed(spend(), coded)


@fault("one cell with a slip of the decimal mark", "placeholder_values")
def _slip() -> Program:
    def slipped(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        x = x.copy()
        x[5, 0] *= 1e6
        return x, y, v, w

    return changed(table(), slipped)


@fault("copies with a little noise made before the split", "validation_leak")
def _noisy_copies() -> Program:
    def copied(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        some = draw().permutation(len(y))[: len(w) // 4]
        noisy = x[some] + 0.1 * draw().normal(size=x[some].shape).astype("f4")
        return x, y, np.concatenate([v, noisy]), np.concatenate([w, y[some]])

    return changed(digits(), copied)


@fault("validation classes numbered in another order", "split_mismatch")
def _other_numbers() -> Program:
    return changed(digits(), lambda x, y, v, w: (x, y, v, (w + 1) % 10))


@fault("one column of the validation part in other units", "split_mismatch")
def _other_units() -> Program:
    def other(x: Any, y: Any, v: Any, w: Any) -> Arrays:
        v = v.copy()
        v[:, 0] *= 1000
        return x, y, v, w

    return changed(table(), other)


@fault("prices of the validation part in other units", "split_mismatch")
def _other_currency() -> Program:
    return changed(spend(), lambda x, y, v, w: (x, y, v, 100 * w))


@fault("the test part from another camera", "split_mismatch")
def _test_camera() -> Program:
    def other(x: Any, y: Any, v: Any, w: Any) -> Any:
        half = len(v) // 2
        test = 0.85 * v[half:]
        test[..., 0] += 2.0
        return (x, y), (v[:half], w[:half]), (test, w[half:])

    return changed(digits(), other)


@fault("pixels upside down in scale: 0 to 255 in training, 0 to 1 in validation", "split_mismatch")
def _two_scales() -> Program:
    return changed(digits(), lambda x, y, v, w: (255 / 16 * x, y, v / 16, w))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", default=[], help="words of faults")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    asked = parser.parse_args()
    rows = []
    for name, (codes, make) in FAULTS.items():
        if asked.only and not any(word in name for word in asked.only):
            continue
        for seed in range(asked.seeds):
            began, program = time.monotonic(), make()
            recipe = program.recipe.edit({"seed": 1000 * seed, "data.seed": seed})
            found = examine(recipe, arrays=program.arrays)
            named = found.verdict == "sick" and bool(set(codes) & set(found.codes))
            row = {
                "fault": name,
                "seed": seed,
                "verdict": found.verdict,
                "named": named,
                "codes": found.codes,
                "seconds": round(time.monotonic() - began, 1),
            }
            rows.append(row)
            mark = "" if named else "  <--"
            print(
                f"{name:<58} {seed} {found.verdict:<9} {', '.join(found.codes[:4])}{mark}",
                flush=True,
            )
    summary = {
        "faults": len(rows),
        "detected": sum(row["verdict"] == "sick" for row in rows),
        "named": sum(row["named"] for row in rows),
        "not_named": [row["fault"] for row in rows if not row["named"]],
    }
    print(json.dumps({"summary": summary, "rows": rows} if asked.json else summary))


if __name__ == "__main__":
    sys.exit(main())
