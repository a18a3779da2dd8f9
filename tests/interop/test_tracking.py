"""Trackers follow a run through their own clients, offline."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.interop.tracking import Tracker, fields_of

BLOBS = {"data": "blobs", "model": "mlp", "epochs": 3, "quiet": True, "doctor": False}


class Kept(Tracker):
    """A tracker in memory, which may fail."""

    def begin(self, rundir, member):
        log.append(("begin", member))
        return Writer(member)


log: list = []
fails: list = []


class Writer:
    def __init__(self, member):
        self.member = member

    def numbers(self, values, step):
        if fails:
            raise ConnectionError("no server")
        log.append((self.member, step, dict(values)))

    def text(self, name, text, step):
        log.append((self.member, step, name))

    def close(self, result):
        log.append(("close", self.member, (result or {}).get("stopped")))


@pytest.fixture(autouse=True)
def _empty():
    log.clear()
    fails.clear()


def test_everything_is_sent_once_and_in_order(tmp_path):
    recipe = ravine.Recipe(data={"source": "blobs"}, stop={"after": "3ep"})
    runs = ravine.train_many(
        [recipe, recipe.edit({"seed": 1})], track=[Kept()], out=tmp_path / "run", quiet=True
    )
    for run in runs:
        sent = [each for each in log if each[0] == run.member and isinstance(each[2], dict)]
        steps = [each[1] for each in sent]
        assert steps == sorted(steps)
        losses = {step: values["loss/step"] for _, step, values in sent if "loss/step" in values}
        assert [losses[step + 1] for step in range(len(run.losses))] == run.losses.tolist()
        accuracy = [values["accuracy/val"] for _, _, values in sent if "accuracy/val" in values]
        assert accuracy == run.metrics["val_accuracy"].tolist()
    assert sum(each[0] == "close" for each in log) == 2


def test_a_tracker_that_fails_takes_no_run_with_it(tmp_path):
    fails.append(True)
    with pytest.warns(UserWarning, match="ConnectionError: no server"):
        run = ravine.train(track=[Kept()], out=tmp_path / "run", **BLOBS)
    assert run.result["test_accuracy"] > 0.5


def test_tensorboard_while_it_trains(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ravine.interop.tensorboard import TensorBoard

    run = ravine.train(track=[TensorBoard(tmp_path / "logs")], out=tmp_path / "run", **BLOBS)
    found = EventAccumulator(str(tmp_path / "logs" / "member-0")).Reload()
    values = [each.value for each in found.Scalars("accuracy/val")]
    assert values == pytest.approx(run.metrics["val_accuracy"].tolist(), rel=1e-6)
    assert "final/test_accuracy" in found.Tags()["scalars"]


def test_mlflow_in_a_local_database(tmp_path):
    client = pytest.importorskip("mlflow.tracking").MlflowClient
    from ravine.interop.mlflow import MLflow

    tracker = MLflow(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = ravine.train(track=[tracker], out=tmp_path / "run", **BLOBS)
    identity = run.events_of("mlflow")[0]["data"]["run"]
    there = client(tracking_uri=tracker.uri)
    found = there.get_run(identity)
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.lr"] == str(fields_of(run.recipe)["optimizer.lr"])
    history = there.get_metric_history(identity, "accuracy/val")
    assert [each.value for each in history] == run.metrics["val_accuracy"].tolist()
    assert found.data.metrics["final/test_accuracy"] == run.result["test_accuracy"]
    assert len(there.get_metric_history(identity, "loss/step")) == len(run.losses)
    before = run.result["steps"]  # a run that goes on goes on there
    ravine.resume(run.directory, after="5ep", track=[tracker], quiet=True)
    history = there.get_metric_history(identity, "accuracy/val")
    assert max(each.step for each in history) > before
    assert len(run.events_of("mlflow")) == 1


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from ravine.interop.wandb import WandB

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    run = ravine.train(track=[WandB()], out="run", **BLOBS)
    (place,) = (tmp_path / "wandb").glob("offline-run-*")
    (stored,) = place.glob("run-*.wandb")
    assert run.result["test_accuracy"] > 0.5
    content = stored.read_bytes()
    assert b"accuracy/val" in content
    assert b"loss/step" in content
    assert b"optimizer.lr" in content


def test_the_command_takes_trackers_by_name(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    named = ["train", "--set", "data.source=blobs", "--epochs", "1", "--json", "--no-doctor"]
    done = CliRunner().invoke(app, [*named, "--out", "run", "--track", "tensorboard"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])
    assert list((tmp_path / "run" / "tensorboard" / "member-0").iterdir())
    refused = CliRunner().invoke(app, [*named, "--out", "none", "--track", "mlflo"])
    assert refused.exit_code == 2
    assert "mlflow" in refused.output
    assert not (tmp_path / "none").exists()


def smooth(output, target):
    return (output.softmax(1).gather(1, target[:, None])[:, 0] - 1).square()


def test_an_interrupted_run_says_what_continues_it(tmp_path):
    from ravine.engine.weights.stored import how_to_resume
    from ravine.rundir import RunDir

    ravine.train(loss=smooth, out=tmp_path / "own", **BLOBS)
    said = how_to_resume(RunDir.open(tmp_path / "own"))
    assert f"ravine resume {tmp_path / 'own'} --with FILE.py" in said
    assert "own=[smooth]" in said
    ravine.train(out=tmp_path / "plain", **BLOBS)
    assert how_to_resume(RunDir.open(tmp_path / "plain")) == f"ravine resume {tmp_path / 'plain'}"
