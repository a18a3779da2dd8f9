"""The table of what members own: an array that nobody knew of before survives all that happens to
members."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ravine
from ravine.engine.loop import loop as loops
from ravine.engine.loop.record import Memory
from ravine.engine.programs import programs_of
from ravine.engine.rows.graphed import GraphedSteps
from ravine.engine.rows.members import Tensors
from ravine.errors import InputError
from ravine.recipe import Recipe

BASE = Recipe(
    model={"kind": "mlp", "hidden": [8]},
    data={"source": "blobs", "batch": 64},
    optimizer={"kind": "adam", "lr": 1e-2},
    stop={"after": "3ep"},
    threads=1,
)


class Crash(Exception):
    """Stands for the process's end."""


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """No report, which has its own tests."""
    monkeypatch.setattr("ravine.report.run_page.write_report", lambda rundir: None)


@pytest.fixture
def trained(monkeypatch) -> Callable[..., dict[int, torch.Tensor]]:
    """Trains with an array ``made_up`` [P, 2] that every member owns: its number, and a count of
    the steps that it takes. Gives the member's row as it ended."""

    def run(train: Callable[[], Any], capture: Any = None, cut: int | None = None):
        finals: dict[int, torch.Tensor] = {}
        init, one, save = (
            loops.TrainingLoop.__init__,
            loops.Stepper.one,
            loops.TrainingLoop.save,
        )
        end = loops.TrainingLoop._end_members

        def with_column(self, *args, **kwargs):
            init(self, *args, **kwargs)
            self.made_up = torch.tensor([[number, 0.0] for number in self.members.numbers])
            self.members.add(
                Tensors(
                    "made_up",
                    self,
                    "made_up",
                    lambda new: torch.tensor([[number, 0.0] for number in new.numbers]),
                    returns=True,
                    stepped=True,
                )
            )
            self.stepper.owner = self
            if capture is not None:
                self.graphed = GraphedSteps(self.stepper, capture)

        def counted(self, *args, **kwargs):
            found = one(self, *args, **kwargs)
            self.owner.made_up[:, 1] += self.alive
            return found

        def ended(self, rows):
            for row in rows:
                finals[self.members.numbers[row]] = self.made_up[row].clone()
            end(self, rows)

        def saved(self):
            save(self)
            if cut is not None and self.step >= cut:
                raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(loops.TrainingLoop, "__init__", with_column)
            patch.setattr(loops.Stepper, "one", counted)
            patch.setattr(loops.TrainingLoop, "_end_members", ended)
            patch.setattr(loops.TrainingLoop, "save", saved)
            patch.setattr(loops, "BLOCK_SECONDS", 0.0)
            patch.setattr(loops, "SNAPSHOT_SECONDS", 0.0)
            train()
        return finals

    return run


def train(recipes: list[Recipe], out: Path, **more: Any) -> Callable[[], Any]:
    return lambda: ravine.train_many(recipes, out=out, quiet=True, **more)


def steps_of(recipe: Recipe) -> int:
    (program,) = programs_of([recipe])
    return loops.TrainingLoop(program, Memory()).stops[0].total


def test_compaction(trained, tmp_path):
    recipes = [BASE.edit({"seed": k, "stop.after": f"{(3, 1, 2)[k]}ep"}) for k in range(3)]
    epoch = steps_of(BASE.edit({"stop.after": "1ep"}))
    found = trained(train(recipes, tmp_path / "run"))
    assert {k: row.tolist() for k, row in found.items()} == {
        0: [0, 3 * epoch],
        1: [1, epoch],
        2: [2, 2 * epoch],
    }


def test_refilling(trained, tmp_path):
    recipes = [BASE.edit({"seed": k, "stop.after": f"{1 + k % 2}ep"}) for k in range(5)]
    epoch = steps_of(BASE.edit({"stop.after": "1ep"}))
    found = trained(train(recipes, tmp_path / "run", width=2))
    assert {k: row.tolist() for k, row in found.items()} == {
        k: [k, (1 + k % 2) * epoch] for k in range(5)
    }


