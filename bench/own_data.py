"""Tables as people bring them: Ravine's one-liner against scikit-learn with careful preprocessing
and a PyTorch loop tuned by hand.

    python bench/own_data.py [--seeds 5] [--minutes 1] [--only NAME,NAME] [--json FILE]

Every method sees the same rows: the file is split by the seed into training, validation and test
parts. Classical models are fitted to training and validation rows together, on the features of
Ravine's reader (identifiers and leaks are out, missing values filled and flagged); the loop is
trained on the training rows at three learning rates, of which the validation rows choose. The error
is 1 - accuracy, or the RMSE. Printed: the error of each method on each table (mean over seeds) and
the least that is possible where it is known, mean ranks, and the geometric mean of Ravine's error
over that of each rival. The tables of published questions (Titanic, cars, incomes) are added where
RAVINE_DATA names their folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from hand_loop import hand_tuned
from published_data import data_folder

import ravine
from ravine.data.pipeline import Pipeline
from ravine.starters.start import start
from ravine.training.classical import classical_scores

RIVALS = ("linear model", "gradient boosting", "random forest")
METHODS = ("ravine", *RIVALS, "PyTorch loop")


# --- the tables -----------------------------------------------------------------------------------


def of_sklearn(name: str) -> pd.DataFrame:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")(as_frame=True)
    return found.data.assign(target=found.target)


def houses(rng: np.random.Generator, n: int = 1500) -> pd.DataFrame:
    """Prices with marks, dates, words among numbers, an identifier; noise of 8 %."""
    size, age = rng.gamma(9, 12, n), rng.integers(0, 90, n)
    city = rng.choice(["Bonn", "Köln", "Ulm", "Essen", "Kiel"], n)
    garden = rng.random(n) < 0.4
    sold = pd.to_datetime("2015-01-01") + pd.to_timedelta(rng.integers(0, 3000, n), "D")
    base = pd.Series(city).map({"Bonn": 3.2, "Köln": 4.1, "Ulm": 2.6, "Essen": 1.9, "Kiel": 2.3})
    price = 1000 * base * size * (1 - 0.004 * age) * (1 + 0.05 * (sold.year - 2015))
    price = (price + 25_000 * garden) * np.exp(0.08 * rng.normal(size=n))
    frame = pd.DataFrame(
        {
            "customer": 70_000 + np.arange(n),
            "size": [f"{v:.1f} m²" for v in size],
            "age": age,
            "city": city,
            "garden": np.where(garden, "yes", "no"),
            "sold": sold.strftime("%d.%m.%Y"),
            "country": "DE",
            "price": [f"{v:,.0f}" for v in price],
        }
    )
    frame["age"] = frame["age"].astype(str).where(rng.random(n) > 0.03, "unknown")
    return frame


def rents(rng: np.random.Generator, n: int = 3000) -> pd.DataFrame:
    """Interactions and a periodic effect of the day; noise 1."""
    a, b, c = rng.normal(size=(3, n))
    days = rng.integers(0, 1500, n)
    y = 2 * np.sin(2 * a) + b * (c > 0) + 1.5 * np.sin(2 * np.pi * days / 365) + rng.normal(size=n)
    day = pd.to_datetime("2018-01-01") + pd.to_timedelta(days, "D")
    return pd.DataFrame({"a": a, "b": b, "c": c, "day": day.strftime("%Y-%m-%d"), "y": y})


def churn(rng: np.random.Generator, n: int = 2000) -> pd.DataFrame:
    """Two classes with an error of 15 % at best, gaps, a flag, a leak."""
    months, fee = rng.integers(1, 72, n), rng.gamma(4, 15, n)
    plan = rng.choice(["basic", "plus", "family", "pro"], n)
    score = (
        -0.05 * months
        + 0.03 * fee
        + pd.Series(plan).map({"basic": 1, "plus": 0, "family": -1, "pro": 0.5})
    )
    leaves = score > np.median(score)
    flipped = rng.random(n) < 0.15
    left = np.where(leaves ^ flipped, "yes", "no")
    frame = pd.DataFrame(
        {
            "months": months,
            "fee": [f"${v:.2f}" for v in fee],
            "plan": plan,
            "paperless": rng.choice(["true", "false"], n),
            "refund": np.where(left == "yes", 1, 0),
            "left": left,
        }
    )
    frame.loc[rng.random(n) < 0.1, "fee"] = ""
    return frame


def reviews(rng: np.random.Generator, n: int = 1200) -> pd.DataFrame:
    """The class stands in a text."""
    good = ["great", "lovely", "excellent", "happy", "perfect"]
    bad = ["awful", "broken", "terrible", "refund", "useless"]
    filler = ["the", "phone", "arrived", "and", "my", "colour", "box", "was", "today", "it"]
    label = rng.random(n) < 0.5
    texts = [
        " ".join(
            rng.permutation(
                [*rng.choice(filler, 7), *rng.choice(good if g ^ (rng.random() < 0.1) else bad, 2)]
            )
        )
        for g in label
    ]
    return pd.DataFrame(
        {
            "text": texts,
            "stars_given_before": rng.integers(1, 6, n),
            "label": np.where(label, "good", "bad"),
        }
    )


def skewed(rng: np.random.Generator, n: int = 2000) -> pd.DataFrame:
    """A log-normal target of ten numbers, of which four matter."""
    x = rng.normal(size=(n, 10))
    y = np.exp(
        3 + x[:, 0] + 0.5 * x[:, 1] * x[:, 2] - 0.7 * np.abs(x[:, 3]) + 0.2 * rng.normal(size=n)
    )
    return pd.DataFrame(x.round(4), columns=[f"x{i}" for i in range(10)]).assign(cost=y.round(2))


def friedman(rng: np.random.Generator, n: int = 1500) -> pd.DataFrame:
    """Ten numbers of which five matter; noise 1.

    Source: Friedman, "Multivariate adaptive regression splines", 1991.
    """
    x = rng.random((n, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    y = y + 10 * x[:, 3] + 5 * x[:, 4] + rng.normal(size=n)
    return pd.DataFrame(x.round(5), columns=[f"x{i}" for i in range(10)]).assign(y=y.round(4))


def shops(rng: np.random.Generator, n: int = 3000) -> pd.DataFrame:
    """Sales of sixty shops on the days of the week, with decimal commas; noise 2."""
    names = [
        f"{a}{b}" for a in ("Nord", "Süd", "Ost", "West", "Mitte", "Hafen") for b in "abcdefghij"
    ]
    shop, day = rng.integers(0, 60, n), rng.integers(0, 1200, n)
    size = rng.normal(20, 6, 60)
    sold = pd.to_datetime("2019-01-01") + pd.to_timedelta(day, "D")
    y = size[shop] + 4 * (sold.dayofweek == 5) - 15 * (sold.dayofweek == 6) + 0.004 * day
    offer = rng.random(n) < 0.2
    y = y + offer * size[shop] * 0.4 + 2 * rng.normal(size=n)
    return pd.DataFrame(
        {
            "shop": np.array(names)[shop],
            "date": sold.strftime("%d.%m.%Y"),
            "offer": np.where(offer, "ja", "nein"),
            "sales": [f"{v:.2f}".replace(".", ",") for v in y],
        }
    )


@dataclass
class Task:
    """A table: how it is made, what is predicted, and the least possible error where it is known."""

    make: Callable[[np.random.Generator], pd.DataFrame]
    target: str
    best: float | None = None


TABLES: dict[str, Task] = {
    **{
        name: Task(lambda rng, name=name: of_sklearn(name), "target")
        for name in ("breast_cancer", "wine", "iris", "digits", "diabetes")
    },
    "houses": Task(houses, "price"),
    "rents": Task(rents, "y", 1.0),
    "churn": Task(churn, "left", 0.15),
    "reviews": Task(reviews, "label", 0.1),
    "skewed": Task(skewed, "cost"),
    "friedman": Task(friedman, "y", 1.0),
    "shops": Task(shops, "sales", 2.0),
}
PUBLIC = {"31627380_titanic.csv": "Survived", "auto-mpg.csv": "MPG", "adult.data": None}


def files(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """Every table as a file, and its target."""
    found: dict[str, tuple[Path, str | None]] = {}
    for place, (name, task) in enumerate(TABLES.items()):
        path = folder / f"{name}.csv"
        task.make(np.random.default_rng([7, place])).to_csv(path, index=False)
        found[name] = path, task.target
    for name, target in PUBLIC.items():
        path = data_folder() / name
        if path.is_file():
            own = folder / f"{path.stem.split('_')[-1]}.csv"
            shutil.copyfile(path, own)
            found[own.stem] = own, target
    return found


# --- the contest ----------------------------------------------------------------------------------


def errors_on(
    path: Path, target: str | None, seed: int, minutes: float, folder: Path
) -> tuple[dict[str, float], float]:
    """The error of every method on one split, and Ravine's seconds."""
    edits = {"data.seed": seed, "seed": seed} | ({"data.source.target": target} if target else {})
    began = time.perf_counter()
    recipe = start(path, edits, minutes).recipe
    run = ravine.train(recipe, out=folder / f"{path.stem}-{seed}", quiet=True, doctor=False)
    seconds = time.perf_counter() - began
    pipeline = Pipeline(run.recipe.data)
    scores = classical_scores(pipeline, seed, RIVALS)
    found = {s.model: 1 - s.value if s.metric == "accuracy" else s.value for s in scores}
    own = run.result
    found["ravine"] = 1 - own["test_accuracy"] if "test_accuracy" in own else own["test_rmse"]
    found["PyTorch loop"] = hand_tuned(pipeline, seed)
    return found, seconds


