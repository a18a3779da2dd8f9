"""Estimators among scikit-learn's tools: frames in, names kept, early stopping, callables of one's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch.nn import functional as F

from ravine import RavineClassifier, RavineRegressor


def frame(n=240):
    draw = np.random.default_rng(0)
    x = pd.DataFrame({"a": draw.normal(size=n), "b": draw.normal(size=n)})
    x["city"] = np.array(["Bern", "Oslo", "Rome"])[draw.integers(0, 3, n)]
    wanted = x["a"] + x["b"] + (x["city"] == "Oslo") * 2
    return x, pd.Series(np.where(wanted > 0.7, "high", "low"), name="label"), wanted


def smooth(output, target):
    return F.cross_entropy(output, target, label_smoothing=0.05)


NET = {"epochs": 15, "lr": 0.02, "batch": 32}


def test_frames_are_taken_and_their_names_kept():
    x, y, _ = frame()
    fitted = RavineClassifier(**NET).fit(x[["a", "b"]], y)
    assert fitted.feature_names_in_.tolist() == ["a", "b"]
    assert set(fitted.predict(x[["a", "b"]])) == {"high", "low"}
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(x[["b", "a"]])


def test_a_pipeline_of_columns():
    x, y, _ = frame()
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["a", "b"]),
            ("words", OneHotEncoder(sparse_output=False), ["city"]),
        ]
    ).set_output(transform="pandas")
    pipe = make_pipeline(columns, RavineClassifier(**NET))
    assert cross_val_score(pipe, x, y, cv=3).mean() > 0.85
    names = pipe.fit(x, y)[-1].feature_names_in_.tolist()
    assert names == pipe[0].get_feature_names_out().tolist()


def test_own_callables_and_early_stopping_in_a_search():
    x, y, _ = frame()
    net = RavineClassifier(
        loss=smooth, optimizer=torch.optim.RMSprop, validation=0.2, epochs=60, batch=32,
        edits={"stop.patience": "3ep"},
    )  # fmt: skip
    search = GridSearchCV(net, {"lr": [1e-5, 0.02]}, cv=2).fit(x[["a", "b"]], y)
    assert search.best_params_ == {"lr": 0.02}
    best = search.best_estimator_
    assert best.n_iter_ < 60
    assert "no better val_loss" in best.result_["stopped"]


def test_a_regressor_is_cross_validated():
    x, _, wanted = frame()
    found = cross_validate(RavineRegressor(**NET), x[["a", "b"]], wanted, cv=3, scoring="r2")
    assert found["test_score"].mean() > 0.5
    predicted = cross_val_predict(RavineRegressor(**NET), x[["a", "b"]], wanted, cv=3)
    assert np.corrcoef(predicted, wanted)[0, 1] > 0.7