def test_return_to_an_earlier_state(trained, tmp_path):
    """One member diverges at once and goes back to its beginning at each epoch's end, the array
    with it; its neighbour does not notice."""
    wild = BASE.edit(
        {"optimizer": {"kind": "momentum", "lr": 1e30}, "loss": "squared", "stop.after": "2ep"}
    )
    wild = wild.edit({"stop.on_trouble": "rollback"})
    calm = BASE.edit({"loss": "squared", "stop.after": "2ep"})
    found = trained(train([wild, calm], tmp_path / "run"))
    epoch = steps_of(BASE.edit({"stop.after": "1ep"}))
    assert found[0].tolist() == [0, 0]
    assert found[1].tolist() == [1, 2 * epoch]


def test_resume(trained, tmp_path):
    recipes = [BASE.edit({"seed": k, "stop.after": f"{2 + k}ep"}) for k in range(2)]
    whole = trained(train(recipes, tmp_path / "whole"))
    with pytest.raises(Crash):
        trained(train(recipes, tmp_path / "cut"), cut=7)
    resumed = trained(lambda: ravine.resume(tmp_path / "cut", quiet=True))
    assert {k: row.tolist() for k, row in resumed.items()} == {
        k: row.tolist() for k, row in whole.items()
    }


def test_replay(trained, tmp_path):
    """A trial of a captured step puts back everything that the step has changed."""

    def capture(step):
        for _ in range(3):
            step()
        return step

    plain = trained(train([BASE, BASE.edit({"seed": 1})], tmp_path / "plain"))
    replayed = trained(train([BASE, BASE.edit({"seed": 1})], tmp_path / "replayed"), capture)
    assert {k: row.tolist() for k, row in replayed.items()} == {
        k: row.tolist() for k, row in plain.items()
    }


# --- in memory ------------------------------------------------------------------------------------


def in_memory(recipes: list[Recipe]) -> tuple[loops.TrainingLoop, Memory]:
    (program,) = programs_of(recipes)
    record = Memory()
    return loops.TrainingLoop(program, record), record


def test_a_loop_in_memory_is_the_run(tmp_path, monkeypatch):
    """The same losses, metrics, results and final weights as a run directory holds; nothing is
    written."""
    recipes = [BASE.edit({"seed": k, "stop.patience": "1ep", "average.ema": 0.9}) for k in range(2)]
    runs = ravine.train_many(recipes, out=tmp_path / "run", quiet=True)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    loop, record = in_memory(recipes)
    for place in (1, 5, 17, 10**6):  # where it is asked to pause changes nothing
        loop.advance(place)
    assert sorted(tmp_path.rglob("*")) == before
    for k, run in enumerate(runs):
        assert record.losses(k).tolist() == run.losses.tolist()
        rows = [{n: v for n, v in row.items() if n != "seconds"} for row in record.epochs(k)]
        assert rows == run.metrics.to_dict("records")
        result = {n: v for n, v in run.result.items() if n != "seconds"}
        assert {n: v for n, v in record.results[k].items() if n != "seconds"} == result
        assert torch.equal(record.finals[k][0], run.slots["final"])


def test_advance_stops_at_its_step():
    loop, record = in_memory([BASE])
    loop.advance(5)
    assert loop.step == 5
    assert not loop.over
    assert len(record.losses(0)) == 5
    assert not record.results


