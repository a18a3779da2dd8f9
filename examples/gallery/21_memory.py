"""Recurrent memory: adding and copying by length, for RNN, LSTM and GRU.

Claim: On short sequences all three learn to add the two marked numbers; on long ones the better of LSTM and GRU still
does, and the plain recurrent network stays at the error of always answering 1. Copying symbols over blanks shows the
same: over two blanks they learn, over ten the plain network stays at a guess and the better of LSTM and GRU does not.

To see it fail: ``LENGTHS = (4, 8)`` and ``DELAYS = (1, 2)``: short sequences need no gates.
"""

import numpy as np

import ravine
from ravine.gallery.drawing import COLOURS, DASHES, FAINT, MARKERS, panels

LENGTHS, DELAYS, SYMBOLS = (5, 15, 40), (2, 5, 10), 3
KINDS = ("rnn", "lstm", "gru")
GUESS = {"adding": 1 / 6, "copying": SYMBOLS * np.log(8)}  # squared error; loss of a sequence


def losses(item, sources, model, seeds, epochs):
    """Validation losses [sources, kinds, seeds]."""
    found = []
    for source in sources:
        recipe = ravine.Recipe(
            data={"source": source, "batch": 50},
            optimizer={"kind": "adam", "lr": 0.01},
            clip={"norm": 1.0},
            stop={"after": f"{epochs}ep"},
        )
        runs = ravine.train_many(
            [recipe.edit({"model": model(kind), "seed": s}) for kind in KINDS for s in seeds],
            out=item.out(f"{source['kind']} {len(found)}"),
            quiet=True,
        )
        found.append([run.result["val_loss"] for run in runs])
    return np.array(found).reshape(len(sources), len(KINDS), -1)


def remembering(kind):
    """A network that answers at every step."""
    cell = {"kind": kind, "units": 32, "output": "all"}
    return {"layers": [{"kind": "embedding", "size": 8}, cell, {"kind": "dense", "units": 11}]}


def draw(item):
    seeds = range(item.size(4, 3))
    lengths, delays = item.size(LENGTHS, LENGTHS[::2]), item.size(DELAYS, DELAYS[::2])
    adding = [{"kind": "adding", "length": n, "samples": 4000} for n in lengths]
    added = losses(item, adding, lambda kind: {"kind": kind, "units": 24}, seeds, item.size(20, 10))
    added /= GUESS["adding"]
    copying = [{"kind": "copying", "symbols": SYMBOLS, "delay": n, "samples": 3000} for n in delays]
    copied = losses(item, copying, remembering, seeds, 12)
    steps = 2 * SYMBOLS + np.array(delays)  # the loss is a mean over them
    copied *= steps[:, None, None] / GUESS["copying"]
    text = f"adding: error / always answering 1, {lengths[0]} steps, worst kind"
    item.claim(text, added[0].max(0), below=0.5)
    item.claim(f"the same, {lengths[-1]} steps, plain RNN", added[-1, 0], above=0.5)
    item.claim("the better of LSTM and GRU", added[-1, 1:].min(0), below=0.4)
    text = f"copying: loss / a guess, {delays[0]} blanks, mean of the kinds"
    item.claim(text, copied[0].mean(0), below=0.7)
    item.claim(f"the same, {delays[-1]} blanks, plain RNN", copied[-1, 0], above=0.9)
    item.claim("the better of LSTM and GRU", copied[-1, 1:].min(0), below=0.7)

    figure, boxes = panels(1, 2, 4.2, 3.3)
    tasks = (
        (added, lengths, "adding two marked numbers", "steps of a sequence", "squared error"),
        (copied, delays, f"copying {SYMBOLS} symbols", "blanks to wait", "cross-entropy"),
    )
    for box, (values, where, title, name, unit) in zip(boxes, tasks, strict=True):
        for k, kind in enumerate(KINDS):
            style = {"color": COLOURS[k], "ls": DASHES[k], "marker": MARKERS[k]}
            box.plot(where, values[:, k].mean(-1), label=kind.upper(), **style)
            low, high = values[:, k].min(-1), values[:, k].max(-1)
            box.fill_between(where, low, high, color=COLOURS[k], alpha=0.15, linewidth=0)
        box.axhline(1, color=FAINT, ls=":")
        box.set(xlabel=name, ylabel=f"{unit} / that of a guess", xticks=where, ylim=(0, 1.4))
        box.set_title(f"{title}, {len(seeds)} seeds")
        box.legend(loc="upper left", ncols=3)
    return figure
