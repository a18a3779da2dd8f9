"""``ravine doctor``: a recipe or a run in, a verdict out, and with ``--prove`` a verified cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ravine.app.options import starter_from
from ravine.doctor.api import prove
from ravine.doctor.cures import trial
from ravine.doctor.cures.cure import Cure
from ravine.doctor.declaration import Kind
from ravine.doctor.examination import examine
from ravine.doctor.finding import Diagnosis
from ravine.doctor.judgement import judge
from ravine.doctor.table import as_tables, diagnosis_table, is_of
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.storage.files import name_of_file, new_file, write_text
from ravine.terminal import console, say, styled, text_column
from ravine.training.outcome import print_findings


def consult(
    subject: Path | None,
    given: dict[str, Any],
    *,
    member: int,
    cure: bool,
    budget: float,
    out: Path | None,
    quiet: bool,
) -> dict[str, Any]:
    """Diagnose a recipe, data or a run; show it, and give back what ``--json`` prints. ``given``
    are the options that change a recipe."""
    of_run = subject is not None and (subject / "recipe.json").is_file()
    changed = [name.strip("_") for name, value in given.items() if value is not None]
    if of_run and changed:
        raise InputError(
            f"--{changed[0]}",
            got=str(subject),
            expected="a recipe to change; a run is judged as it was trained",
        )
    recipe = (
        _recipe_of(subject, member) if of_run and subject else starter_from(subject, given).recipe
    )
    named = Path(f"{name_of_file(recipe.name, 'recipe')}-cured.toml")
    place = new_file(out or named) if cure else None
    with _pulse(
        "judging the run" if of_run else "examining: checks, some steps, experiments", quiet
    ):
        diagnosis = judge(subject, member=member) if of_run and subject else examine(recipe)
    if not quiet:
        _show(diagnosis)
    found = diagnosis_table(diagnosis)
    if place is not None:
        with _bar(quiet) as report:
            proof = prove(recipe, budget=budget, diagnosis=diagnosis, report=report)
        if proof.accepted:
            _write(place, proof)
        if not quiet:
            lines = [
                proof.text,
                *proof.edits_needed,
                *proof.besides,
                *([f"written to {place}"] if proof.accepted else []),
            ]
            console().print("\n".join(lines), highlight=False)
        found["cure"] = proof.to_dict() | {"file": str(place) if proof.accepted else None}
    return found


def _recipe_of(run: Path, member: int) -> Recipe:
    with RunDir.open(run) as rundir:
        rundir.check_trust()
        recipes = rundir.recipes
    if not 0 <= member < len(recipes):
        raise InputError(
            "--member", got=member, expected=f"a number under {len(recipes)}: the members of {run}"
        )
    return recipes[member]


@contextmanager
def _pulse(text: str, quiet: bool) -> Iterator[None]:
    """A bar that moves while something of unknown length goes on, and vanishes; on standard
    error."""
    columns = text_column("{task.description}"), BarColumn(), TimeElapsedColumn()
    out = console()
    with Progress(
        *columns, console=out, disable=quiet or not out.is_terminal, transient=True
    ) as bar:
        bar.add_task(text, total=None)
        yield


@contextmanager
def _bar(quiet: bool) -> Iterator[trial.Report]:
    """The part of the budget that is spent, what is being trained, and the time left; on standard
    error."""
    columns = (
        text_column("proof: {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        text_column("left"),
    )
    with Progress(*columns, console=console(), disable=quiet) as bar:
        task = bar.add_task("first candidates", total=1.0)
        yield lambda part, what: bar.update(task, completed=part, description=what)


def _show(diagnosis: Diagnosis) -> None:
    colour = {"healthy": "green", "sick": "red"}.get(diagnosis.verdict, "yellow")
    verdict = styled((diagnosis.verdict, f"bold {colour}"), f" {diagnosis.why}")
    console().print(verdict, highlight=False)
    print_findings(as_tables(diagnosis.findings), most=10)
    for note in diagnosis.notes:
        if is_of(note, Kind.SHARES):  # of the data, whatever comes of it in training
            say(f"note: {note.code} ({note.where}): {note.evidence}", f"  {note.what_to_do}")


def _write(path: Path, cure: Cure) -> None:
    """The cured recipe with its evidence as a comment."""
    write_text(path, "".join(f"# {line}\n" for line in cure.evidence) + cure.recipe, new=True)
