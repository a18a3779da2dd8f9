"""Ensembles are one model that is better than its mean member; calibration is measured as others
do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from typer.testing import CliRunner

from ravine import Recipe
from ravine.app.cli import app
from ravine.interop.export import export
from ravine.nn.answers import Answers
from ravine.study.ensemble.calibration import calibration
from ravine.study.ensemble.figures import reliability_figure
from ravine.study.ensemble.study import Ensemble, EnsembleModel, ensemble

DIGITS = Recipe(
    name="digits",
    data={"source": "digits", "batch": 64, "preprocess": "rescale"},
    model={"kind": "mlp", "hidden": [16]},
    optimizer={"kind": "adam", "lr": 0.01},
    stop={"after": "5ep"},
    threads=1,
)


@given(st.integers(0, 1000), st.integers(2, 5))
def test_calibration_against_scikit_learn(seed, classes):
    draw = np.random.default_rng(seed)
    p, y = draw.dirichlet(np.ones(classes), 200), draw.integers(0, classes, 200)
    found = calibration(p, y)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert found["log_loss"] == pytest.approx(log_loss(y, p, labels=range(classes)), rel=1e-6)
    assert found["brier"] == pytest.approx(np.mean(((p - np.eye(classes)[y]) ** 2).sum(1)))
    assert sum(b["count"] for b in found["bins"]) == 200
    by_hand = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in found["bins"]) / 200
    assert found["ece"] == pytest.approx(by_hand)


class Fixed(nn.Module):
    def __init__(self, output: torch.Tensor):
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x):
        return self.output.expand(len(x), -1)


def test_reliability_is_drawn_beside_the_diagonal():
    bins = [
        {"confidence": 0.5, "accuracy": 0.4, "count": 9},
        {"confidence": 0.9, "accuracy": 0.8, "count": 3},
        {"confidence": 0.7, "accuracy": 0.1, "count": 2},  # too few to say
    ]
    figure = reliability_figure({"reliability": {"members": bins, "ensemble": bins}})
    drawn = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert drawn["calibrated"] == [[0, 0], [100, 100]]
    assert drawn["ensemble"] == drawn["members, pooled"] == [[50, 40], [90, 80]]


def test_mean_and_vote():
    p = torch.tensor([[0.4, 0.6], [0.4, 0.6], [0.95, 0.05]], dtype=torch.float64)
    members = [Fixed(row.log()) for row in p]
    x = torch.zeros(1, 1)
    mean = EnsembleModel(members, Answers("classes", "softmax"), "mean")(x).softmax(-1)[0]
    assert torch.allclose(mean, p.mean(0))
    vote = EnsembleModel(members, Answers("classes", "softmax"), "vote")(x).softmax(-1)[0]
    assert torch.allclose(vote, (torch.tensor([1.0, 2.0], dtype=torch.float64) + p.mean(0)) / 4)
    assert mean.argmax() == 0
    assert vote.argmax() == 1
    numbers = [Fixed(torch.tensor([1.0])), Fixed(torch.tensor([3.0]))]
    assert EnsembleModel(numbers, Answers("numbers", "values"))(x).tolist() == [[2.0]]


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_all_members_of_the_curve_are_the_ensemble(combine, tmp_path):
    recipe = DIGITS.edit({"stop.after": "2ep", "model": {"kind": "mlp", "hidden": [16]}})
    found = ensemble(recipe, members=4, combine=combine, quiet=True, out=tmp_path / "e")
    whole = found["table"][0]
    assert found["grown"][-1] == pytest.approx(
        {name: value for name, value in whole.items() if name != "who"}, rel=1e-4
    )


@pytest.mark.parametrize("method", ["seed", "bagging", "snapshot"])
def test_an_ensemble_beats_its_mean_member_and_predicts_as_one_model(method, tmp_path):
    recipe = DIGITS if method != "snapshot" else DIGITS.edit({"stop.after": "16ep"})
    found = ensemble(recipe, members=4, method=method, quiet=True, out=tmp_path / "e")
    joint, mean = found["table"][:2]
    assert joint["log_loss"] < mean["log_loss"]
    assert joint["accuracy"] >= mean["accuracy"] - 0.005
    assert found["disagreement"] > 0
    saved = Ensemble(tmp_path / "e")
    assert len(saved) == 4
    assert saved.evaluate("test")["accuracy"] == pytest.approx(joint["accuracy"])
    assert saved.evaluate("test")["loss"] == pytest.approx(joint["log_loss"], rel=1e-4)
    x = np.random.default_rng(0).integers(0, 17, (3, 1, 8, 8)).astype(np.float32)
    assert saved.predict_proba(x).sum(1) == pytest.approx(1.0, abs=1e-5)
    inputs = saved.pipeline.transform(x)
    with torch.no_grad():
        by_hand = torch.stack([member(inputs).softmax(-1) for member in saved.members]).mean(0)
    np.testing.assert_allclose(saved.predict_proba(x), by_hand, rtol=1e-4)
    assert export(tmp_path / "e", out=tmp_path / "there")["parameters"] == sum(
        p.numel() for p in saved.model.parameters()
    )


def test_the_command_line_uses_an_ensemble_as_a_run(tmp_path):
    ensemble(
        DIGITS.edit({"data.source": "blobs", "data.preprocess": [], "stop.after": "2ep"}),
        members=2,
        quiet=True,
        out=tmp_path / "e",
    )
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "e"), "--json"])
    assert result.exit_code == 0, result.output
    assert '"accuracy"' in result.stdout


def test_a_regression_ensemble(tmp_path):
    x = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    y = (x[:, 0] * 2 - x[:, 1] ** 2).astype(np.float32)
    recipe = Recipe(
        model={"kind": "mlp", "hidden": [8]},
        optimizer={"kind": "adam", "lr": 0.02},
        stop={"after": "10ep"},
        data={"batch": 16},
    )
    found = ensemble(recipe, members=3, data=(x, y), quiet=True, out=tmp_path / "e")
    assert found["table"][0]["rmse"] <= found["table"][1]["rmse"] + 1e-9
    assert Ensemble(tmp_path / "e").predict(x[:5]).shape[0] == 5
