"""Pictures as people bring them: Ravine's one-liner against a PyTorch loop tuned by hand.

    python bench/own_pictures.py [--seeds 1] [--minutes 3] [--only NAME,NAME]

Five sets: 300 drawn shapes as JPEG files in folders, 300, 1,000 and 5,000 photographs of CIFAR-10,
500 digits of MNIST; the last four have 2,000 test images and need RAVINE_DATA (or a download). The
loop is what a careful person writes: convolutions with batch norm and maxima, AdamW, one cycle,
shifts and mirror images, all rows for training, 3,000 steps. Printed: test errors and seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

import ravine
from ravine.data.download import published
from ravine.data.download.cache import data_root
from ravine.data.pipeline import Pipeline
from ravine.starters.start import start

STEPS, BATCH, RATE = 3000, 32, 2e-3
TEST = 2000


# --- the sets -------------------------------------------------------------------------------------


def shapes(place: Path, rng: np.random.Generator) -> Path:
    """A circle, a square or a triangle of any colour on any colour, with noise."""
    for kind in ("circle", "square", "triangle"):
        (place / kind).mkdir(parents=True)
        for i in range(100):
            width, height, r = rng.integers(90, 200), rng.integers(80, 160), rng.integers(18, 36)
            ground, colour = (tuple(map(int, rng.integers(0, 256, 3))) for _ in range(2))
            image = Image.new("RGB", (int(width), int(height)), ground)
            x, y, draw = (
                rng.integers(r, width - r),
                rng.integers(r, height - r),
                ImageDraw.Draw(image),
            )
            if kind == "circle":
                draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
            elif kind == "square":
                draw.rectangle([x - r, y - r, x + r, y + r], fill=colour)
            else:
                draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
            noisy = np.asarray(image) + rng.normal(0, 12, (height, width, 3))
            Image.fromarray(noisy.clip(0, 255).astype("uint8")).save(place / kind / f"{i}.jpg")
    return place


def subset(place: Path, rng: np.random.Generator, name: str, count: int) -> Path:
    """Some rows of a published set, as an .npz file with its test part cut to TEST rows."""
    parts = getattr(published, name)(data_root())
    arrays = {}
    for part, size in (("train", count), ("test", TEST)):
        x, y = (np.asarray(one) for one in parts[part])
        rows = rng.permutation(len(y))[:size]
        arrays |= {f"x_{part}": x[rows], f"y_{part}": y[rows]}
    np.savez(place.with_suffix(".npz"), **arrays)
    return place.with_suffix(".npz")


SETS = {
    "shapes300": lambda place, rng: shapes(place, rng),
    "cifar300": lambda place, rng: subset(place, rng, "cifar10", 300),
    "cifar1000": lambda place, rng: subset(place, rng, "cifar10", 1000),
    "cifar5000": lambda place, rng: subset(place, rng, "cifar10", 5000),
    "mnist500": lambda place, rng: subset(place, rng, "mnist", 500),
}


# --- the loop -------------------------------------------------------------------------------------


def network(channels: int, outputs: int) -> nn.Module:
    """Four convolutions of 32 to 128 maps with maxima, their mean, a linear layer."""
    layers: list[nn.Module] = []
    for maps in (32, 64, 128, 128):
        layers += [nn.Conv2d(channels, maps, 3, padding=1), nn.BatchNorm2d(maps), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        channels = maps
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, outputs))


def batches(x: Tensor, y: Tensor, mirror: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """STEPS batches of shifted and mirrored images."""
    pad, (height, width) = max(x.shape[-2:]) // 8, x.shape[-2:]
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,))
        i, j = torch.randint(2 * pad + 1, (2,)).tolist()
        batch = F.pad(x[rows], (pad,) * 4, mode="reflect")[:, :, i : i + height, j : j + width]
        yield (batch.flip(3) if mirror and torch.rand(()) < 0.5 else batch), y[rows]


def hand_tuned(pipeline: Pipeline, seed: int) -> float:
    """The test error."""
    torch.manual_seed(seed)
    parts = {name: _part(pipeline, name) for name in ("train", "validation", "test")}
    x, y = (torch.cat(both) for both in zip(parts["train"], parts["validation"], strict=True))
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    net = network(x.shape[1], pipeline.outputs).train()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for batch, labels in batches((x - mean) / std, y, mirror=x.shape[1] == 3):
        optimizer.zero_grad()
        F.cross_entropy(net(batch), labels, label_smoothing=0.1).backward()
        optimizer.step()
        cycle.step()
    net.eval()
    with torch.inference_mode():
        found = torch.cat(
            [net((rows - mean) / std).argmax(1) for rows in parts["test"][0].split(200)]
        )
    return float((found != parts["test"][1]).double().mean())


def _part(pipeline: Pipeline, name: str) -> tuple[Tensor, Tensor]:
    chunks = list(pipeline.part(name).chunks())
    return torch.cat([x.float() for x, _ in chunks]), torch.cat([y for _, y in chunks])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in options.only.split(",") if options.only else SETS:
        rows = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                place = SETS[name](Path(folder) / name, np.random.default_rng([11, seed]))
                began = time.perf_counter()
                recipe = start(place, {"data.seed": seed, "seed": seed}, options.minutes).recipe
                run = ravine.train(recipe, out=Path(folder) / "run", quiet=True, doctor=False)
                middle = time.perf_counter()
                by_hand = hand_tuned(Pipeline(run.recipe.data), seed)
                ended = time.perf_counter()
                own = 1 - run.result["test_accuracy"]
                rows.append((own, by_hand, middle - began, ended - middle))
        own, by_hand, seconds, others = np.mean(rows, axis=0)
        shown = f"ravine {own:.3f} ({seconds:.0f} s)   loop {by_hand:.3f} ({others:.0f} s)"
        print(f"{name:10s}  {shown}", flush=True)


if __name__ == "__main__":
    main()
