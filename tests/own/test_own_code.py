"""Losses, metrics, optimisers, schedules and data functions of a person's own: what they compute, who
owns them in a population, and what is asked for when a run is opened without them."""

from __future__ import annotations

import copy
import functools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine
import stored
from ravine.catalogue import NonNegative, PerMember, find, make
from ravine.engine.rows.nested import pack, unpack
from ravine.recipe import Recipe

BLOBS = {"data": "blobs", "model": "mlp", "epochs": 3, "quiet": True, "doctor": False}


def focal(output, target, gamma=2.0):
    log_p = F.log_softmax(output, 1).gather(1, target[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma) * log_p


def squares(output, target):
    return (output - target).square().mean()


def worst_recall(output, target):
    """The lowest recall of any class."""
    right = output.argmax(1) == target
    return min(float(right[target == k].float().mean()) for k in target.unique())


def misfit(output, target):
    return float((output.argmax(1) != target).float().mean())


misfit.better = "min"


@ravine.technique("loss")
def swept_focal(output, target, *, gamma: PerMember[NonNegative] = 2.0):
    """The focal loss: (1 - p)^gamma times the cross-entropy (Lin et al., 2017)."""
    return focal(output, target, gamma)


@ravine.technique("optimizer")
def signed(w, g, state, t, layout, *, lr: NonNegative = 0.01, memory: NonNegative = 0.9):
    """Momentum, of which the sign alone is stepped."""
    m = state["m"]
    m.mul_(memory).add_(g)
    w.sub_(lr * m.sign())


class Signed(torch.optim.Optimizer):
    """The same, as PyTorch has it."""

    def __init__(self, params, lr=0.01, memory=0.9):
        super().__init__(params, {"lr": lr, "memory": memory})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.mul_(group["memory"]).add_(p.grad)
                p.sub_(group["lr"] * m.sign())


# --- losses and metrics ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda output, target: F.cross_entropy(output, target),
        lambda output, target: F.cross_entropy(output, target, reduction="none"),
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss,
        functools.partial(focal, gamma=0.0),
    ],
    ids=["mean", "samples", "module", "class", "partial"],
)
def test_an_own_loss_trains_as_the_same_one_by_name(loss, tmp_path):
    own = ravine.train(loss=loss, out=tmp_path / "own", **BLOBS)
    named = ravine.train(loss="cross_entropy", out=tmp_path / "named", **BLOBS)
    assert np.allclose(own.losses, named.losses, rtol=1e-5)
    assert own.result["test_accuracy"] == named.result["test_accuracy"]
    assert own.recipe.loss.kind.startswith("own:")
    assert len(own.recipe.loss.code) == 64
    assert own.evaluate()["loss"] == pytest.approx(own.result["test_loss"], rel=1e-5)


def test_numbers_of_another_shape_are_not_broadcast(tmp_path):
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    data = (x, x.sum(1))
    own = ravine.train(
        model=[{"kind": "dense", "units": 1}],
        data=data,
        loss=squares,
        epochs=5,
        lr=0.05,
        quiet=True,
        out=tmp_path / "own",
    )
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))  # outputs [B] for targets [B, 1]
    flat = ravine.train(
        model=net, data=data, loss=squares, epochs=90, lr=0.05, quiet=True, out=tmp_path / "flat"
    )
    assert own.result["train_loss"] < 3
    assert flat.result["train_loss"] < 0.05


def test_own_metrics_stand_beside_names_with_their_direction(tmp_path):
    run = ravine.train(metrics=[worst_recall, "f1", misfit], out=tmp_path / "run", **BLOBS)
    assert {"val_worst_recall", "val_f1", "test_misfit"} <= set(run.result)
    assert run.result["test_misfit"] == pytest.approx(1 - run.result["test_accuracy"])
    from ravine import measures

    assert measures.better_is("val_misfit") == "min"
    assert measures.better_is("val_worst_recall") == "max"
    stopped = ravine.train(
        metrics=misfit,
        monitor="val_misfit",
        target=0.4,
        best=True,
        out=tmp_path / "stopped",
        **{**BLOBS, "epochs": 20},
    )
    assert stopped.result["stopped"].startswith("target reached")
    assert stopped.result["val_misfit"] <= 0.4


