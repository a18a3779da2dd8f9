"""Texts by class as people bring them: Ravine's one-liners against scikit-learn's words.

    python bench/own_classes.py [--seeds 3] [--minutes 1] [--only NAME,NAME] [--set FIELD=VALUE …]

As folders of text files, a folder a class, and as a table of texts and labels: who speaks in
Shakespeare's plays (needs RAVINE_DATA, or a download), which library a docstring is from, which
package of the standard library, short messages of a vocabulary of their own, the same with misspelt
words, and which library a name is from. A fifth is the test part; the table's test rows are others.
The rivals get the training and validation texts of the folder: words and their pairs weighed by
TF-IDF in a logistic regression whose penalty is cross-validated and in a linear support vector
machine, runs of two to five letters within words in another, and word counts in a naive Bayes
classifier.
``--set`` changes the folder's recipe. Printed: errors, the mean over the seeds, seconds of both
one-liners, and mean ranks.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from other_tables import edits_of
from own_data import chosen
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import ravine
from ravine.data.download import published
from ravine.data.download.cache import data_root
from ravine.starters.start import start

Labelled = list[tuple[str, str]]  # texts and their classes


# --- the sets -------------------------------------------------------------------------------------


def speakers(rng: np.random.Generator) -> Labelled:
    """Speeches of the eight who speak most in Tiny Shakespeare."""
    whole = published.shakespeare(data_root()).read_text(encoding="utf-8")
    speeches = re.findall(r"(?:^|\n\n)([A-Z][A-Za-z ]+):\n(.*?)(?=\n\n|\Z)", whole, re.S)
    speeches = [(text, name) for name, text in speeches if len(text) > 80]
    most = [name for name, _ in Counter(name for _, name in speeches).most_common(8)]
    return [one for one in speeches if one[1] in most]


def _docstrings(module: ModuleType, most: int) -> list[str]:
    """Of the functions and classes that a module shows, without the name of the module."""
    found = []
    for _, part in sorted(inspect.getmembers(module)):
        text = inspect.getdoc(part) if inspect.isroutine(part) or inspect.isclass(part) else None
        if text and len(text) > 80:
            found.append(re.sub(module.__name__.split(".")[0], "", text, flags=re.I)[:1500])
    return list(dict.fromkeys(found))[:most]


def libraries(rng: np.random.Generator) -> Labelled:
    """Docstrings of five libraries, at most 200 each."""
    modules = {
        "arrays": ("numpy",),
        "science": ("scipy.stats", "scipy.signal", "scipy.optimize", "scipy.special"),
        "frames": ("pandas", "pandas.api.extensions", "pandas.api.types"),
        "layers": ("torch.nn",),
        "operations": ("torch",),
    }
    return [
        (text, name)
        for name, parts in modules.items()
        for part in parts
        for text in _docstrings(importlib.import_module(part), 200 // len(parts))
    ]


def packages(rng: np.random.Generator) -> Labelled:
    """Docstrings of the standard library by package: a large class and small ones."""
    found = []
    for name in ("email", "asyncio", "unittest", "xml", "http", "logging", "importlib", "tkinter"):
        package = importlib.import_module(name)
        modules = [package]
        for one in pkgutil.walk_packages(package.__path__, f"{name}."):
            if "__main__" not in one.name and "windows" not in one.name:
                try:
                    modules.append(importlib.import_module(one.name))
                except Exception:
                    continue
        texts = {}
        for module in modules:
            for _, part in sorted(inspect.getmembers(module)):
                members = [part, *vars(part).values()] if inspect.isclass(part) else [part]
                for member in members:
                    if (getattr(member, "__module__", None) or "").split(".")[0] == name:
                        texts[inspect.getdoc(member) or ""] = None
        found += [(text, name) for text in texts if len(text) > 40]
    return found


def messages(rng: np.random.Generator, n: int = 900) -> Labelled:
    """Short messages of three topics whose words overlap; a twelfth of the labels is drawn at random."""
    words = np.array([f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nrst"])
    share = rng.dirichlet(np.full(len(words), 0.3), 3)
    common = rng.dirichlet(np.full(len(words), 0.3))
    found = []
    for _ in range(n):
        topic = int(rng.integers(3))
        drawn = rng.choice(words, rng.integers(6, 25), p=0.35 * share[topic] + 0.65 * common)
        label = topic if rng.random() > 1 / 12 else int(rng.integers(3))
        found.append((" ".join(drawn), ("bills", "parcels", "logins")[label]))
    return found


def misspelt(rng: np.random.Generator) -> Labelled:
    """Those messages, but three of five words have a letter changed, left out or put in."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))

    def slip(word: str) -> str:
        if rng.random() > 0.6:
            return word
        place, letter = int(rng.integers(len(word))), str(rng.choice(letters))
        kind = rng.integers(3)  # which letters stand there instead
        return word[:place] + ("", letter, letter + word[place])[kind] + word[place + 1 :]

    return [(" ".join(map(slip, text.split())), topic) for text, topic in messages(rng)]


