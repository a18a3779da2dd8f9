"""Spaces are sampled, tightened and checked; searches choose on validation data, resume, and touch
test data once."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravine import InputError, Recipe
from ravine.engine.loop.halving import Halving
from ravine.rundir import RunDir
from ravine.study.directory import Study
from ravine.study.search import budget
from ravine.study.search import study as searching
from ravine.study.search.default_space import default_space
from ravine.study.search.methods import points_of
from ravine.study.search.space import (
    Choice,
    Integer,
    LogUniform,
    Normal,
    Space,
    Uniform,
    Variable,
)
from ravine.study.search.study import CONFIRMED, _space, confirmation, search
from ravine.study.signature import split_values
from ravine.study.training_time import seconds_of

BLOBS = Recipe(
    name="blobs",
    data={"source": "blobs", "batch": 32},
    model="softmax",
    optimizer="sgd",
    stop={"after": "3ep"},
)
LR = "optimizer.lr=loguniform:1e-4:1"


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("uniform:0:0.5", Uniform(0.0, 0.5)),
        ("loguniform:1e-5:1", LogUniform(1e-5, 1.0)),
        ("integer:1:9", Integer(1, 9)),
        ("normal:0:0.1", Normal(0.0, 0.1)),
        ("choice:sgd,adam", Choice(("sgd", "adam"))),
        ("0.1,0.01", Choice((0.1, 0.01))),
        ("choice:[64],[64, 32]", Choice(([64], [64, 32]))),
    ],
)
def test_distributions_are_read(text, distribution):
    assert Variable.parse(f"optimizer.lr={text}").distribution == distribution


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (["optimizer.lr"], "expected PATH=DISTRIBUTION"),
        (["optimizer.lr=logunifrom:1:2"], "did you mean 'loguniform'"),
        (["optimizer.lr=uniform:1"], "uniform:LOW:HIGH"),
        (["optimizer.lr=uniform:2:1"], "LOW < HIGH"),
        (["optimizer.lr=loguniform:0:1"], "0 < LOW < HIGH"),
        (["optimizer.lr=normal:0:0"], "standard deviation > 0"),
        (["optimizer.lr=integer:0.5:2"], "whole numbers"),
        (["optimiser.lr=uniform:0:1"], "did you mean 'optimizer.lr'"),
        (["optimizer.lr=uniform:-1:1"], "optimizer.lr"),
        ([LR, LR], "each field once"),
        (["optimizer.momentum=uniform:0:1 if optimizer.kind"], "if PATH=VALUE"),
        (["seed=1,2 if data.seed=1", "data.seed=1,2 if seed=1"], "do not go in a circle"),
    ],
)
def test_what_cannot_be_varied_is_said_before_anything_runs(vary, said, tmp_path):
    with pytest.raises(InputError) as caught:
        search(BLOBS, vary, quiet=True, out=tmp_path / "s")
    assert said in str(caught.value)
    assert not (tmp_path / "s").exists()


@given(
    st.floats(0, 0.999999),
    st.sampled_from([Uniform(-2.0, 3.0), LogUniform(1e-6, 10.0), Normal(1.0, 2.0)]),
)
def test_places_are_quantiles(u, distribution):
    u = min(max(u, 1e-6), 1 - 1e-6)
    assert distribution.place(distribution.at(u)) == pytest.approx(u, abs=1e-6)


@given(
    st.lists(st.floats(0, 0.99), min_size=1, max_size=3),
    st.sampled_from([Uniform(-2.0, 3.0), LogUniform(1e-6, 10.0)]),
)
def test_a_tightened_range_holds_the_best_within_the_old_one(us, distribution):
    best = [distribution.at(u) for u in us]
    new = distribution.tightened(best)
    low, high = distribution.place(new.low), distribution.place(new.high)
    assert -1e-6 <= low <= min(us) + 1e-6
    assert max(us) - 1e-6 <= high <= 1 + 1e-6
    assert high - low <= max(0.25, 2 * (max(us) - min(us))) + 1e-6


def test_tightened_choices_and_normals():
    assert Choice(("a", "b", "c")).tightened(["c", "a"]) == Choice(("a", "c"))
    assert Normal(0.0, 3.0).tightened([2.0, 2.0, 2.0]) == Normal(2.0, 1.0)
    assert Integer(1, 100).tightened([10, 12, 14]).low >= 1


def test_integers_are_equally_likely():
    counts = np.bincount([Integer(0, 3).at(u) for u in np.linspace(0, 1, 4001)[:-1]])
    assert counts.tolist() == [1000] * 4


def test_conditions_and_their_order():
    space = Space.parse(
        ["optimizer.momentum=uniform:0.5:0.9 if optimizer.kind=sgd", "optimizer.kind=adam,sgd"],
        BLOBS,
    )
    assert space.variables[0].path == "optimizer.kind"
    assert set(space.values([0.9, 0.5], BLOBS)) == {"optimizer.kind", "optimizer.momentum"}
    assert set(space.values([0.1, 0.5], BLOBS)) == {"optimizer.kind"}
    assert len(space.grid(3, BLOBS)) == 1 + 3


@given(
    st.lists(
        st.one_of(
            st.integers(-5, 5),
            st.sampled_from(["sgd", "adam"]),
            st.lists(st.integers(0, 9), min_size=1, max_size=3),
        ),
        min_size=1,
    )
)
def test_values_are_split_at_the_outer_commas(values):
    assert split_values(",".join(str(v) for v in values)) == values


@pytest.mark.parametrize("name", ["random", "sobol", "halton"])
def test_points_fill_the_cube(name):
    points = points_of(name, 25, 3, seed=1, round_=0)
    assert points.shape == (25, 3)
    assert (points >= 0).all()
    assert (points < 1).all()
    assert np.array_equal(points, points_of(name, 25, 3, seed=1, round_=0))
    assert not np.array_equal(points, points_of(name, 25, 3, seed=2, round_=0))
    if name != "random":  # evenly spread: every quarter of every axis is visited
        assert (
            np.stack([np.bincount((4 * axis).astype(int), minlength=4) for axis in points.T]) >= 4
        ).all()


@pytest.mark.parametrize("method", ["random", "grid", "sobol", "halton"])
def test_a_search_finds_a_better_rate_and_touches_the_test_data_once(method, tmp_path, drawn):
    poor = BLOBS.edit({"optimizer.lr": 1e-5})
    found = search(
        poor,
        [LR],
        method=method,
        members=4,
        rounds=2,
        points=4,
        finals=2,
        quiet=True,
        out=tmp_path / "s",
    )
    assert found["chosen"]["val_accuracy"][0] > found["default"]["val_accuracy"][0]
    assert found["chosen"]["test_accuracy"][0] > 0.6
    for stage in (tmp_path / "s" / "runs").iterdir():
        rundir = RunDir.open(stage)
        assert not [
            name
            for m in range(len(rundir.recipes))
            for name in rundir.result(m)
            if name.startswith("test_")
        ]
    chosen = Recipe.load(tmp_path / "s" / "chosen.toml")
    assert chosen.optimizer.lr == found["chosen"]["values"]["optimizer.lr"]
    expected = 4 if method == "grid" else 8
    assert len(found["table"]) == expected
    page = (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    assert len(set(re.findall(r'<svg role="img" aria-label="([^"]*)"', page))) == 2


def test_the_second_round_is_drawn_around_the_best(tmp_path):
    found = search(
        BLOBS, [LR], members=6, rounds=2, keep=1, finals=1, quiet=True, out=tmp_path / "s"
    )
    first, second = (
        [row["optimizer.lr"] for row in found["table"] if row["round"] == r] for r in (1, 2)
    )
    assert max(second) / min(second) < max(first) / min(first)
    assert found["spaces"]["random"][0] != found["spaces"]["random"][1]


def test_hopeless_members_are_dropped_early(tmp_path):
    recipe = BLOBS.edit({"stop.after": "20ep"})
    found = search(recipe, [LR], members=9, rounds=1, finals=1, quiet=True, out=tmp_path / "drop")
    ends = sorted(row["epochs"] for row in found["table"])
    assert ends[0] == 2
    assert ends[-1] == 20
    assert ends.count(20) <= 3
    assert found["table"][0]["stopped"] == "finished"
    whole = search(
        recipe, [LR], members=9, rounds=1, finals=1, drop=False, quiet=True, out=tmp_path / "whole"
    )
    assert {row["epochs"] for row in whole["table"]} == {20}


def test_rounds_go_from_coarse_to_fine(tmp_path):
    recipe = BLOBS.edit({"stop.after": "20ep"})
    found = search(recipe, [LR], members=9, rounds=2, finals=2, quiet=True, out=tmp_path / "s")
    first, second = ([row for row in found["table"] if row["round"] == r] for r in (1, 2))
    assert max(row["epochs"] for row in first) == 6  # a fifth, at whole multiples of the first age
    assert sum(row["stopped"].startswith("end of the coarse stage") for row in first) == 1
    assert sum(row["stopped"] == "finished" for row in second) == 1
    assert found["table"][0]["round"] == 2
    assert [row["method"] for row in found["finals"]] == ["random", "recipe as it was"]


def test_structural_fields_become_programs(tmp_path):
    found = search(
        BLOBS,
        ["data.batch=16,64", LR],
        members=6,
        rounds=1,
        finals=1,
        quiet=True,
        out=tmp_path / "s",
    )
    assert {row["data.batch"] for row in found["table"]} == {16, 64}
    assert len(RunDir.open(tmp_path / "s" / "runs" / "random-1").facts["programs"]) == 2


def test_a_model_based_sampler_is_asked_and_told(tmp_path):
    pytest.importorskip("optuna")
    found = search(
        BLOBS,
        [LR],
        method="random,optuna:TPESampler",
        members=4,
        rounds=2,
        finals=1,
        quiet=True,
        out=tmp_path / "s",
    )
    assert [row["method"] for row in found["methods"]] == ["random", "optuna:TPESampler"]
    assert [row["runs"] for row in found["methods"]] == [8, 8]
    with pytest.raises(InputError, match="did you mean 'optuna:TPESampler'"):
        search(BLOBS, [LR], method="optuna:TPSampler", quiet=True, out=tmp_path / "t")


def test_asha_refills_the_rows_of_losers(tmp_path):
    recipe = BLOBS.edit({"stop.after": "9ep"})
    found = search(
        recipe,
        [LR],
        method="asha",
        members=4,
        rounds=3,
        finals=1,
        first="1ep",
        eta=3,
        quiet=True,
        out=tmp_path / "s",
    )
    stopped = [row["stopped"] for row in found["table"]]
    assert len(stopped) == 12
    assert stopped.count("finished") < 6
    assert any(reason.startswith("dropped by halving at 1ep") for reason in stopped)
    assert found["table"][0]["stopped"] == "finished"
    assert max(row["epochs"] for row in found["table"]) == 9


def test_a_refilled_row_trains_as_one_that_began_at_once(tmp_path):
    """With the full batch every step sees the same data, so a member that began later must equal
    its solo run."""
    import ravine

    recipe = BLOBS.edit(
        {
            "data.batch": "full",
            "precision": "float64",
            "schedule": {"kind": "cosine", "warmup": "2it"},
            "optimizer": {"kind": "adam", "lr": 0.01},
        }
    )
    many = [recipe.edit({"seed": i, "stop.after": f"{4 + 3 * (i % 2)}ep"}) for i in range(5)]
    together = ravine.train_many(many, width=2, quiet=True, out=tmp_path / "many")
    for i, (one, run) in enumerate(zip(many, together, strict=True)):
        alone = ravine.train(one, quiet=True, out=tmp_path / f"alone{i}")
        assert run.result["steps"] == alone.result["steps"]
        np.testing.assert_allclose(run.losses, alone.losses, rtol=1e-9)
        np.testing.assert_allclose(run.metrics["val_loss"], alone.metrics["val_loss"], rtol=1e-9)


@pytest.mark.parametrize(
    ("values", "stay"),
    [([3.0, 2.0, 1.0], [False, False, True]), ([1.0], [True]), ([math.nan, 5.0], [False, True])],
)
def test_halving_keeps_the_best_part(values, stay):
    rule = Halving("val_loss", eta=3)
    assert [rule.stays(value, values) for value in values] == stay


def test_without_fields_the_usual_ones_are_varied(tmp_path):
    recipe = BLOBS.edit(
        {
            "model": {"kind": "mlp", "hidden": [8], "dropout": 0.1},
            "optimizer": {"kind": "adamw", "lr": 0.01},
        }
    )
    found = search(recipe, members=3, rounds=1, finals=1, quiet=True, out=tmp_path / "s")
    values = {"optimizer.lr", "optimizer.weight_decay", "model.dropout", "loss.label_smoothing"}
    assert values | {"model.hidden"} <= set(found["table"][0])
    assert all(1e-3 <= row["optimizer.lr"] <= 0.1 for row in found["table"])
    sizes = {str(row["model.hidden"]) for row in found["table"]}
    assert sizes <= {"[4]", "[8]", "[16]", "[8, 8]"}
    programs = RunDir.open(tmp_path / "s" / "runs" / "random-1").facts["programs"]
    assert len(programs) == len(sizes)  # all others differ within one population
    assert Recipe.load(tmp_path / "s" / "chosen.toml").loss.kind == "cross_entropy"


def test_equal_values_are_told_apart_by_the_last_epochs():
    rule = Halving("val_accuracy", eta=3)
    standings = [(0.98, 0.95), (0.98, 0.97), (0.98, 0.96)]
    assert [rule.stays(own, standings) for own in standings] == [False, True, False]


def test_a_model_given_in_python_has_no_fields_to_vary(tmp_path):
    from torch import nn

    recipe = Recipe(data={"batch": 16}, stop={"after": "1ep"})
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    data = (x, (x[:, 0] > 0).astype(np.int64))
    found = search(
        recipe,
        members=2,
        rounds=1,
        finals=1,
        model=lambda: nn.Linear(3, 2),
        data=data,
        quiet=True,
        out=tmp_path / "s",
    )
    assert set(found["chosen"]["values"]) == {
        "optimizer.lr",
        "optimizer.weight_decay",
        "loss.label_smoothing",
    }


@pytest.mark.parametrize(
    ("model", "optimizer", "expected"),
    [
        ({"kind": "mlp", "hidden": [64]}, "adamw", "model.hidden=choice:[32],[64],[128],[64, 64]"),
        ("lenet", "adamw", "model.channels=choice:[16, 32],[32, 64],[64, 128]"),
        ("lstm", "adamw", "model.units=choice:64,128,256"),
        ({"kind": "resnet", "depth": 8}, "adamw", "model.width=choice:8,16,32"),
        (
            ["flatten", {"kind": "dense", "units": 32}, "relu", {"kind": "dense", "units": 3}],
            "adamw",
            "model.layers.1.units=choice:16,32,64",
        ),
        ("softmax", "rprop", "loss.l2=loguniform:1e-06:0.01"),
    ],
)
def test_the_default_space_holds_size_and_regularisation(model, optimizer, expected):
    _, vary = default_space(Recipe(model=model, optimizer=optimizer), "regression")
    assert vary[0].startswith("optimizer.lr=")
    assert expected in vary
    assert any("weight_decay" in text or "loss.l2" in text for text in vary)


@pytest.mark.parametrize(
    ("found", "before", "metric", "confirmed"),
    [
        ([0.95, 0.96, 0.97], [0.90, 0.92, 0.91], "val_accuracy", True),
        ([0.90, 0.92, 0.91], [0.95, 0.96, 0.97], "val_accuracy", False),
        ([0.90, 0.92, 0.91], [0.95, 0.96, 0.97], "val_loss", True),
        ([0.95, 0.90, 0.97], [0.94, 0.93, 0.95], "val_accuracy", False),  # within the noise
        ([0.95], [0.90], "val_accuracy", False),  # one seed confirms nothing
        ([0.95, math.nan, 0.97], [0.90, 0.92, 0.91], "val_accuracy", False),
    ],
)
def test_an_architecture_is_confirmed_by_fresh_seeds(found, before, metric, confirmed):
    from scipy.stats import ttest_rel

    p = confirmation(found, before, metric)
    assert (p < CONFIRMED) == confirmed
    if len(found) > 1 and np.isfinite(found).all():
        side = "less" if metric == "val_loss" else "greater"
        assert p == pytest.approx(ttest_rel(found, before, alternative=side).pvalue)


def test_an_architecture_that_is_not_confirmed_is_not_kept(tmp_path):
    found = search(
        BLOBS.edit({"model": {"kind": "mlp", "hidden": [8]}, "optimizer.lr": 0.1}),
        ["model.hidden=[8],[16],[4]"],
        method="grid",
        finals=1,  # one seed confirms nothing
        quiet=True,
        out=tmp_path / "s",
    )
    assert Recipe.load(tmp_path / "s" / "chosen.toml").model.hidden == (8,)
    assert not found["chosen"]["other architecture"]
    assert {row.get("model.hidden") and tuple(row["model.hidden"]) for row in found["finals"]} >= {
        (8,),
        None,
    }
    best = found["table"][0]["model.hidden"]
    if best != [8]:
        assert found["not confirmed"]["values"] == {"model.hidden": best}


@pytest.mark.parametrize(("seconds", "sizes"), [(1.0, "[4],[8],[16],[8, 8]"), (2.0, "[4],[8]")])
def test_a_short_search_tries_no_larger_network(seconds, sizes, tmp_path, monkeypatch):
    """The clock is given: 60 whole runs of the recipe fit into the minute, or 30."""
    monkeypatch.setattr(searching, "seconds_of", lambda *_: seconds)
    recipe = BLOBS.edit({"model": {"kind": "mlp", "hidden": [8]}})
    study = Study("search", recipe, {"minutes": 1.0}, out=tmp_path / "s", quiet=True)
    assert f"model.hidden=choice:{sizes}" in _space(study, ()).say()


def test_rounds_are_planned_from_the_minutes(tmp_path, monkeypatch):
    """The clock is given: a member's whole run costs 1.5 seconds, the finals 13.5."""
    monkeypatch.setattr(budget, "seconds_of", lambda recipes, *_: 1.5 * len(recipes))
    monkeypatch.setattr(budget.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(budget.TimeBudget, "trained", lambda self: spend(self))
    monkeypatch.setattr(budget.TimeBudget, "spent", property(lambda self: spent[0]))
    spent = [0.0]

    def spend(self):
        spent[0] += self._predicted

    recipe = BLOBS.edit({"stop.after": "20ep"})
    found = search(recipe, [LR], minutes=1, finals=3, quiet=True, out=tmp_path / "s")
    assert 48 <= spent[0] + 13.5 <= 49  # all but what is kept for the report and for errors
    assert found["finals"][0]["seeds"] == 10  # the clock stands still in the finals
    assert len({row["round"] for row in found["table"]}) > 2
    assert found["minutes"] == 1
    with pytest.raises(InputError, match=r"--minutes: got 0\.1; expected at least"):
        search(recipe, [LR], minutes=0.1, quiet=True, out=tmp_path / "t")
    spent[0] = 0.0
    with pytest.raises(InputError, match="needed: --epochs 13 would fit"):
        search(recipe, [LR], minutes=0.3, quiet=True, out=tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_the_time_of_a_study_is_that_of_its_own_data():
    x, y = np.zeros((40, 3), "float32"), np.arange(40) % 2
    recipe = BLOBS.edit({"data.source": "arrays", "data.batch": 8})
    assert seconds_of([recipe], data=(x, y)) > 0


def test_a_third_goes_on_where_nothing_is_said():
    assert inspect.signature(search).parameters["eta"].default == Halving("val_loss").eta == 3
