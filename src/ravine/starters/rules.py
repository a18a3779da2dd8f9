"""The rules: which recipe an expert would begin with, from the facts of the data.

Each rule sets fields of the recipe by path and says why in one phrase; the phrases are written
beside the fields. Nothing here is fitted to one data set: the numbers are the usual ones of the
sources named, and `bench/own_data.py` measures them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LEAST_STEPS = 1000  # under which a plan is too short to judge anything
EPOCH_BATCHES = 10  # at least so many batches an epoch
SMALL_IMAGE = 32  # pixels of the longer side up to which images are taken as they are
MANY_ROWS = 10_000  # from which an ensemble gains less and costs more
LARGE_TABLE = 15_000  # rows from which a regression is trained without dropout and sees finer waves
TIED = 0.25  # of the targets are one number: from here on they are not made normal
SMALL_TEXT = 5000  # windows of a text under which a network sees each often enough to overfit
SHORT_TEXT = 64  # words, up to which a text says too little by whole words alone
WIDTHS = (128, 192, 256, 384, 512)  # of networks of texts
FEW_SYMBOLS = 256  # up to which an n-gram's table has rows enough
LARGE_IMAGE = 64  # the longer side of photographs on a processor
TUNED_IMAGE = 224  # the same for a network that was trained before, on photographs of this size
TUNED_STEPS = 300  # that fine-tuning needs at least


@dataclass(frozen=True)
class Facts:
    """What the rules know: of the training part, before anything is trained."""

    kind: str  # images, table, text, texts, sequences
    samples: int
    shape: tuple[int, ...]  # of one raw sample
    task: str  # classification, regression, multilabel, sequence
    outputs: int
    gray: bool = False
    sizes: tuple[int, int] | None = None  # (height, width) that images have by themselves
    device: str = "cpu"
    tied: float = 0.0  # the share of samples that have the most frequent target of a regression
    words: int = 0  # of a usual text, of texts by class


@dataclass
class Draft:
    """Fields by path, the reason of each, and what the plan may do with the length of the run."""

    fields: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    least_steps: int = LEAST_STEPS  # under which a plan is too short to judge anything
    wider_steps: int = 2 * LEAST_STEPS  # that a wider network must have, to be taken
    most_steps: int = 20_000  # more has no use for data of this size
    models: list[dict[str, Any]] = field(default_factory=list)  # from cheap to dear
    rate: Callable[[dict[str, Any]], float] | None = None  # of a model; none: one for all
    averaged: bool = False  # whether averaged weights are to be evaluated and kept

    def set(self, path: str, value: Any, why: str) -> None:
        self.fields[path], self.why[path] = value, why


def draft(facts: Facts) -> Draft:
    """The fields for these facts, all but the length of the run.

    >>> made = draft(Facts("images", 300, (3, 64, 64), "classification", 3))
    >>> made.fields["data.batch"], made.models[0]["kind"]
    (16, 'resnet9')
    """
    made = Draft()
    batch = batch_of(facts.samples)
    made.set("data.batch", batch, _why_batch(facts.samples, batch))
    RULES[facts.kind](facts, made)
    return made


def batch_of(samples: int, most: int = 128) -> int:
    """A power of two from 8 to ``most`` that leaves at least EPOCH_BATCHES an epoch.

    >>> [batch_of(n) for n in (5, 50, 300, 1000, 60000)]
    [5, 8, 16, 64, 128]
    """
    return min(
        max(1, samples), max(8, min(most, 2 ** int(math.log2(max(8, samples / EPOCH_BATCHES)))))
    )


def _why_batch(samples: int, batch: int) -> str:
    return f"{math.ceil(samples / batch)} batches an epoch of {samples:,} samples"


# --- one rule for each kind of data ---------------------------------------------------------------


def images(facts: Facts, made: Draft) -> None:
    """A residual network from scratch; augmentation, label smoothing and averaged weights against
    overfitting (Page, 2018; Szegedy et al., 2016; Loshchilov and Hutter, 2017)."""
    height, width = facts.shape[-2:]
    made.set(
        "data.preprocess",
        [{"kind": "standardize", "per": "channel"}],
        "mean 0, deviation 1 a channel",
    )
    shift = max(1, round(max(height, width) / 8))
    augment: list[dict[str, Any]] = [{"kind": "crop", "padding": shift, "fill": "reflect"}]
    why = f"random shifts by up to {shift} pixels"
    if not facts.gray:
        augment.append({"kind": "flip"})
        augment.append({"kind": "brightness", "amount": 0.1})
        augment.append({"kind": "contrast", "amount": 0.2})
        why += ", mirror images, brightness and contrast, as photographs differ"
    made.set("data.augment", augment, why)
    # Half the batch: with few pictures more steps are worth more than less noise in each.
    batch = min(max(16, batch_of(facts.samples // 2)), facts.samples)
    made.set("data.batch", batch, _why_batch(facts.samples, batch))
    made.models = [{"kind": "resnet9", "width": width} for width in (8, 16, 32, 64)]
    _classified(facts, made)
    _adamw(made, lr=3e-3, decay=0.05)
    made.averaged = True
    made.wider_steps = 4 * LEAST_STEPS
    made.most_steps = max(
        2 * LEAST_STEPS, 200 * math.ceil(facts.samples / made.fields["data.batch"])
    )


def table(facts: Facts, made: Draft) -> None:
    """An ensemble of perceptrons with embeddings (Holzmüller et al., 2024; Gorishniy et al., 2025)."""
    steps = [{"kind": "robust"}]
    why = "median and quartiles, far-off values held; answers come in units"
    if facts.task == "regression":
        bent = facts.tied < TIED
        kinds = ("yeo_johnson", "standardize") if bent else ("standardize",)
        steps += [{"kind": kind, "of": "targets"} for kind in kinds]
        if not bent:
            why += (
                f"; {facts.tied:.0%} of the targets are one number, so no power makes them normal"
            )
    made.set("data.preprocess", steps, why)
    made.models = [{"kind": "tabular", "members": 16 if facts.samples < MANY_ROWS else 8}]
    if facts.task == "regression" and facts.samples >= LARGE_TABLE:
        made.models[0] |= {"dropout": 0.0, "frequency": 0.5}
        why = (
            f"with {facts.samples:,} rows dropout costs more than it gives, and waves five times as"
        )
        made.why["model"] = f"{why} fine show steps and short periods"
    _classified(facts, made)
    optimizer = {"kind": "adamw", "lr": 0.04, "beta2": 0.95, "weight_decay": 0.02}
    made.set("optimizer", optimizer, "the rate that this network's parametrisation is made for")
    _cosine(made)
    made.most_steps = max(
        LEAST_STEPS, min(4000, 100 * math.ceil(facts.samples / made.fields["data.batch"]))
    )


def text(facts: Facts, made: Draft) -> None:
    """A recurrent network over characters and those before them (after Kim et al., 2016), with tables of
    n-grams beside it (Mikolov et al., 2011). In minutes on a processor it gets further than an LSTM
    alone, and that further than a transformer."""
    batch = batch_of(facts.samples, most=16)
    made.set("data.batch", batch, f"{math.ceil(facts.samples / batch)} batches an epoch of windows")
    symbols = facts.samples * math.prod(facts.shape)
    # A layer of LSTM has 8 units^2 weights: with more than symbols to learn from it learns them by heart.
    widths = [u for u in WIDTHS if u == WIDTHS[0] or 8 * u**2 <= symbols]
    shared: dict[str, Any] = {}
    why = []
    if facts.outputs <= FEW_SYMBOLS:
        shared["ngrams"] = [3, 4, 5]
        why.append("what the last 3 to 5 characters say is learnt by itself, in tables")
    if facts.samples < SMALL_TEXT:
        shared["dropout"] = 0.2
        why.append(f"dropout, as {facts.samples:,} windows are seen many times")
    made.models = [{"kind": "char_cnn_lstm", "units": units} | shared for units in widths]
    if why:
        made.why["model"] = "; ".join(why)
    made.rate = rate_of_text
    _adamw(made, lr=rate_of_text(made.models[0]), decay=0.1)
    made.why["optimizer"] = "the best rate falls with the width of the network"
    made.most_steps = max(2 * LEAST_STEPS, min(20_000, 40 * math.ceil(facts.samples / batch)))
    made.set("clip.norm", 1.0, "a rare large gradient must not undo the rest")


def rate_of_text(model: dict[str, Any]) -> float:
    """Recurrent networks of characters learn at high rates, the narrower the higher.

    >>> rate_of_text({"kind": "char_cnn_lstm", "units": 128}), rate_of_text({"kind": "gpt"})
    (0.015, 0.005)
    """
    recurrent = model["kind"].startswith("char_")
    return round(1.92 / model.get("units", 256), 4) if recurrent else 5e-3


def texts(facts: Facts, made: Draft) -> None:
    """Averaged vectors of words, about half of which are left out at random; of short texts those of
    subwords too (Joulin et al., 2017; Bojanowski et al., 2017; Iyyer et al., 2015)."""
    why = "half of the words are left out while it trains: each must say something alone"
    model: dict[str, Any] = {"kind": "word_bag", "units": 64, "word_dropout": 0.5}
    short = facts.words <= SHORT_TEXT
    if short:
        letters = f"texts of up to {facts.words} words are read by their letters too"
        made.set("data.source.subwords", True, letters)
        model |= {"units": 32, "word_dropout": 0.6}
        why = (
            "words and runs of letters within them, of which six in ten are left out while it trains: "
            "each must say something alone"
        )
    made.models = [model]
    made.why["model"] = why
    _adamw(made, lr=0.01, decay=0.01)
    if short:
        rare = "eps of 0.0003: what comes in few texts moves little, else it is learnt by heart"
        made.set("optimizer", made.fields["optimizer"] | {"eps": 3e-4}, rare)
    made.most_steps = max(
        2 * LEAST_STEPS, 60 * math.ceil(facts.samples / made.fields["data.batch"])
    )


def sequences(facts: Facts, made: Draft) -> None:
    """A recurrent network that reads steps or tokens (Cho et al., 2014)."""
    every_step = facts.task == "sequence"
    made.models = [{"kind": "char_gru" if every_step else "gru", "units": 64}]
    _adamw(made, lr=3e-3, decay=0.01)
    made.set("clip.norm", 1.0, "gradients through many steps can explode")


def tuned(facts: Facts, made: Draft, body: list[str], layers: int) -> None:
    """A network that was trained before, on other data: its new head first, then all of it, the
    first layers least (Howard and Ruder, 2018). ``body`` are patterns of all parameters but the
    head's."""
    made.set("start.freeze", body, "at first the new last layer learns alone")
    made.set("start.unfreeze", "20%", "then everything moves")
    decay = round(0.1 ** (1 / max(layers - 1, 1)), 4)
    why = f"of {layers} layers the first moves at a tenth of the last one's rate"
    made.set("start.depth_decay", decay, why)
    _adamw(made, lr=1e-3, decay=0.05)
    made.rate = None
    made.least_steps, made.wider_steps = TUNED_STEPS, 2 * TUNED_STEPS
    made.most_steps = max(
        2 * TUNED_STEPS, 30 * math.ceil(facts.samples / made.fields["data.batch"])
    )


RULES: dict[str, Callable[[Facts, Draft], None]] = {
    "images": images,
    "table": table,
    "text": text,
    "texts": texts,
    "sequences": sequences,
}


def _classified(facts: Facts, made: Draft) -> None:
    if facts.task == "classification" and facts.outputs > 1:
        loss = {"kind": "cross_entropy", "label_smoothing": 0.1}
        made.set(
            "loss", loss, "labels smoothed by 0.1: a network should not be certain of few samples"
        )


def _adamw(made: Draft, lr: float, decay: float) -> None:
    made.set("optimizer", {"kind": "adamw", "lr": lr, "weight_decay": decay}, "robust at this rate")
    _cosine(made)


def _cosine(made: Draft) -> None:
    made.set(
        "schedule",
        {"kind": "cosine", "warmup": "5%"},
        "warms up over the first steps and falls to 0 at the end of the plan",
    )