def test_a_registered_loss_is_swept_per_member(tmp_path):
    recipe = Recipe(data={"source": "blobs"}, loss="own:swept_focal", stop={"after": "3ep"})
    recipes = [recipe.edit({"loss.gamma": gamma}) for gamma in (0.0, 1.0, 4.0)]
    assert len({each.program for each in recipes}) == 1
    runs = ravine.train_many(recipes, out=tmp_path / "all", quiet=True)
    for gamma, run in zip((0.0, 1.0, 4.0), runs, strict=True):
        alone = ravine.train_many(
            [recipe.edit({"loss.gamma": gamma})], out=tmp_path / f"{gamma}", quiet=True
        )[0]
        assert np.allclose(alone.losses, run.losses, rtol=1e-5)
    assert runs[0].result["train_loss"] > runs[2].result["train_loss"]
    assert find("loss", "own:swept_focal").summary.startswith("The focal loss")
    with pytest.raises(ravine.InputError, match=r"loss.gamma: got -1; expected a number of at"):
        recipe.edit({"loss.gamma": -1})


def test_a_loss_with_parameters_learns_them(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(self, output, target):
            return F.cross_entropy(output, target) * self.log_scale.exp() - self.log_scale

    run = ravine.train(loss=Scaled(), out=tmp_path / "run", **BLOBS)
    assert run.predict(np.zeros((2, 2))).shape == (2,)
    assert run.evaluate()["accuracy"] == run.result["test_accuracy"]


# --- optimisers -----------------------------------------------------------------------------------


def by_hand(run, make_optimizer, epochs):
    """The plain loop of PyTorch on the same batches, from the same weights."""
    from ravine.data.pipeline import Pipeline
    from ravine.nn.build import build

    recipe = run.recipe
    pipeline = Pipeline(recipe.data)
    model = build(recipe.model, pipeline.input_shape, pipeline.outputs, seed=recipe.seed)
    optimizer = make_optimizer(model.parameters())
    for step in range(epochs * pipeline.epoch_steps):
        batch = pipeline.batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(batch.x), batch.y).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (torch.optim.RMSprop, lambda p: torch.optim.RMSprop(p, lr=0.01)),
        (torch.optim.AdamW, lambda p: torch.optim.AdamW(p, lr=0.01)),
        (Signed, lambda p: Signed(p, lr=0.01)),
        (lambda p, lr=1e-3: torch.optim.NAdam(p, lr=lr), lambda p: torch.optim.NAdam(p, lr=0.01)),
    ],
    ids=["RMSprop", "AdamW", "own class", "function"],
)
def test_an_own_optimizer_is_the_plain_loop_to_the_bit(given, plain, tmp_path):
    loss = lambda output, target: F.cross_entropy(output, target)  # noqa: E731
    run = ravine.train(optimizer=given, lr=0.01, loss=loss, out=tmp_path / "run", **BLOBS)
    expected = by_hand(run, plain, 3).state_dict()
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_module_that_was_trained_in_float64_predicts_in_it(tmp_path):
    module = torch.nn.Linear(2, 3)
    run = ravine.train(
        data="blobs", model=module, precision="float64", epochs=1, quiet=True, out=tmp_path / "run"
    )
    x = torch.randn(4, 2, dtype=torch.float64)
    expected = run.model(run.pipeline.transform(x))
    assert expected.dtype == torch.float64
    assert torch.equal(run.outputs(x), expected)


def test_a_function_that_says_its_own_rate_keeps_it(tmp_path):
    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)

    loss = lambda output, target: F.cross_entropy(output, target)  # noqa: E731
    run = ravine.train(optimizer=sgd, loss=loss, out=tmp_path / "run", **BLOBS)
    expected = by_hand(run, sgd, 3).state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in run.model.state_dict().items())
    assert run.recipe.optimizer.lr == 1.0  # what multiplies it


def test_the_same_optimizer_as_a_formula_and_as_an_object_in_one_population(tmp_path):
    recipe = Recipe(data={"source": "blobs"}, stop={"after": "4ep"}, precision="float64")
    recipes = [
        recipe.edit({"optimizer": o, "optimizer.lr": lr})
        for lr in (0.01, 0.03)
        for o in (signed, Signed)
    ]
    assert [r.optimizer.kind for r in recipes[:2]] == ["own:signed", "own:Signed"]
    assert len({r.program for r in recipes}) == 1
    runs = ravine.train_many(recipes, out=tmp_path / "run", quiet=True)
    for formula, object_ in ((0, 1), (2, 3)):
        assert np.allclose(runs[formula].losses, runs[object_].losses, rtol=1e-12)
        assert torch.allclose(runs[formula].theta, runs[object_].theta, rtol=1e-12)
    assert not np.allclose(runs[0].losses, runs[2].losses)


def mixed(parameters, lr=0.01):
    """Matrices by Muon, vectors by Adam: two optimisers of one member."""
    parameters = list(parameters)
    return [
        torch.optim.Muon([p for p in parameters if p.dim() == 2], lr=lr),
        torch.optim.Adam([p for p in parameters if p.dim() != 2], lr=lr / 10),
    ]