def test_the_training_loss_weighs_samples(tmp_path):
    """An epoch's last batch of fewer samples counts for as many as it has."""
    loop, record = in_memory([BASE.edit({"stop.after": "1ep", "data.batch": 500})])
    loop.advance(10**6)
    losses, size = record.losses(0), loop.pipeline.train_size
    samples = [500] * (size // 500) + ([size % 500] if size % 500 else [])
    assert len(losses) == len(samples)
    assert len(set(samples)) == 2
    expected = sum(n * loss for n, loss in zip(samples, losses, strict=True)) / size
    assert record.epochs(0)[0]["train_loss"] == pytest.approx(expected, rel=1e-12)
    assert abs(expected - losses.mean()) > 1e-6


@pytest.mark.parametrize("average", [{"ema": 0.9}, {"swa": "1ep"}], ids=["ema", "swa"])
def test_what_was_evaluated_is_what_the_best_weights_hold(average):
    """The validation loss of the stored best weights is the best that was seen."""
    changes = {"stop.best": True, "optimizer.lr": 0.3, "stop.after": "6ep", "average": average}
    loop, record = in_memory([BASE.edit(changes)])
    loop.advance(10**6)
    best = min(row["val_loss"] for row in record.epochs(0))
    assert record.results[0]["val_loss"] == pytest.approx(best, rel=1e-6)


def test_an_average_of_epochs_beside_a_running_one():
    """Each member has the average that it has alone."""
    recipes = [
        BASE.edit({"average": {"swa": "1ep"}}),
        BASE.edit({"average": {"ema": 0.9}}),
        BASE.edit({"seed": 3}),
    ]
    loop, record = in_memory(recipes)
    loop.advance(10**6)
    for k, recipe in enumerate(recipes):
        alone, own = in_memory([recipe])
        alone.advance(10**6)
        assert torch.allclose(record.finals[k][0], own.finals[0][0], rtol=1e-4, atol=1e-6)


def test_a_finite_loss_with_an_infinite_gradient_does_not_go_on():
    loop, record = in_memory([BASE, BASE.edit({"seed": 1})])
    loop.advance(3)
    gradients = loop.population.gradients

    def overflowing(*args, **kwargs):
        losses = gradients(*args, **kwargs)
        loop.population.grad[0, 0] = torch.inf
        return losses

    loop.population.gradients = overflowing
    before = loop.population.theta.clone()
    loop.advance(4)
    assert record.losses(0)[-1] < 100
    assert torch.equal(loop.population.theta[0], before[0])
    assert not torch.equal(loop.population.theta[1], before[1])
    assert loop.stepper.alive.tolist() == [False, True]
    loop.population.gradients = gradients
    loop.advance(10**6)
    assert record.results[0]["stopped"] == "diverged"
    assert record.results[1]["stopped"] == "finished"


def test_frozen_parameters_do_not_count_in_the_norm_that_clips():
    """Frozen columns have gradients of any size, even none that is finite: the others move as they
    would alone."""
    recipe = BASE.edit(
        {"start.freeze": ["1.*"], "clip.norm": 1e-2, "optimizer": {"kind": "sgd", "lr": 0.1}}
    )
    moved = {}
    for factor in (1.0, 1e6, torch.inf):
        loop, record = in_memory([recipe])
        entries = [e for e in loop.population.layout.entries if e.name.startswith("model.1.")]
        assert entries
        gradients = loop.population.gradients

        def scaled(*args, loop=loop, gradients=gradients, entries=entries, factor=factor, **more):
            losses = gradients(*args, **more)
            for entry in entries:
                loop.population.grad[:, entry.start : entry.stop] *= factor
            return losses

        loop.population.gradients = scaled
        loop.advance(5)
        moved[factor] = loop.population.theta.clone(), record.norms(0)
    for theta, norms in moved.values():
        assert torch.equal(theta, moved[1.0][0])
        assert norms.tolist() == moved[1.0][1].tolist()


@pytest.mark.parametrize(
    ("stored", "said"), [({}, "none is stored"), ({"age": torch.zeros(3)}, r"\(3,\) is stored")]
)
def test_only_what_fits_is_loaded(stored, said):
    owner = SimpleNamespace(age=torch.zeros(2))
    column = Tensors("age", owner, "age", lambda new: torch.zeros(2))
    column.load({"age": torch.ones(2)}, {})
    with pytest.raises(InputError, match=said):
        column.load(stored, {})
    assert owner.age.tolist() == [1, 1]
