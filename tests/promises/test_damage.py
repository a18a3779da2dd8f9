"""Any damage to any file of a run is named, or an older snapshot is used aloud; no number changes."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ravine
import trials
from ravine import Recipe
from ravine.engine.loop import loop
from ravine.errors import RavineError

DAMAGE = "Damage is found"
REGIONS = 64  # of each file
PARTS = 8  # of the matrix
DERIVED = ("report.html", ".writer", ".writer-process")  # nothing is read from them
X = np.linspace(-3, 3, 20).reshape(10, 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run as a kill leaves it, its log of rows (WAL) included, and one that has ended."""
    folder, saves = tmp_path_factory.mktemp("damage"), []
    save = loop.TrainingLoop.save

    def copied(self):
        save(self)
        saves.append(1)
        if len(saves) == 4:
            shutil.copytree(folder / "ended", folder / "killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        patch.setattr(loop.TrainingLoop, "save", copied)
        ravine.train_many([Recipe(**trials.ONE)], out=folder / "ended", quiet=True)
    return {"killed": folder / "killed", "ended": folder / "ended"}


def outcome(place: Path) -> list:
    """All that a run comes to."""
    (run,) = ravine.resume(place, quiet=True)
    return [trials.numbers(place), run.predict(X).tolist(), run.evaluate()]


def files(place: Path) -> list[Path]:
    found = (path for path in sorted(place.rglob("*")) if path.is_file())
    return [path.relative_to(place) for path in found if path.name not in DERIVED
            and not path.name.endswith("-shm")]  # fmt: skip


def places(content: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Regions of a file: equal parts, and in JSON each value of a field."""
    size, parts = len(content), min(REGIONS, len(content))
    yield from ((part * size // parts, (part + 1) * size // parts) for part in range(parts))
    if name.endswith(".json"):
        at = 0
        for line in content.splitlines(keepends=True):
            value = line.rstrip(b",\n")
            if value.strip() not in (b"{", b"}", b"[", b"]", b""):
                yield at + max(0, value.rfind(b" ")), at + len(value)
            at += len(line)


def damages(place: Path, every: int, part: int) -> Iterator[tuple[str, Path, bytes]]:
    """Each damage: what it is, the file, its new content; of all of them one in ``every``."""
    draw = random.Random(part)
    for file in files(place):
        content = (place / file).read_bytes()
        for number, (first, last) in enumerate(places(content, file.name)):
            if number % every == part and last > first:
                at = draw.randrange(first, last)
                changed = bytearray(content)
                changed[at] ^= 1 << draw.randrange(8)
                yield f"{file}: a bit of byte {at}", file, bytes(changed)
        for cut in range(part, 64, every):
            size = cut * len(content) // 64
            yield f"{file}: cut to {size} bytes", file, content[:size]


def judged(sound: list, place: Path, file: Path) -> str:
    """Empty where the damage was named, or changed nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            same = outcome(place) == sound
        except RavineError as error:
            named = any(part in str(error) for part in (file.name, file.parent.name, str(place)))
            return "" if named else f"not named: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    said = [str(one.message) for one in caught]
    if not same:
        return "a silent change" if not said else f"another outcome: {said}"
    aloud = any("an older snapshot is used" in text and file.parent.name in text for text in said)
    return "" if aloud or not said else f"unclear: {said}"


def damaged(runs, folder: Path, kind: str, every: int, part: int = 0) -> tuple[int, list[str]]:
    shutil.copytree(runs[kind], folder / "sound")
    sound, count, wrong = outcome(folder / "sound"), 0, []
    for name, file, content in damages(runs[kind], every, part):
        place = folder / "run"
        shutil.copytree(runs[kind], place)
        (place / file).write_bytes(content)
        count += 1
        if text := judged(sound, place, file):
            wrong.append(f"{kind} {name}: {text}")
        shutil.rmtree(place)
    return count, wrong


@pytest.mark.parametrize("kind", ["killed", "ended"])
def test_some_damage_is_found(runs, tmp_path, kind):
    count, wrong = damaged(runs, tmp_path, kind, 60)
    assert not wrong
    assert count > 10


def test_undamaged_json_has_fields(runs):
    content = (runs["ended"] / "recipe.json").read_bytes()
    spans = list(places(content, "recipe.json"))[REGIONS:]
    assert len(spans) > 100
    assert json.loads(content)["created"].encode() in [content[a:b].strip(b' "') for a, b in spans]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", ["killed", "ended"])
def test_damage_anywhere_is_found(runs, tmp_path, counted, kind, part):
    """A bit flipped in each 1/64 of every file of a killed and of an ended run and in every field of its JSON,
    and every file cut at each 1/64: the file is named, or an older snapshot is used aloud, or no number differs.

    Broken: a snapshot without the average's weights (an older one then ends elsewhere).
    """
    count, wrong = damaged(runs, tmp_path, kind, PARTS, part)
    counted(DAMAGE, count, count - len(wrong), wrong)
