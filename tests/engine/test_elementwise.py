"""Batch normalisation, ReLU and pooling by compiled functions against PyTorch's own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ravine import resume, train
from ravine.engine.execution import pilot
from ravine.engine.ranks.batch_norm import SynchronizedStatistics
from ravine.engine.rows.ways import elementwise, gcc
from ravine.engine.rows.ways.elementwise import Elementwise
from ravine.nn.chain import Chain, norm_relu
from ravine.nn.models.resnet import resnet, resnet18
from ravine.rundir import RunDir

LAST = torch.channels_last
compiled = pytest.mark.skipif(elementwise.functions() is None, reason="GCC is needed")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(elementwise, "LEAST", 1)


class Three(nn.Module):
    """A normalisation alone, one with ReLU, and one with a sum and ReLU, in three ways to write it."""

    def __init__(self, channels, written, **options):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, **options) for _ in range(3))
        self.written = written
        draws = torch.Generator().manual_seed(1)
        for p in self.parameters():
            p.data.copy_(torch.rand(p.shape, generator=draws) + 0.5)

    def forward(self, x):
        a, b, c = self.norms
        if self.written == "layers":
            return c(Chain(b, nn.ReLU())(a(x))) + x
        if self.written == "one call":
            return norm_relu(c, nn.ReLU(), norm_relu(b, F.relu, a(x)), x)
        return torch.relu(c(b(a(x)).relu()) + x)


def images(*shape, dtype=torch.float64):
    draws = torch.Generator().manual_seed(len(shape))
    x = 3 * torch.randn(shape, generator=draws, dtype=torch.float64) + 5
    return x.to(dtype).contiguous(memory_format=LAST).requires_grad_()


def found_by(model, x, within):
    """Output, gradients and averages of a step."""
    model = copy.deepcopy(model)
    with within:
        y = model(x)
    draws = torch.Generator().manual_seed(7)
    g = torch.randn(y.shape, generator=draws, dtype=torch.float64).to(y.dtype)
    gradients = torch.autograd.grad(y, [x, *model.parameters()], g.contiguous(memory_format=LAST))
    return [y.detach(), *gradients, *model.buffers()]


@compiled
@pytest.mark.parametrize("written", ["layers", "one call", "functions"])
@pytest.mark.parametrize("shape", [(3, 16, 5, 7), (70, 48, 6, 2), (2, 16, 1, 1)], ids=str)
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": 0.4}], ids=str)
def test_values_and_gradients_are_those_in_double(written, shape, options):
    model = Three(shape[1], written, **options)
    exact = found_by(copy.deepcopy(model).double(), images(*shape), torch.enable_grad())
    found = found_by(model, images(*shape, dtype=torch.float32), Elementwise())
    scale = 1e-5 if shape[0] * shape[2] > 2 else 1e-3  # two samples: variances near zero
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=10 * scale, atol=10 * scale)


@compiled
def test_bfloat16_is_as_near_to_double_as_pytorchs():
    model = Three(32, "functions")
    x = images(64, 32, 8, 8, dtype=torch.bfloat16)
    wide = x.detach().double().requires_grad_()
    exact = found_by(copy.deepcopy(model).double(), wide, torch.enable_grad())
    errors = []
    for within in (torch.enable_grad(), Elementwise()):
        found = found_by(model, x, within)
        errors.append(
            [float((a.double() - b.double()).norm()) for a, b in zip(found, exact, strict=True)]
        )
    for plain, ours in zip(*errors, strict=True):
        assert ours <= 1.2 * plain + 1e-6


@compiled
def test_equal_bits_on_any_number_of_threads():
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x = images(33, 16, 9, 9, dtype=torch.float32)
            found.append(found_by(Three(16, "one call"), x, Elementwise()))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, found[0], found[1]))
    assert all(map(torch.equal, found[0], found[2]))


@compiled
def test_a_mean_far_from_zero_loses_no_variance():
    x = (images(64, 16, 8, 8, dtype=torch.float32).detach() / 1000 + 300).requires_grad_()
    with Elementwise():
        y = F.batch_norm(x, None, None, training=True)
    exact = F.batch_norm(x.double(), None, None, training=True)
    assert type(y.grad_fn).__name__ == "_NormaliseBackward"
    assert (y.var((0, 2, 3)) - exact.var((0, 2, 3))).abs().max() < 0.02


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 16, 4, 6), (3, 48, 5, 7), (1, 32, 2, 3)], ids=str)
def test_maxima_are_pytorchs_to_the_bit(shape, dtype):
    x = images(*shape, dtype=dtype)
    x.data[0, 3:9] = torch.tensor([0.0, -2.0]).repeat(shape[3])[: shape[3]]  # equals
    x.data[0, 10, 1] = float("-inf")
    x.data[0, 11, 0, 0], x.data[0, 12, 0, 1] = float("nan"), -torch.tensor(float("nan"))
    expected = F.max_pool2d(x, 2)
    with Elementwise():
        found = nn.MaxPool2d(2)(x)
    assert type(found.grad_fn).__name__ == "_MaxPoolBackward"
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    g = torch.randn_like(expected)
    slopes = [torch.autograd.grad(y, x, g)[0] for y in (expected, found)]
    assert torch.equal(*slopes)


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_relu_and_its_slope_are_pytorchs_to_the_bit(dtype):
    x = (images(4, 16, 3, 3).detach() - 5).to(dtype).contiguous(memory_format=LAST)
    special = [float("nan"), float("inf"), float("-inf"), 0.0]
    x[0, :4, 0, 0] = torch.tensor(special, dtype=dtype)
    x.requires_grad_()
    with Elementwise():
        y = F.relu(x)
    assert type(y.grad_fn).__name__ == "_ReLUBackward"
    torch.testing.assert_close(y, x.detach().relu(), rtol=0, atol=0, equal_nan=True)
    g = torch.randn_like(x)
    assert torch.equal(torch.autograd.grad(y, x, g)[0], torch.autograd.grad(x.relu(), x, g)[0])


@compiled
@pytest.mark.parametrize("written", ["layers", "one call", "functions"])
def test_gradients_of_gradients_are_pytorchs(written):
    found = []
    for within in (torch.enable_grad(), Elementwise()):
        model, x = Three(16, written), images(4, 16, 4, 4, dtype=torch.float32)
        with within:
            y = F.max_pool2d(model(x), 2)
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, *model.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)


@compiled
def test_whoever_looks_between_sees_what_pytorch_shows():
    """Hooks, kept gradients and in-place changes between a normalisation and its ReLU."""
    x = images(4, 16, 4, 4, dtype=torch.float32)
    norm, seen = nn.BatchNorm2d(16), []

    def step(within):
        with within:
            y = norm(x)
            y.retain_grad()
            z = norm(x)
            z.register_hook(seen.append)
            changed = norm(x)
            changed += 1
            total = y.relu() + z.relu() + changed.relu() + F.relu(norm(x), inplace=True)
        total.sum().backward()
        return [y.grad, seen.pop(), x.grad, norm.weight.grad]

    plain = [each.clone() for each in step(torch.enable_grad())]
    x.grad = norm.weight.grad = norm.bias.grad = None
    for one, other in zip(step(Elementwise()), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@compiled
def test_hooks_of_layers_are_called():
    norm, relu, seen = nn.BatchNorm2d(16), nn.ReLU(), []
    norm.register_forward_hook(lambda layer, _, y: seen.append(float(y.detach().min())))
    relu.register_forward_hook(lambda layer, _, y: seen.append(float(y.detach().min())))
    with Elementwise():
        Chain(norm, relu)(images(4, 16, 4, 4, dtype=torch.float32))
    assert seen[0] < 0
    assert seen[1] == 0


@pytest.mark.parametrize(
    "within",
    [torch.enable_grad, pytest.param(Elementwise, marks=compiled)],
    ids=["plain", "compiled"],
)
def test_hooks_of_a_blocks_body_are_called(within):
    model, seen = resnet((3, 8, 8), 2, depth=8), []
    model.stages[1][0].body.register_forward_hook(lambda layer, _, y: seen.append(y.shape))
    with within():
        model(images(4, 3, 8, 8, dtype=torch.float32))
    assert seen == [(4, 32, 4, 4)]


@compiled
def test_what_stands_around_it_keeps_its_say():
    """Statistics over ranks, vmap, checkpoints and evaluation."""
    model, x = Chain(nn.BatchNorm2d(16), nn.ReLU()), images(4, 16, 4, 4, dtype=torch.float32)
    with SynchronizedStatistics(lambda t: torch.stack([t, t + 1])), Elementwise():
        other = copy.deepcopy(model)(x)
    with Elementwise():
        alone = copy.deepcopy(model)(x)
        assert type(alone.grad_fn).__name__ == "_NormaliseBackward"
        mapped = torch.func.vmap(F.relu)(x[None])[0]
        again = checkpoint(copy.deepcopy(model), x, use_reentrant=False)
        model.eval()
        assert torch.equal(model(x), model.requires_grad_(False)(x))
    assert not torch.allclose(other, alone)
    assert torch.equal(mapped, x.relu())
    one, two = (torch.autograd.grad(y.square().sum(), x)[0] for y in (again, alone))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@compiled
def test_what_is_no_number_stays_in_its_channel():
    x = images(4, 16, 4, 4, dtype=torch.float32)
    x.data[1, 3, 2, 2] = float("nan")
    found = found_by(Three(16, "one call"), x, Elementwise())
    for each in found[:2]:
        assert each.isnan().any((0, 2, 3)).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(
    "build", [lambda: resnet((3, 16, 16), 5, depth=8), lambda: resnet18((3, 32, 32), 5, width=16)]
)
def test_residual_networks_are_the_same_with_and_without(build):
    torch.manual_seed(0)
    model, x = build(), images(8, 3, 32, 32, dtype=torch.float32)
    outputs = []
    for within in (torch.enable_grad(), Elementwise()):
        with within:
            outputs.append(copy.deepcopy(model).to(memory_format=LAST)(x))
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)


@compiled
def test_a_run_says_so_and_goes_on_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(pilot.profile, "profile", lambda *_, **__: None)
    draws = np.random.default_rng(0)
    x = draws.normal(size=(48, 3, 8, 8)).astype("float32")
    y = (x[:, 0, 0, 0] > 0).astype(int)
    given = {"data": (x, y), "batch": 16, "quiet": True, "seed": 1}
    model = {"kind": "resnet", "depth": 8}
    whole = train(**given, model=model, epochs=2, out=tmp_path / "whole")
    train(**given, model=model, epochs=1, out=tmp_path / "parts")
    (parts,) = resume(tmp_path / "parts", after="2ep", data=(x, y), quiet=True)
    assert RunDir.open(tmp_path / "whole").facts["programs"][0]["execution"]["joined"]
    for one, other in zip(*(run.model.parameters() for run in (whole, parts)), strict=True):
        assert torch.equal(one, other)


def test_without_a_compiler_pytorchs_functions_run(monkeypatch):
    monkeypatch.setattr(gcc, "library", lambda source: None)
    monkeypatch.setattr(elementwise, "functions", elementwise.functions.__wrapped__)
    model, x = Three(16, "one call"), images(4, 16, 4, 4, dtype=torch.float32)
    plain, found = found_by(model, x, torch.enable_grad()), found_by(model, x, Elementwise())
    assert all(map(torch.equal, plain, found))
