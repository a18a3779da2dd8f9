"""scikit-learn's own checks of the estimators; exports give the same outputs; TensorBoard logs hold
what was measured."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import ravine
from ravine import InputError, Recipe
from ravine.interop.estimator import RavineClassifier, RavineRegressor
from ravine.interop.export import export
from ravine.interop.tensorboard import write_logs
from ravine.nn.build import build

ESTIMATORS = [
    RavineClassifier(epochs=30, lr=0.02, batch=16),
    RavineRegressor(epochs=30, lr=0.02, batch=16),
]
QUICK = {
    "check_estimator_cloneable",
    "check_parameters_default_constructible",
    "check_dont_overwrite_attributes",
    "check_n_features_in",
    "check_fit1d",
    "check_estimators_unfitted",
    "check_estimators_nan_inf",
    "check_dict_unchanged",
    "check_estimators_pickle",
    "check_classifiers_one_label",
    "check_classifiers_classes",
    "check_fit_idempotent",
    "check_readonly_memmap_input",
    "check_supervised_y_2d",
}


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS)
def test_all_of_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_a_choice_of_scikit_learns_checks(estimator):
    from sklearn.utils.estimator_checks import estimator_checks_generator

    ran = set()
    for own, check in estimator_checks_generator(estimator.set_params(epochs=2)):
        name = getattr(check, "func", check).__name__
        if name in QUICK:
            check(own)
            ran.add(name)
    estimator.set_params(epochs=30)
    assert len(ran) >= 8
    assert callable(check_estimator)


def test_a_classifier_among_scikit_learns_tools():
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    pipe = make_pipeline(StandardScaler(), RavineClassifier(lr=0.03, epochs=20, batch=32))
    assert cross_val_score(pipe, x, names, cv=3).mean() > 0.85
    search = GridSearchCV(RavineClassifier(epochs=10, batch=32), {"lr": [1e-5, 0.03]}, cv=2).fit(
        x, names
    )
    assert search.best_params_ == {"lr": 0.03}
    assert search.best_estimator_.predict_proba(x).sum(1) == pytest.approx(1.0)


def test_a_recipe_and_a_module_behind_an_estimator():
    x, y = load_diabetes(return_X_y=True)
    recipe = Recipe(
        model={"kind": "mlp", "hidden": [16]},
        optimizer={"kind": "adam", "lr": 0.02},
        stop={"after": "20ep"},
    )
    fitted = RavineRegressor(recipe, batch=32, edits={"loss.l2": 1e-4}).fit(x, y)
    assert fitted.recipe_.loss.l2 == 1e-4
    assert fitted.score(x, y) > 0.35
    again = copy.deepcopy(fitted)
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))
    module = RavineRegressor(model=torch.nn.Linear(10, 1), lr=0.05, epochs=20, batch=32).fit(x, y)
    assert module.score(x, y) > 0.35


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = Recipe(
        data={"source": "digits"},
        model={"kind": "mlp", "hidden": [8], "norm": "batch"},
        stop={"after": "1ep"},
    )
    return ravine.train(recipe, quiet=True, out=tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("form", ["safetensors", "torch", "onnx"])
def test_an_export_gives_the_same_outputs(form, run, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnx")
    found = export(run, form=form, out=tmp_path / "there")
    x = torch.randn(5, *run.pipeline.input_shape, generator=torch.Generator().manual_seed(0))
    expected = run.model(x).detach()
    said = json.loads((tmp_path / "there" / "export.json").read_text(encoding="utf-8"))
    assert said["input_shape"] == [1, 8, 8]
    assert Recipe.load(tmp_path / "there" / "recipe.toml") == run.recipe
    if form == "safetensors":
        model = build(run.recipe.model, tuple(said["input_shape"]), said["outputs"]).eval()
        model.load_state_dict(load_file(tmp_path / "there" / "model.safetensors"))
        assert torch.equal(model(x), expected)
    elif form == "torch":
        assert torch.allclose(
            torch.export.load(tmp_path / "there" / "model.pt2").module()(x), expected, atol=1e-6
        )
    else:
        reference = pytest.importorskip("onnx.reference")
        assert "model.onnx.data" not in found["files"]  # one file, which can be sent
        given = reference.ReferenceEvaluator(str(tmp_path / "there" / "model.onnx")).run(
            None, {"input": x.numpy()}
        )[0]
        np.testing.assert_allclose(given, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert found["parameters"] == sum(p.numel() for p in run.model.parameters())
    with pytest.raises(InputError, match="new or empty"):
        export(run, form=form, out=tmp_path / "there")


def test_tensorboard_logs(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = write_logs(run.directory, tmp_path / "logs")
    log = EventAccumulator(str(tmp_path / "logs" / "member-0")).Reload()
    assert {"loss/step", "loss/train", "loss/val", "accuracy/val"} <= set(log.Tags()["scalars"])
    assert log.Scalars("accuracy/val")[-1].value == pytest.approx(
        run.metrics["val_accuracy"].iloc[-1], rel=1e-6
    )
    assert found["values"] > len(run.metrics)


RECURRENT = {
    "both ways": {"kind": "lstm", "bidirectional": True, "layers": 2, "units": 6},
    "one way": {"kind": "gru", "units": 6},
}


@pytest.mark.parametrize(
    ("case", "form"),
    [
        ("both ways", "torch"),
        ("one way", "torch"),
        pytest.param("both ways", "onnx", marks=pytest.mark.slow),
    ],
)
def test_recurrent_networks_that_skip_padding_are_exported(case, form, tmp_path):
    """What lies after a sequence's end changes nothing, in the program as in the network."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 10, 160)
    x = draw.integers(1, 12, (160, 9)) * (np.arange(9) < lengths[:, None])
    run = ravine.train(
        model=RECURRENT[case], data=(x, (x[:, 0] > 6).astype(int)), epochs=1,
        quiet=True, doctor=False, out=tmp_path / "run",
    )  # fmt: skip
    expected, given = run.outputs(x[:100]).numpy(), run.pipeline.transform(x[:100])
    if form == "torch":
        export(run, out=tmp_path / "x.pt2")
        program = torch.export.load(tmp_path / "x.pt2").module()
        for rows in (slice(None), slice(1), slice(3, 50)):
            found = program(given[rows]).detach().numpy()
            np.testing.assert_allclose(found, expected[rows], atol=1e-5)
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        export(run, out=tmp_path / "x.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
        (found,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-5)
