"""Figures of data and of what passes through layers: sheets of samples, scatters before and after,
maps in and out."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image, make_moons
from torch import Tensor, nn

from ravine.catalogue import Technique, make
from ravine.data.augmentation.draw import Draw, Samples
from ravine.data.objects.pairs import from_pairs
from ravine.nn.analysis.layer_table import summarise
from ravine.nn.build import build
from ravine.report.figures import COLOURS, FAINT

SIZE = (6.4, 2.6)  # inches, of two panels, which a narrow page shows one below the other
SHEET = (5.0, 2.1)  # of one, whose texts a phone shows large enough


def show(axes: Axes, image: Tensor, title: str = "") -> None:
    """An image [C, H, W], a sequence [T, F] or a vector [F], as pixels."""
    x = image.detach().float()
    x = x[None] if x.ndim == 1 else x
    pixels = x.permute(1, 2, 0) if x.ndim == 3 and x.shape[0] == 3 else x.reshape(-1, x.shape[-1])
    if x.ndim == 3 and x.shape[0] not in (1, 3):
        pixels = tiled(x)
    low, high = float(pixels.min()), float(pixels.max())
    axes.imshow(
        (pixels - low) / max(high - low, 1e-9),
        cmap="gray",
        aspect="auto" if x.ndim == 2 else "equal",
        interpolation="nearest",
    )
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def tiled(maps: Tensor) -> Tensor:
    """Maps [C, H, W] side by side, with a rim between them."""
    columns = int(np.ceil(np.sqrt(len(maps))))
    padded = torch.nn.functional.pad(maps, (0, 1, 0, 1), value=float(maps.max()))
    empty = padded.new_full((-len(maps) % columns, *padded.shape[1:]), float(maps.max()))
    grid = torch.cat([padded, empty]).unflatten(0, (-1, columns))  # [rows, columns, H, W]
    return grid.permute(0, 2, 1, 3).reshape(grid.shape[0] * grid.shape[2], -1)


# --- sources --------------------------------------------------------------------------------------


def source(technique: Technique) -> Figure | None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.environ.get("RAVINE_DATA", folder))
        if (
            technique.name in ("mnist", "cifar10", "shakespeare")
            and "RAVINE_DATA" not in os.environ
        ):
            print(f"{technique.name}: not drawn, it wants RAVINE_DATA")
            return None
        said = files(technique.name, Path(folder))
        if technique.name == "arrays":
            found = from_pairs({"train": make_moons(300, noise=0.1, random_state=0)})
        else:
            part: Any = make("source", {"kind": technique.name, **said})
            found = technique.function()(root, **part.arguments)
        rows = next(iter(found.parts.values()))
        if hasattr(rows, "cut"):
            return written(rows.cut(0.1, 0.1, 0), said or {})
        x, y = rows.take(
            torch.randperm(len(rows), generator=torch.Generator().manual_seed(4))[:400]
        )
        names = found.classes or ()
        return sheet(x, y, names) if x.ndim == 4 else table(x, y, found.task)


def files(name: str, place: Path) -> dict[str, Any]:
    """Small files in the form that a source reads."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    if name == "folder":
        for label in range(3):
            (place / "images" / f"class {label}").mkdir(parents=True)
            for i, image in enumerate(digits.images[digits.target == label][:12]):
                Image.fromarray((image * 15.9).astype("uint8")).resize((24, 24)).save(
                    place / "images" / f"class {label}" / f"{i}.png"
                )
        return {"path": str(place / "images")}
    if name == "csv":
        area, rooms = rng.uniform(30, 200, 300), rng.integers(1, 6, 300)
        lines = [
            f"{a:.1f},{r},{900 * a + 9000 * r + 1e4 * e:.0f}"
            for a, r, e in zip(area, rooms, rng.normal(size=300), strict=True)
        ]
        (place / "houses.csv").write_text("\n".join(["area,rooms,price", *lines]), encoding="utf-8")
        return {"path": str(place / "houses.csv"), "target": "price"}
    if name == "parquet":
        column = [row.flatten().tolist() for row in digits.images[:200]]
        frame = pandas.DataFrame({"pixels": column, "digit": digits.target[:200]})
        frame.to_parquet(place / "digits.parquet")
        return {"path": str(place / "digits.parquet")}
    if name == "shards":
        with tarfile.open(place / "digits.tar", "w") as tar:
            for i, image in enumerate(digits.images[:200]):
                held = io.BytesIO()
                Image.fromarray((image * 15.9).astype("uint8")).resize((24, 24)).save(held, "png")
                for ending, content in (
                    ("png", held.getvalue()),
                    ("cls", b"%d" % digits.target[i]),
                ):
                    info = tarfile.TarInfo(f"{i:04d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        return {"path": str(place / "digits.tar")}
    if name == "npz":
        np.savez(
            place / "moons.npz",
            **dict(zip("xy", make_moons(300, noise=0.1, random_state=0), strict=True)),
        )
        return {"path": str(place / "moons.npz")}
    if name == "idx":
        images = (digits.images[:200] * 15.9).astype("uint8")
        (place / "images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3]) + np.array(images.shape, ">i4").tobytes() + images.tobytes()
        )
        labels = digits.target[:200].astype("uint8")
        (place / "labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + np.array(labels.shape, ">i4").tobytes() + labels.tobytes()
        )
        return {
            "path": str(place / "images-idx3-ubyte"),
            "labels": str(place / "labels-idx1-ubyte"),
        }
    if name == "text":
        (place / "book.txt").write_text(
            "It was the best of times, it was the worst of times. " * 60, encoding="utf-8"
        )
        return {"path": str(place / "book.txt"), "length": 32}
    if name == "texts":
        for label, words in (("praise", "good bright kind"), ("blame", "bad dull rude")):
            lines = [" ".join(rng.choice(words.split(), 6)) for _ in range(40)]
            (place / "opinions" / label).mkdir(parents=True)
            for i, line in enumerate(lines):
                (place / "opinions" / label / f"{i}.txt").write_text(line, encoding="utf-8")
        return {"path": str(place / "opinions")}
    return {}


def sheet(x: Tensor, y: Tensor, names: Any) -> Figure:
    figure = Figure(SHEET, layout="constrained")
    for axes, image, label in zip(figure.subplots(2, 8).flat, x, y.tolist(), strict=False):
        show(axes, image, str(names[label]) if label < len(names) else str(label))
    return figure


def table(x: Tensor, y: Tensor, task: str) -> Figure:
    figure = Figure(SHEET, layout="constrained")
    if x.ndim == 2 and x.shape[1] <= 4:
        axes = figure.subplots()
        shade = y.float().flatten()
        points = axes.scatter(x[:, 0], x[:, 1], c=shade, s=8, cmap="viridis")
        axes.set(xlabel="first feature", ylabel="second feature")
        figure.colorbar(points, label="target" if task == "regression" else "class")
        return figure
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    image = x[:16].float() if x.ndim == 2 else x[:16].float().transpose(1, 2).flatten(0, 1)
    left.imshow(image, aspect="auto", cmap="gray", interpolation="nearest")
    left.set(xlabel="step" if x.ndim > 2 or task == "sequence" else "feature", ylabel="sample")
    right.imshow(
        y[:16].float().reshape(16, -1), aspect="auto", cmap="gray", interpolation="nearest"
    )
    right.set(xlabel="target", xticks=[] if y.ndim == 1 else None or right.get_xticks())
    for axes in (left, right):
        axes.grid(False)
    return figure


def written(parts: tuple[Any, Any], said: dict[str, Any]) -> Figure:
    """Windows of a text: inputs, and the next characters as targets."""
    pieces, characters = parts
    x, y = pieces["train"].take(torch.tensor([0, 5, 9, 14, 20]))
    figure = Figure(SHEET, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    for i, (window, following) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        for j, (name, tokens, colour) in enumerate(
            (("x", window, COLOURS[0]), ("y", following, COLOURS[1]))
        ):
            text = "".join(characters[token] for token in tokens[:44]).replace("\n", "⏎")
            axes.text(
                0,
                1 - 0.2 * i - 0.075 * j,
                f"{name}  {text}",
                family="monospace",
                fontsize=7.5,
                color=colour,
                va="top",
            )
    return figure


# --- preprocessing --------------------------------------------------------------------------------

PREPROCESS: dict[str, dict[str, Any]] = {
    "normalize": {"mean": [50.0, 20.0], "std": [20.0, 5.0]},
    "fourier": {"features": 2048},
}


def preprocess(technique: Technique) -> Figure:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    x = torch.stack([50 + 20 * z[:, 0], 20 + 4 * z[:, 0] + 3 * z[:, 1]], 1)
    if technique.name == "one_hot":
        x = torch.randint(0, 3, (300, 2), generator=generator).double()
    if technique.name == "per_sample":
        x = (50 + 20 * z[:, :1]) + (1 + z[:, 1:].abs()) * 5 * torch.sin(
            torch.arange(24.0) / 3 + 6 * z[:, :1]
        )
    part: Any = make("preprocess", {"kind": technique.name, **PREPROCESS.get(technique.name, {})})
    y = technique.function()(x, **part.arguments)(x)
    figure = Figure(SIZE, layout="constrained")
    before, after = figure.subplots(1, 2)
    shade = x[:, 0]
    if technique.name == "one_hot":
        for axes, rows in ((before, x[:24]), (after, y[:24])):
            axes.imshow(rows, aspect="auto", cmap="Blues", interpolation="nearest")
            axes.set(xlabel="column", ylabel="sample")
            axes.grid(False)
    elif technique.name == "fourier":
        distances = torch.cdist(x, x).square()
        gamma = 1 / (x.shape[1] * float(x.var(correction=0)))
        before.scatter(*x.T, c=shade, s=6, cmap="viridis")
        after.scatter(
            torch.exp(-gamma * distances).flatten()[::37],
            (y @ y.T).flatten()[::37],
            s=4,
            color=COLOURS[0],
        )
        after.set(xlabel="exp(-gamma |x - x'|^2)", ylabel="inner product of features")
    elif technique.name == "per_sample":
        before.plot(x[:12].T, lw=1)
        after.plot(y[:12].T, lw=1)
        before.set(xlabel="feature", ylabel="12 samples")
        after.set(xlabel="feature")
    else:
        before.scatter(*x.T, c=shade, s=6, cmap="viridis")
        columns = (2, 3) if technique.name == "polynomial" else (0, 1)
        after.scatter(y[:, columns[0]], y[:, columns[1]], c=shade, s=6, cmap="viridis")
        names = (
            ("x1 squared", "x1 times x2")
            if technique.name == "polynomial"
            else ("first output", "second output")
        )
        after.set(xlabel=names[0], ylabel=names[1])
        before.set(xlabel="first feature", ylabel="second feature")
    before.set_title("before")
    after.set_title("after")
    return figure


# --- augmentation ---------------------------------------------------------------------------------

AUGMENT: dict[str, dict[str, Any]] = {
    "shift": {"pixels": 6},
    "crop": {"padding": 6},
    "rotate": {"degrees": 25.0},
    "shear": {"degrees": 20.0},
    "zoom": {"low": 0.7, "high": 1.4},
    "brightness": {"amount": 0.4},
    "contrast": {"amount": 0.8},
    "cutout": {"size": 18},
    "saturation": {"amount": 1.0},
    "noise": {"std": 0.4},
    "erase": {"p": 1.0},
    "mixup": {"alpha": 1.0},
    "time_shift": {"steps": 8},
    "time_mask": {"steps": 12},
    "feature_dropout": {"rate": 0.3},
}


def augment(technique: Technique) -> Figure:
    x, y, shown = examples(technique.name)
    channel = (0, 2, 3) if x.ndim == 4 else (0, 1)
    around = {
        "mean": x.mean(channel, keepdim=True),
        "deviation": x.std(channel, keepdim=True, correction=0),
    }
    batch = Samples(
        x.clone(), y, outputs=2, task="classification", low=x.min(), high=x.max(), **around
    )
    part: Any = make("augment", {"kind": technique.name, **AUGMENT.get(technique.name, {})})
    after = technique.function()(batch, Draw(3), **part.arguments).x
    figure = Figure(SHEET, layout="constrained")
    for axes, image in zip(
        figure.subplots(2, shown).flat, [*x[:shown], *after[:shown]], strict=True
    ):
        show(axes, image.clamp(x.min(), x.max()))
    figure.axes[0].set_title("as it came", fontsize=8, loc="left")
    figure.axes[shown].set_title("augmented", fontsize=8, loc="left")
    return figure


def examples(name: str) -> tuple[Tensor, Tensor, int]:
    """Two photographs in turn, [6, 3, 64, 64]; for sequences waves, for tables rows."""
    if name.startswith("time"):
        t = torch.arange(48.0)
        x = torch.stack(
            [torch.stack([torch.sin(t * f), torch.cos(t * f)], 1) for f in (0.2, 0.3, 0.4, 0.5)]
        )
        return x, torch.tensor([0, 1, 0, 1]), 4
    if name == "feature_dropout":
        return (
            torch.randn(4, 24, generator=torch.Generator().manual_seed(1)),
            torch.tensor([0, 1, 0, 1]),
            4,
        )
    photographs = []
    for file in ("flower.jpg", "china.jpg"):
        image = Image.fromarray(load_sample_image(file)).resize((96, 64)).crop((16, 0, 80, 64))
        photographs.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float())
    return torch.stack(photographs * 3), torch.tensor([0, 1] * 3), 6


# --- layers and models ----------------------------------------------------------------------------

IMAGE, TOKENS, SEQUENCE = (1, 8, 8), (16,), (16, 4)
CONV = {"kind": "conv", "channels": 4, "padding": "same"}
LAYERS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "dense": ((64,), {"units": 32}),
    "reshape": ((64,), {"to": [1, 8, 8]}),
    "transpose": (SEQUENCE, {}),
    "embedding": (TOKENS, {"size": 4}),
    "chain": (IMAGE, {"layers": [CONV, "relu"]}),
    "residual": (IMAGE, {"layers": [CONV, "relu", {**CONV, "channels": 1}]}),
    "parallel": (IMAGE, {"layers": [CONV, "maxpool:1"]}),
    "conv": (IMAGE, {"channels": 4}),
    "locally_connected": (IMAGE, {"channels": 4}),
    "channel_pool": ((4, 8, 8), {}),
    "group_norm": ((4, 8, 8), {"groups": 2}),
    "local_response_norm": ((4, 8, 8), {"alpha": 1.0}),
    "instance_norm": ((4, 8, 8), {}),
    "spatial_dropout": ((4, 8, 8), {}),
    "global_pool": ((4, 8, 8), {}),
    "gaussian_noise": (IMAGE, {"std": 0.5}),
    "alpha_dropout": (IMAGE, {"rate": 0.3}),
    "attention": (SEQUENCE, {"heads": 1, "causal": True}),
    "positions": (SEQUENCE, {"form": "sinusoidal"}),
    "transformer_block": (SEQUENCE, {"heads": 1}),
    "rnn": (SEQUENCE, {"units": 12, "output": "all"}),
    "lstm": (SEQUENCE, {"units": 12, "output": "all"}),
    "gru": (SEQUENCE, {"units": 12, "output": "all"}),
}


