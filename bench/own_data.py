"""Tables as people bring them: Ravine's one-liner against scikit-learn with careful preprocessing.

    python bench/own_data.py [--seeds 5] [--only NAME,NAME] [--json FILE]

Every method sees the same rows: the file is split by the seed into training, validation and test
parts. Classical models are fitted to training and validation rows together, on the features of
Ravine's reader (identifiers and leaks are out, missing values filled and flagged). The error is
1 - accuracy, or the RMSE. Printed: the error of each method on each table (mean over seeds), its
mean rank, and the geometric mean of Ravine's error over that of each rival.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import ravine
from ravine.data.pipeline import Pipeline
from ravine.starters.start import start
from ravine.study.compare.classical import classical_scores

RIVALS = ("linear model", "gradient boosting", "random forest")


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


TABLES: dict[str, tuple[Callable[[np.random.Generator], pd.DataFrame], str]] = {
    **{
        name: (lambda rng, name=name: of_sklearn(name), "target")
        for name in ("breast_cancer", "wine", "iris", "digits", "diabetes")
    },
    "houses": (houses, "price"),
    "rents": (rents, "y"),
    "churn": (churn, "left"),
    "reviews": (reviews, "label"),
    "skewed": (skewed, "cost"),
}
PUBLIC = {"31627380_titanic.csv": "Survived", "auto-mpg.csv": "MPG", "adult.data": None}


def files(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """Every table as a file, and its target; the public ones where RAVINE_TABLES names their
    folder."""
    rng = np.random.default_rng(7)
    found: dict[str, tuple[Path, str | None]] = {}
    for name, (make, target) in TABLES.items():
        path = folder / f"{name}.csv"
        make(rng).to_csv(path, index=False)
        found[name] = path, target
    public = Path(os.environ.get("RAVINE_TABLES", "."))
    for name, target in PUBLIC.items():
        if (public / name).is_file():
            found[Path(name).stem] = public / name, target
    return found


# --- the contest ----------------------------------------------------------------------------------


def errors_on(path: Path, target: str | None, seed: int, folder: Path) -> dict[str, float]:
    """The error of every method on one split."""
    of_target = {"data.source.target": target} if target else {}
    recipe = start(path, {"data.seed": seed, "seed": seed} | of_target).recipe
    run = ravine.train(recipe, out=folder / f"{path.stem}-{seed}", quiet=True, doctor=False)
    scores = {s.model: s for s in classical_scores(Pipeline(recipe.data), seed, RIVALS)}
    found = {name: 1 - s.value if s.metric == "accuracy" else s.value for name, s in scores.items()}
    own = run.result
    found["ravine"] = 1 - own["test_accuracy"] if "test_accuracy" in own else own["test_rmse"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        tables = files(Path(place))
        wanted = options.only.split(",") if options.only else list(tables)
        for name in wanted:
            path, target = tables[name]
            each = [errors_on(path, target, seed, Path(place)) for seed in range(options.seeds)]
            rows[name] = {m: float(np.mean([one[m] for one in each])) for m in ("ravine", *RIVALS)}
            print(
                f"{name:16s}",
                *(f"{m} {v:.4g}" for m, v in rows[name].items()),
                sep="  ",
                flush=True,
            )
    print_conclusion(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def print_conclusion(rows: dict[str, dict[str, float]]) -> None:
    """Mean ranks, ratios, and the tables where Ravine is over 5 % worse than boosting."""
    methods = ("ravine", *RIVALS)
    table = np.array([[row[m] for m in methods] for row in rows.values()])
    ranks = (
        (table[:, :, None] > table[:, None, :]).sum(2)
        + 1
        + 0.5 * ((table[:, :, None] == table[:, None, :]).sum(2) - 1)
    )
    print(
        "mean rank:",
        *(f"{m} {r:.2f}" for m, r in zip(methods, ranks.mean(0), strict=True)),
        sep="  ",
    )
    for k, method in enumerate(methods[1:], 1):
        ratio = np.exp(np.mean(np.log((table[:, 0] + 1e-3) / (table[:, k] + 1e-3))))
        print(f"geometric mean of ravine's error over {method}'s: {ratio:.3f}")
    worse = [
        name for name, row in rows.items() if row["ravine"] > 1.05 * row["gradient boosting"] + 1e-9
    ]
    print("over 5 % worse than boosting:", ", ".join(worse) or "none")


if __name__ == "__main__":
    main()
