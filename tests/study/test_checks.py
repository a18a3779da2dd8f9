"""Signals against theory, gradients against differences, first checks, features, advice: each on
cases with a known answer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ravine
from ravine import Recipe
from ravine.app.cli import app
from ravine.nn.activations import PReLU
from ravine.study.advise.flow_chart import Errors, next_steps, parts_of
from ravine.study.babysit.study import babysit, first_loss
from ravine.study.features.study import exciting, features, filters, saliency
from ravine.study.gradcheck.study import THRESHOLDS, gradcheck, verdict_of
from ravine.study.measuring import pipeline_of
from ravine.study.signals.study import gaussian_moments, is_elementwise, passed, signals, theory

DIGITS = Recipe(name="digits", data={"source": "digits", "preprocess": "standardize", "batch": 64})
BLOBS = Recipe(
    name="blobs",
    data={"source": "blobs", "batch": 32},
    model={"kind": "mlp", "hidden": [8]},
    stop={"after": "3ep"},
)


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "initializer", "keeps"),
    [
        ("relu", "he_normal", True),
        ("relu", "glorot_normal", False),
        ("tanh", "he_normal", None),
        ("leaky_relu", "he_normal", None),
        ({"kind": "leaky_relu", "slope": 0.3}, "glorot_normal", None),
        ("elu", "glorot_normal", None),
        ("prelu", "glorot_normal", None),
        ({"kind": "prelu", "start": 0.1, "channels": True}, "glorot_normal", None),
        ("softplus", "glorot_normal", None),
        ("hard_tanh", "he_normal", None),
    ],
)
def test_signals_follow_the_theory_of_wide_layers(activation, initializer, keeps):
    model = {
        "kind": "mlp",
        "hidden": [256] * 6,
        "activation": activation,
        "init": {"weights": initializer, "biases": "zeros"},
    }
    layers = passed(DIGITS.edit({"model": model}), pipeline_of(DIGITS), 256)
    expected = theory(layers)
    measured = [float(layer.z.double().var()) for layer in layers]
    assert measured[1:-1] == pytest.approx(expected["z variance"][1:-1], rel=0.35)
    gradients = [float((layer.gradient.double() * 256).var()) for layer in layers]
    assert np.log(gradients) == pytest.approx(np.log(expected["gradient variance"]), abs=1.0)
    if (
        keeps is not None
    ):  # He: E[relu(z)^2] = q/2 and fan_in Var[w] = 2 keep q; Glorot halves it at every square layer
        factor = expected["z variance"][4] / expected["z variance"][3]
        assert factor == pytest.approx(1.0 if keeps else 0.5, rel=0.03)


@pytest.mark.parametrize(
    ("module", "second_moment", "slope"),  # E[phi(u)^2] and E[phi'(u)^2] for u of variance 4
    [
        (nn.ReLU(), 2.0, 0.5),
        (nn.LeakyReLU(0.3), 0.5 * (1 + 0.3**2) * 4, 0.5 * (1 + 0.3**2)),
        (nn.Identity(), 4.0, 1.0),
        (nn.Hardtanh(-2.0, 2.0), 4 * 0.5160606, math.erf(1 / math.sqrt(2))),
        # Williams, 1998: E[erf(u)^2] = 2/pi asin(2q / (1 + 2q)); its slope: 4/pi (1 + 4q)^-1/2
        (Erf(), 2 / math.pi * math.asin(8 / 9), 4 / math.pi / math.sqrt(17)),
    ],
)
def test_gains_of_activations_are_gaussian_integrals(module, second_moment, slope):
    assert gaussian_moments(module, 4.0, (3,)) == pytest.approx((second_moment, slope), rel=2e-3)


class Swish(nn.Module):
    """An activation made of another one: what counts is the whole."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Sigmoid()

    def forward(self, x):
        return x * self.gate(x)