def layer(technique: Technique) -> Figure:
    """One sample of a batch of digits (or of waves), and what the layer makes of it."""
    shape, said = LAYERS.get(technique.name, (IMAGE, {}))
    digits = torch.from_numpy(load_digits().images[:32] / 8.0 - 1.0).float()  # [32, 8, 8]
    if shape == TOKENS:
        x = torch.randint(0, 10, (32, *TOKENS), generator=torch.Generator().manual_seed(0))
    elif shape == SEQUENCE:
        x = torch.sin(torch.arange(16.0)[:, None] * torch.tensor([0.2, 0.4, 0.6, 0.9])).expand(
            32, *SEQUENCE
        )
    else:
        x = (
            digits.repeat(1, shape[0], 1)
            if shape[0] == 0
            else torch.stack(
                [digits.roll(i, 0) for i in range(max(1, shape[0] if len(shape) == 3 else 1))], 1
            )
        )
        x = x.reshape(32, *shape)
    if technique.name == "tied":
        part = [
            {"kind": "dense", "units": 24},
            "tanh",
            {"kind": "tied", "layer": 0, "transposed": True},
        ]
        x, shape = x.reshape(32, -1), (64,)
    else:
        part = [{"kind": technique.name, **said}]
    module = build(
        {"kind": "layers", "layers": part}, shape, 1, vocabulary=10 if shape == TOKENS else None
    ).train()
    y = module(x)
    figure = Figure(SIZE, layout="constrained")
    before, after = figure.subplots(1, 2)
    show(
        before,
        x[3],
        f"in {list(x.shape[1:])}: mean {x.float().mean():.2f}, sd {x.float().std():.2f}",
    )
    show(after, y[3], f"out {list(y.shape[1:])}: mean {y.mean():.2f}, sd {y.std():.2f}")
    return figure


