"""Points of theta are measured as single networks are; directions, paths and roughness are what
they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ravine
from ravine import Recipe
from ravine.catalogue import find
from ravine.engine.points import DENSE_WIDTH, WIDTH, Points
from ravine.engine.rows.population import Objective, view
from ravine.nn.build import layout as layout_of
from ravine.study.landscape import study
from ravine.study.landscape.directions import filter_normalised, principal, roughness
from ravine.study.landscape.grouped import Grouped
from ravine.study.landscape.instrument import ALONE, Instrument
from ravine.study.landscape.study import Grid, landscape
from ravine.study.measuring import pipeline_of

MODELS = {
    "mlp": {"kind": "mlp", "hidden": [12], "dropout": 0.3},
    "conv": {
        "kind": "layers",
        "layers": [
            {"kind": "conv", "channels": 4, "kernel": 3},
            "batch_norm",
            "relu",
            "flatten",
            {"kind": "dense", "units": 10},
        ],
    },
}


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    recipe = Recipe(
        name=request.param,
        data={"source": "digits"},
        model=MODELS[request.param],
        precision="float64",
        stop={"after": "3ep"},
    )
    return ravine.train_many(
        [recipe, recipe.edit({"seed": 1})],
        quiet=True,
        out=tmp_path_factory.mktemp("runs") / request.param,
    )


def test_points_are_measured_as_networks_are(run):
    pipeline = pipeline_of(run[0].recipe)
    buffers = {
        name.removeprefix("final_"): v
        for name, v in run[0].slots.items()
        if name.startswith("final_buffer/")
    }
    points = Points(
        run[0].recipe,
        pipeline,
        buffers={name.removeprefix("buffer/"): value for name, value in buffers.items()},
        width=4,
    )
    theta = run[0].slots["final"]
    moved = theta + 0.05 * torch.randn(
        6, len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
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
            losses = torch.cat(
                [
                    torch.nn.functional.cross_entropy(model(b.x), b.y, reduction="none")
                    for b in batches
                ]
            )
        assert found["loss"][row] == pytest.approx(float(losses.mean()), rel=1e-9)


@pytest.mark.parametrize(
    ("model", "width"),
    [({"kind": "mlp", "hidden": [8], "norm": "layer"}, DENSE_WIDTH), ("lenet", WIDTH)],
)
def test_many_points_are_measured_at_a_time_where_they_share_kernels(model, width):
    recipe = Recipe(data={"source": "digits"}, model=model, threads=1)
    assert Points(recipe, pipeline_of(recipe)).width == width


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


def test_directions_of_an_untied_convolution_are_by_position_and_channel():
    layout = layout_of(find("layer", "locally_connected").function()((1, 4, 4), channels=3))
    theta = torch.randn(layout.size, generator=torch.Generator().manual_seed(0))
    direction = filter_normalised(theta, layout, seed=0, which=0)
    (entry,) = (e for e in layout.entries if e.kind == "weight")
    drawn, weights = (view(rows, entry).flatten(0, 1) for rows in (direction, theta))  # [12, 9]
    torch.testing.assert_close(drawn.norm(dim=1), weights.norm(dim=1))


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_principal_directions_are_those_of_a_singular_value_decomposition(size):
    path = size * torch.randn(
        9, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).cumsum(0)
    directions, places, explained = principal(path)
    moved = path - path[-1]
    _, values, vectors = torch.linalg.svd(moved, full_matrices=False)
    assert torch.allclose(
        (directions @ vectors[:2].T).abs(), torch.eye(2, dtype=torch.float64), atol=1e-8
    )
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
    assert roughness(100 * much) == pytest.approx(
        roughness(much)
    )  # the unit of the loss does not matter


def test_between_two_networks(run, tmp_path):
    found = landscape(
        *run, kind="between", points=5, split="validation", quiet=True, out=tmp_path / "l"
    )
    loss = found["grids"][0]["loss"][0]
    assert loss[1] == pytest.approx(run[0].result["val_loss"], rel=1e-9)
    assert loss[3] == pytest.approx(run[1].result["val_loss"], rel=1e-9)


def test_a_plane_and_the_training_path(run, tmp_path, monkeypatch, drawn):
    plane = landscape(
        run[0], kind="plane", points=5, samples=100, quiet=True, out=tmp_path / "plane"
    )
    grid = np.array(plane["grids"][0]["loss"])
    assert grid.shape == (5, 5)
    batches = list(pipeline_of(run[0].recipe).split("train", limit=100))
    with torch.no_grad():
        direct = torch.cat(
            [
                torch.nn.functional.cross_entropy(run[0].model(b.x), b.y, reduction="none")
                for b in batches
            ]
        )
    assert grid[2, 2] == pytest.approx(float(direct.mean()), rel=1e-9)
    assert (tmp_path / "plane" / "figures" / "surface.html").read_text(encoding="utf-8").count(
        '"surfaces"'
    ) == 1
    grids = []
    monkeypatch.setattr(study, "Grid", lambda *of: grids.append(Grid(*of)) or grids[-1])
    path = landscape(run[0], kind="path", points=4, samples=100, quiet=True, out=tmp_path / "path")
    here, above = grids[0].at(0), grids[0].at(1)
    along, across = here[1] - here[0], above[0] - here[0]  # the plane's two directions
    assert along.norm().item() == pytest.approx(grids[0].x[1] - grids[0].x[0])
    assert across.norm().item() == pytest.approx(grids[0].y[1] - grids[0].y[0])
    assert abs(along @ across) < 1e-9 * along.norm() * across.norm()
    walk = np.array(path["grids"][0]["path"])
    assert abs(walk[-1]).max() < 1e-9
    assert sum(path["grids"][0]["explained"]) <= 1 + 1e-9


IMAGES = {
    "resnet": {"kind": "resnet", "depth": 8, "width": 4},
    "resnet without shortcuts": {"kind": "resnet", "depth": 8, "width": 4, "shortcuts": False},
    "lenet": {"kind": "lenet"},
    "projected": {"kind": "resnet", "depth": 8, "width": 4, "projection": True},
    "layers": MODELS["conv"],
}


@pytest.mark.parametrize("name", IMAGES)
def test_grouped_networks_give_what_each_gives_alone(name):
    recipe = Recipe(data={"source": "digits"}, model=IMAGES[name], precision="float64")
    pipeline = pipeline_of(recipe)
    points = Points(recipe, pipeline, width=3)
    population, x = points.population, pipeline.batch(0).x[:20]
    with torch.no_grad():
        draw = torch.Generator().manual_seed(0)
        population.theta.mul_(
            1 + 0.3 * torch.randn(population.theta.shape, generator=draw, dtype=torch.float64)
        )
        for label, stacked in population.buffers.items():
            if "running" in label:
                stacked.copy_(torch.rand(stacked.shape, generator=draw, dtype=torch.float64) + 0.5)
    alone = population.outputs(x)
    assert (alone[0] - alone[1]).abs().max() > 1e-3  # three different networks
    torch.testing.assert_close(Grouped(population)(x), alone, rtol=1e-9, atol=1e-12)


def test_unknown_layers_are_not_grouped():
    assert not Grouped.takes(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Softmax(1)))
    assert not Grouped.takes(
        torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"))
    )
    assert not Grouped.takes(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(1, 2)))


def test_the_fastest_way_is_taken_and_all_ways_agree(run):
    recipe, buffers = run[0].recipe, {}
    pipeline = pipeline_of(recipe)
    instrument = Instrument(recipe, pipeline, None, buffers)
    theta = run[0].slots["final"] + 0.05 * torch.randn(
        5, len(run[0].slots["final"]), dtype=torch.float64
    )
    batches = list(pipeline.split("validation"))
    found = instrument.fastest(theta, batches)
    seconds = found["seconds a point"]
    assert ALONE in seconds
    assert len(seconds) > 1
    # another way than one at a time is plainly faster, in the best of the rounds too
    assert found["way"] == ALONE or seconds[found["way"]] < 0.9 * seconds[ALONE]
    alone = instrument.points(ALONE).measure(theta, batches)["loss"]
    for way in seconds:
        np.testing.assert_allclose(
            instrument.points(way).measure(theta, batches)["loss"], alone, rtol=1e-9
        )
