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
    with pytest.raises(ravine.InputError, match="a file that is not there yet"):
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