MODELS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "layers": (
        (1, 28, 28),
        10,
        {
            "layers": [
                {"kind": "conv", "channels": 8, "kernel": 5},
                "relu",
                "maxpool",
                "flatten",
                "dense:10",
            ]
        },
    ),
    "linear": ((784,), 10, {}),
    "softmax": ((784,), 10, {}),
    "mlp": ((784,), 10, {"hidden": [256, 128]}),
    "maxout_mlp": ((784,), 10, {}),
    "lenet": ((1, 28, 28), 10, {}),
    "vgg": ((3, 32, 32), 10, {}),
    "alexnet": ((3, 224, 224), 1000, {}),
    "all_cnn": ((3, 32, 32), 10, {}),
    "resnet": ((3, 32, 32), 10, {}),
    "resnet18": ((3, 224, 224), 1000, {}),
    "resnet34": ((3, 224, 224), 1000, {}),
    "resnet50": ((3, 224, 224), 1000, {}),
    "resnet9": ((3, 32, 32), 10, {}),
    "transformer": ((28, 28), 10, {}),
    "word_bag": ((64,), 4, {}),
    "rnn": ((28, 28), 10, {}),
    "lstm": ((28, 28), 10, {}),
    "gru": ((28, 28), 10, {}),
    "hf": (
        (3, 224, 224),
        1000,
        {"name": "ViT", "config": '{"model_type": "vit", "num_hidden_layers": 2}'},
    ),
    "timm": ((3, 224, 224), 1000, {}),
}


