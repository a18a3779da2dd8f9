"""The flow chart of bias and variance, on four planted situations.

Claim: ``ravine advise`` compares training and validation errors with what people reach and names what is wrong: a model
too weak has high bias, one that knows too few samples by heart high variance, training stopped early high bias and the
advice to train longer; of a sound run it names neither.

To see it fail: give the memorising network all the samples (``FEW = 120`` of each class): its variance is gone.
"""

import numpy as np
from sklearn.datasets import load_digits

import ravine
from ravine.gallery.drawing import COLOURS, HATCHES, panels

FEW, HUMAN = 6, 0.04  # samples of each class; the error that people are taken to have
BIG = {"kind": "mlp", "hidden": [128]}
WEAK = {"layers": [{"kind": "dense", "units": 1}, "tanh", {"kind": "dense", "units": 10}]}
SITUATIONS = {  # model, samples of each class, length, what is wrong
    "sound": (BIG, 120, "25ep", None),
    "model too weak": (WEAK, 120, "25ep", "high bias"),
    "too few samples": (BIG, FEW, "1000it", "high variance"),
    "stopped early": (BIG, 120, "1ep", "high bias"),
}


def advice(item, name, seed):
    """What ``ravine advise`` says of one run of this situation."""
    model, samples, after, _ = SITUATIONS[name]
    x, y = load_digits(return_X_y=True)
    x, rows = x.astype(np.float32) / 16, np.random.default_rng(seed).permutation(len(y))
    part = np.concatenate([rows[:1250][y[rows[:1250]] == c][:samples] for c in range(10)])
    data = {"train": (x[part], y[part]), "validation": (x[rows[1250:]], y[rows[1250:]])}
    recipe = ravine.Recipe(
        model=model,
        data={"batch": 30},
        optimizer={"kind": "adam", "lr": 0.003},
        stop={"after": after},
        seed=seed,
    )
    options = {"data": data, "quiet": True}
    run = ravine.train(recipe, out=item.out(f"{name} {seed}"), doctor=False, **options)
    return ravine.advise(run, human=HUMAN, out=item.out(f"advice {name} {seed}"), **options)


def largest(found):
    """The gap with the larger share of those that the advice names: high bias, high variance, or None."""
    gaps = {
        step["problem"].partition(":")[0]: float(step["share"].rstrip(" %"))
        for step in found["next"]
        if "share" in step
    }
    return max(gaps, key=gaps.__getitem__) if gaps else None


def draw(item):
    seeds = range(item.size(8, 4))
    found = {name: [advice(item, name, s) for s in seeds] for name in SITUATIONS}
    for name, (*_, wrong) in SITUATIONS.items():
        right = [100.0 * (largest(one) == wrong) for one in found[name]]
        item.claim(f"{name}: named {wrong or 'neither'}, % of the seeds", right, above=50)
    longer = [any("rain longer" in s["do"] for s in one["next"]) for one in found["stopped early"]]
    item.claim(
        "stopped early: told to train longer, % of the seeds", 100.0 * np.array(longer), above=50
    )
    gaps = {name: _gaps(ones) for name, ones in found.items()}  # {situation: [2, S]}
    for name, k in (("model too weak", 0), ("too few samples", 1), ("stopped early", 0)):
        text = f"{name}: its gap minus the other, points"
        item.claim(text, gaps[name][k] - gaps[name][1 - k], above=0)

    figure, (axes,) = panels(1, 1, 5.4, 3.2)
    places = np.arange(len(SITUATIONS))
    labels = (
        "bias: training error over what people reach",
        "variance: validation over training error",
    )
    for k, (shift, label) in enumerate(zip((-0.17, 0.17), labels, strict=True)):
        values = np.array([one[k] for one in gaps.values()])  # [situations, S]
        style = {"color": COLOURS[k], "hatch": HATCHES[k], "edgecolor": "white"}
        axes.bar(places + shift, values.mean(1), 0.32, label=label, **style)
        for place, row in zip(places, values, strict=True):
            axes.plot([place + shift] * len(seeds), row, "o", color=COLOURS[k], mec="white", ms=4)
    axes.set(xticks=places, xticklabels=SITUATIONS, ylabel="percentage points", ylim=(0, 110))
    axes.set_title(f"digits, human error {100 * HUMAN:.0f} %, {len(seeds)} seeds")
    axes.legend(loc="upper left")
    return figure


def _gaps(found):
    """Bias and variance in points [2, S]; a gap below zero is none."""
    return 100 * np.array([[one[k] for one in found] for k in ("bias", "variance")]).clip(0)
