"""What a batch's mean weighs: micro-batches by their samples, samples by the weights of their
classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import ravine
from ravine import Recipe
from ravine.data.order import Order
from ravine.nn.build import build_loss

CLASS_WEIGHTS = [1.0, 0.2, 4.0]


def table(n: int, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, 4)), generator.integers(0, k, n)


def trained(out: Path, n: int, members: int = 1, **fields: Any) -> Any:
    """The last weights [P, D] of a softmax model and its runs; samples in their own order."""
    changes = {"data.batch": 16, "stop.after": "3ep", **fields}
    recipe = Recipe(
        model="softmax",
        optimizer={"kind": "sgd", "lr": 0.1},
        data={"validation": 0.0, "test": 0.0, "preprocess": []},
        precision="float64",
        threads=1,
    ).edit(changes)
    recipes = [
        recipe.edit({"seed": i, "optimizer.lr": recipe.optimizer.lr * (1 + i)})
        for i in range(members)
    ]
    runs = ravine.train_many(recipes, data=table(n), out=out, quiet=True, doctor=False)
    return torch.stack([run.slots["theta"] for run in runs]), runs


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS], ids=["", "class-weights"])
@pytest.mark.parametrize(("n", "members"), [(48, 1), (54, 1), (33, 3)])
def test_four_batches_of_4_are_one_of_16(
    tmp_path: Path, n: int, members: int, weights: list[float] | None
) -> None:
    """Also where an epoch's last micro-batch, or its last step, is incomplete."""
    fields = {"loss": {"kind": "cross_entropy", "class_weights": weights}} if weights else {}
    small = {"data.batch": 4, "optimizer.accumulate": 4}
    whole, runs = trained(tmp_path / "whole", n, members, **fields)
    parts, others = trained(tmp_path / "parts", n, members, **small, **fields)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    for run, other in zip(runs, others, strict=True):
        np.testing.assert_allclose(other.losses, run.losses, rtol=1e-12)


def test_class_weights_as_torch_divides(tmp_path: Path) -> None:
    """By the sum of the weights of the batch's samples: training and evaluation against a loop with
    F.cross_entropy(weight=...)."""
    x, y = (torch.as_tensor(a) for a in table(50))
    w = torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)
    fields = {"loss": {"kind": "cross_entropy", "class_weights": CLASS_WEIGHTS}}
    fields |= {"data.order": "fixed", "metrics": ["accuracy"]}
    (found,), (run,) = trained(tmp_path / "run", 50, **fields)
    (start,), _ = trained(tmp_path / "start", 50, **fields, **{"optimizer.lr": 1e-300})
    weight, bias = start[:12].view(3, 4), start[12:]
    order = Order(size=50, batch=16, kind="fixed", last="keep", seed=0)
    for step in range(12):
        rows = order.rows(step)
        weight, bias = weight.requires_grad_(), bias.requires_grad_()
        loss = F.cross_entropy(x[rows] @ weight.T + bias, y[rows], weight=w)
        assert run.losses[step] == pytest.approx(float(loss.detach()), rel=1e-12)
        slopes = torch.autograd.grad(loss, (weight, bias))
        weight, bias = ((p - 0.1 * g).detach() for p, g in zip((weight, bias), slopes, strict=True))
    torch.testing.assert_close(found, torch.cat([weight.flatten(), bias]), rtol=1e-12, atol=1e-12)
    expected = float(F.cross_entropy(x @ weight.T + bias, y, weight=w))
    assert run.evaluate(data=(x.numpy(), y.numpy()))["loss"] == pytest.approx(expected, rel=1e-12)


def test_class_weights_divided_by_the_number_of_samples(tmp_path: Path) -> None:
    """The other convention: the mean over samples of w_y times the loss."""
    x, y = table(50)
    loss = {"kind": "cross_entropy", "class_weights": CLASS_WEIGHTS}
    loss |= {"class_weights_divisor": "samples"}
    (theta,), (run,) = trained(tmp_path / "run", 50, loss=loss)
    weight, bias = theta[:12].view(3, 4), theta[12:]
    scores, target = torch.as_tensor(x) @ weight.T + bias, torch.as_tensor(y)
    w = torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)
    expected = F.cross_entropy(scores, target, weight=w, reduction="sum") / 50
    assert run.evaluate(data=(x, y))["loss"] == pytest.approx(float(expected), rel=1e-12)


def test_a_batch_whose_classes_weigh_nothing(tmp_path: Path) -> None:
    """Gives loss and gradient zero, alone and among micro-batches, where PyTorch's is 0 / 0."""
    loss = {"kind": "cross_entropy", "class_weights": [0.0, 0.0, 1.0]}
    for accumulate in (1, 3):
        fields = {"data.batch": 1, "optimizer.accumulate": accumulate, "loss": loss}
        theta, (run,) = trained(tmp_path / f"run{accumulate}", 30, **fields)
        assert bool(theta.isfinite().all())
        assert run.result["stopped"] == "finished"


@pytest.mark.parametrize("name", ["cross_entropy", "nll", "hinge", "crammer_singer", "kl"])
def test_counts_of_class_numbers(name: str) -> None:
    loss = build_loss({"kind": name, "class_weights": CLASS_WEIGHTS}, "classification")
    y = torch.tensor([0, 2, 2, 1])
    assert loss.counts(y).tolist() == [1.0, 4.0, 4.0, 0.2]
    assert loss.total(y) == pytest.approx(9.2)


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        ("cross_entropy", (6, 3), "classes"),
        ("cross_entropy", (6, 3), "soft"),
        ("cross_entropy", (6, 5, 3), "classes"),
        ("nll", (6, 3), "classes"),
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_means_are_torchs(
    loss: str, output: tuple[int, ...], target: str, smoothing: float
) -> None:
    """F.cross_entropy and F.nll_loss with weight; soft targets count one each there too."""
    if loss == "nll" and smoothing:
        pytest.skip("nll has no smoothing")
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(*output, generator=generator, dtype=torch.float64).log_softmax(-1)
    y = torch.randint(0, 3, output[:-1], generator=generator)
    if target == "soft":
        y = torch.rand(*output, generator=generator, dtype=torch.float64).softmax(-1)
    w = torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)
    options = {"label_smoothing": smoothing} if smoothing else {}
    made = build_loss({"kind": loss, "class_weights": CLASS_WEIGHTS, **options}, None)
    rows, targets = s.flatten(0, -2), y.flatten(0, len(output) - 2)
    by_torch = F.nll_loss if loss == "nll" else F.cross_entropy
    expected = by_torch(rows, targets, weight=w, **options)
    torch.testing.assert_close(made.batch_mean(made(s, y), y), expected, rtol=1e-14, atol=0)


def test_binary_outputs_weigh_by_their_class() -> None:
    for labels in ([0, 1, 1], [-1, 1, 1]):
        loss = build_loss({"kind": "binary_hinge", "class_weights": [1.0, 3.0]}, None)
        s, y = torch.tensor([[0.5], [0.5], [-1.0]]).double(), torch.tensor(labels)
        expected = (1 * 1.5 + 3 * 0.5 + 3 * 2.0) / 7
        assert float(loss.batch_mean(loss(s, y), y)) == pytest.approx(expected)


def test_several_labels_count_one_each() -> None:
    """As F.binary_cross_entropy_with_logits(weight=...) has it."""
    w = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    loss = build_loss({"kind": "binary_cross_entropy", "class_weights": w.tolist()}, None)
    s = torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.0, -2.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(s, y, weight=w)
    torch.testing.assert_close(loss.batch_mean(loss(s, y), y), expected)
