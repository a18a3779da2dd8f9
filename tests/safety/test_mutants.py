"""Faults put into the engine by hand that passed all other tests; each has a test here that was seen to
fail with the fault in place, and ``test_each_fault_is_seen`` puts them in again."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ravine
from ravine.data.holdout import hold_out
from ravine.engine import snapshot

SOURCE = Path(ravine.__file__).parent
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(100, 3)).astype("float32")
Y = (X @ np.array([1.0, -2.0, 0.5], dtype="float32") + DRAW.normal(size=100)).astype("float32")
LINE = {
    "data": {"source": "arrays", "batch": 16, "validation": 0.2, "test": 0.0},
    "model": {"kind": "layers", "layers": [{"kind": "dense", "units": 1}]},
    "precision": "float64",
    "threads": 1,
}


def trained(tmp_path, module=None, data=(X, Y), **changes):
    recipe = ravine.Recipe(**LINE).edit({"stop.after": "2ep", **changes})
    return ravine.train(
        recipe, model=module, data=data, out=tmp_path / "run", quiet=True, doctor=False
    )


def test_the_training_loss_is_the_mean_over_the_samples_of_an_epoch(tmp_path):
    run = trained(tmp_path)
    samples, losses = [16] * 5, run.losses.reshape(2, 5)  # 80 rows
    mean = np.average(losses, axis=1, weights=samples)
    assert not np.allclose(mean, losses[:, -1], rtol=1e-3)
    np.testing.assert_allclose(run.metrics["train_loss"], mean, rtol=1e-12)


def test_the_best_weights_are_those_that_were_evaluated(tmp_path):
    """With an average, that is the average: its loss on the validation part is the best one seen."""
    run = trained(
        tmp_path,
        **{"average.ema": 0.9, "stop.best": True, "stop.after": "6ep", "optimizer": "sgd"},
        **{"optimizer.lr": 0.05},
    )
    assert not torch.equal(run.slots["final"], run.slots["theta"])
    place = int(run.metrics["val_loss"].to_numpy().argmin())
    best = float(run.metrics["val_loss"][place])
    assert run.result["val_loss"] == pytest.approx(best, rel=1e-12)
    _, held = hold_out(len(X), 0.2, None, seed=0, name="validation")
    with torch.no_grad():
        outputs = run.model(torch.from_numpy(X[held.numpy()]).double()).squeeze(1)
    found = float((outputs - torch.from_numpy(Y[held.numpy()]).double()).square().mean())
    assert found == pytest.approx(best, rel=1e-6)


def test_a_snapshot_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    """The arrays before the manifest is named, the manifest before its name, the names last."""
    done = []
    fsync, replace = os.fsync, os.replace

    def watched(handle):
        found = os.fstat(handle)
        done.append(("folder" if stat.S_ISDIR(found.st_mode) else "file", found.st_ino))
        fsync(handle)

    def moved(a, b):
        done.append(("move", os.stat(a).st_ino))
        replace(a, b)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "replace", moved)
    place = tmp_path / "s"
    place.mkdir()
    snapshot.write(place, {"theta": torch.ones(4)}, {"step": 1})
    arrays = next(place.glob("arrays-*")).stat().st_ino
    manifest = (place / "manifest.json").stat().st_ino
    folder = place.stat().st_ino
    expected = [("file", arrays), ("file", manifest), ("move", manifest), ("folder", folder)]
    assert [step for step in done if step in expected] == expected


class Explodes(nn.Module):
    """The loss stays finite and its gradient does not: sqrt at zero, from the second step on."""

    def __init__(self):
        super().__init__()
        self.dense, self.steps = nn.Linear(3, 1), 0

    def forward(self, x):
        out = self.dense(x)
        if self.training and torch.is_grad_enabled():
            self.steps += 1
            if self.steps > 3:
                out = out + (0.0 * out).abs().sqrt()
        return out


def test_a_finite_loss_with_a_gradient_that_is_not_ends_a_member(tmp_path):
    run = trained(tmp_path, module=Explodes(), **{"stop.after": "3ep"})
    assert run.result["stopped"] == "diverged"
    assert torch.isfinite(run.slots["theta"]).all()


def test_frozen_parameters_do_not_count_in_the_clipped_norm(tmp_path):
    """One step of SGD, clipped: what moves has the limit as its own norm."""
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)).double()
    with torch.no_grad():
        module[0].weight.mul_(3.0)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    run = trained(
        tmp_path,
        module=module,
        **{"optimizer": "sgd", "optimizer.lr": 1.0, "clip.norm": 0.01, "stop.after": "1it"},
        **{"start.freeze": ["0.*"]},
    )
    after = dict(run.model.named_parameters())
    assert torch.equal(after["0.weight"], before["0.weight"])
    moved = sum(
        float((after[n] - before[n]).detach().square().sum()) for n in ("1.weight", "1.bias")
    )
    assert moved**0.5 == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("classes", [2, 5, 20])
def test_a_stratified_split_leaves_a_row_of_every_class(classes):
    """Also of classes with one row, which largest remainders would take."""
    labels = torch.cat([torch.arange(classes), torch.zeros(2 * classes, dtype=torch.int64)])
    for wanted in range(1, 2 * classes):
        kept, held = hold_out(len(labels), wanted / len(labels), labels, seed=wanted, name="test")
        assert len(held) == wanted
        assert len(labels[kept].unique()) == classes


FAULTS = {
    "train_loss of the last batch": (
        "engine/loop/epoch.py",
        "np.average(np.concatenate(self.losses), axis=0, weights=weights)",
        "np.concatenate(self.losses)[-1]",
        "test_the_training_loss",
    ),
    "best weights without the average": (
        "engine/loop/kept_weights.py",
        "evaluated, buffers = self.evaluated(), ",
        "evaluated, buffers = self.population.theta, ",
        "test_the_best_weights",
    ),
    "no fsync of the arrays": (
        "engine/snapshot.py",
        "        sync(directory / name)\n",
        "",
        "test_a_snapshot_is_on_the_disk",
    ),
    "no fsync of the manifest": (
        "storage/files.py",
        "        sync(self.partial)\n",
        "",
        "test_a_snapshot_is_on_the_disk",
    ),
    "no fsync of its name": (
        "storage/files.py",
        "        sync(self.to.parent)\n",
        "",
        "test_a_snapshot_is_on_the_disk",
    ),
    "an infinite norm goes on": (
        "engine/rows/step.py",
        "losses.isfinite() & norms.isfinite()",
        "losses.isfinite()",
        "test_a_finite_loss",
    ),
    "frozen parameters in the norm": (
        "engine/rows/step.py",
        "population.grad.masked_fill_(scale == 0, 0.0)",
        "pass",
        "test_frozen_parameters",
    ),
    "no guard for tiny classes": (
        "data/holdout.py",
        "take[most] < counts[most] - 1",
        "take[most] < counts[most]",
        "test_a_stratified_split",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_seen(tmp_path, fault):
    """A copy of the package with the fault: the test of it fails there."""
    file, right, wrong, test = FAULTS[fault]
    shutil.copytree(SOURCE, tmp_path / "ravine", ignore=shutil.ignore_patterns("__pycache__"))
    text = (tmp_path / "ravine" / file).read_text(encoding="utf-8")
    assert right in text, f"{file} has changed: name the fault's place anew"
    (tmp_path / "ravine" / file).write_text(text.replace(right, wrong), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        __file__,
        "-k",
        test,
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stdout[-2000:]
