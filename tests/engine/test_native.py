"""The compiled function of dense networks against what their modules give."""

from __future__ import annotations

import dataclasses
import subprocess

import numpy as np
import pytest
import torch

from ravine import train
from ravine.engine.execution import pilot
from ravine.engine.rows.population import Objective, Population
from ravine.engine.rows.ways import Arithmetic, Dense, Native, OneByOne, Workload, gcc, native
from ravine.nn.build import build, build_loss
from ravine.rundir import RunDir

CPU = torch.device("cpu")
compiled = pytest.mark.skipif(
    native.library() is None, reason="GCC, and a PyTorch with MKL, are needed"
)


def population(hidden=(5,), seeds=range(3), dtype=torch.float32, **model):
    """Of networks with 7 inputs and 4 classes."""
    fields = {"kind": "mlp", "hidden": list(hidden), **model}
    nets = [build(fields, (7,), 4, seed=seed, dtype=dtype) for seed in seeds]
    rows = [Objective(net, build_loss("cross_entropy", "classification")) for net in nets]
    return Population(rows, seeds, device=CPU, dtype=dtype)


def batch(samples):
    draws = torch.Generator().manual_seed(samples)
    return torch.randn(samples, 7, generator=draws), torch.randint(4, (samples,), generator=draws)


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("samples", [1, 67])
@pytest.mark.parametrize("hidden", [(), (33, 2, 8)], ids=str)
def test_gradients_are_those_of_the_modules_in_double(threads, members, samples, hidden):
    rows = population(hidden, range(members))
    exact = population(hidden, range(members), dtype=torch.float64)
    exact.theta.copy_(rows.theta)
    x, y = batch(samples)
    weight = torch.rand(members, samples)
    way = Native(rows, Arithmetic(threads=threads))
    assert way.possible
    for given, accumulate in ((None, 0.0), (weight, 0.0), (weight, 0.5)):
        wide = None if given is None else given.double()
        expected = OneByOne(exact).gradients(x.double(), y, wide, 0, accumulate)
        losses = way.gradients(x, y, given, 0, accumulate)
        torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rows.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


@compiled
def test_members_are_as_alone_to_the_bit_however_many_threads():
    x, y = batch(128)
    together = population((40,), range(5))
    for threads in (1, 2, 5):
        losses = Native(together, Arithmetic(threads=threads)).gradients(x, y, None, 0)
        for i in range(5):
            alone = population((40,), [i])
            assert torch.equal(Native(alone).gradients(x, y, None, 0)[0], losses[i])
            assert torch.equal(alone.grad[0], together.grad[i])


@compiled
def test_large_scores_small_ones_and_what_is_no_number():
    """Softmax and its logarithm are those of PyTorch far out, and NaN in a member stays in it."""
    rows = population(())
    rows.theta[0] *= 1e4
    rows.theta[1] = float("nan")
    x, y = batch(20)
    plain, found = OneByOne(rows).gradients(x, y, None, 0), rows.grad.clone()
    losses = Native(rows, Arithmetic(threads=2)).gradients(x, y, None, 0)
    assert losses.isnan().tolist() == [False, True, False]
    assert rows.grad.isnan().all(1).tolist() == [False, True, False]
    torch.testing.assert_close(losses[::2], plain[::2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows.grad[::2], found[::2], rtol=1e-4, atol=1e-5)
    x[3, 2] = float("inf")
    assert not Native(rows).gradients(x, y, None, 0).isfinite().any()


@compiled
def test_a_class_that_is_none_is_refused_before_anything_is_written():
    rows = population()
    x, y = batch(8)
    y[5] = 4
    rows.grad.fill_(7.0)
    with pytest.raises(IndexError, match="not below 4"):
        Native(rows).gradients(x, y, None, 0)
    assert bool((rows.grad == 7.0).all())


@compiled
@pytest.mark.parametrize(
    "model",
    [{"activation": "tanh"}, {"dropout": 0.5}, {"norm": "batch"}, {"dtype": torch.float64}],
    ids=str,
)
def test_other_networks_run_otherwise(model):
    assert Native.rule(Workload(population(**model), "cpu", 2, 8)) is None


@compiled
def test_the_products_of_one_wide_network_are_the_librarys():
    wide = Workload(population((native.WIDE // 7 + 1,), [0]), "cpu", 2, 8)
    assert Native.rule(wide) is None
    assert Native.rule(dataclasses.replace(wide, threads=1)) is not None


@compiled
def test_the_rules_choose_it_and_a_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pilot.profile, "profile", lambda *_, **__: None)
    draws = np.random.default_rng(0)
    x = draws.normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    train(data=(x, y), model="mlp", epochs=2, out=tmp_path / "run", quiet=True)
    assert RunDir.open(tmp_path / "run").facts["programs"][0]["execution"]["way"] == "native"


@pytest.mark.parametrize("trouble", ["no compiler", "it fails", "no cache"])
def test_without_the_function_dense_networks_run_as_before(trouble, tmp_path, monkeypatch):
    def fail(command, **options):
        raise subprocess.CalledProcessError(1, command)

    if trouble == "no compiler":
        monkeypatch.setattr(gcc.shutil, "which", lambda name: None)
    elif trouble == "it fails":
        monkeypatch.setattr(gcc.subprocess, "run", fail)
    (tmp_path / "file").touch()
    cache = tmp_path / "file" if trouble == "no cache" else tmp_path
    monkeypatch.setattr(gcc, "user_cache_path", lambda name: cache)
    monkeypatch.setattr(gcc, "library", gcc.library.__wrapped__)
    monkeypatch.setattr(native, "library", native.library.__wrapped__)
    assert native.library() is None
    assert not list(tmp_path.rglob("*.so"))
    rows = population()
    assert Native.rule(Workload(rows, "cpu", 2, 8)) is None
    assert Dense.rule(Workload(rows, "cpu", 2, 8)) is not None
    x, y = batch(9)  # a run that was begun where it is goes on
    found = Native(rows).gradients(x, y, None, 0)
    torch.testing.assert_close(found, Dense(rows).gradients(x, y, None, 0))
