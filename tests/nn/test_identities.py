"""What lectures derive of layers, losses and decay: two forms that are one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import ravine
from ravine.nn.build import build, build_loss

SCORES = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.tensor([0, 3, 1, 2, 2, 0, 1])


def layer(shape, kind, **fields):
    layers = [{"kind": kind, **fields}]
    return build({"kind": "layers", "layers": layers}, shape, 1, seed=0, dtype=torch.float64)


def test_scores_may_be_shifted_and_one_class_be_zero():
    """The softmax has one class too many: with its score at 0, two classes are logistic regression."""
    loss = build_loss("cross_entropy", None)
    assert torch.allclose(loss(SCORES + 777.0, CLASSES), loss(SCORES, CLASSES), atol=1e-12)
    z, y = SCORES[:, 0], CLASSES % 2
    two = loss(torch.stack([torch.zeros_like(z), z], 1), y)
    one = build_loss("binary_cross_entropy", None)(z[:, None], y)
    assert torch.allclose(two, one, atol=1e-14)


def test_the_lectures_scores_do_not_overflow():
    scores = torch.tensor([[1000.0, 995, 10, 10, 1]], dtype=torch.float64)
    found = [
        float(torch.exp(-build_loss("cross_entropy", None)(scores, torch.tensor([k]))))
        for k in range(5)
    ]
    assert found == pytest.approx([0.99331, 0.00669, 0, 0, 0], abs=1e-5)


def test_the_gradient_of_the_log_loss_is_posterior_minus_target():
    scores = SCORES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        build_loss("cross_entropy", None)(scores, CLASSES).sum(), scores
    )
    expected = SCORES.softmax(1) - F.one_hot(CLASSES, 4)
    assert torch.allclose(gradient, expected, atol=1e-15)


def test_a_dense_layer_is_a_convolution_of_full_size_and_one_by_one_is_dense_by_pixel():
    x = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    whole = layer((2, 5, 4), "conv", channels=6, kernel=[5, 4], padding="valid")
    weight, bias = (p.detach() for p in whole.parameters())
    assert torch.allclose(whole(x)[:, :, 0, 0], x.flatten(1) @ weight.flatten(1).T + bias)
    pixel = layer((2, 5, 4), "conv", channels=6, kernel=1)
    weight, bias = (p.detach() for p in pixel.parameters())
    expected = torch.einsum("bchw,oc->bohw", x, weight[:, :, 0, 0]) + bias[:, None, None]
    assert torch.allclose(pixel(x), expected)


def test_a_stride_is_a_convolution_that_leaves_out_places():
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    fields = {"channels": 4, "kernel": 3, "padding": "valid"}
    plain, strided = (
        layer((3, 9, 9), "conv", **fields),
        layer((3, 9, 9), "conv", stride=2, **fields),
    )
    strided.load_state_dict(plain.state_dict())
    assert torch.allclose(strided(x), plain(x)[..., ::2, ::2])


def test_batch_norm_can_be_the_identity():
    """With gamma the deviation and beta the mean of its input, what comes in comes out."""
    x = 3 + 2 * torch.randn(64, 5, dtype=torch.float64)
    norm = layer((5,), "batch_norm", epsilon=1e-12).train()
    gamma, beta = norm.parameters()
    with torch.no_grad():
        gamma.copy_(x.std(0, correction=0))
        beta.copy_(x.mean(0))
    assert torch.allclose(norm(x), x, atol=1e-9)


def test_weight_decay_of_plain_descent_is_an_l2_penalty_of_half_of_it(tmp_path):
    recipe = ravine.Recipe(
        model={"kind": "mlp", "hidden": [4]},
        data={"source": "blobs", "batch": 32},
        optimizer={"kind": "sgd", "lr": 0.1},
        stop={"after": "20it"},
        precision="float64",
    )
    arms = [{"optimizer.weight_decay": 0.02}, {"loss": {"kind": "cross_entropy", "l2": 0.01}}, {}]
    runs = ravine.train_many([recipe.edit(e) for e in arms], quiet=True, out=tmp_path / "r")
    decayed, penalised, plain = (
        np.concatenate([p.detach().numpy().ravel() for p in run.model.parameters()]) for run in runs
    )
    assert np.abs(decayed - penalised).max() < 1e-14
    assert np.abs(decayed - plain).max() > 1e-3
