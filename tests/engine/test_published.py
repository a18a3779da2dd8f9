"""Models of transformers and timm: local directories with random weights stand in for the hub."""

from __future__ import annotations

import json
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.data.download import hub
from ravine.engine.weights.heads import body_patterns
from ravine.engine.weights.published import completed
from ravine.errors import InputError
from ravine.nn.models.published import Published
from ravine.nn.models.resnet import resnet18
from ravine.recipe import Recipe
from ravine.starters.starter import starter

transformers = pytest.importorskip("transformers")
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 8,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
RESNET = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
CONFIGS = {
    "vit": lambda: transformers.ViTConfig(**VIT, num_labels=3),
    "resnet": lambda: transformers.ResNetConfig(**RESNET, num_labels=3),
}
QUIET = {"quiet": True, "doctor": False, "batch": 8, "lr": 1e-3}


@pytest.fixture(scope="module", params=CONFIGS)
def directory(request, tmp_path_factory):
    """A model as ``save_pretrained`` writes it, with the file of its image processor."""
    place = tmp_path_factory.mktemp(request.param) / request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForImageClassification.from_config(CONFIGS[request.param]())
    model.save_pretrained(place)
    processing = {"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": 16}}
    (place / "preprocessor_config.json").write_text(json.dumps(processing))
    return place


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = random.integers(0, 80, (48, 3, 16, 16)) + 80 * y[:, None, None, None]
    return x.astype(np.uint8), y


def test_logits_are_transformers_own(directory, images, tmp_path):
    x, y = images
    kept = {"head": "keep", "precision": "float64", "epochs": 1, **QUIET} | {"lr": 1e-12}
    run = ravine.train(model=f"hf:{directory}", data=(x, y), out=tmp_path / "run", **kept)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(directory).double()
    scale = [torch.tensor(of, dtype=torch.float64).view(3, 1, 1) for of in (MEAN, STD)]
    inputs = (torch.tensor(x).double() / 255 - scale[0]) / scale[1]
    ours = run.model(run.pipeline.transform(torch.tensor(x)))
    if directory.name == "resnet":  # one step of batch norm has moved its running statistics
        theirs.load_state_dict(run.model.body.state_dict())
    torch.testing.assert_close(ours, theirs.eval()(inputs).logits, atol=1e-6, rtol=0)


