"""A trained network as one file, by its ending, with and without preprocessing; estimators with
callables of a person's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.interop.export import export


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(x)))


@pytest.fixture(scope="module", params=["mlp", Own], ids=["by name", "own module"])
def run(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "run"
    return ravine.train(
        model=request.param,
        data="blobs",
        preprocess=["standardize", "rescale"],
        epochs=2,
        quiet=True,
        doctor=False,
        out=out,
    )


class Convolving(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(256, 10)

    def forward(self, x):
        hidden = torch.relu(self.norm(self.conv(x))).flatten(1)
        return {"logits": self.head(self.drop(hidden)), "hidden": hidden}


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def forward(self, a, b):
        return {"logits": self.layer(torch.cat([a, b], 1))}


def two_inputs():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(200, 3, generator=generator), torch.randn(200, 2, generator=generator)
    return {"a": a, "b": b, "y": (a.sum(1) > b.sum(1)).long()}


def table(place):
    rows = [f"{20 + i % 40},{'xyz'[i % 3]},{i % 7},{3 * (i % 40)}" for i in range(120)]
    (place / "t.csv").write_text("age,city,rooms,price\n" + "\n".join(rows))
    return f"csv:{place / 't.csv'}"


RUNS = {
    "dense": {"model": "mlp", "data": "blobs", "preprocess": ["standardize", "rescale"]},
    "own": {"model": Own, "data": "blobs", "preprocess": ["standardize", "rescale"]},
    "own convolutions": {"model": Convolving, "data": "digits", "preprocess": "standardize"},
    "resnet": {"model": "resnet9", "data": "digits", "preprocess": ["rescale", "standardize"]},
    "several inputs": {"model": Both, "data": two_inputs},
    "table": {"model": "mlp", "data": table, "baselines": False},
    "tabular": {"model": "tabular", "data": table, "baselines": False},
}


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
@pytest.mark.parametrize("name", RUNS)
def test_exports_agree_on_100_inputs(name, ending, tmp_path):
    """Outputs of the program in the file, in its own runtime, and of the run: to 1e-5 of their size."""
    runtime = pytest.importorskip("onnxruntime") if ending == "onnx" else None
    fields = dict(RUNS[name])
    if callable(fields["data"]):
        fields["data"] = (
            fields["data"](tmp_path) if "table" in fields["data"].__name__ else fields["data"]()
        )
    run = ravine.train(epochs=1, quiet=True, doctor=False, out=tmp_path / "run", **fields)
    generator = torch.Generator().manual_seed(0)
    forms = {"dense": (False, True), "table": (False, True), "several inputs": (False,)}
    for preprocess in forms.get(name, (True,)):  # without preprocessing a part of that is exported
        if name in ("table", "tabular"):
            raw = run.pipeline.read(tmp_path / "t.csv")[0][:100].float()
        elif name == "several inputs":
            raw = {key: value[:100] for key, value in two_inputs().items() if key != "y"}
        else:
            raw = torch.rand(100, *run.pipeline.raw_shape, generator=generator) * 3
        given = [raw if preprocess else run.pipeline.transform(raw)]
        if name == "several inputs":
            given = list(raw.values())
        path = tmp_path / f"{preprocess}.{ending}"
        export(run, out=path, preprocess=preprocess)
        if runtime is None:
            found = torch.export.load(path).module()(*given)
        else:
            session = runtime.InferenceSession(str(path))
            names = [each.name for each in session.get_inputs()]
            if name == "several inputs":
                assert names == ["a", "b"]
            arrays = {key: each.numpy() for key, each in zip(names, given, strict=True)}
            found = torch.from_numpy(session.run(None, arrays)[0])
        torch.testing.assert_close(found, run._outputs(raw), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("preprocess", [True, False])
def test_a_program_in_one_file_agrees(run, preprocess, tmp_path):
    found = export(run, out=tmp_path / "deep" / "x.pt2", preprocess=preprocess)
    assert found["files"] == ["x.pt2"]
    raw = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    given = raw if preprocess else run.pipeline.transform(raw)
    outputs = torch.export.load(tmp_path / "deep" / "x.pt2").module()(given)
    assert torch.allclose(outputs, run.outputs(raw), atol=1e-5)


def test_weights_in_one_file_load_anywhere(run, tmp_path):
    export(run, out=tmp_path / "x.safetensors")
    stored = load_file(tmp_path / "x.safetensors")
    assert {n: t.shape for n, t in stored.items()} == {
        n: t.shape for n, t in run.model.state_dict().items()
    }
    with pytest.raises(ravine.InputError, match="a file that does not exist yet"):
        export(run, out=tmp_path / "x.safetensors")
    with pytest.raises(ravine.InputError, match="expected torch, as --out"):
        export(run, out=tmp_path / "x.pt2", form="onnx")


def test_the_command_takes_the_ending(tmp_path):
    ravine.train(
        model="mlp", data="blobs", epochs=1, quiet=True, doctor=False, out=tmp_path / "run"
    )
    arguments = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "x.pt2"), "--preprocess"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x.pt2").is_file()


def smooth(output, target):
    return F.cross_entropy(output, target, label_smoothing=0.1)


def test_an_estimator_takes_callables(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    y = (x.sum(1) > 0).astype(int)
    estimator = ravine.RavineClassifier(
        loss=smooth, optimizer=torch.optim.RMSprop, lr=0.01, epochs=5
    )
    fitted = clone(estimator).fit(x, y)
    assert fitted.score(x, y) > 0.85
    assert fitted.get_params()["loss"] is smooth
