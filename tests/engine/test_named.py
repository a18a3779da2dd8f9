"""What lectures name and no other table holds, through ``train`` as a person calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ravine

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(60, 4)) * 30 + 7, np.arange(60) % 3


def test_a_schedule_of_ones_own_stands_in_the_recipe(tmp_path):
    halve = lambda epoch, lr: lr if epoch < 2 else lr / 2  # noqa: E731
    run = ravine.train(
        data=(X, Y), schedule=halve, lr=0.1, epochs=4, quiet=True, out=tmp_path / "r"
    )
    assert list(run.recipe.schedule.values) == [1.0, 1.0, 0.5, 0.25]
    assert list(run.metrics["lr"]) == pytest.approx([0.1, 0.1, 0.05, 0.025])
    with pytest.raises(ravine.InputError, match="an end in epochs"):
        ravine.train(data=(X, Y), schedule=lambda epoch, lr: lr, steps=4, quiet=True)


@pytest.mark.parametrize("y", [Y, X.sum(1) * 100])
def test_monte_carlo_averages_answers_over_dropout(y, tmp_path):
    said = {
        "preprocess": [
            {"kind": "standardize"},
            *([{"kind": "standardize", "of": "targets"}] if y is not Y else []),
        ]
    }
    model = {"kind": "mlp", "hidden": [16], "dropout": 0.5}
    run = ravine.train(data=(X, y), model=model, epochs=2, quiet=True, out=tmp_path / "r", **said)
    mean, deviation = run.monte_carlo(X, samples=400)
    plain = run.predict_proba(X) if y is Y else run.predict(X)
    assert mean.shape == plain.shape
    assert (deviation > 0).all()
    assert np.abs(mean - plain).mean() < 0.2 * plain.std() + 0.05
    assert np.array_equal(mean, run.monte_carlo(X, samples=400)[0])
    assert not run.model.training


def test_lsuv_looks_at_the_training_data(tmp_path):
    layers = [{"kind": "dense", "units": 8}, "relu", {"kind": "dense", "units": 3}]
    init = {"weights": "lsuv", "biases": "zeros"}
    run = ravine.train(
        data=(X, Y),
        model={"layers": layers, "init": init},
        batch="full",
        optimizer={"kind": "sgd", "lr": 1e-12},
        precision="float64",
        steps=1,
        quiet=True,
        out=tmp_path / "r",
    )
    with torch.no_grad():
        x = torch.tensor(X)
        assert float(run.model[0](x).var()) == pytest.approx(
            1, abs=0.2
        )  # the training part is most of x
        assert float(run.model(x).var()) == pytest.approx(1, abs=0.2)


def test_the_linear_scaling_rule():
    assert ravine.scaled_lr(0.1, batch=1024) == pytest.approx(0.4)


def test_the_docs_say_what_is_out_of_scope():
    page = Path(__file__).parents[2] / "docs" / "catalogue" / "optimizer.md"
    assert "out of scope" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("classes", [2, 3])
def test_the_cheapest_answers_follow_from_the_posterior(classes, tmp_path):
    y = np.array(["a", "b", "c"])[np.arange(60) % classes]
    costs = np.array([[0, 1, 9], [9, 0, 1], [1, 9, 0]])[:classes, :classes]
    run = ravine.train(
        data=(X, y),
        model="softmax",
        epochs=2,
        quiet=True,
        out=tmp_path / "r",
        metrics=[{"kind": "mean_cost", "costs": costs.tolist()}],
    )
    expected = np.array(run.pipeline.classes)[(run.predict_proba(X) @ costs).argmin(1)]
    found = run.predict(X, costs=costs)
    assert (found == expected).all()
    assert (found != run.predict(X)).any()
    paid = costs[
        np.searchsorted(run.pipeline.classes, y), np.searchsorted(run.pipeline.classes, found)
    ]
    assert run.evaluate(data=(X, y))["mean_cost"] == pytest.approx(paid.mean())
    with pytest.raises(ravine.InputError, match="rows of"):
        run.predict(X, costs=[[0, 1]])


def test_ragged_sequences_through_a_list_of_layers(tmp_path):
    x = [list(range(1, 3 + i % 5)) for i in range(40)]
    y = np.array([len(row) > 3 for row in x]).astype(int)
    layers = [
        {"kind": "embedding", "size": 4},
        {"kind": "lstm", "units": 6, "output": "all"},
        "layer_norm",
        {"kind": "lstm", "units": 4},
        {"kind": "dense", "units": 2},
    ]
    run = ravine.train(
        data=(x, y), model={"layers": layers}, epochs=1, quiet=True, out=tmp_path / "r"
    )
    alone = np.concatenate([run.predict_proba([x[i], x[4]])[:1] for i in range(5)])
    np.testing.assert_allclose(run.predict_proba(x[:5]), alone, rtol=1e-5)


def test_costs_on_the_command_line(tmp_path):
    from typer.testing import CliRunner

    from ravine.app.cli import app

    x = tmp_path / "x.npy"
    run = ravine.train(
        data=(X, Y), model="softmax", epochs=1, quiet=True, out=tmp_path / "r", doctor=False
    )
    np.save(x, X.astype(np.float32))
    said = ["predict", str(run.directory), str(x), "--out"]
    costs = "0,9,9;9,0,9;0,0,0"  # the third class is never worth an answer
    found = CliRunner().invoke(app, [*said, str(tmp_path / "p.csv"), "--costs", costs])
    assert found.exit_code == 0, found.output
    answers = np.loadtxt(tmp_path / "p.csv", delimiter=",", skiprows=1, usecols=1)
    assert not (answers == 2).any()
    found = CliRunner().invoke(app, [*said, str(tmp_path / "q.csv"), "--costs", "0,x"])
    assert found.exit_code == 2
    assert "rows by semicolons" in found.output
    assert not (tmp_path / "q.csv").exists()
