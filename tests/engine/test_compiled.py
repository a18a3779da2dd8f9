"""Networks that run compiled while they train, as far as a CPU shows: the same numbers, the trial
before use, the way back."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import ravine
from ravine.engine.execution.execution import Execution
from ravine.engine.rows.ways import WAYS, Dense, Workload, compiled
from ravine.recipe import Recipe

RESIDUAL = Recipe(
    model={"kind": "resnet", "depth": 8, "width": 4},
    data={"source": "digits", "batch": 200},
    optimizer={"kind": "momentum", "lr": 0.05},
    precision="float64",
    stop={"after": "1ep"},
)
_LAYERS = [
    "flatten",
    {"kind": "dense", "units": 9},
    "gelu",
    {"kind": "dropout", "rate": 0.3},
    {"kind": "dense", "units": 10},
]
DROPPED = RESIDUAL.edit({"model": {"layers": _LAYERS}})


def compiler(backend):
    def compile_network(network):
        return torch.compile(lambda x: network(x), backend=backend, dynamic=False)

    return compile_network


def trained(recipe, place, monkeypatch, compile_network=None):
    if compile_network is not None:
        monkeypatch.setattr(compiled.Compiled, "rule", lambda work: "so that it can be tried")
        monkeypatch.setattr(compiled, "compile_network", compile_network)
        monkeypatch.setattr(Dense, "rule", lambda work: None)
    run = ravine.train(recipe, out=place, quiet=True, doctor=False)
    monkeypatch.undo()
    return run


def execution(run):
    data = next(event["data"] for event in run.events if event["kind"] == "execution")
    return Execution.from_dict(data)


@pytest.mark.parametrize("recipe", [RESIDUAL, DROPPED], ids=["batch norm", "dropout"])
def test_a_compiled_network_trains_the_same(recipe, tmp_path, monkeypatch):
    """Graphs by Dynamo and AOTAutograd, without a code generator: weights and running statistics
    after an epoch."""
    plain = trained(recipe, tmp_path / "plain", monkeypatch)
    other = trained(recipe, tmp_path / "compiled", monkeypatch, compiler("aot_eager"))
    assert "network compiled" in execution(other).sentence()
    assert execution(plain).way == "one by one"
    expected, found = plain.model.state_dict(), other.model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11)


def wrong(graph, inputs):
    return lambda *given: tuple(
        2 * out if out.is_floating_point() else out for out in graph(*given)
    )


def broken(graph, inputs):
    raise RuntimeError("no code for this machine")


@pytest.mark.parametrize(
    ("backend", "reason"), [(wrong, "gives other values"), (broken, "torch.compile failed")]
)
def test_what_compiles_wrongly_is_not_used(backend, reason, tmp_path, monkeypatch):
    recipe = DROPPED.edit({"stop.after": "2it"})
    run = trained(recipe, tmp_path / "run", monkeypatch, compiler(backend))
    assert execution(run).way == "one by one"
    assert any(reason in why for why in execution(run).why)
    expected = trained(recipe, tmp_path / "plain", monkeypatch)
    assert run.metrics["train_loss"].tolist() == expected.metrics["train_loss"].tolist()


def test_only_a_long_run_of_one_network_on_a_gpu_compiles(monkeypatch):
    monkeypatch.setattr(compiled, "has_triton", lambda: True)

    class Rows(list):
        global_seeds = None

    long = Workload(Rows([0]), "cuda", 1, 100, compiled.STEPS)
    assert compiled.Compiled.rule(long)
    others = ({"steps": compiled.STEPS - 1}, {"population": Rows([0, 1])}, {"device": "cpu"})
    assert not any(compiled.Compiled.rule(dataclasses.replace(long, **other)) for other in others)
    names = list(WAYS)
    assert names.index("dense") < names.index("compiled"), "dense networks have passes of their own"
