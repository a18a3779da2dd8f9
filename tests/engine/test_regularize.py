"""What perturbs or averages training: weight noise, adversarial examples, hard negatives,
bootstrap, EMA, SWA, accumulation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ravine
from ravine import Recipe
from ravine.nn.normalization import batch_norm

N = 48
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (X[:, 0] + X[:, 1] > 0).long() + (X[:, 2] > 0.5).long()


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def trained(tmp_path, name="run", model=net, **fields):
    common = {
        "precision": "float64",
        "batch": "full",
        "order": "fixed",
        "validation": 0.0,
        "test": 0.0,
        "quiet": True,
    }
    said = {"optimizer": "sgd", "lr": 0.1, "steps": 5, **common, **fields}
    return ravine.train(model=model(), data=(X, Y), out=tmp_path / name, **said)


def by_hand(loss_of, steps=5, lr=0.1, after=lambda model, step: None):
    model = net()
    for step in range(steps):
        gradient = torch.autograd.grad(loss_of(model), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradient, strict=True):
                p -= lr * g
        after(model, step)
    return model


def assert_equal(model, expected, tolerance=1e-12):
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def plain(model):
    return F.cross_entropy(model(X), Y)


def test_full_batch_descent_equals_the_loop_by_hand(tmp_path):
    assert_equal(trained(tmp_path).model, by_hand(plain))


def test_adversarial_examples(tmp_path):
    def loss(model):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x), Y), x)
        return (plain(model) + F.cross_entropy(model(X + 0.1 * slope.sign()), Y)) / 2

    assert_equal(trained(tmp_path, adversarial=0.1).model, by_hand(loss))


def test_hard_negatives(tmp_path):
    def loss(model):
        each = F.cross_entropy(model(X), Y, reduction="none")
        return each.topk(N // 4).values.mean()

    assert_equal(trained(tmp_path, hard_negatives=0.25).model, by_hand(loss))


def test_ema(tmp_path):
    seen = []

    def follow(model, step):
        now = [p.detach().clone() for p in model.parameters()]
        start = [p.detach() for p in net().parameters()] if not seen else seen[-1]
        seen.append([0.8 * old + 0.2 * new for old, new in zip(start, now, strict=True)])

    by_hand(plain, after=follow)
    for a, b in zip(trained(tmp_path, ema=0.8).model.parameters(), seen[-1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_swa_is_the_mean_of_the_epochs_ends(tmp_path):
    seen = []
    by_hand(
        plain,
        after=lambda model, step: seen.append([p.detach().clone() for p in model.parameters()]),
    )
    run = trained(tmp_path, swa="3it")
    for i, p in enumerate(run.model.parameters()):
        mean = torch.stack([s[i] for s in seen[2:]]).mean(0)
        torch.testing.assert_close(p, mean, rtol=0, atol=1e-12)


class MovingMean(nn.Module):
    """Somebody's own normalisation: PyTorch's names and momentum, nothing else of its classes."""

    def __init__(self):
        super().__init__()
        self.momentum = 0.1
        self.register_buffer("running_mean", torch.zeros(6, dtype=torch.float64))
        self.register_buffer("running_var", torch.ones(6, dtype=torch.float64))

    def forward(self, x):
        if self.training:
            for kept, seen in ((self.running_mean, x.mean(0)), (self.running_var, x.var(0))):
                kept += self.momentum * (seen.detach() - kept)
        return (x - self.running_mean) / self.running_var.sqrt()


NORMS = {
    "torch": (lambda: nn.BatchNorm1d(6), N),
    "without shift": (lambda: batch_norm((6,), center=False), N),
    "cumulative": (lambda: batch_norm((6,), average="cumulative"), N),
    "ghost": (lambda: batch_norm((6,), ghost=16), 16),
    "own": (MovingMean, N),
}


@pytest.mark.parametrize("norm", NORMS)
def test_swa_takes_running_statistics_of_the_averaged_network(norm, tmp_path):
    make, part = NORMS[norm]

    def model():
        return nn.Sequential(nn.Linear(5, 6), make(), nn.Tanh(), nn.Linear(6, 3)).double()

    kept = trained(tmp_path, model=model, swa="2it", lr=1.0).model
    parts = kept[0](X).detach().split(part)
    for name, statistics in (
        ("running_mean", [x.mean(0) for x in parts]),
        ("running_var", [x.var(0) for x in parts]),
    ):
        torch.testing.assert_close(getattr(kept[1], name), torch.stack(statistics).mean(0))


def test_accumulation_equals_the_larger_batch(tmp_path):
    large = trained(tmp_path, "large")
    small = trained(tmp_path, "small", batch=12, accumulate=4)
    assert_equal(small.model, large.model)


def test_bootstrap_weighs_samples_as_drawn(tmp_path):
    from ravine.randomness import generator

    drawn = torch.randint(N, (N,), generator=generator(0, "bootstrap"))
    run = trained(tmp_path, bootstrap=True, order="fixed")
    from ravine.data.pipeline import Pipeline

    batch = next(iter(Pipeline(run.recipe.data, arrays=(X, Y), dtype=torch.float64).split("train")))
    x, y = batch.x, batch.y
    assert_equal(run.model, by_hand(lambda model: F.cross_entropy(model(x[drawn]), y[drawn])))


def test_weight_noise_moves_the_point_of_the_gradient_alone(tmp_path):
    quiet = trained(tmp_path, "quiet", steps=1)
    noisy = trained(tmp_path, "noisy", steps=1, weight_noise=0.5)
    same = trained(tmp_path, "same", steps=1, weight_noise=0.5)
    assert torch.equal(noisy.slots["theta"], same.slots["theta"])
    moved = (noisy.slots["theta"] - quiet.slots["theta"]).norm()
    assert 0 < moved < 0.1


@pytest.mark.parametrize("field", ["adversarial", "hard_negatives", "weight_noise"])
def test_in_a_population_each_member_has_its_own(field, tmp_path):
    values = {"adversarial": [0.0, 0.1], "hard_negatives": [1.0, 0.5], "weight_noise": [0.0, 0.2]}[
        field
    ]
    base = Recipe(
        model={"kind": "mlp", "hidden": [8]},
        data={"source": "digits", "batch": 64},
        precision="float64",
        stop={"after": "20it"},
    )
    recipes = [
        base.edit({f"regularize.{field}": value, "seed": i}) for i, value in enumerate(values)
    ]
    many = ravine.train_many(recipes, out=tmp_path / "many", quiet=True)
    assert many[0].events_of("execution")[0]["data"]["way"] in ("dense", "mapped")
    for i, recipe in enumerate(recipes):
        alone = ravine.train(recipe, out=tmp_path / f"alone{i}", quiet=True)
        a, b = many[i].slots["theta"], alone.slots["theta"]
        assert float((a - b).norm() / b.norm()) < 1e-9


def test_tokens_cannot_be_moved_uphill(tmp_path):
    tokens = torch.arange(N * 4).view(N, 4) % 7
    with pytest.raises(ravine.InputError, match=r"regularize\.adversarial: got 'tokens'"):
        ravine.train(
            model={"kind": "lstm", "units": 4},
            data=(tokens, Y),
            adversarial=0.1,
            epochs=1,
            quiet=True,
            out=tmp_path / "r",
        )
