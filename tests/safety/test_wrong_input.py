"""More of what people get wrong: files of every kind, fields of every part, objects given in
Python. One clear message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import ravine
from ravine import InputError
from ravine.app.cli import app

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype("float32")
Y = np.arange(40) % 2
ROWS = "".join(f"{i * i},{i % 3},{'ab'[i % 2]}\n" for i in range(40))

FILES: dict[str, str | bytes] = {
    "ok.csv": "a,b,c\n" + ROWS,
    "empty.csv": "",
    "header.csv": "a,b,c\n",
    "ragged.csv": "a,b,c\n1,2,3\n4,5\n",
    "oneclass.csv": "a,b,c\n" + "".join(f"{i},{i},x\n" for i in range(40)),
    "gap.csv": "a,b,c\n" + ROWS.replace("0,b", "0,").replace("1,b", "1,"),
    "inf.csv": "a,b,c\n1,inf,a\n" + ROWS,
    "texts.csv": "a,b,c\n" + "".join(f"n{i},m{i},{'ab'[i % 2]}\n" for i in range(200)),
    "names.csv": "a,b,c\n" + "".join(f"{i},{i},t{i}\n" for i in range(40)),
    "target.csv": "c\n" + "a\nb\n" * 20,
    "bytes.csv": bytes(range(256)) * 4,
    "empty.txt": "",
    "tiny.txt": "abc",
    "number.toml": "data = 5\n",
    "twice.toml": "[data]\nbatch = 1\nbatch = 2\n",
    "unit.toml": "[stop]\nafter = 30\n",
    "nameless.toml": "[model]\nlayers = [{ channels = 3 }]\n",
    "pathless.toml": '[data.source]\nkind = "csv"\n',
    "binary.toml": b"\xff\xfe\x00n",
    "list.json": "[1, 2]",
    "broken.json": "{",
    "broken.npz": b"PK\x03\x04 broken",
}
ARRAYS = {
    "numbers.npz": {"x": X, "y": np.stack([Y, Y, Y], 1) * 5},
    "objects.npz": {"x": np.array([{}] * 40, dtype=object), "y": Y},
    "complex.npz": {"x": X.astype(complex), "y": Y},
    "text.npz": {"x": np.array(["a"] * 40), "y": Y},
    "empty.npz": {"x": X[:0], "y": Y[:0]},
    "gaps.npz": {"x": X, "y": Y * 2},
    "nan_y.npz": {"x": X, "y": np.where(Y == 0, np.nan, 1.0)},
    "scalar.npz": {"x": np.float32(3), "y": Y},
    "test_shape.npz": {"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y},
    "test_label.npz": {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 5},
    "one_class.npz": {"x": X, "y": Y * 0},
    "ok.npz": {"x": X, "y": Y},
    "sequences.npz": {"x": RNG.normal(size=(40, 5, 3)), "y": Y},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("wrong")
    for name, content in FILES.items():
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, arrays in ARRAYS.items():
        np.savez(place / name, **arrays)
    np.save(place / "array.npy", X)
    (place / "linked").mkdir()
    (place / "linked" / "link").symlink_to(place / "ok.csv")
    for folder in (
        "one/cats",
        "mixed/train/cats",
        "mixed/train/dogs",
        "mixed/test/cats",
        "mixed/test/birds",
        "wide/a",
        "wide/b",
    ):
        (place / folder).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
                place / folder / f"{i}.png"
            )
    for folder in ("bare/a", "bare/b", "texts/a", "texts/b"):
        (place / folder).mkdir(parents=True)
    for folder in ("texts/a", "texts/b"):
        (place / folder / "x.txt").write_text("no image")
    return place


SOURCES = {
    "csv:empty.csv": ["empty file", "header"],
    "csv:header.csv": ["without rows"],
    "csv:ragged.csv": ["2 values in row 3", "3"],
    "csv:oneclass.csv": ["one class (x)"],
    "csv:gap.csv": ["target c", "14 missing", "row 2"],
    "csv:inf.csv": ["column b", "infinite"],
    "csv:texts.csv": ["no usable input column", "200 different texts"],
    "csv:names.csv": ["40 different texts", "target"],
    "csv:target.csv": ["no usable input column"],
    "csv:bytes.csv": ["bytes.csv", "no text", "UTF-8"],
    "csv:one": ["a table, not a folder"],
    "csv:": ["data.source.path"],
    '{kind = "csv", path = "ok.csv", target = ["a", "c"]}': ["target c", "'a'", "a number"],
    '{kind = "csv", path = "ok.csv", drop = ["zz"]}': ["drop", "zz", "a, b, c"],
    '{kind = "csv", path = "ok.csv", drop = ["a", "b"]}': ["no usable input column"],
    '{kind = "csv", path = "ok.csv", target = "c", drop = ["c"]}': ["drop", "target"],
    '{kind = "csv", path = "ok.csv", task = "regression"}': ["target c", "a number"],
    '{kind = "csv", path = "ok.csv", task = "cluster"}': ["task", "cluster", "regression"],
    '{kind = "csv", path = "ok.csv", separator = ";"}': ["separator", "target"],
    "text:empty.txt": ["empty.txt", "0 characters"],
    "text:tiny.txt": ["characters", "smaller length"],
    "text:one": ["a text file, not a folder"],
    '{kind = "text", path = "tiny.txt", length = 0}': ["length", "at least 1"],
    "ok.csv": ["csv:ok.csv"],
    "photos/holiday": ["folder:photos/holiday"],
    "folder:ok.csv": ["a folder, not a file"],
    "folder:one": ["1 folder", "two classes"],
    "folder:bare": ["no files", "a folder of images for each class"],
    "folder:mixed": ["birds", "cats, dogs"],
    "folder:texts": ["none an image"],
    '{kind = "folder", path = "wide", size = 0}': ["size", "at least 1"],
    '{kind = "folder", path = "wide", size = "big"}': ["size", "big"],
    '{kind = "folder", path = "wide", size = 1000000000000000000}': [
        "size",
        "at most 100,000,000 pixels",
    ],
    '{kind = "folder", path = "wide", size = [3, 100000000]}': [
        "size",
        "at most 100,000,000 pixels",
    ],
    "npz:numbers.npz": ["[40, 3]", "floats for a regression"],
    "npz:objects.npz": ["pickled"],
    "npz:complex.npz": ["complex128"],
    "npz:text.npz": ["data=(texts, labels)"],
    "npz:empty.npz": ["[0, 4]"],
    "npz:gaps.npz": ["class 1", "without gaps"],
    "npz:nan_y.npz": ["20 value(s)", "row 0"],
    "npz:scalar.npz": ["shape []"],
    "npz:test_shape.npz": ["x of test", "[3]", "[4]"],
    "npz:test_label.npz": ["y of test", "label 5", "0 to 1"],
    "npz:one_class.npz": ["one class"],
    "npz:array.npy": ["x and y"],
    "npz:broken.npz": ["broken.npz"],
    "npz:ok.csv": ["npz file"],
    "idx:one/cats/0.png": ["magic number"],
    "arrays": ["given in Python", "npz:PATH"],
    "digits:5": ["takes no argument"],
    # more than any memory holds: the kernel ended the process, or NumPy with a traceback
    '{kind = "blobs", features = 100000000000}': ["data.source.features", "GiB"],
    '{kind = "blobs", classes = 1000000000000000000}': ["data.source", "GiB"],
    '{kind = "circles", samples = 1000000000000000000}': ["data.source.samples", "GiB"],
    '{kind = "spirals", samples = 1000000000000000000}': ["data.source.samples", "GiB"],
    '{kind = "characters", size = 1000000000}': ["data.source.size", "GiB"],
    '{kind = "parity", length = 1000000000000}': ["data.source.length", "GiB"],
    '{kind = "copying", delay = 1000000000000}': ["data.source.delay", "GiB"],
    '{kind = "adding", length = 1000000000000}': ["data.source.length", "GiB"],
}

# what is set -> what the message holds; with the digits recipe unless a source is set
FIELDS = {
    "foo=1": ["foo", "optimizer"],
    "=3": ["expected one of"],
    "seed.x=1": ["seed.x", "single value"],
    "seed=1.5": ["seed", "whole number"],
    "threads=0": ["threads", "at least 1"],
    "threads=many": ["threads", "auto"],
    "data.batch=-3": ["data.batch", "-3"],
    "data.batch=all": ["data.batch", "'full'"],
    "data.validation=-0.1": ["data.validation"],
    "data.test=1": ["data.test", "less than 1"],
    "data.order=random": ["data.order", "shuffle"],
    "data.last_batch=pad": ["data.last_batch", "drop"],
    "optimizer.lr=0": ["optimizer.lr", "greater than 0"],
    "optimizer.lr=nan": ["optimizer.lr", "finite"],
    "optimizer.lr==3": ["optimizer.lr", "=3"],
    "optimizer.weight_decay=-1": ["optimizer.weight_decay"],
    "optimizer.beta1=1.5": ["optimizer.beta1", "less than 1"],
    "optimizer.momentum=0.9": ["optimizer.momentum", "beta1"],
    "stop.after=0ep": ["stop.after", "0ep"],
    "stop.after=-3ep": ["stop.after", "-3ep"],
    f"stop.after={10**200}ep": ["stop.after", "at most 1,000,000,000,000ep"],
    "stop.after=three epochs": ["stop.after", "30ep"],
    "schedule.warmup=200%": ["schedule.warmup", "100%"],
    "schedule.warmup=-5%": ["schedule.warmup"],
    "clip.norm=-1": ["clip.norm"],
    "average.ema=1": ["average.ema"],
    "loss.label_smoothing=0.1": ["loss.label_smoothing"],
    "loss.class_weights=[-1, 1]": ["loss.class_weights.0"],
    "loss.class_weights=even": ["loss.class_weights", "balanced"],
    "model=7": ["model", "7"],
    "model=[3]": ["model.layers.0"],
    "model=[]": ["nothing to train"],
    'model=["flatten"]': ["nothing to train"],
    "model=lstm": ["(1, 8, 8)", "sequences"],
    'model={kind = "resnet", depth = 21}': ["21", "6 n + 2"],
    "model.layers.13.units=0": ["units", "at least 1"],
    "model.layers.0.channels=-2": ["channels", "-2"],
    'data.preprocess=[{kind = "standardize", of = "targets"}]': ["of", "classification"],
    'data.preprocess=[{kind = "rescale", low = 1.0, high = 0.0}]': ["low below high"],
    'data.augment=[{kind = "crop", padding = -1}]': ["padding", "-1"],
    'metrics=["rmse"]': ["rmse", "accuracy"],
    "metrics=[3]": ["metrics.0"],
    "start.weights=none.safetensors": ["start.weights", "none.safetensors"],
    'start.freeze=["zzz*"]': ["start.freeze", "zzz*"],
    "start.depth_decay=3": ["start.depth_decay"],
    "constraint=max_nrom": ["'max_norm'"],
    "precision=double": ["precision", "float64"],
    "data.grow=5": ["data.grow", "a table"],
}
RECIPES = {
    "number.toml": ["data", "5", "a table"],
    "twice.toml": ["line 3"],
    "unit.toml": ["stop.after", "30ep"],
    "nameless.toml": ["model.layers.0", "kind = NAME"],
    "pathless.toml": ["data.source.path"],
    "binary.toml": ["binary.toml"],
    "list.json": ["a JSON object"],
    "broken.json": ["JSON"],
    "one": ["1 folder", "two classes"],
}
COMMANDS = {
    "predict of no run": (["predict", "one", "ok.csv"], ["one", "ravine train made"]),
    "evaluate of a file": (["evaluate", "ok.csv"], ["ok.csv"]),
    # whose links are none of Ravine's to judge, nor to be removed
    "resume of a folder with a link": (["resume", "linked"], ["it has no recipe.json"]),
    "weights of a folder with a link": (
        ["train", "--set", "start.weights=linked"],
        ["it has no recipe.json"],
    ),
    "a million ranks": (["train", "--ranks", "1000000"], ["--ranks", "1000000", "has memory"]),
    "resume of a file": (["resume", "ok.csv"], ["ok.csv"]),
    "data of a bad recipe": (["data", "unit.toml"], ["stop.after"]),
    "summary of a bad recipe": (["summary", "nameless.toml"], ["layers.0"]),
    "an unknown kind": (["catalogue", "optimisers"], ["'optimizer'"]),
    "a directory inside a file": (["train", "--out", "ok.csv/run"], ["ok.csv/run"]),
    "a file as the directory": (["train", "--out", "ok.csv"], ["ok.csv"]),
    "images for a table": (
        ["train", "--set", "data.source=csv:ok.csv", "--set", "data.augment=flip"],
        ["images"],
    ),
    "a network of images on a table": (
        ["train", "--set", "data.source=csv:ok.csv", "--set", "model=lenet"],
        ["(C, H, W)"],
    ),
    "too large a batch": (
        ["train", "--set", "data.source=npz:ok.npz", "--set", "data.batch=41"],
        ["41", "29"],
    ),
}
LINES = {
    **{
        f"source {name}": (["train", "--set", f"data.source={name}"], holds)
        for name, holds in SOURCES.items()
    },
    **{f"set {name}": (["train", "--set", name], holds) for name, holds in FIELDS.items()},
    **{f"recipe {name}": (["train", name], holds) for name, holds in RECIPES.items()},
    **COMMANDS,
}


@pytest.mark.parametrize("value", [0, -1.5, True, None, 10**60, "dense"], ids=str)
@pytest.mark.parametrize("kind", ["layers", "chain"])
def test_layers_that_are_no_list_are_refused(kind, value):
    inner = (
        {"layers": value} if kind == "layers" else {"layers": [{"kind": "chain", "layers": value}]}
    )
    with pytest.raises(InputError, match="layers"):
        ravine.Recipe(model={"kind": "layers", **inner})


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("optimizer", {"kind": "sgd", "momentum": 5e-324}, 0.0),
        ("data", {"source": {"kind": "circles", "noise": -0.0}}, 0.0),
        (
            "model",
            {"kind": "mlp", "init": {"weights": {"kind": "he_normal", "slope": 1e308}}},
            None,
        ),
        ("schedule", {"kind": "one_cycle", "divide_end": 5e-324}, "greater than 0"),
        (
            "model",
            {
                "kind": "mlp",
                "hidden": [1],
                "init": {"weights": {"kind": "lecun_uniform", "gain": 1e308}},
            },
            "hold",
        ),
        ("model", {"kind": "layers", "layers": [{"kind": "prelu", "start": -1e308}]}, "float32"),
    ],
    ids=str,
)
def test_numbers_at_the_ends_of_their_range(field, value, found, tmp_path, monkeypatch):
    """What a processor counts as zero is zero; what float32 cannot hold is refused."""
    monkeypatch.chdir(tmp_path)
    said = {"data": {"source": "digits"}, "stop": {"after": "2it"}, field: value}
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            ravine.train(ravine.Recipe(**said), quiet=True)
    else:
        ravine.train(ravine.Recipe(**said), quiet=True)


@pytest.mark.parametrize("case", LINES)
def test_the_command_line_refuses(case, place, monkeypatch):
    arguments, holds = LINES[case]
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    result = CliRunner().invoke(app, arguments)
    said = result.output.strip()
    assert result.exit_code == 2, said
    assert len(said.splitlines()) == 1, said
    assert [part for part in holds if part not in said] == [], said
    assert sorted(place.rglob("*")) == before


# --- in Python ------------------------------------------------------------------------------------


class Silent(nn.Module):
    def forward(self, x):
        return x[:, :2]


class Inputs(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return (torch.zeros(4),)


class Empty(torch.utils.data.Dataset):
    def __len__(self):
        return 0

    def __getitem__(self, place):
        raise IndexError


FRAME = pd.DataFrame(X, columns=list("abcd"))
PYTHON = {
    "x and y of different lengths": ({"data": (X, Y[:30])}, ["30", "40"]),
    "no data": ({"data": ()}, ["0 objects"]),
    "x alone in a tuple": ({"data": (X,)}, ["1 objects", "(x, y)"]),
    "a number as data": ({"data": 5}, ["int"]),
    "an unknown part": ({"data": {"train": (X, Y), "dev": (X, Y)}}, ["dev", "train"]),
    "no training part": ({"data": {"test": (X, Y)}}, ["train"]),
    "NaN in x": ({"data": (np.where(X[3, 2] == X, np.nan, X), Y)}, ["NaN", "column 2", "row 3"]),
    "infinity in x": ({"data": (np.where(X[3, 2] == X, np.inf, X), Y)}, ["infinite", "row 3"]),
    "NaN in y": ({"data": (X, np.where(Y == 1, np.nan, 0.0))}, ["y", "NaN"]),
    "ragged rows": ({"data": ([[[1.0, 2.0]], [[3.0]]], [0.5, 1.5])}, ["x", "rows of equal shape"]),
    "text columns": ({"data": (FRAME.assign(s="x"), Y)}, ["s", "ravine.train(frame"]),
    "dates": ({"data": (FRAME.assign(d=pd.Timestamp("2020-01-01")), Y)}, ["d", "numbers"]),
    "missing cells": ({"data": (FRAME.mask(X[3, 2] == FRAME), Y)}, ["NaN"]),
    "an empty Dataset": ({"data": Empty()}, ["empty"]),
    "labels from one": ({"data": (X, Y + 1)}, ["class 0", "from 0"]),
    "negative labels": ({"data": (X, Y - 1)}, ["-1", "0 to"]),
    "one class": ({"data": (X, Y * 0)}, ["one class"]),
    "a module for other inputs": ({"model": nn.Linear(5, 2)}, ["4 x 4", "module"]),
    "too few units": (
        {"model": nn.Linear(4, 2), "data": (X, np.arange(40) % 3)},
        ["2 output units", "3"],
    ),
    "one unit for two classes": (
        {"model": nn.Linear(4, 1)},
        ["one output unit", "binary_cross_entropy"],
    ),
    "no parameters": ({"model": Silent()}, ["nothing to train"]),
    "frozen parameters": ({"model": nn.Linear(4, 2).requires_grad_(False)}, ["nothing to train"]),
    "inputs without targets": ({"data": Inputs()}, ["without targets", "step="]),
    "units for a regression": (
        {"model": nn.Linear(4, 3), "data": (X, X[:, 0])},
        ["(4, 3)", "(4, 1)"],
    ),
    "a single last sample": (
        {
            "model": nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
            "data": (X[:33], np.arange(33) % 3),
            "batch": 32,
            "validation": 0.0,
            "test": 0.0,
        },
        ["one sample", "last_batch"],
    ),
    "a class as a model": ({"model": 3}, ["model", "3"]),
    "a PyTorch loss": ({"loss": nn.Linear(2, 2)}, ["loss"]),
    "a PyTorch optimiser": (
        {"optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)},
        ["optimizer"],
    ),
    "an unknown keyword": ({"learning_rate": 0.1}, ["learning_rate"]),
    "epochs as text": ({"epochs": "ten"}, ["stop.after"]),
    "no epochs": ({"epochs": 0}, ["stop.after", "0ep"]),
    "epochs and steps": ({"epochs": 1, "steps": 5}, ["epochs and steps"]),
    "a mismatched source": ({"data": "csv:nowhere.csv"}, ["nowhere.csv"]),
    "accuracy of a regression": (
        {"data": (X, X[:, 0]), "metrics": ["accuracy"]},
        ["accuracy", "rmse"],
    ),
}


@pytest.mark.parametrize("case", PYTHON)
def test_python_refuses(case, tmp_path):
    said, holds = PYTHON[case]
    with pytest.raises(InputError) as refused:
        ravine.train(
            **{"model": "softmax", "data": (X, Y), "quiet": True, "out": tmp_path / "run"} | said
        )
    assert [part for part in holds if part not in str(refused.value)] == [], str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_run_refuses_what_it_was_not_trained_on(tmp_path):
    run = ravine.train(model="softmax", data=(X, Y), epochs=1, quiet=True, out=tmp_path / "run")
    for x, holds in [
        (X[:, :3], "[N, 4]"),
        (X[0], "first axis of 1"),
        (np.full((2, 4), np.nan), "NaN"),
        (np.array([["a"] * 4]), "text"),
    ]:
        with pytest.raises(InputError) as refused:
            run.predict(x)
        assert holds in str(refused.value)
    with pytest.raises(InputError, match="data = "):
        ravine.Run(run.directory).evaluate("test")
    with pytest.raises(InputError, match="characters"):
        run.sample()
    with pytest.raises(InputError, match="30 targets for 40 inputs"):
        run.evaluate(data=(X, Y[:30]))
    with pytest.raises(InputError, match="a number under 1"):
        ravine.Run(run.directory, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"kind": "mlp", "hidden": [10**9, 10**9]}}, ["model", "fits into memory"]),
        ({"model": {"kind": "mlp", "hidden": [10**400]}}, ["model.hidden.0", "at most"]),
        ({"model": {"kind": "lenet", "kernel": 2**31}}, ["model", "fits into memory"]),
        ({"model": ["relu"] * 1001}, ["model.layers", "1,001", "at most 1,000"]),
        ({"model": [{"kind": "chain", "layers": ["relu"] * 600}] * 2}, ["at most 1,000"]),
        ({"model": {"kind": "resnet", "depth": 6002}}, ["model.depth", "at most 1,202"]),
        ({"data": {"preprocess": ["standardize"] * 33}}, ["data.preprocess", "at most 32"]),
        ({"data": {"source": "blobs", "preprocess": [{"kind": "polynomial", "degree": 2**31}]}}, ["polynomial", "products"]),
        ({"data": {"source": "digits", "augment": [{"kind": "resized_crop", "ratio": [0.0, 1.0]}]}}, ["ratio"]),
        ({"schedule": {"kind": "linear", "warmup": 10**400}}, ["schedule.warmup", "a duration"]),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_sizes_beyond_the_memory_and_lists_beyond_the_day(tmp_path, changes, words):
    """PyTorch's own words, a MemoryError, an OverflowError, or half a minute and more, each."""
    with pytest.raises(InputError) as raised:
        ravine.train(ravine.Recipe(**{"model": "mlp", **changes}), out=tmp_path / "run", quiet=True)
    assert [word for word in words if word not in str(raised.value)] == []
    assert list(tmp_path.iterdir()) == []


def test_members_that_memory_does_not_hold_are_refused(monkeypatch):
    from ravine.nn import room

    monkeypatch.setattr(room, "memory", lambda: 3 * 4 * 100 * 1000.0)
    room.check_members(100, 1000, 4)
    with pytest.raises(InputError, match="101 networks of 1,000 parameters"):
        room.check_members(101, 1000, 4)


def test_weights_whose_distance_no_float32_holds_have_a_histogram():
    from ravine.engine.loop.layer_records import histogram

    assert sum(histogram(torch.tensor([-3e38, 0.0, 3e38]))["counts"]) == 3
