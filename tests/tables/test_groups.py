"""Rows of one patient or customer: kept in one part where the recipe says so, and named where they are not."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit

import ravine
from ravine import InputError
from ravine.data.holdout import hold_out
from ravine.data.pipeline import Pipeline
from ravine.data.sources import csv
from ravine.recipe import Data
from ravine.training.classical import classical_scores


def visits(place, patients=120, number=False, name="patient_id"):
    """Patients whose state their visits do not tell, but whose numbers tell the patient."""
    rng = np.random.default_rng(0)
    base, state = rng.normal(size=(patients, 3)), rng.choice(["ill", "well"], patients)
    who = np.repeat(np.arange(patients), rng.integers(3, 8, patients))
    x = base[who] + 0.02 * rng.normal(size=(len(who), 3))
    label = who * 7 + 1000 if number else np.array([f"P{w:04d}" for w in who])
    frame = pd.DataFrame(
        {name: label, "a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "state": state[who]}
    )
    frame.sample(frac=1, random_state=0).to_csv(place / "visits.csv", index=False)
    return frame


def parts_of(place, seed=0, **source):
    """Which patients each part has, told by their numbers."""
    path = str(place / "visits.csv")
    data = Data(source={"kind": "csv", "path": path, "target": "state", **source}, seed=seed)
    return Pipeline(data)


@pytest.mark.parametrize("number", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_of_a_group_stay_in_one_part(tmp_path, number, seed):
    frame = visits(tmp_path, number=number)
    pipeline = parts_of(tmp_path, seed, columns={"patient_id": "group"})
    who = {round(a, 9): p for a, p in zip(frame["a"], frame["patient_id"], strict=True)}
    found = {}
    for name in ("train", "validation", "test"):
        rows = torch.cat([x for x, _ in pipeline.part(name).chunks()])
        assert rows.shape[1] == 3  # the patient is no input
        found[name] = {who[round(float(a), 9)] for a in rows[:, 0]}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]
    assert sum(map(len, found.values())) == frame["patient_id"].nunique()


def test_without_it_the_test_is_too_good_and_this_is_said(tmp_path):
    visits(tmp_path)
    with pytest.warns(UserWarning, match=r'columns\.patient_id = "group"'):
        apart = parts_of(tmp_path)
    together = parts_of(tmp_path, columns={"patient_id": "group"})
    rows, patients = (
        classical_scores(p, 0, ("random forest",))[0].value for p in (apart, together)
    )
    assert rows > 0.9  # the forest knows the patients
    assert patients < 0.7  # and nothing of new ones


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *[("customer", True), ("userId", True), ("device id", True), ("subject", True)],
        *[("city", False), ("paid", False), ("model", False), ("grid", False)],
    ],
)
def test_names_of_whom_alone_are_told(tmp_path, name, told):
    visits(tmp_path, name=name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts_of(tmp_path)
    assert any("share the values" in str(w.message) for w in caught) == told


def test_ids_of_rows_are_not_told(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user_id": [f"u{i:04d}x" for i in range(200)], "a": rng.normal(size=200)})
    frame.assign(state=rng.choice(["p", "q"], 200)).to_csv(tmp_path / "visits.csv", index=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts_of(tmp_path)
    assert not any("share the values" in str(w.message) for w in caught)


def test_a_row_without_a_group_is_one_of_its_own(tmp_path):
    frame = visits(tmp_path).sample(frac=1, random_state=1)
    frame.iloc[:60, 0] = None
    frame.to_csv(tmp_path / "visits.csv", index=False)
    found = csv(tmp_path, path="visits.csv", target="state", columns={"patient_id": "group"}).groups
    counts = np.bincount(found.numpy())
    known = frame["patient_id"].value_counts()
    assert sorted(counts[counts > 0].tolist()) == sorted([*known, *[1] * 60])


def test_two_groups_and_a_single_one_are_refused(tmp_path):
    frame = visits(tmp_path)
    frame.assign(site="one").to_csv(tmp_path / "visits.csv", index=False)
    with pytest.raises(InputError, match="one column whose rows stay together"):
        parts_of(tmp_path, columns={"patient_id": "group", "a": "group"})
    with pytest.raises(InputError, match="got '1 group'"):
        parts_of(tmp_path, columns={"site": "group"})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=12, max_size=60),
    st.floats(0.1, 0.4),
    st.integers(0, 5),
    st.booleans(),
)
def test_whole_groups_near_the_fraction(sizes, fraction, seed, labelled):
    """As scikit-learn's GroupShuffleSplit, groups are whole; the rows are nearer to the fraction than a group."""
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = torch.arange(len(groups)) % 2 if labelled else None
    kept, held = hold_out(len(groups), fraction, labels, seed, "test", groups)
    assert torch.cat([kept, held]).sort().values.tolist() == list(range(len(groups)))
    assert not set(groups[kept].tolist()) & set(groups[held].tolist())
    assert abs(len(held) - fraction * len(groups)) <= max(sizes)
    split = GroupShuffleSplit(1, test_size=fraction, random_state=seed)
    theirs = next(split.split(groups, groups=groups))[1]
    assert abs(len(held) - fraction * len(groups)) <= abs(
        len(theirs) - fraction * len(groups)
    ) + max(sizes)


def test_predictions_need_no_group_and_carry_it(tmp_path):
    visits(tmp_path)
    path = tmp_path / "visits.csv"
    run = ravine.train(
        path, target="state", epochs=1, columns={"patient_id": "group"}, quiet=True, doctor=False,
        baselines=False, out=tmp_path / "run",
    )  # fmt: skip
    whole = run.predict(path)
    pd.read_csv(path).drop(columns="patient_id").to_csv(tmp_path / "new.csv", index=False)
    assert list(whole) == list(run.predict(tmp_path / "new.csv"))


def test_a_slip_in_a_sources_keyword_is_told(tmp_path):
    visits(tmp_path)
    with pytest.raises(InputError, match="did you mean 'columns'"):
        ravine.train(tmp_path / "visits.csv", colums={"patient_id": "group"}, quiet=True)