def model(technique: Technique) -> Figure:
    """Parameters and output size of each layer that has parameters."""
    shape, outputs, said = MODELS.get(technique.name, ((64,), 65, {}))
    characters = technique.name.startswith(("char", "gpt", "word"))
    if technique.name == "module":
        module: nn.Module = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    elif technique.name == "timm":  # timm's resnet18 has the layers of ours
        module = build("resnet18", shape, outputs)
    else:
        module = build(
            {"kind": technique.name, **said}, shape, outputs, vocabulary=65 if characters else None
        )
    found = summarise(module, shape, vocabulary=65 if characters else None)
    rows = [row for row in found["layers"] if row["parameters"]]
    figure = Figure((6.4, 1.2 + 0.16 * len(rows)), layout="constrained")
    parameters, sizes = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(rows))
    parameters.barh(places, [row["parameters"] for row in rows], color=COLOURS[0])
    sizes.barh(places, [int(np.prod(row["shape"])) for row in rows], color=COLOURS[1])
    for place, row in zip(places, rows, strict=True):
        sizes.text(
            1.15 * np.prod(row["shape"]),
            place,
            "x".join(map(str, row["shape"])),
            va="center",
            fontsize=7,
            color=FAINT,
        )
    parameters.set_yticks(places, [f"{row['name']} {row['layer']}" for row in rows], fontsize=7)
    parameters.set(xlabel=f"parameters (in all {found['parameters']:,})", xscale="log")
    parameters.invert_yaxis()
    parameters.xaxis.set_minor_formatter(NullFormatter())
    sizes.xaxis.set_minor_formatter(NullFormatter())
    sizes.set(
        xlabel="entries of the output",
        xscale="log",
        xlim=(1, 40 * max(np.prod(row["shape"]) for row in rows)),
    )
    for axes in (parameters, sizes):
        axes.grid(axis="x")
        axes.grid(False, axis="y")
    return figure
