"""Pruning takes the smallest weights, masks hold through training and resume, tickets stand beside
their controls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ravine
from ravine import InputError, Recipe
from ravine.engine.points import initial_rows
from ravine.engine.programs import StartRows
from ravine.layout import Layout
from ravine.study.lottery.pruning import full_mask, pruned, shuffled
from ravine.study.lottery.study import DENSE, ONE_SHOT, RANDOM, REINIT, TICKET, lottery
from ravine.study.measuring import pipeline_of

BLOBS = Recipe(
    name="blobs",
    data={"source": "blobs", "batch": 32},
    model={"kind": "mlp", "hidden": [8]},
    optimizer={"kind": "adamw", "lr": 0.05, "weight_decay": 0.1},
    stop={"after": "3ep"},
    threads=1,
)
LAYOUT = Layout.of([("a", (6,), "weight", 0), ("b", (4,), "weight", 1), ("c", (3,), "bias", 0)])


@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.sampled_from(["global", "layer"]))
def test_the_smallest_are_pruned_and_never_come_back(seed, rate, scope):
    theta = torch.randn(2, LAYOUT.size, generator=torch.Generator().manual_seed(seed))
    mask = pruned(theta, full_mask(theta), LAYOUT, rate, scope)
    assert mask[:, 10:].all()  # biases stay
    groups = [slice(0, 10)] if scope == "global" else [slice(0, 6), slice(6, 10)]
    for row in range(2):
        for group in groups:
            kept, gone = (
                theta[row, group][mask[row, group]].abs(),
                theta[row, group][~mask[row, group]].abs(),
            )
            assert len(gone) == int(rate * len(theta[row, group]) + 0.5)
            assert not len(kept) or not len(gone) or gone.max() <= kept.min()
    again = pruned(torch.ones_like(theta), mask, LAYOUT, rate, scope)
    assert (again <= mask).all()
    mixed = shuffled(mask, LAYOUT, [0, 1])
    for entry in LAYOUT.entries:
        assert torch.equal(
            mixed[:, entry.start : entry.stop].sum(1), mask[:, entry.start : entry.stop].sum(1)
        )


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam", "adamw", "rmsprop"])
def test_pruned_weights_stay_zero(kind, tmp_path):
    recipes = [
        BLOBS.edit(
            {
                "optimizer": {"kind": kind, "lr": 0.05, "weight_decay": 0.1},
                "loss.l2": 0.01,
                "seed": i,
            }
        )
        for i in range(2)
    ]
    theta = initial_rows(recipes, pipeline_of(recipes[0]))
    mask = torch.rand(theta.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    runs = ravine.train_many(recipes, rows=StartRows(theta, mask), quiet=True, out=tmp_path / "run")
    for i, run in enumerate(runs):
        assert (run.slots["final"][~mask[i]] == 0).all()
        assert (run.slots["final"][mask[i]] != theta[i][mask[i]]).any()


def test_masks_are_part_of_a_snapshot(tmp_path):
    theta = initial_rows([BLOBS], pipeline_of(BLOBS))
    mask = torch.rand(theta.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    ravine.train_many([BLOBS], rows=StartRows(theta, mask), quiet=True, out=tmp_path / "run")
    run = ravine.resume(tmp_path / "run", after="6ep", quiet=True)[0]
    assert run.result["epochs"] == 6
    assert (run.slots["final"][~mask[0]] == 0).all()


def test_rows_of_another_size_are_refused(tmp_path):
    with pytest.raises(InputError, match="theta of shape"):
        ravine.train_many(
            [BLOBS], rows=StartRows(torch.zeros(1, 3)), quiet=True, out=tmp_path / "run"
        )


def test_a_lottery(tmp_path):
    found = lottery(
        BLOBS, rounds=2, rate=0.5, seeds=2, rewind="5it", quiet=True, out=tmp_path / "l"
    )
    arms = {(row["arm"], row["round"]) for row in found["table"]}
    assert arms == {
        (DENSE, 0),
        *((arm, r) for arm in (TICKET, REINIT, RANDOM, ONE_SHOT) for r in (1, 2)),
    }
    parts = {
        row["round"]: row["weights left in %"] for row in found["table"] if row["arm"] == TICKET
    }
    assert parts[1] == pytest.approx(50, abs=1.5)
    assert parts[2] == pytest.approx(25, abs=1.5)
    ticket = next(row for row in found["rows"] if row["arm"] == TICKET and row["round"] == 2)
    run = ravine.Run(ticket["run"], ticket["member"])
    weights = torch.cat([p.flatten() for p in run.model.parameters() if p.dim() > 1])
    assert float((weights != 0).double().mean()) == pytest.approx(ticket["left"], abs=1e-6)


def test_tickets_start_from_the_rewound_weights(tmp_path, monkeypatch):
    """The rows given to the first round are the dense networks' weights at the rewinding step,
    masked."""
    from ravine.engine import snapshot
    from ravine.study.directory import Study

    given = {}
    train = Study.train

    def remember(self, stage, recipes, **how):
        given[stage] = how.get("rows")
        return train(self, stage, recipes, **how)

    monkeypatch.setattr(Study, "train", remember)
    lottery(
        BLOBS,
        rounds=1,
        rate=0.5,
        seeds=2,
        rewind="5it",
        one_shot=False,
        quiet=True,
        out=tmp_path / "l",
    )
    at_step = snapshot.read(
        tmp_path / "l" / "runs" / "dense" / "trace" / "program-0" / "step-000000005"
    )[0]["theta"]
    rows = given["round-01"]
    assert torch.equal(rows.theta[:2], at_step)
    assert torch.equal(
        rows.mask[:2], rows.mask[2:4]
    )  # the re-initialised control has the ticket's mask
    assert not torch.equal(rows.theta[2:4], at_step)
    assert torch.equal(rows.theta[4:6], at_step)  # the random mask has the ticket's weights
    assert not torch.equal(rows.mask[4:6], rows.mask[:2])


def test_an_exported_ticket_holds_its_zeros(tmp_path):
    from ravine.interop.export import export

    theta = initial_rows([BLOBS], pipeline_of(BLOBS))
    mask = full_mask(theta)
    mask[:, :10] = False
    ravine.train_many([BLOBS], rows=StartRows(theta, mask), quiet=True, out=tmp_path / "run")
    assert export(tmp_path / "run", out=tmp_path / "there")["zeros"] >= 10


def test_a_lottery_without_validation_data_draws_no_early_stops(tmp_path, drawn):
    found = lottery(
        BLOBS.edit({"data.validation": 0.0}), rounds=1, seeds=2, quiet=True, out=tmp_path / "l"
    )
    assert found["metric"] == "test_accuracy"
    assert [path.stem for path in (tmp_path / "l" / "figures").glob("*.png")] == ["accuracy"]
