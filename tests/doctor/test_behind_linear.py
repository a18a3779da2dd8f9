"""A run that a linear model beats beyond the noise is named, with what closes the gap; others are not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import ravine
from ravine import Recipe
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import BehindLinear
from ravine.doctor.table import ranked

CODE = BehindLinear.code


def clusters(spread: float = 0.75, rows: int = 1600, classes: int = 40):
    drawn = np.random.default_rng(0)
    centres, y = drawn.normal(size=(classes, 30)), drawn.integers(0, classes, rows)
    x = centres[y] + spread * drawn.normal(size=(rows, 30))
    return x.astype("float32"), y


def slopes(noise: float):
    drawn = np.random.default_rng(1)
    x = drawn.normal(size=(1500, 20))
    y = x @ drawn.normal(size=20) + noise * drawn.normal(size=1500)
    return x.astype("float32"), y.astype("float32")


def recipe(**edits) -> Recipe:
    return Recipe(
        model={"kind": "mlp", "hidden": [16]},
        data={"source": "arrays", "batch": 64, "validation": 0.2},
        optimizer={"kind": "adam", "lr": 3e-3},
        stop={"after": "8ep"},
    ).edit(edits)


def judged(tmp_path, data, **edits):
    ravine.train(recipe(**edits), data=data, out=tmp_path / "run", quiet=True, doctor=False)
    return ravine.diagnose(tmp_path / "run", data=data)


@pytest.mark.parametrize("cause", ["too_few_epochs", "lr_too_high", "lr_too_low"])
def test_it_is_named_below_what_explains_it(cause):
    order = ranked(
        [Finding(CODE, "validation", "…", strength=0.9), Finding(cause, "", "…", strength=0.62)]
    )
    assert [finding.code for finding in order] == [cause, CODE]
    assert any(text.startswith(CODE) for text in order[0].consequences)


@pytest.mark.parametrize(
    ("data", "edits"),
    [
        (clusters(), {"optimizer.lr": 1e-3, "stop.after": "4ep"}),
        (slopes(0.3), {"model.hidden": [64, 64], "model.dropout": 0.9}),
    ],
    ids=["too short", "dropout"],
)
def test_a_run_behind_a_linear_model_is_named_with_what_was_tried(tmp_path, data, edits):
    found = judged(tmp_path, data, **edits)
    assert found.verdict == "sick", found.why
    finding = next(one for one in found.findings if one.code == CODE)
    assert "validation samples" in finding.evidence
    assert finding.advised
    assert all("tried" in remedy for remedy in finding.advised)
    assert finding.advised[-1]["edits"]["model"] == {"kind": "linear"}


@pytest.mark.parametrize(
    ("data", "edits"),
    [
        (clusters(), {"model.hidden": [128]}),
        (clusters(1.6), {"model.hidden": [128]}),
        (slopes(0.3), {"model.hidden": [64], "stop.after": "40ep"}),
        (slopes(6.0), {"model.hidden": [64]}),
        (clusters(rows=400, classes=4), {"stop.after": "2ep"}),
    ],
    ids=["learns", "noisy", "line", "noise", "few samples"],
)
def test_a_run_as_good_as_a_linear_model_is_left_alone(tmp_path, data, edits):
    assert CODE not in judged(tmp_path, data, **edits).codes


@pytest.mark.parametrize(("metric", "few", "many"), [("accuracy", 240, 351), ("r2", 371, 541)])
def test_three_standard_errors_are_beyond_the_noise(monkeypatch, metric, few, many):
    """Of a half and 0.37 wrong, or unexplained: 2.9 standard errors of few samples, 3.5 of many."""
    for name, value in {"reached": 0.5, "_linear": (), "remedies_for": ()}.items():
        monkeypatch.setattr(BehindLinear, name, lambda of, value=value: value)

    def named(samples: int) -> bool:
        linear = SimpleNamespace(
            value=0.63, metric=metric, samples=samples, model="least squares", fitted=1000
        )
        course = SimpleNamespace(linear=lambda: linear, subject=None)
        return bool(list(BehindLinear.while_learning(course)))

    assert not named(few)
    assert named(many)


def test_what_was_not_tried_is_said(tmp_path, monkeypatch):
    """Where trials take longer than is left for them, the next step is named all the same."""
    monkeypatch.setattr("ravine.doctor.judgement.SECONDS", 0.0)
    found = judged(tmp_path, clusters(), **{"optimizer.lr": 1e-3, "stop.after": "4ep"})
    finding = next(one for one in found.findings if one.code == CODE)
    assert "Not tried, as it takes longer: " in finding.evidence
    assert "train four times as long" in finding.evidence
    assert [one["edits"]["model"] for one in finding.advised] == [{"kind": "linear"}]


def test_training_says_what_tries_the_other_remedies(tmp_path, capsys):
    """Training itself has fitted the linear model alone; it advises nothing that was not tried."""
    x, y = clusters()
    where = tmp_path / "my run"
    ravine.train(recipe(**{"optimizer.lr": 1e-3, "stop.after": "4ep"}), data=(x, y), out=where)
    said = " ".join(capsys.readouterr().err.split())
    assert "remedy: a linear model" in said
    assert said.count("remedy:") == 1
    assert f"is tried by: ravine doctor '{where}'" in said
