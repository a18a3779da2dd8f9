"""Rows in time: the last are held out where the recipe names a column as their order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ravine
from ravine import InputError
from ravine.data.holdout import hold_out
from ravine.data.pipeline import Pipeline
from ravine.recipe import Data

DAYS = pd.date_range("2021-01-01", periods=200)


def series(place, day, **more):
    """Rows whose target is their place in time, in another order in the file."""
    frame = pd.DataFrame({"day": day, "x": np.arange(200.0) % 7, "y": np.arange(200.0) / 8, **more})
    frame.sample(frac=1, random_state=0).to_csv(place, index=False, sep=";")
    return place


def times(place, **columns):
    """The places in time of each part's rows, sorted."""
    source = {"kind": "csv", "path": str(place), "target": "y", "columns": columns}
    pipeline = Pipeline(Data(source=source, seed=3))
    found = {}
    for name in ("train", "validation", "test"):
        y = pipeline.raw(name, 200)[1]
        found[name] = sorted((8 * pipeline.target_units(y).flatten()).round().int().tolist())
    return pipeline, found


WRITTEN = {
    "days": DAYS.strftime("%Y-%m-%d"),
    "German days": DAYS.strftime("%d.%m.%Y"),
    "times": (pd.Timestamp("2021-01-01") + pd.to_timedelta(np.arange(200), "h")).astype(str),
    "running numbers": np.arange(200),
    "fractions": np.arange(200) / 4 - 20,
    "numbers as text": [f"{n} km" for n in range(200)],
}


@pytest.mark.parametrize("day", WRITTEN.values(), ids=WRITTEN)
def test_the_last_rows_are_tested_and_those_before_validated(tmp_path, day):
    pipeline, found = times(series(tmp_path / "t.csv", day), day="order")
    assert found == {
        "train": list(range(144)),
        "validation": list(range(144, 160)),
        "test": list(range(160, 200)),
    }
    assert [c["name"] for c in pipeline.preparation.facts["columns"]] == ["x"]


def test_rows_of_one_time_stay_together(tmp_path):
    _, found = times(series(tmp_path / "t.csv", 1990 + np.arange(200) // 50), day="order")
    assert [len(part) for part in found.values()] == [100, 50, 50]
    assert found["test"] == list(range(150, 200))


def test_rows_without_a_time_are_trained_on(tmp_path):
    day = DAYS.strftime("%Y-%m-%d").to_series().mask(np.arange(200) >= 190).to_numpy()
    with pytest.warns(UserWarning, match="10 rows have no 'day': they are trained on"):
        _, found = times(series(tmp_path / "t.csv", day), day="order")
    assert set(range(190, 200)) < set(found["train"])
    assert found["test"] == list(range(150, 190))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 30), min_size=5, max_size=80).filter(lambda found: len(set(found)) > 1),
    st.floats(0.05, 0.8),
)
def test_what_is_held_out_is_later_than_all_that_is_kept(found, fraction):
    order = torch.tensor(found, dtype=torch.float64)
    kept, held = hold_out(len(found), fraction, None, 0, "test", order=order)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(found)))
    assert float(order[kept].max()) < float(order[held].min())
    wanted = max(1, int(len(found) * fraction + 0.5))
    away = abs(len(held) - wanted)  # no other time to begin at is nearer
    assert away == min(abs(int((order >= t).sum()) - wanted) for t in set(found) - {min(found)})


REFUSED = {
    "words": ({"day": ["a", "b"] * 100}, {"day": "order"}, "dates or numbers to order the rows by"),
    "one time": ({"day": [2020] * 199 + [None]}, {"day": "order"}, "dates or numbers"),
    "two orders": ({"day": DAYS, "hour": range(200)}, {"day": "order", "hour": "order"}, "one column by which"),
    "a group too": ({"day": DAYS, "who": [*"abcd"] * 50}, {"day": "order", "who": "group"}, "one column by which"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_orders_refused(tmp_path, name):
    given_columns, kinds, told = REFUSED[name]
    with pytest.raises(InputError, match=told):
        times(series(tmp_path / "t.csv", **given_columns), **kinds)


def test_a_class_that_only_the_last_rows_have_is_refused(tmp_path):
    place = series(tmp_path / "t.csv", DAYS, kind=["old"] * 170 + ["new"] * 30)
    source = {"kind": "csv", "path": str(place), "target": "kind", "columns": {"day": "order"}}
    with pytest.raises(InputError, match="a class that only the last rows have"):
        Pipeline(Data(source=source))


def test_a_run_in_order_predicts_files_without_it(tmp_path):
    place = series(tmp_path / "t.csv", DAYS)
    run = ravine.train(
        place, target="y", columns={"day": "order"}, epochs=2, quiet=True, out=tmp_path / "run"
    )
    assert run.predict([{"x": 3.0}, {"x": 4.0}]).shape == (2, 1)


def test_the_doctor_says_how_rows_in_time_are_divided(tmp_path):
    walk = np.cumsum(np.random.default_rng(0).normal(size=200))
    place = series(tmp_path / "t.csv", DAYS, y=walk)
    run = ravine.train(place, target="y", epochs=2, quiet=True, out=tmp_path / "run")
    told = next(found for found in run.findings if found["code"] == "identifier_feature")
    assert 'data.source.columns.day = "order"' in str(told)
