"""Bad input: one clear message that says what was given, what was expected and how to repair it;
exit code 2; nothing lost."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ravine.app.cli import app

SET = "--set"

# arguments of `ravine train` (files are made by `place`), and what the message must hold
TRAIN = {
    "missing recipe": (["nowhere.toml"], ["nowhere.toml", "can be read"]),
    "recipe is not TOML": (["broken.toml"], ["broken.toml", "TOML"]),
    "unknown section": (["unknown.toml"], ["optimiser", "optimizer"]),
    "unknown field": ([SET, "optimizer.learning=0.1"], ["optimizer.learning", "expected one of"]),
    "misspelt field": ([SET, "data.bach=32"], ["data.bach", "'batch'"]),
    "unknown optimizer": ([SET, "optimizer.kind=adamm"], ["adamm", "'adam'"]),
    "unknown schedule": ([SET, "schedule=cosin"], ["cosin", "'cosine'"]),
    "unknown loss": ([SET, "loss=cross_entropi"], ["cross_entropi", "'cross_entropy'"]),
    "unknown layer": ([SET, "model.layers.0=convv"], ["convv", "'conv'"]),
    "unknown model": ([SET, "model=resnett"], ["resnett", "'resnet'"]),
    "unknown source": ([SET, "data.source=minst"], ["minst", "'mnist'"]),
    "unknown initializer": ([SET, "model.init=he_norml"], ["he_norml", "'he_normal'"]),
    "unknown augmentation": ([SET, 'data.augment=["shfit"]'], ["shfit", "'shift'"]),
    "unknown preprocessing": (
        [SET, 'data.preprocess=["standardise"]'],
        ["standardise", "'standardize'"],
    ),
    "unknown metric": ([SET, 'metrics=["acuracy"]'], ["acuracy", "'accuracy'"]),
    "negative lr": ([SET, "optimizer.lr=-0.1"], ["optimizer.lr", "-0.1", "greater than 0"]),
    "lr is not a number": ([SET, "optimizer.lr=fast"], ["optimizer.lr", "fast", "number"]),
    "infinite lr": ([SET, "optimizer.lr=inf"], ["optimizer.lr", "finite"]),
    "momentum of one": (
        [SET, "optimizer.kind=momentum", SET, "optimizer.momentum=1.0"],
        ["optimizer.momentum", "less than 1"],
    ),
    "dropout over one": ([SET, "model.layers.12.rate=1.5"], ["rate", "1.5"]),
    "batch of zero": ([SET, "data.batch=0"], ["data.batch", "0"]),
    "batch is a fraction": ([SET, "data.batch=32.5"], ["data.batch", "32.5"]),
    "batch larger than the data": ([SET, "data.batch=100000"], ["100000", "batch"]),
    "unit missing in a duration": ([SET, "stop.after=30"], ["stop.after", "30", "30ep"]),
    "unknown unit": ([SET, "stop.after=30min"], ["stop.after", "30min"]),
    "percentage of nothing": ([SET, "stop.after=50%"], ["stop.after", "50%", "ep"]),
    "warmup without unit": ([SET, "schedule.warmup=100"], ["schedule.warmup", "100it"]),
    "validation of one": ([SET, "data.validation=1.0"], ["data.validation", "1.0"]),
    "validation that leaves nothing": (
        [SET, "data.source=npz:few.npz", SET, "data.validation=0.9"],
        ["validation"],
    ),
    "unknown monitor": (
        [SET, "stop.monitor=val_akkuracy", SET, "stop.patience=1ep", SET, "stop.after=1ep"],
        ["val_akkuracy", "val_accuracy"],
    ),
    "unknown precision": ([SET, "precision=float16"], ["precision", "float16", "float32"]),
    "no such device": ([SET, "device=tpu"], ["device", "tpu", "cpu"]),
    "place in a list": ([SET, "model.layers.99.rate=0.1"], ["99"]),
    "set without a value": ([SET, "optimizer.lr"], ["optimizer.lr", "KEY=VALUE"]),
    "existing directory": (["--out", "full"], ["full", "new or empty directory"]),
    "missing csv": ([SET, "data.source=csv:none.csv"], ["none.csv"]),
    "csv without that target": (
        [SET, 'data.source={kind="csv", path="table.csv", target="prize"}'],
        ["prize", "price"],
    ),
    "missing folder": ([SET, "data.source=folder:none"], ["none"]),
    "folder without classes": ([SET, "data.source=folder:empty"], ["empty"]),
    "empty class": ([SET, "data.source=folder:gap"], ["dogs"]),
    "missing npz": ([SET, "data.source=npz:none.npz"], ["none.npz"]),
    "npz without y": ([SET, "data.source=npz:no_y.npz"], ["y"]),
    "a NaN in the data": ([SET, "data.source=npz:nan.npz"], ["NaN"]),
    "an infinity in the data": ([SET, "data.source=npz:inf.npz"], ["inf"]),
    "x and y of different lengths": ([SET, "data.source=npz:lengths.npz"], ["40", "30"]),
    "negative labels": ([SET, "data.source=npz:negative.npz"], ["label", "-1"]),
    "text shorter than a window": ([SET, "data.source=text:short.txt"], ["short.txt"]),
    "corrupt idx": ([SET, "data.source=idx:idx"], ["magic"]),
    "wrong output units": ([SET, "model.layers.13.units=7"], ["7", "10"]),
    "dense on images": (["images.toml"], ["flatten"]),
    "kernel larger than the image": (
        [SET, "model.layers.0.kernel=99", SET, "model.layers.0.padding=valid"],
        ["99"],
    ),
    "class weights of another length": (
        [SET, "loss.class_weights=[1.0, 2.0]"],
        ["class_weights", "10"],
    ),
}
OTHER = {
    "layers that take hours to build": (
        ["train", SET, "model.kind=mlp", SET, f"model.hidden={[2] * 10_001}"],
        ["hidden", "at most 1,000"],
    ),
    "resume nothing": (["resume", "none"], ["none"]),
    "evaluate no run": (["evaluate", "full"], ["full"]),
    "report on no run": (["report", "none"], ["none"]),
    "unknown technique": (["catalogue", "adma"], ["adma", "'adam'"]),
    "data of nothing": (["data", "minst"], ["minst", "'mnist'"]),
    "summary of no file": (["summary", "none.toml"], ["none.toml"]),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype("float32"), np.arange(40) % 2
    (place / "broken.toml").write_text("name = [")
    (place / "unknown.toml").write_text("[optimiser]\nkind = 'adam'\n")
    (place / "images.toml").write_text(
        '[model]\nlayers = [{kind = "conv", channels = 4, kernel = 3}, {kind = "dense", units = 10}]\n'
    )
    (place / "table.csv").write_text("size,price\n" + "".join(f"{i},{2 * i}\n" for i in range(40)))
    (place / "short.txt").write_text("too short")
    for name in ("full", "empty", "gap/cats", "gap/dogs", "idx"):
        (place / name).mkdir(parents=True)
    (place / "full" / "thing.txt").write_text("precious")
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
            place / "gap" / "cats" / f"{i}.png"
        )
    np.savez(place / "few.npz", x=x[:4], y=y[:4])
    np.savez(place / "no_y.npz", x=x)
    np.savez(place / "nan.npz", x=np.where(np.arange(4) == 2, np.nan, x), y=y)
    np.savez(place / "inf.npz", x=np.where(np.arange(4) == 2, np.inf, x), y=y)
    np.savez(place / "lengths.npz", x=x, y=y[:30])
    np.savez(place / "negative.npz", x=x, y=y - 1)
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (place / "idx" / f"{name}.gz").write_bytes(gzip.compress(b"not an idx file at all"))
    return place


def refuse(
    arguments: list[str], holds: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = sorted(path for path in place.rglob("*"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    said = result.output.strip()
    assert len(said.splitlines()) == 1, said
    for part in holds:
        assert part in said
    assert sorted(path for path in place.rglob("*")) == before


@pytest.mark.parametrize("case", TRAIN)
def test_train_refuses(case, place, monkeypatch):
    arguments, holds = TRAIN[case]
    refuse(["train", *arguments], holds, place, monkeypatch)


@pytest.mark.parametrize("case", OTHER)
def test_other_commands_refuse(case, place, monkeypatch):
    arguments, holds = OTHER[case]
    refuse(arguments, holds, place, monkeypatch)


def test_a_class_may_have_any_name(place, tmp_path, monkeypatch):
    """Names that are no text, and names that look like formulas, were tracebacks."""
    monkeypatch.chdir(tmp_path)
    for name in (b"\xff\n\x1b[31m", b"$x^{$", b"[/red]"):
        shutil.copytree(place / "gap" / "cats", Path(os.fsdecode(name)))
    result = CliRunner().invoke(app, ["data", str(tmp_path)])
    assert result.exit_code == 0, result.output
