"""Points of theta are measured as single networks are; directions, paths and roughness are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ravine
from ravine import Recipe
from ravine.engine.points import Points
from ravine.engine.population import Objective, view
from ravine.nn.build import layout as layout_of
from ravine.study.directions import filter_normalised, principal, roughness
from ravine.study.landscape import landscape
from ravine.study.measuring import pipeline_of

MODELS = {
    "mlp": {"kind": "mlp", "hidden": [12], "dropout": 0.3},
    "conv": {
        "kind": "layers",
        "layers": [{"kind": "conv", "channels": 4, "kernel": 3}, "batch_norm", "relu", "flatten", {"kind": "dense", "units": 10}],
    },
}


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    recipe = Recipe(
        name=request.param, data={"source": "digits"}, model=MODELS[request.param], precision="float64", stop={"after": "1ep"}
    )
    return ravine.train_many([recipe, recipe.edit({"seed": 1})], quiet=True, out=tmp_path_factory.mktemp("runs") / request.param)


def test_points_are_measured_as_networks_are(run):
    pipeline = pipeline_of(run[0].recipe)
    buffers = {name.removeprefix("final_"): v for name, v in run[0].slots.items() if name.startswith("final_buffer/")}
    points = Points(
        run[0].recipe, pipeline, buffers={name.removeprefix("buffer/"): value for name, value in buffers.items()}, width=4
    )
    theta = run[0].slots["final"]
    moved = theta + 0.05 * torch.randn(6, len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved[2] = theta
    batches = list(pipeline.split("validation"))
    found = points.measure(moved, batches)
    assert found["loss"].shape == (6,)
    assert found["loss"][2] == pytest.approx(run[0].result["val_loss"], rel=1e-9)
    assert found["accuracy"][2] == pytest.approx(run[0].result["val_accuracy"])
    model = run[0].copy_model()
    named = dict(model.named_parameters())
    for row in (0, 5):
        with torch.no_grad():
            for entry in points.population.layout.entries:
                named[entry.name.removeprefix("model.")].copy_(view(moved[row], entry))
            losses = torch.cat([torch.nn.functional.cross_entropy(model(b.x), b.y, reduction="none") for b in batches])
        assert found["loss"][row] == pytest.approx(float(losses.mean()), rel=1e-9)


def test_directions_are_as_large_as_the_filters(run):
    theta, layout = run[0].slots["final"], layout_of(Objective(run[0].model, torch.nn.Identity()))
    direction = filter_normalised(theta, layout, seed=0, which=0)
    for entry in layout.entries:
        drawn, weights = view(direction, entry), view(theta, entry)
        if entry.kind == "weight":
            assert torch.allclose(drawn.flatten(1).norm(dim=1), weights.flatten(1).norm(dim=1))
        else:
            assert (drawn == 0).all()
    assert not torch.equal(direction, filter_normalised(theta, layout, seed=0, which=1))


def test_principal_directions_are_those_of_a_singular_value_decomposition():
    path = torch.randn(9, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0)
    directions, places, explained = principal(path)
    moved = path - path[-1]
    _, values, vectors = torch.linalg.svd(moved, full_matrices=False)
    assert torch.allclose((directions @ vectors[:2].T).abs(), torch.eye(2, dtype=torch.float64), atol=1e-8)
    assert explained == pytest.approx((values[:2] ** 2 / (values**2).sum()).tolist())
    assert torch.allclose(places, moved @ directions.T)
    assert places[-1].abs().max() < 1e-12


def test_roughness_tells_bowls_from_bumps():
    x = np.linspace(-1, 1, 25)
    bowl = 0.1 + x[:, None] ** 2 + 5 * x[None] ** 2
    draw = np.random.default_rng(0)
    little, much = (bowl * np.exp(size * draw.normal(size=bowl.shape)) for size in (0.1, 1.0))
    assert roughness(bowl) == 0
    assert roughness(np.ones((5, 5))) == 0
    assert 0 < roughness(little) < roughness(much)
    assert roughness(100 * much) == pytest.approx(roughness(much))  # the unit of the loss does not matter


def test_between_two_networks(run, tmp_path):
    found = landscape(*run, kind="between", points=5, split="validation", quiet=True, out=tmp_path / "l")
    loss = found["grids"][0]["loss"][0]
    assert loss[1] == pytest.approx(run[0].result["val_loss"], rel=1e-9)
    if "conv" not in run[0].recipe.name:  # the second network's running statistics are not the first one's
        assert loss[3] == pytest.approx(run[1].result["val_loss"], rel=1e-9)


def test_a_plane_and_the_training_path(run, tmp_path):
    plane = landscape(run[0], kind="plane", points=5, samples=100, quiet=True, out=tmp_path / "plane")
    grid = np.array(plane["grids"][0]["loss"])
    assert grid.shape == (5, 5)
    batches = list(pipeline_of(run[0].recipe).split("train", limit=100))
    with torch.no_grad():
        direct = torch.cat([torch.nn.functional.cross_entropy(run[0].model(b.x), b.y, reduction="none") for b in batches])
    assert grid[2, 2] == pytest.approx(float(direct.mean()), rel=1e-9)
    assert (tmp_path / "plane" / "figures" / "surface.html").read_text(encoding="utf-8").count('"surfaces"') == 1
    path = landscape(run[0], kind="path", points=4, samples=100, quiet=True, out=tmp_path / "path")
    walk = np.array(path["grids"][0]["path"])
    assert abs(walk[-1]).max() < 1e-9
    assert sum(path["grids"][0]["explained"]) <= 1 + 1e-9
