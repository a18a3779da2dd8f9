"""Members equal solo runs; a diverging member harms nobody; a module that cannot be mapped says
why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ravine
from ravine import Recipe
from ravine.data.pipeline import Pipeline
from ravine.engine.programs import populate
from ravine.engine.rows.ways import Arithmetic, Mapped, OneByOne, Parts, Threads
from ravine.nn.analysis.traits import sees_samples_alone

PROGRAMS = {
    "mlp": {
        "data": {"source": "digits", "batch": 32, "augment": ["flip"]},
        "model": {"kind": "mlp", "hidden": [16, 12], "dropout": 0.3},
    },
    "lenet": {
        "data": {"source": "digits", "batch": 16, "augment": ["shift"]},
        "model": {
            "kind": "layers",
            "layers": [
                {"kind": "conv", "channels": 4, "kernel": 5, "padding": "same"},
                "relu",
                {"kind": "maxpool", "size": 2},
                {"kind": "conv", "channels": 8, "kernel": 3, "padding": "same"},
                "relu",
                {"kind": "maxpool", "size": 2},
                "flatten",
                {"kind": "dense", "units": 16},
                "relu",
                {"kind": "dropout", "rate": 0.4},
                {"kind": "dense", "units": 10},
            ],
        },
    },
    "resnet": {
        "data": {"source": "digits", "batch": 16},
        "model": {"kind": "resnet", "depth": 8, "width": 4},
    },
    "lstm": {
        "data": {"source": {"kind": "text", "path": "@text", "length": 12}, "batch": 8},
        "model": {"kind": "char_lstm", "units": 12, "layers": 2, "dropout": 0.25},
    },
}
MEMBERS = [
    {"seed": 0, "optimizer": {"kind": "adam", "lr": 1e-3}},
    {"seed": 1, "optimizer": {"kind": "adam", "lr": 3e-3, "weight_decay": 1e-3}},
    {"seed": 2, "optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9}},
    {"seed": 3, "optimizer": {"kind": "sgd", "lr": 0.02, "momentum": 0.5, "nesterov": True}},
    {"seed": 4, "optimizer": {"kind": "rmsprop", "lr": 1e-3}},
    {"seed": 5, "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.1}},
    {
        "seed": 6,
        "optimizer": {"kind": "adam", "lr": 1e-3, "beta1": 0.5},
        "clip": {"norm": 0.5},
        "loss": {"kind": "cross_entropy", "l2": 1e-3},
    },
    {
        "seed": 7,
        "optimizer": {"kind": "sgd", "lr": 0.05},
        "schedule": {"kind": "cosine", "warmup": "10it"},
    },
]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(
        "to be or not to be, that is the question: whether tis nobler in the mind to suffer\n" * 12
    )
    return str(path)


def recipes(program: str, text_file: str, members=MEMBERS, **more) -> list[Recipe]:
    base = {
        "precision": "float64",
        "stop": {"after": "20it"},
        "threads": 1,
        "loss": {"kind": "cross_entropy"},
        **PROGRAMS[program],
        **more,
    }
    if program == "lstm":
        base["data"] = {**base["data"], "source": {**base["data"]["source"], "path": text_file}}
    return [Recipe(**{**base, **member}) for member in members]


def theta(run) -> torch.Tensor:
    return run.slots["theta"]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("program", PROGRAMS)
def test_members_equal_solo_runs(program, text_file, tmp_path):
    many = recipes(program, text_file)
    assert len({recipe.program for recipe in many}) == 1
    together = ravine.train_many(many, out=tmp_path / "many", quiet=True, doctor=False)
    for i, (recipe, run) in enumerate(zip(many, together, strict=True)):
        alone = ravine.train(recipe, out=tmp_path / f"solo{i}", quiet=True, doctor=False)
        assert distance(theta(run), theta(alone)) < 1e-9, recipe.optimizer.kind
        assert run.result["val_loss"] == pytest.approx(alone.result["val_loss"], rel=1e-8)
        assert not alone.events_of("doctor")


def test_a_diverging_member_is_frozen_alone(text_file, tmp_path):
    healthy = recipes("mlp", text_file, MEMBERS[:7])
    wild = recipes(
        "mlp",
        text_file,
        [
            {
                "seed": 9,
                "optimizer": {"kind": "sgd", "lr": 1e6},
                "loss": {"kind": "cross_entropy", "l2": 1.0},
            }
        ],
    )
    mixed = ravine.train_many(
        [*healthy[:3], *wild, *healthy[3:]], out=tmp_path / "mixed", quiet=True
    )
    without = ravine.train_many(healthy, out=tmp_path / "without", quiet=True)
    for run, other in zip([*mixed[:3], *mixed[4:]], without, strict=True):
        assert run.result["stopped"] == "finished"
        assert distance(theta(run), theta(other)) < 1e-9
    assert mixed[3].result["stopped"] == "diverged"
    frozen = mixed[3].events_of("frozen")
    assert [event["member"] for event in frozen] == [3]
    assert torch.isfinite(theta(mixed[3])).all()


class Unmappable(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.first(x).relu()
        return self.second(h * 2 if h.sum().item() > 0 else h)


def test_a_module_that_cannot_be_mapped_trains_and_says_why(tmp_path):
    x, y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    two = [Recipe(seed=seed, stop={"after": "3ep"}, data={"batch": 16}) for seed in (0, 1)]
    runs = ravine.train_many(two, model=Unmappable, data=(x, y), out=tmp_path / "run", quiet=True)
    record = runs[0].events_of("execution")[0]["data"]
    assert record["way"] == "one by one"
    assert any("vmap" in why for why in record["why"])
    assert all(run.result["stopped"] == "finished" for run in runs)
    assert not torch.equal(theta(runs[0]), theta(runs[1]))


@pytest.mark.parametrize("program", ["mlp", "resnet"])
def test_gradients_of_single_steps_agree_in_float32(program, text_file):
    many = recipes(program, text_file, precision="float32")
    pipeline = Pipeline(many[0].data)
    batch = pipeline.batch(0)
    kwargs = {"device": torch.device("cpu"), "dtype": torch.float32}
    together = populate(many, pipeline, None, **kwargs)
    together.way = Mapped(together)
    together.seed_step(0)
    losses = together.gradients(batch.x, batch.y, None, 0)
    for i, recipe in enumerate(many):
        alone = populate([recipe], pipeline, None, **kwargs)
        alone.seed_step(0)
        loss = alone.gradients(batch.x, batch.y, None, 0)
        assert float(loss[0]) == pytest.approx(float(losses[i]), rel=1e-5)
        assert distance(together.grad[i], alone.grad[0]) < 1e-4


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 4)
        self.outer.weight = self.inner.weight
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.outer(self.inner(x).tanh()).tanh())


def test_tied_weights_stay_tied(tmp_path):
    x, y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    two = [
        Recipe(seed=seed, stop={"after": "3ep"}, data={"batch": 16}, precision="float64")
        for seed in (0, 1)
    ]
    runs = ravine.train_many(two, model=Tied, data=(x, y), out=tmp_path / "many", quiet=True)
    assert runs[0].events_of("execution")[0]["data"]["way"] == "mapped"
    for run, recipe in zip(runs, two, strict=True):
        alone = ravine.train(
            recipe, model=Tied, data=(x, y), out=tmp_path / f"solo{run.member}", quiet=True
        )
        assert distance(theta(run), theta(alone)) < 1e-9
        assert run.model.inner.weight is run.model.outer.weight


@pytest.mark.parametrize("program", ["lenet", "resnet", "lstm"])
def test_weights_cast_once_give_the_gradient_of_autocast(program, text_file):
    many = recipes(program, text_file, precision="float32")[:2]
    pipeline = Pipeline(many[0].data)
    batch = pipeline.batch(0)
    rows = populate(many, pipeline, None, device=torch.device("cpu"), dtype=torch.float32)
    buffers = {name: stacked.clone() for name, stacked in rows.buffers.items()}
    full, usual, once = None, None, None
    for mode in ("full", "autocast", "once"):
        rows.restore(buffers)
        rows.seed_step(0)
        arithmetic = Arithmetic(None if mode == "full" else torch.bfloat16)
        rows.way = OneByOne(rows, arithmetic, cast_once=mode == "once")
        assert (rows.way.low is not None) == (mode == "once")
        rows.gradients(batch.x, batch.y, None, 0)
        full, usual, once = (
            rows.grad.clone() if m == mode else g
            for m, g in (("full", full), ("autocast", usual), ("once", once))
        )
    assert all(parameter.dtype == torch.float32 for parameter in rows.parameters[0])
    assert 0 < distance(once, full) < 1.5 * distance(usual, full) + 0.01


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_members_side_by_side_are_the_members_one_by_one(text_file, one_thread):
    many = recipes("lenet", text_file)
    pipeline = Pipeline(many[0].data, dtype=torch.float64)
    batch = pipeline.batch(0)
    rows = populate(many, pipeline, None, device=torch.device("cpu"), dtype=torch.float64)
    rows.seed_step(0)
    losses = rows.gradients(batch.x, batch.y, None, 0)
    grad, rows.way = rows.grad.clone(), Threads(rows, Arithmetic(threads=2))
    assert torch.equal(rows.gradients(batch.x, batch.y, None, 0), losses)
    assert torch.equal(rows.grad, grad)


_READ_BY_ROWS = {"kind": "reshape", "to": [8, 8]}
RECURRENT = {
    "layers": [
        _READ_BY_ROWS,
        {"kind": "lstm", "units": 5},
        "layer_norm",
        {"kind": "dense", "units": 10},
    ]
}


@pytest.mark.parametrize("accumulate", [0.0, 1.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])
@pytest.mark.parametrize(("batch", "parts"), [(64, 2), (7, 3), (2, 4)])
def test_parts_of_a_batch_side_by_side_are_the_batch(
    batch, parts, weighted, accumulate, one_thread
):
    recipe = Recipe(model=RECURRENT, precision="float64", data={"source": "digits", "batch": batch})
    pipeline = Pipeline(recipe.data, dtype=torch.float64)
    rows = populate([recipe], pipeline, None, device=torch.device("cpu"), dtype=torch.float64)
    x, y = pipeline.batch(0).x, pipeline.batch(0).y
    weight = torch.rand(1, batch, dtype=torch.float64) if weighted else None
    rows.grad.fill_(0.5)
    expected = rows.gradients(x, y, weight, 0, accumulate=accumulate), rows.grad.clone()
    rows.grad.fill_(0.5)
    rows.way = Parts(rows, Arithmetic(threads=parts))
    found = rows.gradients(x, y, weight, 0, accumulate=accumulate), rows.grad
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("layer", "alone"),
    [
        ("relu", True),
        ("layer_norm", True),
        ("batch_norm", False),
        ({"kind": "dropout", "rate": 0.5}, False),
        ({"kind": "dropout", "rate": 0.0}, True),
    ],
)
def test_what_sees_each_sample_alone(layer, alone):
    layers = [_READ_BY_ROWS, {"kind": "lstm", "units": 5}, layer, {"kind": "dense", "units": 10}]
    recipe = Recipe(model={"layers": layers}, data={"source": "digits"})
    rows = populate(
        [recipe], Pipeline(recipe.data), None, device=torch.device("cpu"), dtype=torch.float32
    )
    assert sees_samples_alone(rows.objectives[0].model) is alone


def test_members_have_a_pipeline_each(text_file):
    many = recipes("mlp", text_file)[:2]
    kwargs = {"device": torch.device("cpu"), "dtype": torch.float64}
    with pytest.raises(ValueError, match="shorter"):
        populate(many, [Pipeline(many[0].data)], None, **kwargs)
