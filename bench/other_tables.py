"""Tables of kinds that no rule was made by, drawn, with known structure: what a change of the
starter's recipe does, beside gradient boosting on the same rows.

    python bench/other_tables.py [--fresh] [--seeds 2] [--steps 1000] [--set FIELD=VALUE …] [--only NAME,NAME]

``--fresh`` takes the tables of `fresh_tables.py`, drawn to judge rules that these have made. Each
table has 150 to 60,000 rows beside 4,000 of the test part. Printed of each: the test error (1 -
accuracy, or RMSE) of a linear model, boosting and a forest (of tables up to 10,000 rows), of the
starter's recipe, and of that recipe with the edits of ``--set``; the processor seconds of the last
two; and at the end the mean rank, the geometric mean of Ravine's error over boosting's, and that of
the edited recipe's over the other's with its standard error over tables and seeds. ``--steps`` sets
the length, so that a busy machine changes nothing but the seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fresh_tables
import numpy as np
import pandas as pd
from own_data import RIVALS, chosen
from small_tables import value_of

import ravine
from ravine.data.pipeline import Pipeline
from ravine.starters.start import start
from ravine.training.classical import classical_scores

TEST = 4000
FOREST_ROWS = 10_000  # up to which a forest is fitted: more takes minutes

Rng = np.random.Generator


def _frame(x: np.ndarray, **more: Any) -> pd.DataFrame:
    return pd.DataFrame(x.round(4), columns=[f"x{i}" for i in range(x.shape[1])]).assign(**more)


def machines(rng: Rng, n: int) -> pd.DataFrame:
    """Products, thresholds and forty kinds; noise 3."""
    x, kind = rng.normal(size=(n, 12)), rng.integers(0, 40, n)
    y = 10 * np.sin(x[:, 0] * x[:, 1]) + 5 * (x[:, 2] > 0.5) * x[:, 3] + 3 * x[:, 4] ** 2
    y = y + rng.normal(0, 3, 40)[kind] + 3 * rng.normal(size=n)
    return _frame(x, kind=[f"k{i}" for i in kind], y=y.round(3))


def arm(rng: Rng, n: int) -> pd.DataFrame:
    """How far an arm of four joints reaches: smooth, all eight numbers matter; noise 0.05."""
    angles, length = rng.uniform(-np.pi, np.pi, (n, 4)), rng.uniform(0.2, 1, (n, 4))
    turned = angles.cumsum(1)
    y = np.hypot((length * np.cos(turned)).sum(1), (length * np.sin(turned)).sum(1))
    return _frame(np.c_[angles, length], y=(y + 0.05 * rng.normal(size=n)).round(4))


def tariff(rng: Rng, n: int) -> pd.DataFrame:
    """A tree of depth seven over six of ten numbers: what boosting is made for; noise 1."""
    x = rng.random((n, 10))
    leaf = np.zeros(n, dtype=int)
    cut, column = rng.uniform(0.2, 0.8, 128), rng.integers(0, 6, 128)
    for depth in range(7):
        node = 2**depth - 1 + leaf
        leaf = 2 * leaf + (x[np.arange(n), column[node]] > cut[node])
    return _frame(x, y=(rng.normal(0, 4, 128)[leaf] + rng.normal(size=n)).round(3))


def claims(rng: Rng, n: int) -> pd.DataFrame:
    """A target with a heavy tail: log-normal, two thirds of it explained."""
    age, power = rng.integers(18, 90, n), rng.gamma(5, 20, n)
    region, x = rng.integers(0, 25, n), rng.normal(size=(n, 4))
    mean = 5 + 0.02 * np.abs(age - 45) + 0.004 * power + rng.normal(0, 0.5, 25)[region]
    y = np.exp(mean + 0.5 * x[:, 0] * (x[:, 1] > 0) + 0.5 * rng.normal(size=n))
    where = [f"R{i:02d}" for i in region]
    return _frame(x, age=age, power=power.round(1), region=where, y=y.round(2))


def ratings(rng: Rng, n: int) -> pd.DataFrame:
    """Three hundred people and two hundred goods, each with hidden tastes; noise 0.5."""
    who, what = rng.integers(0, 300, n), rng.integers(0, 200, n)
    tastes, kinds = rng.normal(size=(300, 2)), rng.normal(size=(200, 2))
    own, good = rng.normal(0, 0.7, 300), rng.normal(0, 0.7, 200)
    y = own[who] + good[what] + (tastes[who] * kinds[what]).sum(1) + 0.5 * rng.normal(size=n)
    people, goods = [f"p{i}" for i in who], [f"g{i}" for i in what]
    return pd.DataFrame({"who": people, "what": goods, "hour": rng.integers(0, 24, n), "y": y.round(3)})  # fmt: skip


def genes(rng: Rng, n: int) -> pd.DataFrame:
    """Two classes by five of two hundred numbers, two of them in a product."""
    x = rng.normal(size=(n, 200))
    score = x[:, 0] + x[:, 1] - x[:, 2] + 1.5 * x[:, 3] * x[:, 4]
    return _frame(x, y=np.where(score + 0.5 * rng.normal(size=n) > 0, "ill", "well"))


def fraud(rng: Rng, n: int) -> pd.DataFrame:
    """A class of 5 %, inside a ring of two numbers and above an amount; 1 % of the labels wrong."""
    x, amount = rng.normal(size=(n, 6)), rng.lognormal(3, 1, n)
    shop = rng.choice(list("abcdefgh"), n)
    radius = np.hypot(x[:, 0], x[:, 1])
    found = (np.abs(radius - 1.2) < 0.35) & (amount > 35) & (shop < "e")
    found ^= rng.random(n) < 0.01
    return _frame(x, amount=amount.round(2), shop=shop, y=np.where(found, "yes", "no"))


def load(rng: Rng, n: int) -> pd.DataFrame:
    """A trend, a year, a week and a temperature on dates; noise 4."""
    day, warm = rng.integers(0, 2500, n), rng.normal(size=n)
    date = pd.to_datetime("2016-01-01") + pd.to_timedelta(day, "D")
    degrees = 12 - 10 * np.cos(2 * np.pi * date.dayofyear / 365) + 4 * warm
    y = 200 + 0.03 * day - 25 * (date.dayofweek > 4) + 1.5 * np.abs(degrees - 18)
    y = y + 8 * np.sin(4 * np.pi * date.dayofyear / 365) + 4 * rng.normal(size=n)
    shown = {"date": date.strftime("%Y-%m-%d"), "degrees": degrees.to_numpy().round(1)}
    return pd.DataFrame(shown | {"plant": rng.choice(["N", "S"], n), "y": y.round(2)})


def clinic(rng: Rng, n: int) -> pd.DataFrame:
    """Three classes that overlap, in five numbers and a category; 150 rows."""
    y = rng.integers(0, 3, n)
    x = rng.normal(size=(3, 5))[y] + 1.2 * rng.normal(size=(n, 5))
    sex = np.where(rng.random(n) < 0.3 + 0.2 * y, "f", "m")
    return _frame(x, sex=sex, y=np.array(["healthy", "mild", "severe"])[y])


def wells(rng: Rng, n: int) -> pd.DataFrame:
    """A product and a saturation in five numbers; noise of 15 %; 150 rows."""
    x = rng.random((n, 5))
    y = 20 * x[:, 0] * (0.5 + x[:, 1]) + 10 * np.tanh(3 * x[:, 2] - 1) + 6 * x[:, 3]
    return _frame(x, y=(y + 2 * rng.normal(size=n)).round(3))


def signs(rng: Rng, n: int) -> pd.DataFrame:
    """Eight classes of four clusters each, ten of sixteen numbers matter; 3 % of the labels wrong."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n, 16, n_informative=10, n_redundant=2, n_classes=8, n_clusters_per_class=4, flip_y=0.03,
        class_sep=1.5, random_state=int(rng.integers(10**6)),
    )  # fmt: skip
    return _frame(x, y=[f"class {i}" for i in y])


