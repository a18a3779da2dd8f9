"""Every technique of the catalogue trains in a population as it trains alone, and is resumed to the
bit."""

from __future__ import annotations

import copy
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import ravine
from ravine import Recipe
from ravine.catalogue import ALWAYS_PER_MEMBER, FILES, per_member, table
from ravine.data.pipeline import Pipeline
from ravine.engine.loop import loop
from ravine.engine.programs import populate
from ravine.engine.rows.ways import Mapped
from ravine.engine.rows.ways.way import PLAIN
from test_resume import Crash, assert_same

N, STEPS, CUT = 32, 7, 5  # samples, steps of a run (4 an epoch), the step after which it is cut
DRAW = np.random.default_rng(0)
CLASS = np.arange(N) % 3
INPUTS = {
    "vector": DRAW.normal(size=(N, 6)),
    "image": DRAW.normal(size=(N, 2, 8, 8)),
    "picture": DRAW.normal(size=(N, 3, 32, 32)),
    "sequence": DRAW.normal(size=(N, 5, 4)),
    "tokens": DRAW.integers(0, 7, size=(N, 6)),
    "columns": DRAW.integers(0, 3, size=(N, 6)).astype(float),
}
REALS, LABELS = DRAW.normal(size=(N, 3)), DRAW.integers(0, 2, size=(N, 3))
SHARES = DRAW.dirichlet(np.ones(3), size=N)
HEADS = np.stack([CLASS, DRAW.normal(size=N)], axis=1)
TEXT = "to be or not to be, that is the question: whether tis nobler in the mind to suffer\n" * 8

