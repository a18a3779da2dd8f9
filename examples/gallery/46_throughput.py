"""What a batch costs: samples a second, and what they buy.

Claim: A step on 256 samples takes far less than 256 times one sample's, so larger batches see more samples a second
until the arithmetic fills the machine; the gradient's noise falls only as 1/sqrt(B), so that for each sample the work
buys less and less.

To see it fail: a layer of one unit, ``WIDTH = 1``, and ``SIZES`` from 4096 on: the gain is over there.
"""

import time

import numpy as np
import torch
from torch import nn

from ravine.gallery.drawing import FAINT, MARKERS, band, log_axis, panels

SIZES, WIDTH, FEATURES = (1, 4, 16, 64, 256, 1024), 256, 64


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))


def gradient(net, x, y):
    loss = nn.functional.cross_entropy(net(x), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def draw(item):
    seeds = range(item.size(8, 5))
    rates, noise = np.zeros((len(seeds), len(SIZES))), np.zeros((len(seeds), len(SIZES)))
    for s in seeds:
        net, x = network(s), torch.randn(4096, FEATURES)
        y = (x @ torch.randn(FEATURES, 10)).argmax(1)
        whole = gradient(net, x, y)
        for k, size in enumerate(SIZES):
            gradient(net, x[:size], y[:size])
            count = max(3, 2048 // size // 4)
            parts = [torch.randint(0, 4096, (size,)) for _ in range(count)]
            begun = time.process_time()
            found = [gradient(net, x[rows], y[rows]) for rows in parts]
            rates[s, k] = count * size / max(time.process_time() - begun, 1e-6)
            errors = torch.stack([(g - whole).square().sum() for g in found])
            noise[s, k] = float(errors.mean().sqrt() / whole.norm())
    item.claim(
        "samples a second of processor time, batch 256 / 1",
        rates[:, 4] / rates[:, 0],
        above=5,
        timed=True,
    )
    gain = (rates[:, 5] / rates[:, 4]) / (rates[:, 1] / rates[:, 0])
    item.claim("gain of the last factor of 4 / of the first", gain, below=0.9, timed=True)
    slopes = [np.polyfit(np.log(SIZES[:5]), np.log(row[:5]), 1)[0] for row in noise]
    item.claim("exponent of the gradient's noise in B", slopes, above=-0.55, below=-0.45)

    figure, (speed, size) = panels(1, 2, 4.2, 3.1)
    band(speed, SIZES, rates, "measured", 0, marker=MARKERS[0])
    speed.plot(SIZES, rates[:, 0].mean() * np.array(SIZES), color=FAINT, ls=":", label="as B")
    band(size, SIZES, noise, "measured", 1, marker=MARKERS[1])
    size.plot(SIZES, noise[:, 0].mean() / np.sqrt(SIZES), color=FAINT, ls=":", label="as 1/sqrt(B)")
    for box in (speed, size):
        for axis in "xy":
            log_axis(box, axis)
        box.set_xlabel("samples in a batch, B")
        box.legend()
    speed.set(
        ylabel="samples a second of processor time",
        title=f"gradients of {FEATURES}-{WIDTH}-10 units",
        ylim=(rates.min() / 2, 3 * rates.max()),
    )
    size.set(ylabel="noise of the gradient / its size", title=f"{len(seeds)} networks")
    return figure
