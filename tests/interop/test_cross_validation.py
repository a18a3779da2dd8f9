"""The folds of a cross-validation as one population: equal to fits of their own, without a leak."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.model_selection import cross_validate as of_sklearn
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer
from torch import nn

import ravine
from ravine import RavineClassifier, RavineRegressor
from ravine.interop import estimator as estimators
from ravine.training.folds import train_folds

X, Y = make_classification(151, 6, n_informative=4, n_classes=3, class_sep=1.5, random_state=0)
VALUES = X @ np.arange(6.0) + 3
PICTURES = X[:, :4].reshape(-1, 1, 2, 2).repeat(3, 2).repeat(3, 3)


def normed():
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def two_headed():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            return self.a(x) * torch.sigmoid(self.b(x))

    return Gated()


def smooth(output, target):
    return nn.functional.cross_entropy(output, target, label_smoothing=0.1)


def classifier(**given):
    return RavineClassifier(**{"model": "mlp", "lr": 0.02, "epochs": 3, "batch": 32} | given)


CASES = {
    "dense": classifier(),
    "dense in float64": classifier(edits={"precision": "float64"}),
    "dropout": classifier(model=["dense:16", "relu", {"kind": "dropout", "rate": 0.3}, "dense:3"]),
    "batch norm": classifier(model=normed),
    "own module": classifier(model=two_headed),
    "own loss": classifier(loss=smooth),
    "class weights": classifier(edits={"loss.class_weights": "balanced"}),
    "bootstrap": classifier(edits={"data.bootstrap": True}),
    "one batch": classifier(batch="full"),
    "accumulated": classifier(edits={"optimizer.accumulate": 3}),
    "growing batches": classifier(edits={"data.grow.milestones": ("1ep", "2ep")}),
    "torch optimiser": classifier(optimizer=torch.optim.RMSprop),
    "early stopping": classifier(epochs=25, validation=0.2, edits={"stop.patience": "1ep", "stop.best": True}),
    "averaged": classifier(model=normed, edits={"average.swa": "1ep"}),
    "as values": RavineRegressor(model="mlp", lr=0.02, epochs=3, batch=32, validation=0.2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_scores_and_weights_are_those_of_fits_of_their_own(case):
    net = CASES[case]
    y = VALUES if case == "as values" else Y
    given = {"cv": KFold(4), "return_estimator": True, "return_train_score": True}
    ours, theirs = ravine.cross_validate(net, X, y, **given), of_sklearn(net, X, y, **given)
    assert sorted(ours) == sorted(theirs)
    for name in ("test_score", "train_score"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-4)
    for mine, other in zip(ours["estimator"], theirs["estimator"], strict=True):
        assert mine.recipe_ == other.recipe_
        assert mine.answers_ == other.answers_
        assert mine.n_iter_ == other.n_iter_
        assert mine.result_["stopped"] == other.result_["stopped"]
        for name, value in other.state_.items():
            np.testing.assert_allclose(mine.state_[name], value, rtol=1e-3, atol=2e-5)
        for name, value in other.result_.items():
            if name.startswith("val_"):
                assert mine.result_[name] == pytest.approx(value, rel=1e-3)


def test_images_on_threads():
    net = classifier(model=["conv:4", "relu", "flatten", "dense:3"])
    ours, theirs = (f(net, PICTURES, Y, cv=3) for f in (ravine.cross_validate, of_sklearn))
    assert ours["test_score"] == pytest.approx(theirs["test_score"], abs=0.02)


def together(net, folds, monkeypatch, y=Y):
    """How many folds were trained together, of each."""
    counts = []

    def counted(*given):
        found = train_folds(*given)
        counts.extend(own.beside for own in found)
        return found

    monkeypatch.setattr(estimators, "train_folds", counted)
    ravine.cross_validate(net, X, y, cv=folds)
    return counts


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (classifier(epochs=1), [4, 4, 4, 4]),  # 113, 113, 113 and 114 samples
        (classifier(epochs=1, model=normed), [3, 3, 3, 1]),  # samples see one another
    ],
)
def test_folds_are_one_population(net, expected, monkeypatch):
    assert together(net, KFold(4), monkeypatch) == expected


def test_what_is_held_back_reaches_no_fold():
    """Weights, preprocessing and stopping of a fold are the same bits whatever its held-back samples
    are, though these are training samples of the other folds."""
    net = classifier(epochs=2)
    folds = list(KFold(3).split(X))
    before = ravine.cross_validate(net, X, Y, cv=folds, return_estimator=True)["estimator"]
    changed, wrong = X.copy(), Y.copy()
    held = folds[0][1]
    changed[held], wrong[held] = 100 * changed[held] + 7, 2 - wrong[held]
    after = ravine.cross_validate(net, changed, wrong, cv=folds, return_estimator=True)["estimator"]
    for name, value in before[0].state_.items():
        np.testing.assert_array_equal(after[0].state_[name], value)
    for name, value in before[0].pipeline_state_[0].items():
        np.testing.assert_array_equal(after[0].pipeline_state_[0][name], value)
    means = [v for v in before[0].pipeline_state_[0].values() if v.shape == (6,)]
    assert any(np.allclose(own, X[folds[0][0]].mean(0), atol=1e-5) for own in means)
    assert any((after[1].state_[name] != value).any() for name, value in before[1].state_.items())


def test_what_scikit_learn_takes():
    frame = pd.DataFrame(X, columns=list("abcdef"))
    labels = pd.Series(np.array(["x", "y", "z"])[Y])
    found = ravine.cross_validate(
        make_pipeline(QuantileTransformer(n_quantiles=20), classifier()),
        frame,
        labels,
        cv=GroupKFold(3),
        groups=np.arange(len(X)) % 5,
        scoring=["accuracy", "neg_log_loss"],
        return_indices=True,
        return_estimator=True,
    )
    assert set(found) == {
        "fit_time", "score_time", "test_accuracy", "test_neg_log_loss", "indices", "estimator",
    }  # fmt: skip
    assert found["estimator"][0].predict(frame[:3]).dtype == labels.to_numpy().dtype
    of_recipe = ravine.cross_validate(ravine.Recipe(stop={"after": "2ep"}), X, VALUES, cv=2)
    assert len(of_recipe["test_score"]) == 2


def test_what_cannot_be_trained_so_is_named():
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(ravine.InputError, match=r"sklearn\.model_selection\.cross_validate"):
        ravine.cross_validate(LogisticRegression(), X, Y)
    with pytest.raises(ravine.InputError, match="leave it out"):
        ravine.cross_validate(classifier(out="somewhere"), X, Y)


def test_strata_of_unequal_parts_with_members_that_end_apart():
    net = classifier(epochs=40, validation=0.2, edits={"stop.patience": "1ep", "stop.best": True})
    found = ravine.cross_validate(net, X, Y, cv=StratifiedKFold(5), return_estimator=True)
    assert len({each.n_iter_ for each in found["estimator"]}) > 1
