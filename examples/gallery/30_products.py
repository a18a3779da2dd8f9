"""Products of the layers' matrices: why gradients explode or vanish.

Claim: The singular values of a product of random matrices drift apart with depth: at Xavier's scale the largest stays
near its size while the middle one dies, a little larger scale explodes; orthogonal matrices keep all at 1.

To see it fail: ``DEPTHS = range(1, 3)``: two layers hardly differ from one.
"""

import numpy as np

from ravine.gallery.drawing import COLOURS, DASHES, MARKERS, log_axis, panels

WIDTH, DEPTHS = 50, range(1, 41)
ARMS = {"Xavier x 0.5": 0.5, "Xavier": 1.0, "Xavier x 1.5": 1.5, "orthogonal": None}


def matrices(scale, random):
    for _ in DEPTHS:
        w = random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
        yield w * scale if scale else np.linalg.qr(w)[0]


def draw(item):
    seeds = range(item.size(20, 8))
    found = {}
    for name, scale in ARMS.items():
        runs = []
        for seed in seeds:
            product, values = np.eye(WIDTH), []
            for w in matrices(scale, np.random.default_rng(seed)):
                product = w @ product
                values.append(np.linalg.svd(product, compute_uv=False))
            runs.append(values)
        found[name] = np.array(runs)  # [S, depth, WIDTH]
    last = {name: values[:, -1] for name, values in found.items()}
    item.claim(
        "log10 of the largest after 40 layers, Xavier x 0.5",
        np.log10(last["Xavier x 0.5"][:, 0]),
        below=-6,
    )
    item.claim("log10 of the largest, Xavier x 1.5", np.log10(last["Xavier x 1.5"][:, 0]), above=4)
    middle = np.log10(last["Xavier"][:, WIDTH // 2] / last["Xavier"][:, 0])
    item.claim("log10 of the middle / the largest, Xavier", middle, below=-3)
    item.claim(
        "largest distance from 1, orthogonal", np.abs(last["orthogonal"] - 1).max(1), below=1e-10
    )

    figure, (axes,) = panels(1, 1, 5.4, 3.6)
    for i, (name, values) in enumerate(found.items()):
        for k, label in ((0, name), (WIDTH // 2, None)):
            mean = np.exp(np.log(values[:, :, k] + 1e-300).mean(0))
            axes.plot(
                DEPTHS,
                mean,
                color=COLOURS[i],
                ls=DASHES[0 if k == 0 else 1],
                marker=MARKERS[i],
                markevery=(2 * i, 8),
                ms=5,
                label=label,
            )
    log_axis(axes, "y")
    axes.plot([], [], color=COLOURS[6], ls=DASHES[1], label="dashed: the middle one")
    axes.set(xlabel="layers multiplied", ylabel="singular value", ylim=(1e-20, 1e12))
    axes.set_title(f"largest (solid) and middle (dashed) singular value, {len(seeds)} draws")
    axes.legend(loc="lower left", ncols=2)
    return figure
