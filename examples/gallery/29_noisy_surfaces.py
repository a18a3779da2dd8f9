"""The surface that a step sees: the loss of one minibatch.

Claim: Every minibatch has a loss surface of its own, so the measured loss changes from step to step though the
weights hardly move; the spread of its minima along a line falls with the batch as 1/sqrt(B).

To see it fail: ``NOISE = 0.0``: all samples then agree on the minimum.
"""

import numpy as np

from ravine.gallery.drawing import COLOURS, FAINT, MARKERS, log_axis, panels

NOISE, SIZES = 1.0, (4, 16, 64, 256)


def draw(item):
    line = np.linspace(-2, 2, 81)
    slopes, minima = [], {}
    for seed in range(item.size(20, 8)):
        random = np.random.default_rng(seed)
        x = random.normal(size=4096)
        y = 0.5 * x + random.normal(0, NOISE, 4096)
        for size in SIZES:
            rows = random.integers(0, 4096, (400, size))
            minima[size] = (x[rows] * y[rows]).sum(1) / (x[rows] ** 2).sum(
                1
            )  # of the batch's squared loss
        spread = [minima[size].std() for size in SIZES]
        slopes.append(np.polyfit(np.log(SIZES[1:]), np.log(spread[1:]), 1)[0])
    item.claim("exponent of the minima's spread in B", slopes, above=-0.6, below=-0.4)
    item.claim("spread of the minima, 4 / 256 samples", spread[0] / spread[-1], above=5)

    figure, axes = panels(1, 3, 3.6, 3.1)
    whole = ((y[:, None] - x[:, None] * line) ** 2).mean(0)
    for box, size in zip(axes, (4, 64), strict=False):
        for i, part in enumerate(random.integers(0, 4096, (8, size))):
            loss = ((y[part, None] - x[part, None] * line) ** 2).mean(0)
            box.plot(line, loss, color=COLOURS[0], lw=0.8, label="one batch" if i == 0 else None)
            box.plot(
                line[loss.argmin()],
                loss.min(),
                "v",
                color=COLOURS[1],
                ms=5,
                label="its minimum" if i == 0 else None,
            )
        box.plot(line, whole, color=FAINT, lw=2.5, label="all samples")
        box.set(xlabel="a weight", ylabel="loss", title=f"8 batches of {size}", ylim=(0, 8))
        box.legend(loc="upper center")
    axes[2].plot(SIZES, spread, color=COLOURS[1], marker=MARKERS[0], label="measured")
    axes[2].plot(
        SIZES, spread[-1] * np.sqrt(256 / np.array(SIZES)), color=FAINT, ls=":", label="1/sqrt(B)"
    )
    log_axis(axes[2], "x")
    log_axis(axes[2], "y")
    axes[2].set(
        xlabel="samples in a batch, B", ylabel="deviation of the minima", title="400 batches each"
    )
    axes[2].legend()
    return figure