def chosen(parser: argparse.ArgumentParser, only: str, known: Iterable[str]) -> list[str]:
    """The names of ``--only``, all that are known without it."""
    names = only.split(",") if only else list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"--only: no {', '.join(unknown)} here; known: {', '.join(known)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        tables = files(Path(place))
        for name in chosen(parser, options.only, tables):
            path, target = tables[name]
            each = [
                errors_on(path, target, seed, options.minutes, Path(place))
                for seed in range(options.seeds)
            ]
            rows[name] = {m: float(np.mean([one[m] for one, _ in each])) for m in METHODS}
            best = TABLES[name].best if name in TABLES else None
            shown = [f"{m} {v:.4g}" for m, v in rows[name].items()]
            shown += [f"possible {best:g}"] if best else []
            seconds = np.mean([seconds for _, seconds in each])
            print(f"{name:14s}", *shown, f"({seconds:.0f} s)", sep="  ", flush=True)
    print_conclusion(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def print_conclusion(rows: dict[str, dict[str, float]]) -> None:
    """Mean ranks, ratios, and the tables where Ravine is over 5 % worse than boosting."""
    table = np.array([[row[m] for m in METHODS] for row in rows.values()])
    ranks = (
        (table[:, :, None] > table[:, None, :]).sum(2)
        + 1
        + 0.5 * ((table[:, :, None] == table[:, None, :]).sum(2) - 1)
    )
    print(
        "mean rank:",
        *(f"{m} {r:.2f}" for m, r in zip(METHODS, ranks.mean(0), strict=True)),
        sep="  ",
    )
    for k, method in enumerate(METHODS[1:], 1):
        ratio = np.exp(np.mean(np.log((table[:, 0] + 1e-3) / (table[:, k] + 1e-3))))
        print(f"geometric mean of ravine's error over {method}'s: {ratio:.3f}")
    worse = [
        name for name, row in rows.items() if row["ravine"] > 1.05 * row["gradient boosting"] + 1e-9
    ]
    print("over 5 % worse than boosting:", ", ".join(worse) or "none")


if __name__ == "__main__":
    main()