def circuit(rng: Rng, n: int) -> pd.DataFrame:
    """Friedman's second function, an impedance; noise of a third of its deviation."""
    from sklearn.datasets import make_friedman2

    x, y = make_friedman2(n, noise=125, random_state=int(rng.integers(10**6)))
    return _frame(x, y=y.round(2))


TABLES: dict[str, tuple[Callable[[Rng, int], pd.DataFrame], int]] = {
    "clinic": (clinic, 150),
    "wells": (wells, 150),
    "genes": (genes, 1000),
    "circuit": (circuit, 3000),
    "load": (load, 6000),
    "claims": (claims, 20_000),
    "fraud": (fraud, 20_000),
    "tariff": (tariff, 20_000),
    "ratings": (ratings, 30_000),
    "arm": (arm, 30_000),
    "machines": (machines, 40_000),
    "signs": (signs, 60_000),
}


def errors_on(
    name: str, seed: int, steps: int | None, edits: dict[str, object], folder: Path
) -> dict[str, float]:
    """Of the rivals, of the starter, of the starter with the edits; and the seconds of the latter."""
    tables, first = (TABLES, 137) if name in TABLES else (fresh_tables.TABLES, 138)
    make, rows = tables[name]
    path = folder / f"{name}-{seed}.csv"
    rng = np.random.default_rng([first, list(tables).index(name), seed])
    make(rng, rows + TEST).to_csv(path, index=False)
    fixed: dict[str, object] = {"data.source.target": "y"}
    fixed["data.test"] = round(TEST / (rows + TEST), 5)
    fixed |= {"stop.after": f"{steps}it"} if steps else {}
    return contest(path, fixed, seed, edits, RIVALS[: 3 if rows <= FOREST_ROWS else 2])


