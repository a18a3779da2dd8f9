"""A run that goes on with other versions, or on another machine, says how well its bits are repeated."""

from __future__ import annotations

import pytest

import ravine
import stored
from ravine.engine.loop import loop
from ravine.rundir import RunDir
from ravine.training import repeated
from ravine.training.repeated import KIND, changes


class Stopped(Exception):
    """What ends training in the middle."""


RECIPE = ravine.Recipe(
    data={"source": "blobs", "batch": 64},
    model={"kind": "mlp", "hidden": [8], "dropout": 0.3},
    stop={"after": "2ep"},
    threads=1,
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that was interrupted after its first snapshots."""
    saves, save = [], loop.TrainingLoop.save

    def counted(self):
        save(self)
        saves.append(self.step)
        if len(saves) == 4:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        patch.setattr(loop.TrainingLoop, "save", counted)
        with pytest.raises(Stopped):
            ravine.train(RECIPE, out=tmp_path / "run", quiet=True, doctor=False)
    return tmp_path / "run"


def older(place, **versions) -> None:
    """As if the run had been begun with other versions."""
    stored.edit(place, lambda about: about["facts"]["versions"].update(versions))


def other_losses(place, factor: float) -> None:
    with RunDir.open(place) as opened:
        losses = opened.steps(0)[:3] * factor
        opened.add_steps(0, [0], losses[:, None])


def test_on_the_same_machine_nothing_is_tried(run, monkeypatch, capsys):
    monkeypatch.setattr(repeated, "_tried", lambda *_: pytest.fail("tried"))
    ravine.resume(run)
    assert "bit-equal" not in "".join(capsys.readouterr())
    assert ravine.Run(run).events_of(KIND) == []


@pytest.mark.parametrize(
    ("factor", "text", "level"),
    [
        (1.0, "bit-equal: ", "bits"),
        (1 + 1e-6, "equal up to rounding: ", "rounding"),
        (1.5, "different: ", "different"),
    ],
)
def test_other_versions_are_tried_on_the_first_steps(run, tmp_path, capsys, factor, text, level):
    """What is tried leaves no trace: the rest has the bits of a run that was never interrupted."""
    older(run, torch="2.0.1")
    if factor != 1:
        other_losses(run, factor)
    ravine.resume(run)
    shown = "".join(capsys.readouterr())
    assert text in shown
    assert "(torch 2.0.1 -> " in shown
    (event,) = ravine.Run(run).events_of(KIND)
    assert event["data"]["level"] == level
    whole = ravine.train(RECIPE, out=tmp_path / "whole", quiet=True, doctor=False)
    ended = ravine.Run(run)
    assert ended.slots["theta"].equal(whole.slots["theta"])
    assert ended.losses[3:].tolist() == whole.losses[3:].tolist()


def test_a_machine_is_tried_once(run, monkeypatch):
    older(run, numpy="1.0")
    ravine.resume(run, quiet=True)
    monkeypatch.setattr(repeated, "_tried", lambda *_: pytest.fail("tried twice"))
    with RunDir.open(run) as opened:
        assert "bit-equal" in repeated.level(opened, lambda: [])
    stored.edit(run, lambda about: about["facts"].update(earlier_sha256=[[]]))
    with RunDir.open(run) as opened:  # of an extended run the beginning may differ
        assert "not tried" in repeated.level(opened, lambda: [])


def test_steps_that_differ_from_trial_to_trial_are_not_called_equal(run, monkeypatch):
    older(run, torch="2.0.1")
    first, count = repeated._first_steps, []

    def changing(*given):
        count.append(1)
        losses, theta, precision = first(*given)
        return losses, theta + len(count) * 1e-9, precision

    monkeypatch.setattr(repeated, "_first_steps", changing)
    ravine.resume(run, quiet=True)
    (event,) = ravine.Run(run).events_of(KIND)
    assert event["text"].startswith("not bit-equal")


def test_what_is_compared():
    from ravine.rundir import environment

    now = environment()
    assert changes(now) == []
    assert changes({}) == []
    before = {"versions": now["versions"] | {"torch": "2.0"}, "machine": {"cpu": "x"}}
    assert changes(before)[0].startswith("torch 2.0 -> ")
    assert any(text.startswith("cpu x -> ") for text in changes(before))
