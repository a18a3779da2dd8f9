"""The doctor: planted faults are found, healthy twins raise no alarm, and looking changes no number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import ravine
from ravine import Recipe
from ravine.cli import app
from ravine.doctor.examination import examine
from ravine.doctor.findings import CODES, Finding, ranked
from ravine.doctor.judgement import judge

HEALTHY = Recipe(
    data={"source": "digits", "preprocess": [{"kind": "standardize", "per": "channel"}], "batch": 64},
    model={"layers": ["flatten", {"kind": "dense", "units": 32}, "relu", {"kind": "dense", "units": 10}]},
    optimizer={"kind": "adam", "lr": 3e-3}, stop={"after": "20ep"}, threads=1,
)  # fmt: skip
LAYERS = HEALTHY.to_dict()["model"]["layers"]
FAULTS = {
    "lr_too_high": {"optimizer.lr": 30.0},
    "lr_too_low": {"optimizer.lr": 1e-7},
    "symmetric_init": {"model.init": {"weights": "zeros"}},
    "inputs_unscaled": {
        "data.preprocess": [{"kind": "rescale", "low": 0.0, "high": 1e5}],
        "optimizer": {"kind": "sgd", "lr": 0.01},
    },
    "loss_output_mismatch": {"model.layers": [*LAYERS, "softmax"]},
    "no_hidden_nonlinearity": {"model.layers": [layer for layer in LAYERS if layer["kind"] != "relu"]},
    "over_regularised": {"loss": {"kind": "cross_entropy", "l2": 1.0}},
}


def test_a_healthy_recipe_raises_no_alarm():
    diagnosis = examine(HEALTHY)
    assert diagnosis.verdict == "healthy", diagnosis.codes
    assert not diagnosis.findings


@pytest.mark.parametrize("code", FAULTS)
def test_a_planted_fault_is_named_among_the_first(code):
    diagnosis = examine(HEALTHY.edit(FAULTS[code]))
    named = diagnosis.codes[:3] if code != "no_hidden_nonlinearity" else diagnosis.codes + [n.code for n in diagnosis.notes]
    assert code in named, (diagnosis.verdict, diagnosis.codes)
    for finding in diagnosis.findings:
        assert finding.code in CODES
        assert any(character.isdigit() for character in finding.evidence)


def test_training_is_equal_to_the_bit_with_and_without(tmp_path):
    with_it = ravine.train(HEALTHY, epochs=3, out=tmp_path / "with", quiet=True)
    without = ravine.train(HEALTHY, epochs=3, out=tmp_path / "without", quiet=True, doctor=False)
    assert torch.equal(with_it.slots["theta"], without.slots["theta"])
    assert not without.events_of("finding")
    assert not with_it.events_of("doctor")


def test_a_finished_run_is_judged(tmp_path):
    good = ravine.train(HEALTHY, out=tmp_path / "good", quiet=True)
    assert judge(good.directory).verdict == "healthy"
    bad = ravine.train(HEALTHY, lr=30.0, epochs=3, out=tmp_path / "bad", quiet=True)
    diagnosis = judge(bad.directory)
    assert diagnosis.verdict == "sick"
    assert diagnosis.codes[0] == "lr_too_high"
    assert bad.events_of("finding")[0]["data"]["code"] == "lr_too_high"


def test_the_surer_of_two_opposites_stands():
    found = ranked(
        [Finding("lr_too_low", "optimizer.lr", "1", strength=0.4), Finding("lr_too_high", "optimizer.lr", "2", strength=0.6)]
    )
    assert [finding.code for finding in found] == ["lr_too_high"]


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(HEALTHY.edit({"optimizer.lr": 30.0}).to_toml())
    result = CliRunner().invoke(app, ["doctor", "recipe.toml", "--json"])
    assert result.exit_code == 0
    said = json.loads(result.stdout.strip().splitlines()[-1])
    assert said["verdict"] == "sick"
    assert {"code", "where", "evidence", "cause", "consequences", "remedies"} <= set(said["findings"][0])


def test_every_code_has_its_place_in_the_docs():
    page = (Path(__file__).parent.parent / "docs" / "doctor.md").read_text(encoding="utf-8")
    for code, (why, _, _) in CODES.items():
        assert f"### {code}\n\n{why}" in page