def test_resume_of_an_own_optimizer_is_bit_for_bit(tmp_path):
    recipe = Recipe(data={"source": "blobs"}, stop={"after": "6ep"}, optimizer=mixed)
    recipes = [
        recipe.edit({"seed": s, "optimizer.lr": 0.01 * (s + 1), "stop.after": f"{4 + s}ep"})
        for s in range(3)
    ]
    whole = ravine.train_many(recipes, out=tmp_path / "whole", quiet=True)
    from ravine.engine.begin import facts_of
    from ravine.engine.directory_record import describe, record_of
    from ravine.engine.loop.loop import TrainingLoop
    from ravine.engine.programs import programs_of
    from ravine.engine.ranks.ranks import ALONE
    from ravine.rundir import RunDir

    programs = programs_of(recipes)
    rundir = RunDir.create(
        tmp_path / "cut",
        recipes,
        facts=facts_of(
            programs, [[0, 1, 2]], ALONE, group=None, width=None, halving=None, trace=()
        ),
    )
    record = record_of(rundir)(programs[0])
    describe(programs[0], record)
    loop = TrainingLoop(programs[0], record)
    loop.advance(11)  # in the middle of an epoch
    loop.save()
    rundir.close()
    for again, run in zip(ravine.resume(tmp_path / "cut", quiet=True), whole, strict=True):
        assert torch.equal(again.theta, run.theta)
        assert np.array_equal(again.losses, run.losses)


def test_members_that_wait_bring_optimizers_of_their_own(tmp_path):
    runs = {}
    for optimizer in ("adam", torch.optim.Adam):
        recipe = Recipe(data={"source": "blobs"}, optimizer=optimizer)
        recipes = [recipe.edit({"seed": s, "stop.after": f"{2 + s % 2}ep"}) for s in range(4)]
        out = tmp_path / str(len(runs))
        runs[str(optimizer)] = ravine.train_many(recipes, out=out, width=2, quiet=True)
    for formula, own in zip(*runs.values(), strict=True):
        assert np.allclose(formula.losses, own.losses, rtol=1e-4)
        assert torch.allclose(formula.theta, own.theta, rtol=1e-3, atol=1e-5)


def test_a_rollback_takes_the_optimizer_back(tmp_path):
    @ravine.technique("optimizer")
    class Breaks(torch.optim.Adam):
        """Adam, whose 9th step destroys the weights."""

        count = 0

        def __init__(self, params, *, lr: NonNegative = 0.01):
            super().__init__(params, lr=lr)

        def step(self, closure=None):
            super().step()
            type(self).count += 1
            if type(self).count == 9:
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(math.nan)

    recipe = Recipe(
        data={"source": "blobs"},
        optimizer="own:Breaks",
        stop={"after": "5ep", "on_trouble": "rollback"},
    )
    Breaks.count = -1  # the rehearsal steps once
    run = ravine.train(recipe, out=tmp_path / "run", quiet=True)
    assert [e for e in run.events if e["kind"] == "rollback"]
    assert run.result["stopped"] == "finished"
    assert np.isfinite(run.result["test_loss"])


@pytest.mark.parametrize(
    "value",
    [{"a": 1, 2: [None, True, (1.5, "x")], "t": {"u": torch.arange(3)}}, [], torch.ones(2)],
    ids=["nested", "empty", "tensor"],
)
def test_nested_state_comes_back(value):
    import json

    plain, tensors = pack(copy.deepcopy(value))
    again = unpack(json.loads(json.dumps(plain)), tensors)
    assert str(again) == str(value)


# --- schedules and data ---------------------------------------------------------------------------


def test_a_torch_scheduler_is_written_down(tmp_path):
    step_lr = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)  # noqa: E731
    run = ravine.train(schedule=step_lr, lr=0.1, out=tmp_path / "run", **{**BLOBS, "epochs": 5})
    assert run.metrics["lr"].round(6).tolist() == [0.1, 0.1, 0.05, 0.05, 0.025]
    assert run.recipe.schedule.kind == "table"
    one = lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)  # noqa: E731
    given = {k: v for k, v in BLOBS.items() if k != "epochs"}
    run = ravine.train(schedule=one, lr=0.1, steps=20, out=tmp_path / "one", **given)
    assert run.recipe.schedule.every == "1it"
    assert len(run.recipe.schedule.values) == 20


def halved(x):
    return x / 2


def jittered(x):
    return x + 0.1 * torch.randn(x.shape)