# What a technique must be told, and the inputs it runs on; without a row: nothing, and those of its
# kind.
SAID: dict[str, dict[str, Any]] = {
    "layer": {
        "chain": {"layers": ["tanh", {"kind": "dense", "units": 4}]},
        "channel_pool": {"size": 2},
        "conv": {"channels": 4},
        "dense": {"units": 5},
        "embedding": {"size": 3},
        "group_norm": {"groups": 2},
        "locally_connected": {"channels": 2},
        "maxout": {"pieces": 2},
        "parallel": {"layers": [{"kind": "dense", "units": 4}, "tanh"]},
        "reshape": {"to": [3, 2]},
        "residual": {"layers": [{"kind": "dense", "units": 6}, "tanh"]},
        "attention": {"heads": 1},
        "transformer_block": {"heads": 1},
        "rnn": {"units": 4, "layers": 2},
        "lstm": {"units": 4, "layers": 2},
        "gru": {"units": 4, "layers": 2},
        "tied": {"layer": 0},
    },
    "loss": {
        "expected_cost": {"costs": [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [4.0, 1.0, 0.0]]},
        "multi_task": {"losses": ["cross_entropy", "squared"], "sizes": [3, 1]},
    },
    "schedule": {
        "table": {"values": [1.0, 0.4], "every": "3it"},
        "on_plateau": {"monitor": "val_loss", "patience": "0ep"},
    },
    "preprocess": {"normalize": {"mean": 0.5, "std": 2.0}, "fourier": {"features": 8}},
    "augment": {"cutout": {"size": 3}},
    "model": {
        "layers": {
            "layers": [{"kind": "dense", "units": 4}, "tanh", {"kind": "dense", "units": 3}]
        },
        "all_cnn": {"width": 4},
        "char_cnn_lstm": {"units": 4, "embedding": 3, "context": 2, "ngrams": [1, 3]},
        "char_gru": {"units": 4, "embedding": 3},
        "char_lstm": {"units": 4, "embedding": 3},
        "char_rnn": {"units": 4, "embedding": 3, "layers": 2},
        "gru": {"units": 4, "layers": 2},
        "lstm": {"units": 4, "layers": 2},
        "rnn": {"units": 4, "layers": 2},
        "word_bag": {"units": 4},
        "gpt": {"units": 4, "layers": 2, "heads": 2},
        "transformer": {"units": 4, "layers": 2, "heads": 2},
        "lenet": {"channels": [2, 3], "kernel": 3, "dense": [5]},
        "maxout_mlp": {"hidden": [4]},
        "mlp": {"hidden": [5]},
        "resnet": {"depth": 8, "width": 2},
        "resnet18": {"width": 2},
        "resnet34": {"width": 1},
        "resnet50": {"width": 1},
        "resnet9": {"width": 2},
        "vgg": {"depth": 11, "width": 2, "dense": [6]},
    },
    "source": {
        "adding": {"samples": 40, "length": 6},
        "blobs": {"samples": 60},
        "characters": {"samples": 80, "size": 8},
        "circles": {"samples": 40},
        "copying": {"samples": 40, "delay": 3},
        "parity": {"samples": 40},
        "spirals": {"samples": 60},
        "csv": {"path": "@rows.csv"},
        "folder": {"path": "@images"},
        "idx": {"path": "@images.idx"},
        "npz": {"path": "@arrays.npz"},
        "parquet": {"path": "@rows.parquet"},
        "shards": {"path": "@shards.tar"},
        "text": {"path": "@text.txt", "length": 8},
        "texts": {"path": "@texts", "length": 6, "buckets": 50},
        "shakespeare": {"length": 8},
    },
    "metric": {
        "top_k": {"k": 2},
        "mean_cost": {"costs": [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [4.0, 1.0, 0.0]]},
    },
}
ON: dict[str, dict[str, str]] = {
    "layer": dict.fromkeys(
        (
            "avgpool",
            "batch_norm",
            "channel_pool",
            "conv",
            "global_pool",
            "group_norm",
            "instance_norm",
            "local_response_norm",
            "locally_connected",
            "maxpool",
            "spatial_dropout",
        ),
        "image",
    )
    | dict.fromkeys(
        (
            "rnn",
            "lstm",
            "gru",
            "transpose",
            "attention",
            "positions",
            "transformer_block",
        ),
        "sequence",
    )
    | {"embedding": "tokens"},
    "augment": dict.fromkeys(("time_mask", "time_shift"), "sequence")
    | {"feature_dropout": "vector", "saturation": "picture"},
    "preprocess": {"one_hot": "columns"},
    "model": dict.fromkeys(
        ("alexnet", "all_cnn", "vgg", "resnet18", "resnet34", "resnet50", "resnet9"), "picture"
    )
    | dict.fromkeys(("lenet", "resnet"), "image")
    | dict.fromkeys(
        (
            "char_cnn_lstm",
            "char_gru",
            "char_lstm",
            "char_rnn",
            "rnn",
            "lstm",
            "gru",
            "gpt",
            "transformer",
            "word_bag",
        ),
        "tokens",
    ),
}
# The second member's value where turning the first one's a little is not enough.
OTHER: dict[str, Any] = {
    "init": {
        "weights": {"kind": "normal", "std": 0.3},
        "biases": {"kind": "constant", "value": 0.05},
    },
    "truncate": 1.5,
    "milestones": ["2it", "5it"],
    "values": [0.9, 0.2],
    "weights": [1.0, 0.3],
    "groups": 2,
    "momentum_points": [["0it", 0.9], ["4it", 0.5]],
    "lookahead": 2,
    "iterations": 1,
    "std": 0.4,
    "monitor": "train_loss",
    "rate": 0.3,
    "slope": 0.3,
    "step_max": 0.02,
    "growth": 1.5,
    "tolerance": 9.0,
    "radius": 0.5,
    "limit": 0.4,
    "warmup": "2it",
}
TARGETS = {
    "squared": REALS,
    "absolute": REALS,
    "huber": REALS,
    "binary_cross_entropy": LABELS,
    "kl": SHARES,
    "output": REALS,
    "multi_task": HEADS,
}
BARE = {  # layers without parameters of their own
    "avgpool",
    "channel_pool",
    "flatten",
    "gelu",
    "global_pool",
    "hard_sigmoid",
    "hard_tanh",
    "instance_norm",
    "local_response_norm",
    "log_softmax",
    "maxout",
    "maxpool",
    "relu",
    "reshape",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
    "tied",
    "transpose",
}
REAL_METRICS = ("mse", "rmse", "mae", "r2")
PUBLISHED = ("mnist", "cifar10", "shakespeare")
CASES = [
    pytest.param(
        kind,
        name,
        id=f"{kind}-{name}",
        marks=[pytest.mark.slow] * (name in ("alexnet", *PUBLISHED))
        + [pytest.mark.data(name)] * (name in PUBLISHED),
    )
    for kind in FILES
    for name in sorted(table(kind))
    # given in Python: test_population, test_pipeline; of other libraries: test_published
    if name not in ("module", "arrays", "hf", "timm")
]