def contest(
    path: Path,
    fixed: dict[str, object],
    seed: int,
    edits: dict[str, object],
    rivals: tuple[str, ...] = RIVALS,
) -> dict[str, float]:
    """Errors on one split of a file, of the rivals, of the starter with the fields ``fixed``, and of the
    starter with the edits; and the seconds of the latter two."""
    recipe = start(path, {"data.seed": seed, "seed": seed} | fixed).recipe
    scores = classical_scores(Pipeline(recipe.data), seed, rivals)
    found = {s.model: 1 - s.value if s.metric == "accuracy" else s.value for s in scores}
    for title, tried in [("ravine", recipe), *([("edited", recipe.edit(edits))] if edits else [])]:
        began = time.process_time()
        out = path.parent / f"{path.stem}-{seed}-{title}"
        result = ravine.train(tried, out=out, quiet=True, doctor=False).result
        accuracy = result.get("test_accuracy")
        found[title] = result["test_rmse"] if accuracy is None else 1 - accuracy
        found[f"{title}, s"] = time.process_time() - began
    return found


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    return parser


def edits_of(options: argparse.Namespace) -> dict[str, object]:
    return {key: value_of(value) for key, value in (one.split("=", 1) for one in options.set)}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    edits = edits_of(options)
    found: dict[str, list[dict[str, float]]] = {}
    of_kind = fresh_tables.TABLES if options.fresh else TABLES
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen(parser, options.only, of_kind):
            found[name] = [
                errors_on(name, seed, options.steps, edits, Path(folder))
                for seed in range(options.first, options.first + options.seeds)
            ]
            means = {key: np.mean([one[key] for one in found[name]]) for key in found[name][0]}
            print(f"{name:9s}", *(f"{n} {v:.4g}" for n, v in means.items()), sep="  ", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    print_conclusion(list(found.values()), bool(edits))


def _ratio(one: float, other: float) -> float:
    """The logarithm of a ratio of errors; where one of them is 0, 0.001 is added to both."""
    added = 0.0 if min(one, other) > 0 else 0.001
    return float(np.log((one + added) / (other + added)))


def print_conclusion(found: list[list[dict[str, float]]], edited: bool) -> None:
    """Ranks among Ravine and its rivals, and ratios of errors."""
    ranks = []
    for each in found:
        mean = {k: np.mean([one[k] for one in each]) for k in each[0]}
        rivals = [k for k in mean if not k.startswith(("ravine", "edited"))]
        ranks.append(1 + sum(mean[k] < mean["ravine"] for k in rivals))
    print(f"mean rank of ravine: {np.mean(ranks):.2f}")
    pairs = [("ravine", "gradient boosting"), *([("edited", "ravine")] if edited else [])]
    for one, other in pairs:
        each = np.array([_ratio(*(float(np.mean([r[k] for r in e])) for k in (one, other))) for e in found])  # fmt: skip
        logs = np.array([_ratio(row[one], row[other]) for e in found for row in e])
        error = logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else float("nan")
        print(f"geometric mean of {one} over {other}: {np.exp(each.mean()):.3f} (standard error {error:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
