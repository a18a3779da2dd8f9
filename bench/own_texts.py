"""Texts as people bring them: Ravine's one-liner against the same minutes of ``char_lstm`` and ``gpt``.

    python bench/own_texts.py [--seeds 1] [--minutes 1] [--only NAME,NAME]

Three texts: Tiny Shakespeare (needs RAVINE_DATA, or a download), the documentation of this package, and a
generated one whose entropy is known: words of a random vocabulary, drawn by their frequencies alone.
Printed: nats a character on the last 10 % of the text, which were not trained on, and seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ravine
from ravine.catalogue import known
from ravine.data.download import published
from ravine.data.download.cache import data_root
from ravine.starters.start import start

LETTERS = "abcdefghijklmnop"
WORDS, LENGTH = 300, 60_000  # of the generated text: its vocabulary, its words
RIVALS = ("char_lstm", "gpt")  # the first with the starter's rate for its width
METHODS = ("ravine", *RIVALS)


def shakespeare() -> tuple[str, float | None]:
    return published.shakespeare(data_root()).read_text(encoding="utf-8"), None


def documentation() -> tuple[str, float | None]:
    """The docstrings of every technique."""
    from ravine.catalogue import FILES

    return "\n\n".join(row.doc for kind in FILES for row in known(kind).values()), None


def generated() -> tuple[str, float | None]:
    """Words drawn by Zipf's law, and the entropy of a character.

    No word begins as another one ends: a space marks its end, so a model that knows the words has
    nothing left to learn but which comes next.
    """
    rng = np.random.default_rng(5)
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(rng.choice(list(LETTERS), rng.integers(3, 9)))] = None
    share = 1 / np.arange(1, WORDS + 1)
    share /= share.sum()
    text = " ".join(rng.choice(list(words), LENGTH, p=share))
    entropy = float(-(share * np.log(share)).sum())
    characters = float(sum(p * (len(w) + 1) for p, w in zip(share, words, strict=True)))
    return text, entropy / characters


TEXTS: dict[str, Callable[[], tuple[str, float | None]]] = {
    "shakespeare": shakespeare,
    "documentation": documentation,
    "generated": generated,
}


def test_loss(place: Path, edits: dict, minutes: float, out: Path) -> tuple[float, float]:
    """Nats a character, and seconds with planning."""
    began = time.perf_counter()
    recipe = start(place, edits, minutes).recipe
    run = ravine.train(recipe, out=out, quiet=True, doctor=False)
    return run.result["test_loss"], time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for name in options.only.split(",") if options.only else TEXTS:
        content, least = TEXTS[name]()
        rows = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / f"{name}.txt"
                place.write_text(content, encoding="utf-8")
                edits = {"data.test": 0.1, "data.seed": seed, "seed": seed}
                found = [test_loss(place, edits, options.minutes, Path(folder) / "own")]
                for rival in RIVALS:
                    more = edits | {"model": rival}
                    found.append(test_loss(place, more, options.minutes, Path(folder) / rival))
                rows.append(found)
        means = np.mean(rows, axis=0)  # [methods, 2]
        shown = [f"{m} {loss:.3f} ({t:.0f} s)" for m, (loss, t) in zip(METHODS, means, strict=True)]
        print(f"{name:14s}", *shown, f"possible {least:.3f}" if least else "", sep="  ", flush=True)


if __name__ == "__main__":
    main()