def turned(kind: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The technique as the first member has it, and with every per-member number turned."""
    said = {"kind": name, **SAID.get(kind, {}).get(name, {})}
    part = table(kind)[name].part
    first, fields = part(**said), part.model_json_schema()["properties"]
    other = dict(said)
    for field, info in part.model_fields.items():
        if field != "kind" and per_member(info, kind in ALWAYS_PER_MEMBER):
            other[field] = _turned(field, getattr(first, field), fields[field])
            assert part(**other) != part(**said)
    if name == "alexnet":
        other["init"]["weights"] = {
            "kind": "normal",
            "std": 0.02,
        }  # 0.3 explodes through eight layers of thousands of inputs
    return said, other


def _turned(field: str, value: Any, schema: dict[str, Any]) -> Any:
    if field in OTHER:
        return copy.deepcopy(OTHER[field])
    if "enum" in schema:
        return next(option for option in schema["enum"] if option != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.7 * value or 0.05
    assert isinstance(value, str), f"a second value of {field}, please"
    return "3it"


def turned_in_effect(kind: str, name: str) -> bool:
    """Whether something was turned; an initialiser turns nothing in a layer without parameters of
    its own."""
    first, other = turned(kind, name)
    return bool((other.keys() - first.keys()) - ({"init"} if name in BARE else set()))


def recipes(kind: str, name: str, files: Path) -> tuple[list[Recipe], Any]:
    """Two members of one seed, and the data."""
    pair = [
        {k: str(files / v[1:]) if str(v).startswith("@") else v for k, v in part.items()}
        for part in turned(kind, name)
    ]
    on = ON.get(kind, {}).get(name, "image" if kind == "augment" else "vector")
    y = CLASS
    body: list[Any] = [{"kind": "dense", "units": 6}, "tanh"] if on in ("vector", "columns") else []
    base: dict[str, Any] = {"model": {"layers": [*body, "flatten", {"kind": "dense", "units": 3}]}}
    if kind == "loss":
        y = TARGETS.get(name, CLASS)
        units = {"output": 1, "multi_task": 4}.get(name, 3)
        base["model"] = {
            "layers": [{"kind": "dense", "units": 5}, "tanh", {"kind": "dense", "units": units}]
        }
    if kind == "metric" and name in REAL_METRICS:
        y = REALS
    if kind == "model" and name.startswith(("char", "gpt")):
        y = (INPUTS["tokens"] + 1) % 7
    if kind == "source":
        base["model"] = (
            {"kind": "char_lstm", "units": 4, "embedding": 4}
            if name in ("text", "shakespeare")
            else {"kind": "word_bag", "units": 4}
            if name == "texts"
            else "softmax"
        )
    if name == "copying":
        layers = [
            {"kind": "embedding", "size": 4},
            {"kind": "lstm", "units": 4, "output": "all"},
            {"kind": "dense", "units": 11},
        ]
        base["model"] = {"layers": layers}
    if name == "lsuv":
        base["model"] = {
            "layers": [{"kind": "dense", "units": 6}, "relu", {"kind": "dense", "units": 3}]
        }
    data = {"batch": 4, "validation": 0.25, "test": 0.25}
    several = {"source": "source", "preprocess": "preprocess", "augment": "augment"}
    common = {
        "stop": {"after": f"{10 if kind == 'source' else STEPS}it", "best": False},
        "precision": "float64",
        "threads": 1,
    }
    optimizer: Any = {"kind": "sgd", "lr": 0.1, "momentum": 0.5}
    made = []
    for part in pair:
        fields = {**base, **common, "data": dict(data), "optimizer": optimizer}
        if kind in several:
            fields["data"][kind] = part
        elif kind == "layer":
            fields["model"] = {"layers": [*body, part, "flatten", {"kind": "dense", "units": 3}]}
            if name == "tied":
                fields["model"]["layers"][0] = {"kind": "dense", "units": 6}
        elif kind == "initializer":
            biases = "zeros" if name in ("lsuv", "orthogonal", "identity") else part
            fields["model"] = {**base["model"], "init": {"weights": part, "biases": biases}}
        elif kind == "metric":
            fields["metrics"] = part
        else:
            fields[kind] = part
        made.append(Recipe(**fields))
    return made, None if kind == "source" else (INPUTS[on], y)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """What the sources read."""
    here = tmp_path_factory.mktemp("files")
    (here / "text.txt").write_text(TEXT)
    lines = [
        ",".join(f"{v:.4f}" for v in row) + f",{'abc'[k]}"
        for row, k in zip(INPUTS["vector"], CLASS, strict=True)
    ]
    (here / "rows.csv").write_text("\n".join(["p,q,r,s,t,u,class", *lines]) + "\n")
    np.savez(here / "arrays.npz", x=INPUTS["vector"], y=CLASS)
    columns = {f"x{k}": column for k, column in enumerate(INPUTS["vector"].T)}
    pd.DataFrame({**columns, "class": CLASS}).to_parquet(here / "rows.parquet")
    pixels = DRAW.integers(0, 256, size=(N, 8, 8)).astype(np.uint8)
    header = bytes([0, 0, 8, 3]) + b"".join(int(n).to_bytes(4, "big") for n in pixels.shape)
    (here / "images.idx").write_bytes(header + pixels.tobytes())
    (here / "labels.idx").write_bytes(
        bytes([0, 0, 8, 1]) + N.to_bytes(4, "big") + CLASS.astype(np.uint8).tobytes()
    )
    with tarfile.open(here / "shards.tar", "w") as shard:
        for k in range(N):
            picture = BytesIO()
            Image.fromarray(pixels[k]).save(picture, "png")
            for end, content in (("png", picture.getvalue()), ("cls", str(CLASS[k]).encode())):
                member = tarfile.TarInfo(f"{k:04d}.{end}")
                member.size = len(content)
                shard.addfile(member, BytesIO(content))
    for k in range(N):
        folder = here / "images" / "abc"[CLASS[k]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[k]).save(folder / f"{k}.png")
        letters = here / "texts" / "abc"[CLASS[k]]
        letters.mkdir(parents=True, exist_ok=True)
        (letters / f"{k}.txt").write_text(" ".join("word" * (1 + k % 5)))
    return here


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """A snapshot at every block; no report, which has its own tests."""
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 0.0)
    monkeypatch.setattr("ravine.report.run_page.write_report", lambda rundir: None)


def cut(many: list[Recipe], data: Any, directory: Path) -> None:
    original = loop.TrainingLoop.save

    def save(self: loop.TrainingLoop) -> None:
        original(self)
        if self.step >= CUT:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        patch.setattr(loop.TrainingLoop, "save", save)
        with pytest.raises(Crash):
            ravine.train_many(many, data=data, out=directory, quiet=True)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_in_a_population_and_after_resume(kind, name, files, tmp_path):
    many, data = recipes(kind, name, files)
    together = held(many, data, tmp_path)
    if turned_in_effect(kind, name):
        assert not torch.equal(*together), "the second member's numbers change nothing"


# Fields of a recipe outside its techniques, by section; each is turned for the second member.
SECTIONS = {
    "clip-norm": {"clip": {"norm": 0.1}},
    "clip-tensor": {"clip": {"tensor_norm": 0.05}},
    "clip-value": {"clip": {"value": 0.01}},
    "ema": {"average": {"ema": 0.5}},
    "swa": {"average": {"swa": "1ep"}},
    "bootstrap": {"data": {"bootstrap": True}},
    "weight_noise": {"regularize": {"weight_noise": 0.1}},
    "adversarial": {"regularize": {"adversarial": 0.2}},
    "hard_negatives": {"regularize": {"hard_negatives": 0.5}},
    "depth_decay": {"start": {"depth_decay": 0.5}},
    "seed": {"seed": 5},
    "stop": {"stop": {"after": "6it"}},
    "lookahead": {"optimizer": {"lookahead": 2}},
}
STRUCTURAL = {
    "grow": {"data": {"grow": {"milestones": ["1ep"]}}, "stop": {"after": "3ep"}},
    "accumulate": {"optimizer": {"accumulate": 2}},
    "freeze": {"start": {"freeze": ["0.*"], "unfreeze": "5it"}},
    "replacement": {"data": {"order": "replacement"}},
    "drop": {"data": {"last_batch": "drop", "batch": 5}},
    "targets": {"data": {"preprocess": [{"kind": "standardize", "of": "targets"}]}},
}


@pytest.mark.parametrize("name", [*SECTIONS, *STRUCTURAL])
def test_the_rest_of_a_recipe(name, tmp_path):
    both, second = STRUCTURAL.get(name, {}), SECTIONS.get(name, {"seed": 1})
    base: dict[str, Any] = {
        "data": {"batch": 4, "validation": 0.25, "test": 0.25},
        "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.5},
        "model": {"layers": [{"kind": "dense", "units": 6}, "tanh", {"kind": "dense", "units": 3}]},
        "stop": {"after": f"{STEPS}it", "best": False},
        "precision": "float64",
        "threads": 1,
    }
    two = []
    for turned_fields in ({}, second):
        fields = dict(base)
        for section, said in [*both.items(), *turned_fields.items()]:
            fields[section] = (
                {**fields.get(section, {}), **said} if isinstance(said, dict) else said
            )
        two.append(Recipe(**fields))
    together = held(two, (INPUTS["vector"], REALS if name == "targets" else CLASS), tmp_path)
    assert name in ("ema", "swa") or not torch.equal(*together)


def held(many: list[Recipe], data: Any, directory: Path) -> list[torch.Tensor]:
    """Hold two members against their solo runs, and against themselves cut and resumed; their
    weights."""
    assert many[0].program == many[1].program
    together = ravine.train_many(many, data=data, out=directory / "whole", quiet=True)
    thetas = [run.slots["theta"] for run in together]
    for i, (recipe, run) in enumerate(zip(many, together, strict=True)):
        assert run.result["stopped"] == "finished"
        alone = ravine.train(
            recipe, data=data, out=directory / f"solo{i}", quiet=True, doctor=False
        )
        theta = alone.slots["theta"]
        assert float((thetas[i] - theta).norm()) <= 1e-9 * max(float(theta.norm()), 1e-3)
        unclocked = {
            key: value
            for key, value in alone.result.items()
            if isinstance(value, float) and key != "seconds"
        }
        assert {key: run.result[key] for key in unclocked} == pytest.approx(
            unclocked, rel=1e-8, abs=1e-12, nan_ok=True
        )
    cut(many, data, directory / "cut")
    ravine.resume(directory / "cut", data=data, quiet=True)
    assert_same(directory / "whole", directory / "cut")
    return thetas


@pytest.mark.parametrize(
    ("kind", "name"), [case for case in CASES if case.values[0] in ("layer", "loss", "model")]
)
def test_members_mapped_are_the_members_one_by_one(kind, name, files):
    many, data = recipes(kind, name, files)
    pipeline = Pipeline(many[0].data, arrays=data, dtype=torch.float64)
    rows = populate(many, pipeline, None, device=torch.device("cpu"), dtype=torch.float64)
    rows.train()
    rows.seed_step(0)
    batch = pipeline.batch(0)
    reason = Mapped.why_not(rows, PLAIN, batch.x, batch.y)
    recurrent = any(isinstance(m, torch.nn.RNNBase) for m in rows.objectives[0].modules())
    assert reason is None or recurrent, reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [case for case in CASES if case.values[0] in ("layer", "loss")]
)
def test_gradients_are_right(kind, name, files, tmp_path):
    """With every penalty on, where a loss is checked."""
    from ravine.study.gradcheck.study import gradcheck

    many, data = recipes(kind, name, files)
    found = gradcheck(many[1], data=data, samples=8, out=tmp_path / "check", quiet=True)
    assert found["relative error"] < 1e-7
    assert (
        found["kinks"] < 0.2 * found["coordinates"]
    )  # penalties of absolute values draw weights to their kink
    assert {row["point"] for row in found["table"]} == {"initial", "trained"}
