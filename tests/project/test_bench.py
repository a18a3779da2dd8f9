"""The comparison with peers: fair models, ratios, tables, and a process of its own for each
competitor."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ravine.bench import measure, population_peers, report
from ravine.bench.measure import Timing
from ravine.bench.peers import PEERS
from ravine.bench.works import POPULATIONS, WORKS, arrays, operations
from ravine.nn.build import build


@pytest.mark.parametrize("name", WORKS)
def test_every_competitor_trains_the_same_network(name):
    work = WORKS[name]
    model = work.model if "kind" in work.model else {"kind": "layers", **work.model}
    ours = build(model, work.shape, work.classes, vocabulary=work.vocabulary)
    theirs = work.torch()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    x, y = (torch.from_numpy(a[:2]) for a in arrays(work))
    assert ours(x).shape == theirs(x).shape
    assert len(y) == 2


def test_synthetic_data_have_every_class_and_whole_batches():
    for work in WORKS.values():
        x, y = arrays(work)
        assert len(x) == len(y) == work.steps * work.batch
        assert set(y.ravel().tolist()) == set(range(work.classes))


def test_operations_are_those_of_the_products():
    """By hand: 2 for each multiply-add, three passes, without the gradient at the inputs."""
    dense = 128 * 2 * (3 * (784 * 256 + 256 * 256 + 256 * 10) - 784 * 256)
    assert operations(WORKS["mnist_mlp"]) == dense
    gates, steps = 4 * 128, 28
    recurrent = 128 * 2 * (3 * (steps * gates * (28 + 128) + 128 * 10) - steps * gates * 28)
    assert operations(WORKS["lstm"]) == recurrent


def timings() -> list[Timing]:
    return [
        Timing("ravine", "small_mlp", False, [0.2, 0.1, 0.3], 100.0),
        Timing("torch_indexed", "small_mlp", False, [0.4, 0.4, 0.4], 110.0),
        Timing("keras_jax", "small_mlp", False, [0.3, 0.5, 0.3], 120.0),
        Timing("skorch", "small_mlp", False, [], 0.0, "not to be had"),
        Timing("ravine", "small_mlp_x25", False, [0.03], 100.0),
    ]


def test_ratios_are_to_the_best_peer_and_populations_to_solo_runs():
    found = report.ratios(timings())
    assert found["small_mlp"]["best_peer"] == "keras_jax"
    assert found["small_mlp"]["ravine"] == pytest.approx(1.5)
    assert found["small_mlp_x25"]["ravine"] == pytest.approx(10.0)


def test_a_population_is_held_against_those_who_train_populations_too():
    more = [*timings(), Timing("jax_vmap", "small_mlp_x25", False, [0.06], 100.0)]
    found = report.ratios(more)["small_mlp_x25"]
    assert found["best_peer"] == "jax_vmap"
    assert found["ravine"] == pytest.approx(2.0)
    assert report.ratios(more)["small_mlp"]["best_peer"] == "keras_jax"


@pytest.mark.parametrize(
    ("peer", "work", "takes"),
    [
        ("ravine", "lenet_x8", True),
        ("ravine_float32", "lenet_x8", False),
        ("jax_vmap", "lenet_x8", True),
        ("jax_vmap", "lenet", False),
        ("torch_compiled", "lenet", True),
        ("keras_jax", "small_mlp_x25", False),
    ],
)
def test_who_trains_populations(peer, work, takes):
    assert measure._takes(peer, work) is takes


def test_results_of_machines_with_other_instructions_stay_apart(monkeypatch):
    facts = {"cpu": "Some CPU (R)", "instructions": ["avx2", "avx512_bf16"]}
    monkeypatch.setattr(report, "machine_facts", lambda: facts)
    first = report.folder_of(2)
    facts["instructions"] = [*facts["instructions"], "amx_bf16"]
    assert first.name == "some-cpu-r-avx2-avx512-bf16-2-threads"
    assert report.folder_of(2) != first


def test_the_rival_in_jax_is_the_same_network():
    jax = pytest.importorskip("jax")
    work = WORKS["small_mlp"]
    model, x = work.torch(), torch.randn(3, 64)
    theirs = population_peers._network(list(model))
    params = [p.detach().numpy() for p in model.parameters()]
    assert torch.allclose(torch.tensor(theirs(params, x.numpy()).tolist()), model(x), atol=1e-5)
    images = jax.numpy.zeros((2, 28, 28, 1))
    lenet = WORKS["lenet"].torch()
    params = [p.detach().numpy() for p in lenet.parameters()]
    assert population_peers._network(list(lenet))(params, images).shape == (2, 10)


@pytest.mark.parametrize("peer", ["jax_vmap", "torch_vmap"])
def test_a_rival_of_populations_gives_the_seconds_of_each_epoch(peer, monkeypatch):
    if peer == "jax_vmap":
        pytest.importorskip("jax")
    few = dataclasses.replace(WORKS["small_mlp"], samples=256)
    monkeypatch.setitem(WORKS, "small_mlp", few)
    seconds = PEERS[peer][1]("small_mlp_x25")(2)
    assert len(seconds) == 2
    assert all(0 < s < 60 for s in seconds)


def test_tables_figure_and_json_are_written(tmp_path):
    said = report.write(timings(), tmp_path / "out", threads=1)
    table = (tmp_path / "out" / "speed.md").read_text()
    assert "| MLP 64-32-10 | 0.2 |" in table
    assert "25 of MLP 64-32-10, per member" in table
    assert f"torch {torch.__version__.split('+')[0]}" in table
    assert "| MLP 64-32-10 | 0.00129 | 6 |" in table  # 1.29 million operations in 0.2 ms
    assert (tmp_path / "out" / "speed.svg").stat().st_size > 5000
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["ratios"] == said["ratios"]
    assert math.isnan(stored["timings"][3]["median"])


@pytest.mark.parametrize(
    ("arguments", "said"), [(["smal_mlp"], "small_mlp"), (["--peers", "ravin"], "'ravine'")]
)
def test_unknown_names_get_the_nearest(arguments, said):
    from ravine.app.cli import app

    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_a_competitor_runs_in_a_process_of_its_own_and_one_that_fails_says_why(monkeypatch):
    tiny = WORKS["small_mlp"].__class__(**{**WORKS["small_mlp"].__dict__, "epochs": 1})
    monkeypatch.setitem(WORKS, "small_mlp", tiny)
    monkeypatch.setitem(PEERS, "nobody", ("Nobody", PEERS["ravine"][1], ()))
    good, bad = measure.measure(["small_mlp"], ["torch_indexed", "nobody"], rounds=1, threads=1)
    assert len(good.ms) == 1
    assert good.ms[0] > 0
    assert good.peak_mb > 50
    assert "nobody" in bad.failed
    assert not bad.ms


def test_populations_name_works():
    assert {base for base, _ in POPULATIONS.values()} <= set(WORKS)


def test_the_residual_network_in_jax_is_pytorchs():
    jax = pytest.importorskip("jax")
    model, x = WORKS["resnet8"].torch(), torch.randn(2, 3, 32, 32)
    weights = [jax.numpy.asarray(p.detach().numpy()) for p in model.parameters()]
    found = population_peers._network(list(model))(
        weights, jax.numpy.asarray(x.numpy()).transpose(0, 2, 3, 1)
    )
    assert np.allclose(found, model(x).detach(), atol=1e-5)


@pytest.mark.slow
def test_the_gpu_bench_runs_at_toy_sizes_on_a_cpu():
    script = Path(__file__).parents[2] / "bench" / "gpu.py"
    done = subprocess.run(
        [sys.executable, str(script), "--device", "cpu", "--small"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["part"] for row in rows} == {"populations", "bandwidth", "cifar"}
    assert all(row["machine"]["torch"] for row in rows)
