"""Small tables that are drawn, with 2,000 test rows each: what a change of the starter's recipe does
where five seeds of a small published table are within an error or two.

    python bench/small_tables.py [--seeds 1] [--set FIELD=VALUE … | --splits MEMBERS] [--only NAME,NAME]

Each table has 150 to 400 rows beside those of the test part. Printed: the test error (1 - accuracy, or
RMSE) of a linear model, boosting and a forest, of the starter's recipe, and of that recipe with the
edits of ``--set``; and the geometric mean of the last two's ratio. With ``--splits`` instead: the mean
error of so many runs of the starter's recipe, the error of their mean answer where they differ in
their seeds alone, and where each holds back other rows for validation too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from own_data import RIVALS

import ravine
from ravine.data.pipeline import Pipeline
from ravine.starters.start import start
from ravine.training.classical import classical_scores

TEST = 2000


def _frame(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x.round(4), columns=[f"x{i}" for i in range(x.shape[1])]).assign(y=y)


def plane(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """A plane divides two classes, with noise."""
    x = rng.normal(size=(n, 8))
    return _frame(x, np.where(x @ rng.normal(size=8) + rng.normal(size=n) > 0, "a", "b"))


def clouds(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Three skewed clouds in four numbers."""
    y = rng.integers(0, 3, n)
    spread = 0.5 * np.eye(4) + 0.3 * rng.normal(size=(4, 4))
    x = 1.2 * rng.normal(size=(3, 4))[y] + rng.normal(size=(n, 4)) @ spread
    return _frame(np.exp(0.3 * x), np.array(["p", "q", "r"])[y])


def several(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Three classes of two clusters each, six of fifteen numbers noise."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n, 15, n_informative=5, n_redundant=4, n_classes=3, flip_y=0.03, class_sep=1.2,
        random_state=int(rng.integers(10**6)),
    )  # fmt: skip
    return _frame(x, np.array(["u", "v", "w"])[y])