class Shared(nn.Module):
    """A person's network: one activation for all layers, made before them."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.activation = activation
        self.layers = nn.ModuleList([nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)])

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


@pytest.mark.parametrize("activation", [Swish(), nn.ReLU(), PReLU(1, init=0.25)])
def test_what_is_measured_lies_behind_the_activation(activation):
    layers = passed(DIGITS, pipeline_of(DIGITS), 64, lambda: Shared(activation))
    assert [type(layer.activation) for layer in layers] == [type(activation)] * 2 + [type(None)]
    for layer in layers[:-1]:
        torch.testing.assert_close(layer.a, activation(layer.z).detach())
    assert layers[-1].a is layers[-1].z


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.ReLU(), True),
        (Swish(), True),
        (nn.Sequential(nn.Linear(8, 8), nn.ReLU()), False),
        (nn.LayerNorm(8), False),
        (nn.BatchNorm1d(8), False),
        (nn.Dropout(0.5), False),
        (nn.Identity(), False),
        (nn.Softmax(-1), False),
    ],
)
def test_an_activation_bends_every_entry_alike(module, expected):
    assert is_elementwise(module, torch.randn(6, 8)) == expected


def test_dead_and_saturated_units_are_counted(tmp_path):
    found = signals(
        DIGITS,
        initializers=["normal:1.0"],
        activations=["tanh", "relu"],
        depth=3,
        width=64,
        quiet=True,
        out=tmp_path / "s",
    )
    rows = {row["activation"]: row for row in found["table"]}
    assert rows["tanh"]["saturated in %"] > 60
    assert rows["tanh"]["dead in %"] is None
    assert rows["relu"]["dead in %"] < 20


def test_signals_are_the_same_each_time_dropout_or_not(tmp_path):
    recipe = BLOBS.edit({"model.dropout": 0.5})
    once, again = (
        signals(recipe, initializers=["he_normal"], depth=0, quiet=True, out=tmp_path / name)
        for name in "ab"
    )
    assert once["networks"] == again["networks"]


# --- gradients ------------------------------------------------------------------------------------


class _Off(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, error):
        ctx.error = error
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2 * (1 + ctx.error), None


class Off(nn.Module):
    """A network whose first layer's gradient has this relative error."""

    def __init__(self, error: float = 0.02):
        super().__init__()
        self.first, self.second, self.error = nn.Linear(2, 4), nn.Linear(4, 3), error

    def forward(self, x):
        return self.second(_Off.apply(self.first(x).tanh(), self.error))


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "mlp", "hidden": [6], "activation": "tanh", "dropout": 0.4},
        {"kind": "mlp", "hidden": [6], "norm": "batch"},
        {"kind": "mlp", "hidden": [6], "activation": "gelu"},
    ],
)
def test_right_gradients_are_called_right(model, tmp_path):
    loss = {"kind": "cross_entropy", "l1": 1e-3, "l2": 1e-2, "label_smoothing": 0.1}
    found = gradcheck(BLOBS.edit({"model": model, "loss": loss}), quiet=True, out=tmp_path / "g")
    assert found["verdict"] in ("right", "right but for kinks")
    assert found["relative error"] < 1e-7
    assert {row["point"] for row in found["table"]} == {"initial", "trained"}
    output = found["table"][-1]
    assert output["coordinates"] >= 3  # each class's row


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (math.nan, "wrong"),
        (math.inf, "wrong"),
        (2e-2, "wrong"),
        (9e-3, "suspicious"),
        (2e-4, "suspicious"),
        (1e-5, "doubtful"),
        (1e-9, "right"),
    ],
)
def test_the_verdict_follows_the_thresholds(error, verdict):
    assert verdict_of(error, 0) == verdict


def test_slopes_to_both_sides_have_the_central_one_between_them(monkeypatch, tmp_path):
    from ravine.study.gradcheck import study as home

    seen, at_kink = [], home._at_kink
    monkeypatch.setattr(home, "_at_kink", lambda *of: seen.append(of[1]) or at_kink(*of))
    wrong = {"model": lambda: Off(0.1), "trained": 0, "coordinates": 4}
    gradcheck(BLOBS, **wrong, quiet=True, out=tmp_path / "g")
    assert seen
    for middle, left, right in seen:
        torch.testing.assert_close((left + right) / 2, middle)
        torch.testing.assert_close(left, right, rtol=1e-2, atol=1e-4)


