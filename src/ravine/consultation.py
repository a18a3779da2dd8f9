"""``ravine doctor``: a recipe or a run in, a verdict out, and with ``--prove`` a verified cure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from ravine.doctor import trial
from ravine.doctor.examination import examine, examine_static
from ravine.doctor.experiment import Shelf
from ravine.doctor.findings import Diagnosis
from ravine.doctor.judgement import judge
from ravine.doctor.trial import Cure
from ravine.errors import InputError
from ravine.inspection import print_findings
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.terminal import recipe_from


def consult(
    subject: Path | None, changes: list[str] | None, seed: int | None, *, member: int, prove: bool, budget: float,
    out: Path | None, quiet: bool,
) -> dict[str, Any]:
    """Diagnose a recipe or a run; show it, and give back what ``--json`` prints."""
    if subject is not None and subject.is_dir():
        recipe: Recipe = RunDir.open(subject).recipes[member]
        diagnosis = judge(subject, member=member)
    else:
        recipe = recipe_from(subject, changes, seed)
        diagnosis = examine(recipe)
    if not quiet:
        _show(diagnosis)
    found = diagnosis.to_dict()
    if prove:
        place = _new_file(out or Path(f"{recipe.name}-cured.toml"))
        cure = _cure(recipe, diagnosis, budget)
        if cure.accepted:
            _write(place, cure)
        if not quiet:
            Console(stderr=True).print(cure.text + (f"\nwritten to {place}" if cure.accepted else ""), highlight=False)
        found["cure"] = cure.to_dict() | {"file": str(place) if cure.accepted else None}
    return found


def _cure(recipe: Recipe, diagnosis: Diagnosis, budget: float) -> Cure:
    case, _, _ = examine_static(recipe, Shelf(None, None))
    return trial.prove(recipe, diagnosis.findings, case, budget=budget)


def _show(diagnosis: Diagnosis) -> None:
    colour = {"healthy": "green", "sick": "red"}.get(diagnosis.verdict, "yellow")
    Console(stderr=True).print(f"[bold {colour}]{diagnosis.verdict}[/] {diagnosis.why}", highlight=False)
    print_findings([finding.to_dict() for finding in diagnosis.findings], most=10)


def _new_file(path: Path) -> Path:
    if path.exists():
        raise InputError("--out", got=str(path), expected="a file that does not exist yet", repair="name another with --out")
    return path


def _write(path: Path, cure: Cure) -> None:
    """The cured recipe with its evidence as a comment, whole or not at all."""
    evidence = "".join(f"# {line}\n" for line in [cure.text, cure.why, f"before {cure.before}", f"after {cure.after}"])
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(evidence + cure.recipe, encoding="utf-8")
    temporary.replace(path)
