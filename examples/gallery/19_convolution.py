"""Convolution: what weight sharing saves, and what moves with the input.

Claim: Edge detection on a 320 x 280 image needs 267,960 operations as a convolution, and as a dense matrix over 8
billion weights and 16 billion operations. A convolution moves with its input exactly; max pooling hides small moves in
part; neither knows rotation.

To see it fail: pad with zeros, ``MODE = "constant"``: at the border the moved answer differs.
"""

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn import functional as F

from ravine.gallery.drawing import COLOURS, HATCHES, log_axis, panels
from ravine.nn.analysis.layer_table import summarise

MODE = "circular"
HEIGHT, WIDTH = 280, 320


def changes(seed):
    """Relative changes: of a moved answer, of the answer by a move before and after pooling, by a turn."""
    torch.manual_seed(seed)
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    w = torch.randn(4, 3, 3, 3, dtype=torch.float64)

    def answer(z):
        return F.conv2d(F.pad(z, (1, 1, 1, 1), mode=MODE), w)

    def pooled(z):
        return F.max_pool2d(answer(z).relu(), 4)

    def apart(a, b):
        return float((a - b).norm() / b.norm())

    moved, turned = x.roll(1, -1), x.rot90(1, (-2, -1))
    return [
        apart(answer(moved), answer(x).roll(1, -1)),
        apart(answer(moved).relu(), answer(x).relu()),
        apart(pooled(moved), pooled(x)),
        apart(answer(turned), answer(x).rot90(1, (-2, -1))),
    ]


def draw(item):
    edge = nn.Conv2d(1, 1, (1, 2), bias=False)
    with torch.no_grad():
        edge.weight.copy_(torch.tensor([[[[-1.0, 1.0]]]]))
    # a difference takes two products and one sum; the counter counts two operations a product
    operations = summarise(edge, (1, HEIGHT, WIDTH))["flops"] * 3 / 4
    weights = HEIGHT * WIDTH * HEIGHT * (WIDTH - 1)
    item.claim(
        "operations of the convolution: 319 x 280 x 3", operations, above=267_959.5, below=267_960.5
    )
    item.claim(
        "weights of the dense matrix: 320 x 280 x 319 x 280, billions",
        weights / 1e9,
        above=8.0,
        below=8.01,
    )
    item.claim(
        "operations of the dense matrix / of the convolution, log10",
        np.log10(2 * weights / operations),
        above=4.7,
    )
    photograph = load_sample_image("china.jpg")[:HEIGHT, :WIDTH].mean(-1) / 255
    x = torch.tensor(photograph, dtype=torch.float32)[None, None]
    with torch.no_grad():
        edges = edge(x)[0, 0].numpy()
        wrong = np.abs(edges - np.diff(photograph, axis=1)).max()
    item.claim(
        "largest error of the convolution's edges against differences", float(wrong), below=1e-6
    )

    found = np.array([changes(seed) for seed in range(item.size(20, 8))])  # [S, 4]
    item.claim(
        "equivariance: convolution of a moved image against the moved convolution",
        found[:, 0],
        below=1e-12,
    )
    item.claim(
        "invariance: change by a move after pooling / before", found[:, 2] / found[:, 1], below=0.5
    )
    item.claim("rotation: the same for a turned image", found[:, 3], above=0.2)

    figure, axes = panels(2, 2, 4.3, 3.1)
    for box, image, name in zip(
        axes, (photograph, edges), ("a photograph", "right minus left neighbour"), strict=False
    ):
        box.imshow(image, cmap="gray", vmin=image.min() / 2, vmax=image.max() / 1.5)
        box.set_title(name)
        box.set_axis_off()
    for i, values in enumerate(((2, weights), (operations, 2 * weights))):
        axes[2].bar(
            np.array([0, 1]) + 0.2 * (2 * i - 1),
            values,
            0.38,
            color=COLOURS[i],
            label=("weights", "operations")[i],
            hatch=HATCHES[i],
            edgecolor="white",
        )
    log_axis(axes[2], "y")
    axes[2].set(
        xticks=[0, 1],
        xticklabels=["convolution", "dense"],
        ylabel="count",
        title=f"{WIDTH} x {HEIGHT} pixels",
    )
    axes[2].legend(loc="upper left")
    names = ("convolution,\nmoved back", "convolution", "after pooling", "turned,\nturned back")
    axes[3].bar(range(4), 100 * found.mean(0), color=[COLOURS[k] for k in (0, 0, 2, 3)])
    axes[3].set(
        xticks=range(4),
        ylabel="change of the answer in %",
        title="a move by one pixel; a turn by 90°",
    )
    axes[3].set_xticklabels(names, fontsize=8.5)
    return figure
