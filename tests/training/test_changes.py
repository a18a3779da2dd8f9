"""A learning rate changed from outside: at the next block, as an event, repeated by resume to the bit."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.engine.loop.loop import Interrupted
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.rundir.requests import FOLDER, answered, ask, requests_to

RECIPE = Recipe(
    model={"kind": "softmax"},
    data={"source": {"kind": "blobs"}, "batch": 32},
    optimizer={"kind": "momentum", "lr": 0.05},
    schedule={"kind": "cosine"},
    stop={"after": "12ep"},
    threads=1,
)


def trained(folder, asked, **more):
    """A run of which something is asked at the ends of some epochs; whether it was stopped."""

    def on_epoch(seen):
        for kind, *change in asked.get(round(seen["epoch"]), ()):
            with RunDir.open(folder) as run:
                ask(run, kind, *change)

    try:
        ravine.train(RECIPE, out=folder, on_epoch=on_epoch, quiet=True, doctor=False, **more)
    except Interrupted:
        return True
    return False


def test_the_rate_changes_at_the_next_block_and_is_recorded(tmp_path):
    assert not trained(tmp_path / "run", {4: [("set", "optimizer.lr", 0.5), ("snapshot",)]})
    run = ravine.Run(tmp_path / "run")
    (event,) = run.events_of("set")
    assert event["data"]["value"] == 0.5
    per_epoch = run.metrics["step"][0]
    assert event["step"] == 4 * per_epoch
    assert run.events_of("snapshot")[0]["step"] == event["step"]
    planned = 0.05 * (1 + np.cos(np.pi * (run.metrics["step"] - 1) / run.metrics["step"].max())) / 2
    ratio = run.metrics["lr"] / planned
    np.testing.assert_allclose(ratio[:4], 1, rtol=1e-6)
    np.testing.assert_allclose(ratio[4:], 10, rtol=1e-6)
    assert not list((tmp_path / "run" / FOLDER).glob("*.json"))


def test_resume_repeats_the_change_from_a_snapshot_before_it(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trained(whole, {4: [("set", "optimizer.lr", 0.5)]})
    assert trained(broken, {4: [("set", "optimizer.lr", 0.5)], 8: [("stop",)]})
    with RunDir.open(broken) as run:
        newest = run.latest_snapshots(0)[0]
        assert newest.name.endswith(f"{run.done:09d}")
        shutil.rmtree(newest)  # as if the power had failed: only the one of step 0 is left
    ravine.resume(broken, quiet=True)
    one, other = ravine.Run(whole), ravine.Run(broken)
    assert len(other.events_of("set")) == 1
    assert one.losses.tobytes() == other.losses.tobytes()
    assert one.metrics.equals(other.metrics)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("data.batch=8", "what may change while a run trains"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("optimizer.lr=fast", "optimizer.lr"),
        ("optimizer.lr", "KEY=VALUE"),
    ],
)
def test_what_cannot_be_changed_is_refused_and_nothing_is_asked(tmp_path, text, complaint):
    run = RunDir.create(tmp_path / "run", [RECIPE], facts={})
    run.close()
    said = CliRunner().invoke(app, ["set", str(tmp_path / "run"), text])
    assert said.exit_code == 2
    assert complaint in said.stderr
    assert not (tmp_path / "run" / FOLDER).exists()


def test_a_finished_run_is_not_changed(tmp_path):
    trained(tmp_path / "run", {})
    with RunDir.open(tmp_path / "run") as run, pytest.raises(InputError, match="finished run"):
        ask(run, "set", "optimizer.lr", 0.1)


def test_an_interrupted_run_changes_when_it_is_resumed(tmp_path):
    trained(tmp_path / "run", {2: [("stop",)]})
    arguments = ["set", str(tmp_path / "run"), "optimizer.lr=0.2", "--json"]
    said = CliRunner().invoke(app, arguments)
    assert json.loads(said.stdout)["taken"] is False
    assert "takes effect when the run is resumed" in said.stderr
    ravine.resume(tmp_path / "run", quiet=True)
    assert ravine.Run(tmp_path / "run").events_of("set")[0]["data"]["value"] == 0.2


def test_what_is_no_request_is_thrown_away(tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name, text in {
        "1": "{",
        "2": "[]",
        "3": " " * 5000,
        "4": '{"kind": "set", "value": "x"}',
        "5": "[" * 990,
        "6": '{"kind": "set", "field": "optimizer.lr", "value": ' + "9" * 900 + "}",
    }.items():
        (folder / f"{name}.json").write_text(text)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "7.json")  # it is not waited for
    assert requests_to(tmp_path)() == [{"kind": "set", "value": "x"}]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("value", ["0.1", True, float("nan"), float("inf"), -1, None, [1]])
def test_a_hostile_request_changes_nothing(tmp_path, value):
    from ravine.engine.loop.changes import wanted_rate

    assert wanted_rate({"kind": "set", "field": "optimizer.lr", "value": value}) is None
    assert wanted_rate({"kind": "set", "field": "data.batch", "value": 1}) is None


def test_an_answer_is_waited_for_ten_seconds(tmp_path, monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: now.append(now.pop() + s))
    monkeypatch.setattr("ravine.rundir.requests.time", clock)
    (tmp_path / "request").touch()
    assert not answered(tmp_path / "request")
    assert now[0] == pytest.approx(10.0, abs=0.1)
    (tmp_path / "request").unlink()
    assert answered(tmp_path / "request")
    assert now[0] < 10.2
