"""Comparisons: corrected p-values, the order of finish, targets, baselines; the learning-rate panel
against a bowl's curvature."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

import ravine
from ravine import Recipe
from ravine.study.compare.figures import _answer
from ravine.study.compare.significance import MOST, holm, paired_tests, seeds_needed
from ravine.study.compare.study import _soon, compare, variants_of
from ravine.study.lr.study import judge, lr

BLOBS = Recipe(
    name="blobs",
    data={"source": "blobs", "batch": 32},
    model="softmax",
    stop={"after": "3ep"},
    precision="float64",
    threads=1,
)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotone_and_between_raw_and_bonferroni(p):
    corrected = np.array(holm(p))
    assert (corrected >= np.array(p) - 1e-12).all()
    assert (corrected <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    order = np.argsort(p)
    assert (np.diff(corrected[order]) >= -1e-12).all()


def test_pairs_are_tested_as_scipy_does():
    draw = np.random.default_rng(0)
    scores = {
        name: (draw.normal(size=10) + shift).tolist()
        for name, shift in (("a", 0.0), ("b", 1.0), ("c", 0.1))
    }
    scores["d"] = [*scores["a"][:9], math.nan]
    for row in paired_tests(scores):
        x, y = (np.array(scores[row[side]]) for side in ("one", "other"))
        both = np.isfinite(x) & np.isfinite(y)
        if "d" in (row["one"], row["other"]) and "a" in (row["one"], row["other"]):
            assert row["raw p"] == 1.0  # equal in every pair
            continue
        assert row["pairs"] == both.sum()
        assert row["raw p"] == pytest.approx(stats.ttest_rel(x[both], y[both]).pvalue, rel=1e-9)
        assert row["difference"] == pytest.approx((x - y)[both].mean())


def test_variants_are_every_combination():
    found = variants_of(BLOBS, ["optimizer.kind=sgd,adam", "data.batch=16,32"])
    assert [v.label for v in found] == [
        "sgd, batch 16",
        "sgd, batch 32",
        "adam, batch 16",
        "adam, batch 32",
    ]
    whole = variants_of(BLOBS, ['optimizer={kind="sgd",lr=0.1},{kind="adam",lr=0.01}'])
    assert [v.label for v in whole] == ["sgd, lr 0.1", "adam, lr 0.01"]


def test_the_order_of_finish_is_that_of_single_runs(tmp_path):
    kinds = ["sgd", "adam", "rmsprop", "adagrad"]
    found = compare(
        BLOBS,
        [f"optimizer.kind={','.join(kinds)}"],
        seeds=2,
        tune=None,
        metric="val_loss",
        quiet=True,
        out=tmp_path / "c",
    )
    assert found["programs"] == 1
    alone = {}
    for kind in kinds:
        runs = [
            ravine.train(
                BLOBS.edit({"optimizer.kind": kind, "seed": 1000 + i}),
                quiet=True,
                out=tmp_path / f"{kind}{i}",
            )
            for i in range(2)
        ]
        alone[kind] = np.mean([run.result["test_loss"] for run in runs])
    assert [row["variant"] for row in found["table"]] == sorted(kinds, key=alone.get)
    for row in found["table"]:
        assert row["test_loss"][0] == pytest.approx(alone[row["variant"]], rel=1e-8)


@pytest.mark.slow
def test_twelve_optimisers_and_ten_seeds_finish_as_they_do_alone():
    place = Path(__file__).parents[2] / "bench" / "compare.py"
    spec = importlib.util.spec_from_file_location("bench_compare", place)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    found = bench.compared(seeds=10, epochs=5)
    assert (found["runs"], found["programs"], len(found["rows"])) == (120, 1, 12)
    assert found["tau"] == 1
    assert max(row["difference"] for row in found["rows"]) < 1e-3


def test_each_variant_gets_its_own_rate(tmp_path):
    found = compare(
        BLOBS.edit({"stop.after": "5ep"}),
        ["optimizer.kind=sgd,adam"],
        seeds=3,
        rates=[1e-4, 0.05, 0.5],
        quiet=True,
        out=tmp_path / "c",
    )
    tuned = {row["variant"]: row["optimizer.lr"] for row in found["table"]}
    for kind, rate in tuned.items():
        own = [row for row in found["tuning"] if row["variant"] == kind]
        best = min(own, key=lambda row: (-row["val_accuracy"], row["val_loss"]))
        assert rate == best["optimizer.lr"]
    assert all(
        row["seconds to target"] is None or row["seconds to target"] > 0 for row in found["table"]
    )
    assert {row["reached"] for row in found["table"]} <= {f"{n} of 3" for n in range(4)}


@pytest.mark.parametrize(("metric", "sign"), [("val_accuracy", 1), ("val_loss", -1)])
def test_the_target_is_reached_by_the_first_epoch_that_is_as_good(metric, sign):
    def run(*values):
        of = [{"epoch": i + 1, metric: 1 + sign * value} for i, value in enumerate(values)]
        return SimpleNamespace(metrics=pd.DataFrame(of))

    runs = [run(0.1, 0.3, 0.2), run(0.2, 0.1, 0.4), run(0.1, 0.1, 0.1)]
    assert _soon(runs, metric, 1 + sign * 0.3, 2.0) == {
        "reached": "2 of 3",
        "epochs to target": 3.0,
        "seconds to target": 6.0,
    }


def test_resampled_seeds_see_other_splits(tmp_path):
    found = compare(
        BLOBS,
        ["optimizer.kind=sgd,adam"],
        seeds=2,
        tune=None,
        resample=True,
        quiet=True,
        out=tmp_path / "c",
    )
    assert found["programs"] == 2


def test_baselines_are_scikit_learns(tmp_path):
    from sklearn.linear_model import LogisticRegression

    from ravine.study.compare.baselines import baselines
    from ravine.study.measuring import pipeline_of

    pipeline = pipeline_of(BLOBS)
    rows = {row["model"]: row for row in baselines(pipeline, seed=0)}
    assert set(rows) == {
        "logistic regression",
        "perceptron",
        "k-nearest neighbours",
        "support vector machine",
        "decision tree",
        "random forest",
    }
    parts = {split: list(pipeline.split(split)) for split in ("train", "test")}
    x, y = (
        torch.cat([getattr(batch, name) for batch in parts["train"]]).numpy() for name in ("x", "y")
    )
    tx, ty = (
        torch.cat([getattr(batch, name) for batch in parts["test"]]).numpy() for name in ("x", "y")
    )
    own = (
        LogisticRegression(max_iter=1000)
        .fit(x.reshape(len(x), -1).astype(float), y)
        .score(tx.reshape(len(tx), -1), ty)
    )
    assert rows["logistic regression"]["test_accuracy"] == pytest.approx(own)


class Bowl(nn.Module):
    def __init__(self, curvature: float):
        super().__init__()
        self.theta = nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
        self.register_buffer(
            "h", torch.tensor([curvature, curvature / 10, curvature / 100], dtype=torch.float64)
        )

    def forward(self, x):
        return 0.5 * (self.h * (self.theta - x) ** 2).sum(1)


@pytest.mark.parametrize("curvature", [0.5, 8.0])
def test_the_edge_of_divergence_of_a_bowl_is_two_over_its_curvature(curvature, tmp_path):
    recipe = Recipe(
        loss="output",
        optimizer="sgd",
        data={"batch": "full", "validation": 0.2},
        precision="float64",
    )
    data = np.zeros((20, 3))
    found = lr(
        recipe,
        low=1e-3,
        high=100,
        rates=24,
        after="150it",
        model=lambda: Bowl(curvature),
        data={"train": data, "validation": data[:4]},
        quiet=True,
        out=tmp_path / "lr",
    )
    below, above = found["edge"]
    assert below <= 2 / curvature * 1.02
    assert above >= 2 / curvature * 0.98
    assert found["range"][0] <= found["suggested"] <= found["range"][1] < above


def test_verdicts_of_rates():
    steps = np.arange(100)
    losses = [
        np.full(100, 2.3),
        2.3 - 0.005 * steps,
        2.3 * np.exp(-steps / 20),
        2.3 * np.exp(-steps / 10),
        2.3 + 0.1 * steps,
        np.full(100, np.nan),
    ]
    losses[5][0] = 2.3
    found = judge([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0], losses, ["finished"] * 5 + ["diverged"])
    assert [row["verdict"] for row in found["table"]] == [
        "too low",
        "too low",
        "good",
        "good",
        "diverged",
        "diverged",
    ]
    assert found["suggested"] == 1e-2
    assert found["range"] == [1e-3, 1e-2]
    assert found["edge"] == [1e-2, 1e-1]
    nothing = judge([0.1, 1.0], [np.full(9, 1.0), np.full(9, np.nan)], ["finished", "diverged"])
    assert nothing["suggested"] is None


def test_the_example_of_a_quadratic_bowl(tmp_path):
    place = Path(__file__).parents[2] / "examples" / "quadratic_bowl.py"
    spec = importlib.util.spec_from_file_location("quadratic_bowl", place)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = example.main(str(tmp_path / "bowl"), epochs=10, seeds=2)
    least = float(torch.trace(example.curvature())) / 2
    assert [row["variant"] for row in found["table"][:2]] != ["sgd", "sgd"]
    for row in found["table"]:  # the noise alone costs trace(Q) / 2; a step away costs more
        assert 0.93 * least < row["test_loss"][0] < 1.3 * least
    run = ravine.Run(
        tmp_path / "bowl" / "runs" / "seeds", 0, module=lambda: example.Bowl(example.curvature())
    )
    assert run.result["steps"] == 10 * (example.SAMPLES // 128)  # incomplete batches are dropped
    away, q = (
        run.model.theta.detach() - torch.from_numpy(example.noise(1)).mean(0),
        example.curvature(),
    )
    start = torch.ones(example.DIMENSIONS) - torch.from_numpy(example.noise(1)).mean(0)
    assert away @ q @ away < 0.2 * (start @ q @ start)


# --- what a comparison says -----------------------------------------------------------------------


@pytest.mark.parametrize("effect", [0.4, 0.8, 2.0])
def test_as_many_seeds_as_are_needed_find_the_difference(effect):
    draw = np.random.default_rng(0)
    seen = np.array([-1.0, 0.0, 1.0]) + effect  # of deviation 1
    n = seeds_needed(seen)
    for count, enough in ((n, True), (max(2, n // 2), False)):
        trials = draw.normal(effect, 1.0, (4000, count))
        power = float((stats.ttest_1samp(trials, 0.0, axis=1).pvalue < 0.05).mean())
        assert (power >= 0.78) == enough


def test_nothing_is_estimated_from_nothing():
    assert seeds_needed([0.1]) is None
    assert seeds_needed([0.1, 0.1]) is None
    assert seeds_needed([1e-9, -1e-3, 1e-3]) == MOST


def told(
    scores: dict[str, list[float]],
    rates: str = "tuned",
    tuned: str | None = None,
    tuning: list[dict[str, float]] | None = None,
    rates_of: dict[str, float] | None = None,
) -> str:
    """What a comparison with these scores says first."""
    pairs = paired_tests(scores)
    order = sorted(scores, key=lambda name: -np.mean(scores[name]))
    against = {frozenset((row["one"], row["other"])): row["p"] for row in pairs}
    table = [
        {
            "variant": name,
            "val_accuracy": [float(np.mean(scores[name])), 0.01],
            "p against the best": against.get(frozenset((order[0], name))),
            "lr": (rates_of or {}).get(name),
        }
        for name in order
    ]
    summary = {"final": "val_accuracy", "table": table, "pairs": pairs, "rates": rates}
    return " ".join(_answer(summary | {"tuned": tuned, "tuning": tuning or [], "seeds": 4}))


CLEAR = {"adam": [0.95, 0.96, 0.95, 0.96], "sgd": [0.90, 0.91, 0.905, 0.91]}
ALIKE = {"adam": [0.95, 0.96, 0.92, 0.94], "sgd": [0.94, 0.97, 0.93, 0.92]}


def test_a_variant_is_called_the_best_only_if_rates_are_tuned_and_it_can_be_told():
    assert "adam finishes best, each at its tuned rate" in told(CLEAR)
    assert "No variant is shown to be the best" in told(ALIKE)
    for scores in (CLEAR, ALIKE):
        untuned = told(scores, "not tuned")
        assert untuned.startswith("Rates are not tuned")
        assert "finishes best" not in untuned
    assert "adam and sgd differ" not in told(ALIKE, "not tuned")


def test_no_variant_is_best_beside_one_whose_rate_is_at_the_edge_of_those_tried():
    tried = [{"lr": 0.1}, {"lr": 1.0}, {"lr": 10.0}]
    for rate, edge in ((1.0, False), (10.0, True)):
        said = told(CLEAR, tuned="lr", tuning=tried, rates_of={"adam": 1.0, "sgd": rate})
        assert ("adam finishes best" in said) != edge
        assert ("not called the best: the best lr of sgd is at the edge" in said) == edge


def test_the_seeds_that_would_be_needed_are_said():
    said = told(ALIKE)
    needed = seeds_needed(np.array(ALIKE["adam"]) - np.array(ALIKE["sgd"]))
    assert needed > 4
    assert f"adam and sgd {needed:,}" in said
    assert "80 % power" in said
    same = told({"adam": [0.9, 0.9, 0.9, 0.9], "sgd": [0.9, 0.9, 0.9, 0.9]})
    assert "the runs are alike" in same


@pytest.mark.parametrize(
    ("over", "how", "tuned"),
    [
        (["optimizer.kind=sgd,adam"], "lr", "tuned"),
        (["optimizer.kind=sgd,adam"], None, "not tuned"),
        (["optimizer.lr=0.01,0.1"], "lr", "compared"),
        (['optimizer={kind="sgd",lr=0.1},{kind="adam",lr=0.01}'], "lr", "not tuned"),
    ],
)
def test_rates_are_tuned_unless_they_are_compared_or_given(over, how, tuned, tmp_path):
    rates = [0.01, 0.1] if tuned == "tuned" else None
    recipe = BLOBS.edit({"stop.after": "1ep"})
    found = compare(recipe, over, seeds=2, tune=how, rates=rates, quiet=True, out=tmp_path / "c")
    assert found["rates"] == tuned
    assert bool(found["tuning"]) == (tuned == "tuned")
