"""Convolution: what weight sharing saves, keeps, and costs.

Claim: Edge detection on a 320 x 280 image needs 267,960 operations as a convolution and over 8 billion weights as a
dense matrix; a convolution moves with its input exactly, pooling hides small moves in part, neither knows rotation;
direct, im2col and FFT give the same numbers, and for small kernels the direct one is the fastest here, not the FFT
as texts have it; the receptive field grows with depth.

To see it fail: pad with zeros, ``MODE = "constant"``: at the border the moved answer differs.
"""

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, log_axis, panels
from ravine.nn.analysis.layer_table import summarise

MODE = "circular"


def by_im2col(x, w):
    rows = F.unfold(x, w.shape[-1])  # [B, C k k, places]
    side = x.shape[-1] - w.shape[-1] + 1
    return (w.flatten(1) @ rows).unflatten(2, (side, side))


def by_fft(x, w):
    n = x.shape[-1]
    product = torch.einsum(
        "bchw,ochw->bohw", torch.fft.rfft2(x), torch.fft.rfft2(w, s=(n, n)).conj()
    )
    side = n - w.shape[-1] + 1
    return torch.fft.irfft2(product, s=(n, n))[..., :side, :side]


WAYS = {"direct": F.conv2d, "im2col": by_im2col, "FFT": by_fft}


def seconds(way, x, w, repeats):
    way(x, w)
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        way(x, w)
        found.append(time.perf_counter() - begun)
    return float(np.median(found))


def draw(item):
    height, width = 280, 320
    edge = summarise(nn.Conv2d(1, 1, (1, 2), bias=False), (1, height, width))
    operations = (
        edge["flops"] * 3 / 4
    )  # two products and one sum a difference; the counter counts two sums
    dense = height * width * height * (width - 1)
    item.claim(
        "operations of the convolution: 319 x 280 x 3", operations, above=267_959, below=267_961
    )
    item.claim(
        "weights of the dense matrix / of the convolution, log10", np.log10(dense / 2), above=9.5
    )

    seeds = range(item.size(20, 8))
    moved, pooled, turned = [], [], []
    for seed in seeds:
        torch.manual_seed(seed)
        x, w = (
            torch.rand(1, 3, 16, 16, dtype=torch.float64),
            torch.randn(4, 3, 3, 3, dtype=torch.float64),
        )
        answer = lambda z, w=w: F.conv2d(F.pad(z, (1, 1, 1, 1), mode=MODE), w)  # noqa: E731
        apart = lambda a, b: float((a - b).norm() / b.norm())  # noqa: E731
        moved.append(apart(answer(x.roll(2, -1)), answer(x).roll(2, -1)))
        pool = lambda z: F.max_pool2d(answer(z).relu(), 4)  # noqa: E731, B023
        pooled.append(
            apart(pool(x.roll(1, -1)), pool(x))
            / apart(answer(x.roll(1, -1)).relu(), answer(x).relu())
        )
        turned.append(apart(answer(x.rot90(1, (-2, -1))), answer(x).rot90(1, (-2, -1))))
    item.claim(
        "equivariance: convolution of a moved image against the moved convolution",
        moved,
        below=1e-12,
    )
    item.claim("invariance: change by a move after pooling / before", pooled, below=0.9)
    item.claim("rotation: the same for a turned image", turned, above=0.2)

    times, kernels = {name: [] for name in WAYS}, (3, 5, 9, 15)
    for k in kernels:
        x, w = torch.rand(4, 8, 64, 64), torch.randn(8, 8, k, k)
        answers = [way(x, w) for way in WAYS.values()]
        error = max(float((a - answers[0]).abs().max() / answers[0].abs().max()) for a in answers)
        item.claim(f"largest difference of the three ways, kernel {k}", error, below=1e-4)
        for name, way in WAYS.items():
            times[name].append(1000 * seconds(way, x, w, item.size(15, 7)))
    item.claim(
        "time of FFT / direct, kernel 3 (texts call FFT the way for small filters)",
        times["FFT"][0] / times["direct"][0],
        above=1.0,
    )

    fields = []
    for depth in range(1, 9):
        layers = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(depth)]
        fields.append(
            summarise(nn.Sequential(*layers), (4, 32, 32))["layers"][-1]["receptive_field"][0]
        )
    item.claim("receptive field of 8 layers of 3 x 3, pixels", fields[-1], above=16.5, below=17.5)
    figure, axes = panels(1, 3, 3.6, 3.0)
    axes[0].bar([0, 1], [2, dense], color=[COLOURS[0], COLOURS[1]])
    axes[0].set(
        xticks=[0, 1],
        xticklabels=["convolution", "dense"],
        ylabel="weights",
        title="edge detection, 320 x 280",
    )
    log_axis(axes[0], "y")
    for i, (name, found) in enumerate(times.items()):
        axes[1].plot(kernels, found, color=COLOURS[i], ls=DASHES[i], marker=MARKERS[i], label=name)
    log_axis(axes[1], "y", (1, 100))
    axes[1].set(
        xlabel="side of the kernel",
        ylabel="milliseconds",
        title="8 x 8 channels of 64 x 64",
        xticks=kernels,
    )
    axes[1].legend()
    axes[2].plot(range(1, 9), fields, color=COLOURS[0], marker="o")
    axes[2].set(
        xlabel="layers of 3 x 3", ylabel="receptive field in pixels", title="the field grows"
    )
    return figure