def flipped(x, y):
    return -x, y


def test_own_preprocessing_and_augmentation(tmp_path):
    run = ravine.train(
        preprocess=["standardize", halved],
        augment=[jittered, flipped],
        out=tmp_path / "run",
        **BLOBS,
    )
    again = ravine.train(
        preprocess=["standardize", halved],
        augment=[jittered, flipped],
        out=tmp_path / "again",
        **BLOBS,
    )
    assert np.array_equal(run.losses, again.losses)  # draws are a function of the step
    x = torch.randn(4, 2)
    plain = ravine.train(preprocess="standardize", out=tmp_path / "plain", **BLOBS)
    assert torch.allclose(run.pipeline.transform(x) * 2, plain.pipeline.transform(x), atol=1e-6)


# --- recipes that name what is not here -----------------------------------------------------------


def test_recipes_keep_name_numbers_and_hash():
    recipe = Recipe(loss=focal, optimizer=torch.optim.RMSprop, metrics=[misfit])
    assert recipe.loss.kind == "own:focal"
    assert recipe.loss.gamma == 2.0
    assert Recipe.from_toml(recipe.to_toml()) == recipe == Recipe.from_json(recipe.to_json())
    assert recipe.edit({"loss.gamma": 1.0}).program != recipe.program
    other = Recipe(loss=functools.partial(focal, gamma=1.0))
    assert other.loss.code != recipe.loss.code
    assert other.loss.gamma == 1.0


def test_what_is_not_here_is_asked_for_by_name_with_the_line():
    recipe = Recipe.from_toml('loss = { kind = "own:nowhere", gamma = 3.0, code = "ab" }')
    assert Recipe.from_json(recipe.to_json()).to_dict()["loss"]["gamma"] == 3.0
    text = r"loss: got 'own:nowhere.*expected nowhere itself; bring it: in Python .*own=\[nowhere\]"
    with pytest.raises(ravine.InputError, match=text):
        recipe.loss.technique.function()


REFUSALS = [
    ({"loss": 3}, r"loss: got 3; .*a function of \(output, target\)"),
    ({"loss": lambda output, target: None}, "loss: .*expected a tensor"),
    ({"loss": lambda output, target: torch.zeros(7)}, r"loss: .*expected \[B\], or one number"),
    ({"metrics": lambda x: 1.0}, r"function of \(output, target\) that gives a number"),
    ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=0.1)}, "each member gets its own: optim"),
    ({"optimizer": lambda parameters: 3}, r"which gives int.*expected a torch.optim.Optimizer"),
    ({"schedule": lambda epoch: 1.0}, r"function of \(epoch, lr\)"),
    (
        {"schedule": torch.optim.lr_scheduler.StepLR},
        r"schedule=lambda optimizer: StepLR\(optimizer",
    ),
    ({"schedule": torch.optim.lr_scheduler.ReduceLROnPlateau}, "on_plateau"),
    ({"schedule": lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 1, 9)}, "set steps"),
    ({"augment": lambda a, b, c: a}, r"a function of \(x\), of \(x, y\), or of \(batch, draw\)"),
    ({"preprocess": lambda x: x[:1]}, "as many rows as it was given"),
    ({"loss": nn.CrossEntropyLoss(), "hard_negatives": 0.5}, 'reduction="none"'),
    ({"loss": squares, "class_weights": "balanced"}, "expected a loss over classes"),
    ({"metrics": nn.Linear}, "an instance of it"),
]


@pytest.mark.parametrize(("given", "text"), REFUSALS, ids=[str(i) for i in range(len(REFUSALS))])
def test_a_refusal_says_what_to_do_instead(given, text, tmp_path):
    with pytest.raises(ravine.InputError, match=text):
        ravine.train(out=tmp_path / "run", **{**BLOBS, **given})
    assert not (tmp_path / "run").exists()


def test_a_source_that_has_changed_is_said(tmp_path):
    run = ravine.train(loss=focal, out=tmp_path / "run", **BLOBS)

    def focal_(output, target, gamma=2.0):
        return focal(output, target, 2 * gamma)

    def change(about):
        for recipe in (*about["recipes"], *about["explicit"]):
            recipe["loss"]["code"] = "0" * 64

    stored.edit(run.directory, change)
    with pytest.warns(UserWarning, match=r"the source of own:focal \(loss\) differs"):
        ravine.Run(run.directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ravine.resume(run.directory, after="5ep", quiet=True)
        assert ravine.Run(run.directory).events_of("own")


def test_a_registered_name_may_be_said_without_its_prefix():
    assert make("loss", "own:swept_focal:1.5").gamma == 1.5
