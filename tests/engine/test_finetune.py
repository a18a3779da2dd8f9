"""Fine-tuning: from a run, a safetensors file or a module; a new head, freezing on a schedule,
learning rates by depth."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import ravine
from ravine.data.read.weights import read_weights
from ravine.nn.build import build

LAYERS = [
    {"kind": "dense", "units": 8},
    "tanh",
    {"kind": "dense", "units": 6},
    "tanh",
    {"kind": "dense", "units": 3},
]
BLOBS = {"kind": "blobs", "classes": 3, "samples": 240}
QUIET = {"quiet": True, "lr": 0.01, "batch": 32}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    place = tmp_path_factory.mktemp("source")
    return ravine.train(
        model=LAYERS, data=BLOBS, preprocess="standardize", epochs=4, out=place / "run", **QUIET
    )


def weights(run, i):
    return dict(run.model.named_parameters())[f"{i}.weight"].detach()


def test_from_a_run_with_its_model_and_its_preprocessing(source, tmp_path):
    run = ravine.train(
        data={**BLOBS, "seed": 5},
        weights=str(source.directory),
        lr=1e-9,
        epochs=1,
        quiet=True,
        out=tmp_path / "run",
    )
    torch.testing.assert_close(weights(run, 2), weights(source, 2), atol=1e-5, rtol=0)
    x = torch.randn(10, 2)
    assert torch.equal(run.pipeline.transform(x), source.pipeline.transform(x))
    assert not run.recipe.data.preprocess


def test_a_new_head_for_other_classes(source, tmp_path):
    other = {**BLOBS, "classes": 5}
    run = ravine.train(
        data=other,
        weights=str(source.directory),
        head="replace",
        lr=1e-9,
        epochs=1,
        quiet=True,
        out=tmp_path / "run",
    )
    torch.testing.assert_close(weights(run, 2), weights(source, 2), atol=1e-5, rtol=0)
    assert weights(run, 4).shape == (5, 6)
    assert ravine.Run(run.directory).predict(torch.randn(4, 2)).shape == (4,)


def test_from_a_safetensors_file(source, tmp_path):
    save_file(source.model.state_dict(), tmp_path / "weights.safetensors")
    run = ravine.train(
        model=LAYERS,
        data=BLOBS,
        weights=str(tmp_path / "weights.safetensors"),
        lr=1e-9,
        epochs=1,
        quiet=True,
        out=tmp_path / "run",
    )
    torch.testing.assert_close(weights(run, 0), weights(source, 0), atol=1e-5, rtol=0)


def test_from_a_module(source, tmp_path):
    module = source.copy_model()
    run = ravine.train(
        model=module,
        data=BLOBS,
        preprocess="standardize",
        lr=1e-9,
        epochs=1,
        quiet=True,
        out=tmp_path / "run",
    )
    assert run.model is module
    torch.testing.assert_close(weights(run, 0), weights(source, 0), atol=1e-5, rtol=0)


def test_a_new_head_for_a_module(source, tmp_path):
    module = source.copy_model()
    other = {**BLOBS, "classes": 5}
    run = ravine.train(
        model=module,
        head="replace",
        freeze=["0.*"],
        data=other,
        epochs=1,
        out=tmp_path / "run",
        **QUIET,
    )
    assert run.model is module
    assert weights(run, 4).shape == (5, 6)
    assert torch.equal(weights(run, 0), weights(source, 0))
    opened = ravine.Run(run.directory, module=source.copy_model())
    x = torch.randn(4, 2)
    assert (opened.predict_proba(x) == run.predict_proba(x)).all()


def test_frozen_parameters_stay_to_the_bit_and_thaw_on_time(source, tmp_path):
    said = {
        "data": BLOBS,
        "weights": str(source.directory),
        "freeze": ["0.*", "2.*"],
        "optimizer": "adamw",
        "weight_decay": 0.1,
        **QUIET,
    }
    still = ravine.train(epochs=2, out=tmp_path / "still", **said)
    assert torch.equal(weights(still, 0), weights(source, 0))
    assert not torch.equal(weights(still, 4), weights(source, 4))
    thawed = ravine.train(epochs=2, unfreeze="1ep", out=tmp_path / "thawed", **said)
    assert not torch.equal(weights(thawed, 0), weights(source, 0))


def test_learning_rates_by_depth(source, tmp_path):
    said = {
        "data": BLOBS,
        "weights": str(source.directory),
        "optimizer": "sgd",
        "steps": 1,
        "batch": "full",
        "quiet": True,
        "lr": 0.1,
    }
    plain = ravine.train(out=tmp_path / "plain", **said)
    decayed = ravine.train(out=tmp_path / "decayed", depth_decay=0.5, **said)
    for layer, factor in ((4, 1.0), (2, 0.5), (0, 0.25)):
        step = weights(plain, layer) - weights(source, layer)
        torch.testing.assert_close(
            weights(decayed, layer) - weights(source, layer), factor * step, rtol=1e-3, atol=1e-7
        )


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ({"weights": "nowhere"}, "start.weights: got 'nowhere'"),
        ({"freeze": ["stem.*"]}, "start.freeze: got 'stem.\\*'"),
        (
            {"weights": "@", "model": [{"kind": "dense", "units": 3}]},
            "start.weights: got .* for 0.weight",
        ),
    ],
)
def test_what_does_not_fit_is_refused(said, holds, source, tmp_path):
    said = {k: str(source.directory) if v == "@" else v for k, v in said.items()}
    with pytest.raises(ravine.InputError, match=holds):
        ravine.train(
            **{"model": LAYERS, "data": BLOBS, "quiet": True, "out": tmp_path / "run", **said}
        )
    assert not (tmp_path / "run").exists()


# --- published weights ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A checkpoint of a narrow ResNet-18 of 1,000 classes, in three forms."""
    place = tmp_path_factory.mktemp("published")
    net = build({"kind": "resnet18", "width": 4}, (3, 32, 32), 1000, seed=9)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    counted = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    save_file(counted, place / "net.safetensors")
    torch.save(state, place / "net.pt")
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": prefixed}, place / "net.ckpt")
    return place, state


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "net.ckpt"])
def test_a_published_checkpoint_is_taken_as_it_is(name, published, tmp_path):
    place, state = published
    run = ravine.train(
        model={"kind": "resnet18", "width": 4},
        data=(torch.randn(24, 3, 32, 32), torch.arange(24) % 3),
        weights=str(place / name),
        head="replace",
        freeze=["conv1*", "bn1*", "layer*"],
        lr=1e-3,
        batch=8,
        last_batch="drop",
        epochs=1,
        quiet=True,
        out=tmp_path / "run",
    )
    own = run.model.state_dict()
    assert own["fc.weight"].shape == (3, 32)
    assert torch.equal(own["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert torch.equal(own["conv1.weight"], state["conv1.weight"])


class Hostile:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def test_a_checkpoint_that_holds_more_than_weights_is_refused_and_runs_nothing(tmp_path):
    torch.save({"a": Hostile(str(tmp_path / "made"))}, tmp_path / "hostile.pt")
    with pytest.raises(ravine.InputError, match=r"start.weights: got .*hostile.pt") as caught:
        read_weights(str(tmp_path / "hostile.pt"))
    assert "never run" in str(caught.value)
    assert "weights_only" not in str(caught.value)  # PyTorch advises to switch it off
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04"])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_damaged_checkpoints_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ravine.InputError, match=r"start.weights: got .*a\."):
        read_weights(str(tmp_path / name))
