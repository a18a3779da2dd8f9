"""Filters, the patches that excite them most, and receptive fields that grow.

Claim: A unit of the second convolution sees more of the image than one of the first; patches of the digits that excite
a unit most look more alike than patches drawn at random; the receptive field grows by two pixels for each layer of
3 x 3 and doubles its growth after pooling, as gradients confirm pixel by pixel.

To see it fail: ``TRAINED = "1it"``: filters that have learnt nothing prefer little.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, panels
from ravine.nn.analysis.layer_table import summarise
from ravine.study.features.study import exciting

TRAINED, DEPTH = "8ep", 6
CONVOLUTION = {"kind": "conv", "kernel": 3, "padding": "same"}


def field_by_gradient(net, shape):
    """The rows of the input on which the middle unit of the last map depends."""
    x = torch.rand(1, *shape, requires_grad=True)
    y = net(x)
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    return int((x.grad[0].abs().amax((0, 2)) > 0).sum())


def stack(depth, pooled):
    """So many layers of 3 x 3 with positive weights, pooled by two after the second or not."""
    layers = []
    for i in range(depth):
        layers.append(nn.Conv2d(1, 1, 3, padding=1))
        nn.init.uniform_(layers[-1].weight, 0.1, 1)
        layers += [nn.AvgPool2d(2)] if pooled and i == 1 else []
    return nn.Sequential(*layers)


def alike(patches):
    """The mean correlation of two patches of one size."""
    rows = np.array([p.ravel() for p in patches if p.shape == patches[0].shape])
    rows = rows[rows.std(1) > 1e-6]
    values = np.corrcoef(rows)
    return (values.sum() - len(rows)) / (len(rows) * (len(rows) - 1))


def draw(item):
    fields = {"3 x 3": [], "pooled after two": []}
    wrong = 0
    for name, pooled in zip(fields, (False, True), strict=True):
        for depth in range(1, DEPTH + 1):
            net = stack(depth, pooled)
            found = summarise(net, (1, 64, 64))["layers"][-1]["receptive_field"][0]
            wrong += int(found != field_by_gradient(net, (1, 64, 64)))
            fields[name].append(found)
    item.claim("receptive fields that gradients do not confirm", wrong, below=0.5)
    item.claim(
        f"receptive field of {DEPTH} layers of 3 x 3, pixels",
        fields["3 x 3"][-1],
        above=12.5,
        below=13.5,
    )

    seeds = range(item.size(10, 8))
    layers = [
        {**CONVOLUTION, "channels": 8},
        "relu",
        {"kind": "maxpool", "size": 2},
        {**CONVOLUTION, "channels": 16},
        "relu",
        "flatten",
        {"kind": "dense", "units": 10},
    ]
    recipe = ravine.Recipe(
        model={"layers": layers},
        data={"source": "digits", "batch": 32, "preprocess": ["rescale"]},
        optimizer={"kind": "adam", "lr": 0.005},
        stop={"after": TRAINED},
    )
    runs = ravine.train_many([recipe.edit({"seed": s}) for s in seeds], out=item.out(), quiet=True)
    images = load_digits().images[:1000, None].astype(np.float32)
    seen = []
    for run in runs:
        layer = dict(run.model.named_modules())["3"]
        seen.append(exciting(run.model, layer, run.pipeline.transform(images).float(), 16, 9))
    random = np.random.default_rng(0)
    gain = []
    for one in seen:
        likes = [alike([np.array(p) for p in unit["patches"]]) for unit in one]
        mixed = [np.array(unit["patches"][k]) for unit in one for k in range(9)]
        random.shuffle(mixed)
        whole = [p for p in mixed if p.shape == mixed[0].shape]
        gain.append(np.nanmean(likes) - alike(whole))
    item.claim("likeness (correlation) of one unit's patches minus of all units'", gain, above=0.0)

    figure, axes = panels(1, 3, 3.6, 3.2)
    first = next(iter(runs[0].model.parameters())).detach().numpy()  # [8, 1, 3, 3]
    sheet = _sheet([one[0] for one in first], 4)
    axes[0].imshow(sheet, cmap="gray")
    axes[0].set_title("8 filters of the first layer, 3 x 3")
    rows = [
        _sheet([np.array(p)[0] for p in unit["patches"][:6]], 6, side=8) for unit in seen[0][:6]
    ]
    axes[1].imshow(np.concatenate(rows), cmap="gray")
    axes[1].set_title("second layer: a row a unit, most exciting first", fontsize=9)
    for box in axes[:2]:
        box.set(xticks=[], yticks=[])
        box.grid(False)
        box.spines[:].set_visible(False)
    for i, (name, values) in enumerate(fields.items()):
        axes[2].plot(
            range(1, DEPTH + 1),
            values,
            color=COLOURS[i],
            ls=DASHES[i],
            marker=MARKERS[i],
            label=name,
        )
    axes[2].set(
        xlabel="layers of 3 x 3",
        ylabel="receptive field in pixels",
        title="the field grows",
        yticks=range(3, 24, 4),
    )
    axes[2].legend()
    return figure


def _sheet(images, columns, side=None):
    """Images beside one another, each scaled to its own range, with a margin of one pixel."""
    side = side or max(max(image.shape) for image in images)
    tiles = []
    for image in images:
        tile = np.full((side + 1, side + 1), 0.5)  # grey between them
        image = image[:side, :side].astype(float)
        tile[: image.shape[0], : image.shape[1]] = (image - image.min()) / (np.ptp(image) or 1)
        tiles.append(tile)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)