def test_one_line_fine_tunes_it(directory, tmp_path):
    from pictures import write_images

    write_images(tmp_path / "photos", count=12)
    command = ["train", str(tmp_path / "photos"), "--model", f"hf:{directory}", "--epochs", "5"]
    result = CliRunner().invoke(app, [*command, "--quiet", "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    run = ravine.Run(tmp_path / "run")
    recipe = run.recipe
    assert (recipe.model.kind, recipe.model.mean) == ("hf", tuple(MEAN))
    assert recipe.start.weights == str(directory / "model.safetensors")
    assert recipe.start.head == "replace"
    assert recipe.start.unfreeze == "20%"
    assert 0 < recipe.start.depth_decay < 1
    assert [part.kind for part in recipe.data.preprocess] == ["rescale"]
    written = Recipe.load(tmp_path / "run" / "recipe.toml")
    assert written == recipe
    assert run.model.body.config.num_labels == 2


def test_everything_but_the_head_is_frozen_first(directory, images, tmp_path):
    module = completed(Recipe(model=f"hf:{directory}"))
    run = ravine.train(
        module, data=images, freeze=["body.*.*"], epochs=1, out=tmp_path / "a", **QUIET
    )
    patterns = body_patterns(run.model)
    assert patterns == [f"body.{directory.name}.*"]
    run = ravine.train(module, data=images, freeze=patterns, epochs=2, out=tmp_path / "b", **QUIET)
    start = ravine.train(module, data=images, lr=1e-12, epochs=1, out=tmp_path / "c", batch=8)
    moved = {
        name.split(".")[1]
        for (name, new), old in zip(
            run.model.named_parameters(), start.model.parameters(), strict=True
        )
        if not torch.allclose(new, old, atol=1e-7)
    }
    assert moved == {"classifier"}


def test_a_run_needs_neither_hub_nor_directory_to_predict(directory, images, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "model")
    run = ravine.train(model=f"hf:{copy}", data=images, epochs=1, out=tmp_path / "run", **QUIET)
    before = run.predict_proba(images[0])
    shutil.rmtree(copy)
    assert np.array_equal(ravine.Run(tmp_path / "run").predict_proba(images[0]), before)


def test_equal_seeds_give_equal_bits_and_a_run_goes_on(directory, images, tmp_path):
    """Also with dropout within attention, which draws from PyTorch's own generator."""
    model = f"hf:{directory}"
    x, y = images
    np.savez(tmp_path / "data.npz", x=x, y=y)
    data = f"npz:{tmp_path / 'data.npz'}"
    whole = ravine.train(model=model, data=data, epochs=4, out=tmp_path / "whole", **QUIET)
    torch.rand(7)
    ravine.train(model=model, data=data, epochs=2, out=tmp_path / "half", **QUIET)
    longer = ravine.resume(tmp_path / "half", after="4ep", quiet=True)[0]
    for ours, other in zip(whole.model.parameters(), longer.model.parameters(), strict=True):
        assert torch.equal(ours, other)


def test_images_of_one_channel_and_of_another_size(directory, tmp_path):
    x = np.random.default_rng(1).integers(0, 255, (24, 1, 20, 24), dtype=np.uint8)
    data = (x, np.arange(24) % 2)
    run = ravine.train(model=f"hf:{directory}", data=data, epochs=1, out=tmp_path / "run", **QUIET)
    assert run.recipe.model.size == (16, 16)
    assert run.predict(x).shape == (24,)
    small = {"kind": "hf", "name": str(directory), "size": 24}
    run = ravine.train(model=small, data=data, epochs=1, out=tmp_path / "small", **QUIET)
    assert run.predict(x).shape == (24,)


def test_the_hub_is_asked_for_the_configuration_and_the_weights(directory, images, monkeypatch):
    asked = []

    def fetched(name, file="model.safetensors", context=None):
        asked.append((name, file))
        return directory / file

    monkeypatch.setattr(hub, "weights", fetched)
    monkeypatch.setattr(hub, "beside", fetched)
    recipe = completed(Recipe(model="hf:someone/net"))
    assert asked == [("hf:someone/net", f) for f in ("config.json", "preprocessor_config.json")]
    assert recipe.start.weights == "hf:someone/net"
    assert json.loads(recipe.model.config)["model_type"] == directory.name
    assert completed(recipe) == recipe


WRONG = {
    "nothing there": (lambda place: shutil.rmtree(place), "hf:OWNER/NAME"),
    "no configuration": (lambda place: (place / "config.json").unlink(), "config.json"),
    "no weights": (lambda place: (place / "model.safetensors").unlink(), "model.safetensors"),
    "code of its own": (
        lambda place: (place / "config.json").write_text(
            '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}'
        ),
        "code from the hub is not run",
    ),
    "a model of texts": (
        lambda place: (place / "config.json").write_text('{"model_type": "gpt2"}'),
        "a model of type gpt2.*an image classifier.*texts are trained from scratch",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_built_is_said(name, directory, images, tmp_path):
    place = shutil.copytree(directory, tmp_path / "model")
    spoil, said = WRONG[name]
    spoil(place)
    with pytest.raises(InputError, match=said):
        ravine.train(model=f"hf:{place}", data=images, epochs=1, out=tmp_path / "run", **QUIET)
    assert not (tmp_path / "run").exists()


def test_timm_beside_a_cpu_build_of_torch_is_one_clear_message(tmp_path, monkeypatch):
    place = tmp_path / "library" / "timm"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(place.parent)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    from pictures import write_images

    write_images(tmp_path / "photos", count=12)
    command = ["train", str(tmp_path / "photos"), "--model", "timm:resnet18"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "operator torchvision::nms does not exist" in result.output
    assert "CPU build" in result.output
    assert not (tmp_path / "run").exists()


def test_timm_is_asked_for_network_and_normalisation(images, tmp_path, monkeypatch):
    """A stand-in for the library, which no CPU build of torch from the registry can import."""
    settings = types.SimpleNamespace(
        hf_hub_id="timm/tiny.a1", input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3
    )

    def create(name, pretrained, num_classes):
        assert (name, pretrained) == ("tiny", False)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
        )

    models = types.SimpleNamespace(get_pretrained_cfg=lambda name: settings)
    library = types.SimpleNamespace(create_model=create, models=models)
    monkeypatch.setitem(sys.modules, "timm", library)
    published = create("tiny", False, 1000)
    from safetensors.torch import save_file

    save_file(published.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "weights", lambda name: tmp_path / "model.safetensors")
    run = ravine.train(
        model="timm:tiny", data=images, epochs=1, out=tmp_path / "r", **QUIET | {"lr": 1e-12}
    )
    assert run.recipe.start.weights == "hf:timm/tiny.a1"
    assert run.recipe.model.mean == (0.5,) * 3
    assert isinstance(run.model, Published)
    torch.testing.assert_close(run.model.body[0].weight, published[0].weight, atol=1e-6, rtol=0)
    assert run.model.body[3].weight.shape == (3, 4)


@pytest.mark.parametrize(("config", "mean"), [(None, 0.485), ({"mean": MEAN, "std": STD}, 0.5)])
def test_weights_of_the_catalogues_networks_bring_their_normalisation(config, mean, tmp_path):
    """What lies beside the weights says it, as timm's repositories do; else it is ImageNet's."""
    for name, value in (("cat", 40), ("dog", 200)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(20):
            colour = (value, number, 90)
            Image.new("RGB", (20, 16), colour).save(tmp_path / "pets" / name / f"{number}.png")
    weights = tmp_path / "published" / "model.safetensors"
    weights.parent.mkdir()
    save_file(resnet18((3, 64, 64), 5, width=8).state_dict(), weights)
    if config:
        weights.with_name("config.json").write_text(json.dumps({"pretrained_cfg": config}))
    edits = {"model": {"kind": "resnet18", "width": 8}, "start.weights": str(weights)}
    found = starter({"kind": "folder", "path": str(tmp_path / "pets")}, edits, minutes=0.1)
    scale, normal = found.recipe.data.preprocess
    assert scale.kind == "rescale"
    assert normal.kind == "normalize"
    assert normal.mean[0] == mean
    own = starter(
        {"kind": "folder", "path": str(tmp_path / "pets")},
        edits | {"data.preprocess": ["standardize"]},
        minutes=0.1,
    )
    assert [part.kind for part in own.recipe.data.preprocess] == ["standardize"]