def test_summary_page_and_docs_say_the_same_thresholds(tmp_path, drawn):
    found = gradcheck(
        BLOBS, model=lambda: Off(1e-3), trained=0, coordinates=4, quiet=True, out=tmp_path / "g"
    )
    assert found["relative error"] == pytest.approx(1e-3, rel=0.2)
    assert found["verdict"] == "suspicious"
    assert found["thresholds"] == {"right": 1e-7, "suspicious": 1e-4, "wrong": 1e-2}
    docs = Path(__file__).parents[2] / "docs" / "studies" / "gradcheck.md"
    for page in (tmp_path / "g" / "report.html", docs):
        assert THRESHOLDS in " ".join(page.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("verdict", "code"), [("wrong", 1), ("suspicious", 0), ("right", 0)])
def test_the_exit_code_follows_the_verdict(verdict, code, monkeypatch):
    from ravine.study.gradcheck import study as home

    row = {"verdict": verdict, "relative error": 0.5, "report": "r", "table": []}
    row |= {"failure": "The gradient is wrong."} if verdict == "wrong" else {}
    monkeypatch.setattr(home, "gradcheck", lambda *_, **__: row)
    assert CliRunner().invoke(app, ["gradcheck"]).exit_code == code


def test_a_wrong_gradient_is_named(tmp_path):
    found = gradcheck(BLOBS, model=Off, quiet=True, out=tmp_path / "g")
    assert found["verdict"] == "wrong"
    assert found["tensor"].startswith("first")
    assert {row["tensor"]: row["relative error"] < 1e-7 for row in found["table"]}["second.weight"]


# --- first checks ---------------------------------------------------------------------------------


def test_the_first_loss_of_small_scores_is_ln_k():
    recipe = DIGITS.edit(
        {
            "model": {
                "kind": "softmax",
                "init": {"weights": {"kind": "normal", "std": 1e-6}, "biases": "zeros"},
            },
            "loss.l2": 0.1,
        }
    )
    found = first_loss(recipe, pipeline_of(recipe))
    assert found["first loss"] == pytest.approx(math.log(10), abs=1e-4)
    assert found["expected"] == pytest.approx(math.log(10), abs=1e-6)
    assert found["expected is"] == "ln 10"
    assert found["passed"]
    large = recipe.edit(
        {"model": {"kind": "softmax", "init": {"weights": {"kind": "normal", "std": 10.0}}}}
    )
    assert not first_loss(large, pipeline_of(large))["passed"]


def test_a_network_that_cannot_learn_one_batch_fails(tmp_path):
    stuck = BLOBS.edit(
        {"model": {"kind": "mlp", "hidden": [8], "init": {"weights": "zeros", "biases": "zeros"}}}
    )
    found = babysit(stuck, steps=60, rates=4, quiet=True, out=tmp_path / "stuck")
    assert {check["check"]: check["passed"] for check in found["checks"]}[
        "one batch overfitted"
    ] is False
    healthy = babysit(
        BLOBS.edit({"optimizer": {"kind": "adam", "lr": 0.03}}),
        steps=150,
        rates=6,
        quiet=True,
        out=tmp_path / "healthy",
    )
    assert healthy["passed"], healthy["checks"]


def test_one_batch_is_overfitted_without_smoothed_labels(tmp_path):
    """Their entropy is a floor under the loss, far above what overfitting must reach."""
    smoothed = BLOBS.edit(
        {
            "optimizer": {"kind": "adam", "lr": 0.03},
            "loss": {"kind": "cross_entropy", "label_smoothing": 0.1},
        }
    )
    found = babysit(smoothed, steps=150, rates=3, quiet=True, out=tmp_path / "smoothed")
    plain = babysit(
        smoothed.edit({"loss.label_smoothing": 0.0}),
        steps=150,
        rates=3,
        quiet=True,
        out=tmp_path / "plain",
    )
    assert found["one_batch"]["passed"], found["checks"]
    assert found["one_batch"] == plain["one_batch"]


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, None),  # nothing to be checked
        ({"loss.l2": 0.1}, True),
        ({"loss.l1": 1e-3}, True),
        # all weights are zero: no penalty can be felt, whatever its strength
        ({"loss.l2": 0.1, "model.init": {"weights": "zeros", "biases": "zeros"}}, False),
        # an order-1.5 norm of weights that are not finite
        ({"loss.lp": 0.1, "model.init": {"weights": {"kind": "normal", "std": 1e38}}}, False),
    ],
)
def test_the_loss_must_be_larger_with_penalties(changes, passed):
    recipe = BLOBS.edit(changes)
    found = first_loss(recipe, pipeline_of(recipe))
    assert found["penalties passed"] is passed
    added = found["with penalties"] - found["first loss"]
    if passed:
        assert added > 0
    if passed is None:
        assert added == 0