def moons(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Two half moons and three numbers of noise."""
    from sklearn.datasets import make_moons

    x, y = make_moons(n, noise=0.25, random_state=int(rng.integers(10**6)))
    return _frame(np.c_[x, rng.normal(size=(n, 3))], np.array(["no", "yes"])[y])


def rules(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Thresholds and categories, as a tree divides; 7 % of the labels wrong."""
    colour, kind = rng.choice(["red", "green", "blue"], n), rng.choice(["x", "y"], n)
    a, b = rng.uniform(0, 100, n).round(1), rng.gamma(2, 10, n).round(2)
    good = (((a > 40) & (b < 25)) | ((colour == "red") & (kind == "x"))) ^ (rng.random(n) < 0.07)
    noise = rng.normal(size=(2, n)).round(3)
    frame = {"colour": colour, "kind": kind, "a": a, "b": b, "c": noise[0], "d": noise[1]}
    return pd.DataFrame(frame | {"y": np.where(good, "ok", "bad")})


def latent(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Thirty measurements of four hidden numbers."""
    hidden = rng.normal(size=(n, 4))
    x = hidden @ rng.normal(size=(4, 30)) + 0.5 * rng.normal(size=(n, 30))
    score = hidden @ [1.5, 1, -1, 0.5] + 0.3 * hidden[:, 0] * hidden[:, 1]
    return _frame(np.exp(0.4 * x), np.where(score + 0.5 * rng.normal(size=n) > 0.3, "M", "B"))


def slopes(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """A sum of ten numbers, five of them close to the others; noise 10."""
    x = rng.normal(size=(n, 10))
    x[:, 5:] += x[:, :5]
    return _frame(x, 50 + 10 * (x @ rng.normal(size=10)) + 10 * rng.normal(size=n))


def friedman(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Friedman's first function; noise 1."""
    x = rng.random((n, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    return _frame(x, y + 10 * x[:, 3] + 5 * x[:, 4] + rng.normal(size=n))


def steps(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Steps and a slope; noise 1."""
    x = rng.uniform(0, 10, (n, 6))
    y = 5 * (x[:, 0] > 4) + 3 * (x[:, 1] > 7) * (x[:, 2] < 5) + 0.5 * x[:, 3]
    return _frame(x, y + rng.normal(size=n))


def prices(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """A product of a category's factor and two numbers; noise of 10 %."""
    kind = rng.choice(list("ABCDEF"), n)
    factor = pd.Series(kind).map(dict(zip("ABCDEF", (1, 1.4, 0.8, 2, 1.1, 1.7), strict=True)))
    a, b = rng.gamma(3, 20, n), rng.integers(0, 30, n)
    y = 1000 * factor.to_numpy() * a * (1 - 0.01 * b) * np.exp(0.1 * rng.normal(size=n))
    return pd.DataFrame({"kind": kind, "a": a.round(1), "b": b, "y": y.round()})


TABLES: dict[str, tuple[Callable[[np.random.Generator, int], pd.DataFrame], int]] = {
    "plane": (plane, 200),
    "clouds": (clouds, 150),
    "several": (several, 300),
    "moons": (moons, 200),
    "rules": (rules, 400),
    "latent": (latent, 150),
    "slopes": (slopes, 150),
    "friedman": (friedman, 250),
    "steps": (steps, 400),
    "prices": (prices, 300),
}


def errors_on(name: str, seed: int, edits: dict[str, object], folder: Path) -> list[float]:
    """Of the rivals, of the starter, and of the starter with the edits."""
    make, rows = TABLES[name]
    path = folder / f"{name}-{seed}.csv"
    rng = np.random.default_rng([91, list(TABLES).index(name), seed])
    make(rng, rows + TEST).to_csv(path, index=False)
    fixed = {"data.source.target": "y", "data.test": round(TEST / (rows + TEST), 5)}
    recipe = start(path, {**fixed, "data.seed": seed, "seed": seed}).recipe
    scores = classical_scores(Pipeline(recipe.data), seed, RIVALS)
    found = [1 - s.value if s.metric == "accuracy" else s.value for s in scores]
    for place, tried in enumerate([recipe, recipe.edit(edits)] if edits else [recipe]):
        out = folder / f"{name}-{seed}-{place}"
        result = ravine.train(tried, out=out, quiet=True, doctor=False).result
        found.append(
            1 - result["test_accuracy"] if "test_accuracy" in result else result["test_rmse"]
        )
    return found


def errors_of_ensembles(name: str, seed: int, members: int, folder: Path) -> list[float]:
    """Of one run (the mean over all), of runs with other seeds together, of runs with other validation
    parts together."""
    make, rows = TABLES[name]
    rng = np.random.default_rng([91, list(TABLES).index(name), seed])
    frame = make(rng, rows + TEST)
    known, new = folder / f"{name}-{seed}.csv", folder / f"{name}-{seed}-new.csv"
    frame[:rows].to_csv(known, index=False)
    frame[rows:].drop(columns="y").to_csv(new, index=False)
    y = frame["y"][rows:].to_numpy()
    recipe = start(known, {"data.source.target": "y", "data.test": 0.0}).recipe
    x, _ = Pipeline(recipe.data).read(new)

    def answers(splits: bool) -> list[np.ndarray]:
        found = []
        for k in range(members):
            own = {"seed": 10 * seed + k, "data.seed": 10 * seed + splits * k}
            out = folder / f"{name}-{seed}-{splits}-{k}"
            run = ravine.train(recipe.edit(own), out=out, quiet=True, doctor=False)
            numeric = y.dtype.kind == "f"
            found.append(run.predict(x).ravel() if numeric else run.predict_proba(x))
        return found

    def error(answer: np.ndarray) -> float:
        if answer.ndim > 1:
            return float((np.unique(y)[answer.argmax(1)] != y).mean())
        return float(np.sqrt(((answer - y) ** 2).mean()))

    same, other = answers(False), answers(True)
    return [
        float(np.mean([error(one) for one in same])),
        error(np.mean(same, axis=0)),
        error(np.mean(other, axis=0)),
    ]


def value_of(text: str) -> object:
    """A number, a list or true where it reads as one, else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--splits", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    edits = {key: value_of(value) for key, value in (one.split("=", 1) for one in options.set)}
    names: tuple[str, ...] = (*RIVALS, "ravine", *(["edited"] if edits else []))
    if options.splits:
        names = ("one", "seeds", "splits")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(",") if options.only else TABLES:
            rows = [
                errors_of_ensembles(name, s, options.splits, Path(folder))
                if options.splits
                else errors_on(name, s, edits, Path(folder))
                for s in range(options.seeds)
            ]
            means = np.mean(rows, axis=0)
            ratios.append(np.log(means[-1] / means[-2]))
            print(f"{name:9s}", *(f"{n} {v:.4g}" for n, v in zip(names, means, strict=True)), sep="  ", flush=True)  # fmt: skip
    if edits or options.splits:
        print(f"geometric mean of {names[-1]} over {names[-2]}: {np.exp(np.mean(ratios)):.3f}")


if __name__ == "__main__":
    main()
