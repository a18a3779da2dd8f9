"""The doctor's experiments are runs of the recipe: the same losses, the same end, the same
weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ravine
from ravine.doctor.cures.candidate_runs import Budget, CandidateRuns, SampleHalves
from ravine.doctor.experiments.experiment import Experiment, SharedData
from ravine.engine.execution.device import kernel_threads
from ravine.recipe import Recipe

BASE = Recipe(
    model={"kind": "mlp", "hidden": [8]},
    data={"source": "blobs", "batch": 64},
    optimizer={"kind": "sgd", "lr": 0.3},
    stop={"after": "6ep"},
    precision="float32",
    threads=1,
)
DIVERGES = {"optimizer": {"kind": "momentum", "lr": 1e30}, "loss": "squared"}
CASES = {
    "plain": {},
    "plateau": {"schedule": {"kind": "on_plateau", "patience": "1it", "threshold": 0.9}},
    "growing batches": {"data.grow": {"milestones": ["2ep", "4ep"]}},
    "unfreezing": {"start.freeze": ["1.*"], "start.unfreeze": "3ep"},
    "bootstrap": {"data.bootstrap": True},
    "SWA": {"average.swa": "2ep"},
    "EMA": {"average.ema": 0.9},
    "roll-back": {**DIVERGES, "stop.on_trouble": "rollback", "stop.rollbacks": 3},
    "diverging": DIVERGES,
    "monitor": {"stop.monitor": "val_accuracy", "stop.patience": "2ep"},
    "least change": {"stop.patience": "2ep", "stop.min_delta": 0.5},
    "target": {"stop.monitor": "val_accuracy", "stop.target": 0.5},
    "accumulation": {"optimizer.accumulate": 3},
    "best": {"stop.best": True, "optimizer.lr": 3.0},
    "batch norm": {"model.norm": "batch"},
    "cumulative batch norm": {
        "model": {
            "layers": [
                {"kind": "dense", "units": 8},
                {"kind": "batch_norm", "average": "cumulative"},
                "relu",
                {"kind": "dense", "units": 3},
            ]
        }
    },
}


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """No report, which has its own tests; as many threads for experiments as the recipes say."""
    monkeypatch.setattr("ravine.report.run_page.write_report", lambda rundir: None)
    with kernel_threads(1):
        yield


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_an_experiment_is_the_run(changes, tmp_path):
    recipe = BASE.edit(changes)
    run = ravine.train(recipe, out=tmp_path / "run", quiet=True, doctor=False)
    experiment = Experiment([recipe], SharedData())
    for place in (3, 10, 10**6):
        experiment.advance(place)
        experiment.measure()
    (curve,) = experiment.curves()
    np.testing.assert_array_equal(curve.losses, run.losses)
    (group,) = experiment.groups
    assert group.record.results[0]["stopped"] == run.result["stopped"]
    with experiment.objective(0) as objective:
        mine, theirs = objective.model.state_dict(), run.model.state_dict()
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.equal(mine[name], theirs[name]), name


def test_the_cases_are_no_plain_runs():
    """Each case changes what is trained: else the comparison would show nothing."""
    seen = {}
    for name, changes in CASES.items():
        experiment = Experiment([BASE.edit(changes)], SharedData())
        experiment.advance(10**6)
        (curve,) = experiment.curves()
        with experiment.objective(0) as objective:
            weights = torch.cat([p.detach().flatten() for p in objective.model.parameters()])
        seen[name] = (tuple(curve.losses), tuple(weights.tolist()))
    assert len(set(map(str, seen.values()))) == len(CASES)


def test_whole_numbers_are_prepared_as_training_does(tmp_path):
    """A table of whole numbers may be tokens; a model that takes none gets numbers, in training and
    for the doctor."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 10, (600, 8), generator=generator)
    y = (x.sum(1) > 36).long()
    diagnosis = ravine.diagnose(Recipe(model="mlp", stop={"after": "2ep"}), data=(x, y))
    assert "wrong_output_units" not in [finding.code for finding in diagnosis.findings]


def test_the_preprocessing_of_the_run_it_starts_from(tmp_path):
    """Fine-tuning carries statistics over; so does the examination of a fine-tuning recipe."""
    scaled = BASE.edit({"data.preprocess": ["standardize"]})
    ravine.train(scaled, out=tmp_path / "run", quiet=True, doctor=False)
    later = BASE.edit({"start.weights": str(tmp_path / "run")})
    own, carried, fresh = (SharedData().pipeline(recipe) for recipe in (scaled, later, BASE))
    sample = torch.ones(1, *own.raw_shape)
    assert torch.equal(own.transform(sample), carried.transform(sample))
    assert not torch.equal(fresh.transform(sample), carried.transform(sample))


def test_only_the_samples_that_choose_stop_a_candidate():
    """Early stopping and best weights never see the samples that decide."""
    shared = SharedData()
    recipe = BASE.edit({"stop.patience": "1ep", "data.validation": 0.3})
    rows = SampleHalves.of(shared.pipeline(recipe))
    runs = CandidateRuns(shared, rows, [0], Budget(1e9))
    runs.add([recipe])
    loop = runs._places[0][0].loop
    assert loop.pipeline.size("validation") == len(rows.choosing)
    whole = shared.pipeline(recipe)
    every = torch.cat([batch.y for batch in whole.split("validation")])
    chosen = torch.cat([batch.y for batch in loop.pipeline.split("validation")])
    assert torch.equal(chosen, every[rows.choosing])


def test_a_plan_shorter_than_the_steps_that_are_asked_for_is_lengthened():
    experiment = Experiment([BASE.edit({"stop.after": "1ep"})], SharedData(), steps=50)
    experiment.advance(50)
    assert len(experiment.curves()[0].losses) == 50
