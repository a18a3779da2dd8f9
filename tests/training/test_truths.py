"""Targets on real data: what the recipes of this repository must reach."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ravine
from ravine import Recipe

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_digits_five_seeds(tmp_path):
    recipe = Recipe.load(ROOT / "src" / "ravine" / "digits.toml")
    runs = ravine.train_many(
        [recipe.edit({"seed": seed}) for seed in range(5)], out=tmp_path / "run", quiet=True
    )
    assert np.mean([run.result["test_accuracy"] for run in runs]) >= 0.98


@pytest.mark.slow
@pytest.mark.data("mnist")
def test_lenet_on_mnist(tmp_path):
    recipe = Recipe.load(ROOT / "recipes" / "mnist-lenet.toml")
    assert recipe.stop.after == "3ep"
    runs = ravine.train_many(
        [recipe.edit({"seed": seed}) for seed in range(3)], out=tmp_path / "run", quiet=True
    )
    assert np.mean([run.result["test_accuracy"] for run in runs]) >= 0.99


@pytest.mark.slow
@pytest.mark.data("cifar10")
def test_resnet20_on_cifar10(tmp_path):
    recipe = Recipe.load(ROOT / "recipes" / "cifar10-resnet20.toml")
    assert recipe.stop.after == "3ep"
    run = ravine.train(recipe, out=tmp_path / "run", quiet=True)
    assert run.result["test_accuracy"] > 0.6


@pytest.mark.slow
@pytest.mark.data("shakespeare")
def test_lstm_on_shakespeare(tmp_path):
    run = ravine.train(
        Recipe.load(ROOT / "recipes" / "shakespeare-lstm.toml"), out=tmp_path / "run", quiet=True
    )
    assert run.result["val_loss"] < 1.65
    command = [
        sys.executable,
        "-m",
        "ravine",
        "predict",
        str(run.directory),
        "--out",
        str(tmp_path / "text.txt"),
        "--length",
        "200",
    ]
    subprocess.run(command, check=True)
    assert len((tmp_path / "text.txt").read_text(encoding="utf-8")) >= 200