def names(rng: np.random.Generator) -> Labelled:
    """Names that one of six libraries shows and no other."""
    libraries = ("numpy", "scipy.stats", "pandas", "torch", "sklearn.metrics", "asyncio")
    found = [
        (name, library)
        for library in libraries
        for name in dir(importlib.import_module(library))
        if not name.startswith("_")
    ]
    times = Counter(name for name, _ in found)
    return [one for one in found if times[one[0]] == 1]


SETS: dict[str, Callable[[np.random.Generator], Labelled]] = {
    "speakers": speakers,
    "libraries": libraries,
    "packages": packages,
    "messages": messages,
    "misspelt": misspelt,
    "names": names,
}


# --- the contest ----------------------------------------------------------------------------------


def rivals(seed: int) -> dict[str, BaseEstimator]:
    weighed = {"sublinear_tf": True, "ngram_range": (1, 2)}
    return {
        "logistic regression": make_pipeline(
            TfidfVectorizer(**weighed), LogisticRegressionCV(Cs=[1, 10, 100], cv=3, max_iter=300)
        ),
        "support vectors": make_pipeline(TfidfVectorizer(**weighed), LinearSVC(random_state=seed)),
        "letters": make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
            LinearSVC(random_state=seed),
        ),
        "naive Bayes": make_pipeline(CountVectorizer(), ComplementNB()),
    }


def write(folder: Path, parts: dict[str, Labelled]) -> Path:
    """FOLDER/PART/CLASS/N.txt."""
    for part, rows in parts.items():
        for place, (text, name) in enumerate(rows):
            file = folder / part / name / f"{place}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return folder


def own_error(data: Path, edits: dict, minutes: float | None, out: Path) -> tuple[float, float]:
    """The test error, and seconds with planning."""
    began = time.perf_counter()
    run = ravine.train(start(data, edits, minutes).recipe, out=out, quiet=True, doctor=False)
    return 1 - run.result["test_accuracy"], time.perf_counter() - began


def errors_on(name: str, seed: int, minutes: float | None, more: dict) -> list[float]:
    """Of the folder, of the table, of the rivals; and the seconds of the first two."""
    rng = np.random.default_rng([37, list(SETS).index(name), seed])
    rows = SETS[name](rng)
    rows = [rows[i] for i in rng.permutation(len(rows))]
    held = len(rows) // 5
    parts = {"test": rows[:held], "train": rows[held:]}
    edits = {"data.seed": seed, "seed": seed}
    table = {"data.source.target": "label", "data.test": 0.2}
    with tempfile.TemporaryDirectory() as folder:
        place, file = write(Path(folder) / name, parts), Path(folder) / f"{name}.csv"
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(file, index=False)
        own = own_error(place, edits | more, minutes, Path(folder) / "of-folder")
        of_table = own_error(file, edits | table, minutes, Path(folder) / "of-table")
    truth = np.array([label for _, label in parts["test"]])
    found = [own[0], of_table[0]]
    for model in rivals(seed).values():
        model.fit(*zip(*parts["train"], strict=True))
        found.append(float((model.predict([text for text, _ in parts["test"]]) != truth).mean()))
    return [*found, own[1], of_table[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--only", default="")
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    edits = edits_of(options)
    methods = ("folder", "table", *rivals(0))
    ranks = []
    for name in chosen(parser, options.only, SETS):
        each = [errors_on(name, seed, options.minutes, edits) for seed in range(options.seeds)]
        *errors, own, of_table = np.mean(each, axis=0)
        shown = [f"{m} {e:.3f}" for m, e in zip(methods, errors, strict=True)]
        print(f"{name:10s}", *shown, f"({own:.0f} s, {of_table:.0f} s)", sep="  ", flush=True)
        ranks.append([1 + sum(o < e for o in errors) for e in errors])
    shown = [f"{m} {r:.2f}" for m, r in zip(methods, np.mean(ranks, axis=0), strict=True)]
    print("mean rank:", *shown, sep="  ")


if __name__ == "__main__":
    main()
