"""The scripts of the gallery: found, read without importing them, and run."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravine.errors import InputError, unknown
from ravine.storage.files import to_json, write_text


@dataclass(frozen=True)
class Script:
    """One script: its path, and what its docstring says."""

    path: Path
    title: str
    claim: str
    to_fail: str

    @property
    def number(self) -> int:
        return int(self.path.stem[:2])

    @property
    def name(self) -> str:
        return self.path.stem[3:]


def folder() -> Path:
    """Where the scripts lie: beside this file in an installed Ravine, else in the repository."""
    places = [Path(__file__).parent / "scripts", Path(__file__).parents[3] / "examples" / "gallery"]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(
        "gallery",
        got=f"no scripts in {places[0]}",
        expected="Ravine's scripts, which its wheel holds",
    )


def scripts() -> list[Script]:
    """Every script, by its number."""
    return [read(path) for path in sorted(folder().glob("[0-9][0-9]_*.py"))]


def read(path: Path) -> Script:
    """A script's docstring: a title, ``Claim:`` and ``To see it fail:``, each a paragraph."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    found = {part.partition(":")[0]: part.partition(":")[2].strip() for part in paragraphs[1:]}
    missing = [mark for mark in ("Claim", "To see it fail") if mark not in found]
    if missing:
        raise InputError(str(path), got="a docstring without " + " and ".join(missing))
    return Script(path, paragraphs[0].rstrip("."), found["Claim"], found["To see it fail"])


def chosen(names: Sequence[str]) -> list[Script]:
    """The scripts of these names or numbers; without names, all. InputError for an unknown one."""
    known = scripts()
    if not names:
        return known
    by_name = {s.name: s for s in known} | {s.path.stem: s for s in known}
    by_name |= {str(s.number): s for s in known}
    for name in names:
        if name.lstrip("0") not in by_name and name not in by_name:
            raise unknown("gallery", name, [s.name for s in known])
    return [by_name[name] if name in by_name else by_name[name.lstrip("0")] for name in names]


def run(script: Script, out: Path, *, quick: bool = False, keep: bool = False) -> dict[str, Any]:
    """Run one script: its figure goes to ``out``, its numbers come back.

    ``keep`` leaves the run directories of its networks there, which are deleted otherwise.
    """
    import numpy as np

    from ravine.gallery.drawing import save, save_animation, style
    from ravine.gallery.item import Item, plain

    runs = out / "runs" / script.path.stem
    shutil.rmtree(runs, ignore_errors=True)
    item = Item(runs, quick)
    begun, used, error = time.perf_counter(), _processor_seconds(), ""
    try:
        with style(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # some runs diverge on purpose
            figure = _function(script)(item)
            save(figure, out / "figures" / script.path.stem)
            if item.animation is not None:
                save_animation(*item.animation, out / "figures" / script.path.stem)
    except Exception as failure:  # the others are still run, and this one counts as false
        error = f"{type(failure).__name__}: {failure}"
        traceback.print_exc()
    if not keep:
        shutil.rmtree(runs, ignore_errors=True)
    return {
        "number": script.number,
        "name": script.name,
        "title": script.title,
        "claim": script.claim,
        "quick": quick,
        "numbers": plain(item.numbers),
        "shown": [f"{number.text}: {number.shown()}" for number in item.numbers],
        "true": bool(item.numbers)
        and all(n.true or not n.judged for n in item.numbers)
        and not error,
        **({"error": error} if error else {}),
        "seconds": round(time.perf_counter() - begun, 1),
        "processor_seconds": round(_processor_seconds() - used, 1),
        "figure": f"figures/{script.path.stem}.svg",
    }


def _processor_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def run_all(
    names: Sequence[str], out: Path, *, quick: bool = False, keep: bool = False
) -> Iterator[dict[str, Any]]:
    """Run scripts one after another; results.json in ``out`` holds what has ended so far, and keeps
    what earlier runs of the same size left there of other scripts.

    A claim that ``quick`` sizes do not show is not false yet, for few seeds have wide intervals:
    its script is run once more, at full size, and that answer counts.
    """
    from ravine.machine import machine, versions

    place, wanted = out / "results.json", chosen(names)
    facts = {"quick": quick, "machine": machine(), "versions": versions(("torch", "numpy"))}
    before = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    kept = before.get("items", []) if before.get("quick") == quick else []
    kept = [item for item in kept if isinstance(item, dict) and "number" in item]
    results = {item["number"]: item for item in kept}
    write_text(place, to_json({**facts, "items": kept}, indent=1))  # by which the folder is known
    for script in wanted:
        found = run(script, out, quick=quick, keep=keep)
        if quick and not found["true"] and "error" not in found:
            found = run(script, out, keep=keep)
        results[script.number] = found
        items = [results[number] for number in sorted(results)]
        write_text(place, to_json({**facts, "items": items}, indent=1))
        yield found


def code(script: Script) -> str:
    """A script without its docstring, for a page."""
    text = script.path.read_text(encoding="utf-8")
    return re.sub(r'\A""".*?"""\s*', "", text, count=1, flags=re.DOTALL)


def _function(script: Script) -> Callable[[Any], Any]:
    spec = importlib.util.spec_from_file_location(f"gallery_{script.path.stem}", script.path)
    if spec is None or spec.loader is None:
        raise InputError(str(script.path), expected="a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.draw