# --- features -------------------------------------------------------------------------------------


def test_patches_are_what_a_unit_sees():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))
    x = torch.zeros(5, 1, 12, 12)
    x[3, 0, 6, 6] = 5.0
    for one in exciting(model, model[0], x + 0.01 * torch.rand(x.shape), 2, 2):
        assert (
            all(patch.shape == (1, 3, 3) for patch in one["patches"])
            or min(p.shape[1] for p in one["patches"]) >= 2
        )
        assert one["values"] == sorted(one["values"], reverse=True)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    best = exciting(model, model[0], x, 1, 1)[0]
    assert float(best["patches"][0].max()) == 5.0


def test_filters_of_a_layer_have_the_shape_of_what_they_see():
    dense, convolution = nn.Linear(12, 5), nn.Conv2d(3, 5, 2)
    images = filters(dense, (3, 2, 2))
    np.testing.assert_array_equal(images, dense.weight.detach().view(5, 3, 2, 2))
    assert filters(dense, (12,)).shape == (5, 1, 1, 12)
    assert filters(convolution, (3, 8, 8)).shape == (5, 3, 2, 2)


def test_saliency_of_a_linear_model_is_its_weights():
    model = nn.Linear(4, 3)
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    found = saliency(model, x, y, ["a", "b", "c"])
    expected = model.weight[y].abs().mean(0)
    assert found["features"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_features_of_a_network_of_images(tmp_path, drawn):
    run = ravine.train(
        DIGITS,
        model=[
            {"kind": "conv", "channels": 4, "kernel": 3},
            "relu",
            "flatten",
            {"kind": "dense", "units": 10},
        ],
        epochs=1,
        quiet=True,
        out=tmp_path / "run",
    )
    found = features(run, units=2, patches=2, samples=100, quiet=True, out=tmp_path / "f")
    assert found["filters"] == 4
    assert {path.stem for path in (tmp_path / "f" / "figures").glob("*.png")} == {
        "filters",
        "patches",
        "saliency",
    }


# --- advice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (Errors("error", train=0.15, validation=0.16, optimal=0.01), "high bias"),
        (Errors("error", train=0.01, validation=0.11, optimal=0.01), "high variance"),
        (
            Errors("error", train=0.01, validation=0.10, train_dev=0.015, optimal=0.01),
            "data mismatch",
        ),
        (
            Errors("error", train=0.01, validation=0.02, test=0.10, optimal=0.01),
            "chosen on validation data",
        ),
        (Errors("error", train=0.05, validation=0.055, optimal=0.05), "no gap"),
        (Errors("rmse", train=3.0, validation=3.1, optimal=0.5), "high bias"),
    ],
)
def test_the_flow_chart_of_bias_and_variance(errors, said):
    assert next_steps(errors, noise=0.01)[0]["problem"].startswith(said)


@pytest.mark.parametrize(
    ("train", "dev", "human", "named"),
    [
        (0.10, 0.31, 0.0, ["high bias", "high variance"]),
        (0.05, 0.17, 0.0, ["high bias", "high variance"]),
        (0.08, 0.25, 0.01, ["high bias", "high variance"]),
        (0.15, 0.16, 0.01, ["high bias"]),
        (0.01, 0.11, 0.01, ["high variance"]),
        (0.305, 0.31, 0.30, []),
        (0.0, 0.05, 0.045, []),  # training samples known by heart; people have this error too
        (0.0, 0.11, 0.045, ["high variance"]),
    ],
)
def test_bias_and_variance_are_both_named_where_both_are_large(train, dev, human, named):
    errors = Errors("error", train=train, validation=dev, optimal=human)
    steps = next_steps(errors, noise=0.0101)
    assert [
        s["problem"].partition(":")[0] for s in steps if s["problem"].startswith("high")
    ] == named


