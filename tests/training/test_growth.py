"""What a command costs grows with its work and no faster: counted in calls of functions, which no
busy machine changes. ``bench/growth.py`` measures seconds and memory at larger sizes."""

import cProfile
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ravine.data.tables import load
from ravine.engine.run import Run
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.training.train import train_many

BLOBS = {"source": {"kind": "blobs"}}


def calls(work: Callable[[], Any]) -> int:
    """Functions that Python calls while it works."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats())


def exponent(costs: dict[int, int]) -> float:
    """Of the part that grows: ``a + b n^e`` through three sizes, each three times the last."""
    one, two, three = (costs[size] for size in sorted(costs))
    return math.log((three - two) / (two - one)) / math.log(3)


def train(members: int, place: Path) -> list[Run]:
    fixed = {"model": {"kind": "softmax"}, "data": BLOBS, "stop": {"after": "2it"}}
    recipes = [Recipe(seed=seed, **fixed) for seed in range(members)]
    return train_many(recipes, out=place, quiet=True)


def test_training_grows_with_its_members(tmp_path: Path) -> None:
    train(2, tmp_path / "first")  # what is imported late
    costs = {n: calls(lambda n=n: train(n, tmp_path / str(n))) for n in (3, 9, 27)}
    assert exponent(costs) < 1.1


def test_programs_are_as_many_as_their_work(tmp_path: Path) -> None:
    def several(count: int) -> None:
        recipes = [
            Recipe(model={"kind": "mlp", "hidden": (4 + i,)}, data=BLOBS, stop={"after": "2it"})
            for i in range(count)
        ]
        train_many(recipes, out=tmp_path / f"programs{count}", quiet=True)

    several(1)
    assert exponent({n: calls(lambda n=n: several(n)) for n in (2, 6, 18)}) < 1.1


def test_members_share_one_opened_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    first = RunDir.open
    monkeypatch.setattr(RunDir, "open", lambda path: opened.append(path) or first(path))
    runs = train(5, tmp_path / "run")
    assert len(opened) == 2  # as it is made, and for all its members
    assert [run.member for run in runs] == list(range(5))
    alone = Run(tmp_path / "run", 3)
    assert (alone.theta == runs[3].theta).all()
    assert alone.result == runs[3].result
    assert len(opened) == 3


def test_a_table_is_read_by_few_calls_a_cell(tmp_path: Path) -> None:
    """Columns are read as wholes: what each further row costs is a few calls a cell of text, and
    none a number."""
    rng = np.random.default_rng(0)

    def written(rows: int) -> Path:
        path = tmp_path / f"{rows}.csv"
        days = rng.integers(1, 29, rows)
        lines = [
            f"{i};{x:.4f};{x * 3000:,.2f};$ {abs(x):.2f};2020-02-{day:02d} 10:{day:02d}:00;{'ab'[day % 2]}"
            for i, (x, day) in enumerate(zip(rng.normal(size=rows), days, strict=True))
        ]
        path.write_text("\n".join(["id;x;price;paid;when;y", *lines]))
        return path

    def cost(path: Path) -> int:
        return calls(lambda: load.from_csv(path, "y", "auto", "one_hot", (), {}))

    small, large = written(1000), written(4000)
    cost(small)
    assert (cost(large) - cost(small)) / 3000 / 5 < 4