@pytest.mark.parametrize(
    ("optimal", "said"), [(0.0, "above what is possible"), (None, "not known (--human, --target)")]
)
def test_what_is_possible_is_not_made_up(optimal, said):
    errors = Errors("error", train=0.15, validation=0.16, optimal=optimal)
    assert said in next_steps(errors, noise=0.01)[0]["problem"]


@pytest.mark.parametrize(("steps", "past"), [(600, True), (40, False)])
def test_no_longer_run_is_advised_where_longer_was_worse(steps, past, tmp_path):
    """Noisy labels: a network that goes on learns them by heart, and its best epoch is long past."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(240, 8)).astype("float32")
    y = ((x[:, 0] > 0) ^ (draw.random(240) < 0.3)).astype("int64")
    run = ravine.train(
        data=(x, y), model={"kind": "mlp", "hidden": [32]}, optimizer="adam", lr=0.003,
        stop={"after": f"{steps}it", "best": True, "monitor": "val_loss"}, quiet=True, doctor=False, out=tmp_path / "r",
    )  # fmt: skip
    found = ravine.advise(run, data=(x, y), quiet=True, out=tmp_path / "a")
    assert (found["errors"]["past_best"] is not None) is past
    bias = next(one["do"] for one in found["next"] if one["problem"].startswith("high bias"))
    assert bias.startswith("not longer, and not a larger network") is past


def test_the_shares_of_bias_and_variance_are_shown():
    errors = Errors("error", train=0.10, validation=0.31, optimal=0.0)
    bias, variance = next_steps(errors, noise=0.01)
    assert (bias["share"], variance["share"]) == ("32 %", "68 %")
    assert "10.0 points" in bias["problem"]
    assert "21.0 points" in variance["problem"]


@pytest.mark.parametrize(
    ("errors", "do"),
    [
        (
            Errors("error", train=0.15, validation=0.16, optimal=0.0, reachable=0.02),
            "optimise better",
        ),
        (Errors("error", train=0.15, validation=0.16, optimal=0.0, falling=0.2), "train longer"),
        (
            Errors("error", train=0.15, validation=0.16, optimal=0.0, reachable=0.14, falling=0.0),
            "a larger network",
        ),
    ],
)
def test_bias_has_three_cures(errors, do):
    assert next_steps(errors, noise=0.01)[0]["do"].startswith(do)


@pytest.mark.parametrize("optimal", [0.01, 0.04, 0.06])  # 0.04: between what was reached
def test_the_parts_add_up_to_the_test_error(optimal):
    errors = Errors(
        "error",
        train=0.05,
        validation=0.12,
        test=0.13,
        train_dev=0.09,
        optimal=optimal,
        reachable=0.03,
    )
    parts = parts_of(errors)
    assert min(row["size"] for row in parts) >= 0
    assert [row["part"] for row in parts] == [
        "irreducible",
        "approximation",
        "optimisation",
        "estimation",
        "data mismatch",
        "choice on validation data",
    ]
    assert sum(row["size"] for row in parts) == pytest.approx(0.13)
    together = [row["size"] for row in parts_of(replace(errors, reachable=None))]
    assert sum(together) == pytest.approx(0.13)


def test_advice_reads_a_run(tmp_path):
    from ravine.study.advise.study import advise

    run = ravine.train(BLOBS, quiet=True, out=tmp_path / "run")
    better = ravine.train(BLOBS.edit({"stop.after": "20ep"}), quiet=True, out=tmp_path / "better")
    found = advise(run, others=[better], human=0.0, quiet=True, out=tmp_path / "a")
    assert found["errors"]["train"] == pytest.approx(1 - run.evaluate("train")["accuracy"])
    assert found["errors"]["validation"] == pytest.approx(1 - run.result["val_accuracy"])
    assert found["errors"]["reachable"] <= found["errors"]["train"]
    rows = (tmp_path / "a" / "mistakes.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + min(40, found["wrong"])


def test_noise_is_of_samples_and_of_seeds(tmp_path, drawn):
    """A coin of the validation error, and the scatter of seeds; a run of another recipe tells nothing of seeds."""
    from ravine.study.advise.study import advise

    runs = ravine.train_many(
        [BLOBS.edit({"seed": seed}) for seed in range(3)], quiet=True, out=tmp_path / "seeds"
    )
    other = ravine.train(BLOBS.edit({"optimizer.lr": 1e-3}), quiet=True, out=tmp_path / "other")
    found = advise(runs[0], others=[*runs[1:], other], quiet=True, out=tmp_path / "a")
    errors = [1 - run.result["val_accuracy"] for run in runs]
    noise, n = found["noise_of"], found["of"]
    share = (errors[0] * n + 2) / (n + 4)
    of_samples = 1.96 * np.sqrt(share * (1 - share) / (n + 4))
    assert noise["of_samples"] == pytest.approx(of_samples, rel=1e-6)
    assert noise["of_seeds"] == pytest.approx(1.96 * np.std(errors, ddof=1))
    assert found["noise"] == pytest.approx(np.hypot(noise["of_samples"], noise["of_seeds"]))
    assert noise["words"] == f"the noise of {n} validation samples and 3 seeds"
    alone = advise(runs[0], quiet=True, out=tmp_path / "b")
    assert alone["noise_of"]["of_seeds"] is None
    assert f"the noise of {n} validation samples;" in (tmp_path / "b" / "report.html").read_text()


@pytest.mark.parametrize(("share", "count"), [(0.03, 40), (0.1, 12), (0.3, 30), (0.2, 160)])
def test_the_noise_of_few_samples_holds_what_is_true(share, count):
    """Of shares measured on so many samples nearly all are within the noise of the true one; the plain
    formula, which is sure of no mistake among twelve, held 71 of 100 in the second case."""
    from scipy.stats import binom

    from ravine.study.advise.noise import noise_of

    held = 0.0
    for wrong in range(count + 1):
        noise = noise_of(np.repeat([1.0, 0.0], [wrong, count - wrong]), "error", []).of_samples
        held += binom.pmf(wrong, count, share) * (abs(wrong / count - share) <= noise)
    assert held > 0.9


def test_the_noise_of_a_regression_is_that_of_its_root():
    from ravine.study.advise.noise import noise_of

    rng = np.random.default_rng(0)
    squares = rng.normal(size=(4000, 200)) ** 2
    roots = np.sqrt(squares.mean(1))
    told = np.mean([noise_of(row, "rmse", []).of_samples for row in squares[:200]])
    assert told == pytest.approx(1.96 * roots.std(), rel=0.05)


def test_advice_and_the_doctor_have_one_voice(tmp_path):
    from ravine.doctor.judgement import judge
    from ravine.study.advise.study import advise

    slow = BLOBS.edit({"optimizer": {"kind": "sgd", "lr": 1e-6}})
    run = ravine.train(slow, quiet=True, out=tmp_path / "run")
    found, diagnosis = advise(run, quiet=True, out=tmp_path / "a"), judge(run.directory)
    assert diagnosis.verdict == found["diagnosis"]["verdict"] == "sick"
    assert [one["code"] for one in found["diagnosis"]["findings"]] == diagnosis.codes
    assert diagnosis.codes[0] in found["next"][0]["problem"]
    assert not any("larger network" in step["do"] for step in found["next"][:1])


def test_against_bias_stands_what_the_doctor_names_as_its_cause():
    errors = Errors("error", train=0.3, validation=0.31, optimal=0.0)
    finding = {"code": "lr_too_low", "title": "Too low.", "evidence": "seen", "remedies": []}
    first, bias = next_steps(errors, 0.02, [finding])
    assert "lr_too_low" in first["problem"]
    assert bias["do"] == "first what holds training back: lr_too_low"
