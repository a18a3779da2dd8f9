"""``ravine doctor``: a recipe or a run in, a verdict out, and with ``--prove`` a verified cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ravine.app.inspect import print_findings
from ravine.app.options import recipe_from
from ravine.doctor import trial
from ravine.doctor.examination import examine, examine_static
from ravine.doctor.experiment import Shelf
from ravine.doctor.finding import Diagnosis
from ravine.doctor.judgement import judge
from ravine.doctor.table import as_tables, diagnosis_table
from ravine.doctor.trial import Cure
from ravine.engine.inputs import resolve_inputs
from ravine.errors import InputError
from ravine.files import new_file, write_text
from ravine.recipe import Recipe
from ravine.rundir import RunDir


def diagnose(
    subject: Recipe | str | Path, *, model: Any = None, data: Any = None, member: int = 0
) -> Diagnosis:
    """Name what is wrong with a recipe, a recipe file or a run directory: a verdict with ranked
    findings.

    ``model`` and ``data`` are those given in Python to ``train``. A recipe is examined by static
    checks, one probe and short experiments; a run is judged by what it has measured.

    >>> diagnose(Recipe(model="softmax", data={"source": "blobs"}, optimizer={"kind": "sgd", "lr": 1e-7})).codes[0]
    'lr_too_low'
    """
    if not isinstance(subject, Recipe) and Path(subject).is_dir():
        module = model if not isinstance(model, str | dict | list | tuple) else None
        return judge(subject, member=member, module=module, arrays=data)
    recipe, module, arrays = resolve_inputs(
        subject if isinstance(subject, Recipe) else Recipe.load(subject), model, data, {}
    )
    return examine(recipe, module=module, arrays=arrays)


def prove(
    recipe: Recipe,
    *,
    model: Any = None,
    data: Any = None,
    budget: float = 20.0,
    diagnosis: Diagnosis | None = None,
    report: trial.Report | None = None,
) -> Cure:
    """Search a cure for a recipe by experiment and verify it on samples and seeds that did not
    choose it.

    ``budget`` counts training steps of all members of the trial, in units of one run of the recipe.
    ``diagnosis`` is the result of ``diagnose``, if it was called before; ``report`` is called with
    the part of the budget that is spent and what is being trained.
    """
    recipe, module, arrays = resolve_inputs(recipe, model, data, {})
    case, _, _ = examine_static(recipe, Shelf(module, arrays))
    diagnosis = diagnosis or examine(recipe, module=module, arrays=arrays)
    return trial.prove(
        recipe, diagnosis.leads, case, module=module, arrays=arrays, budget=budget, report=report
    )


def consult(
    subject: Path | None,
    changes: list[str] | None,
    seed: int | None,
    *,
    member: int,
    cure: bool,
    budget: float,
    out: Path | None,
    quiet: bool,
) -> dict[str, Any]:
    """Diagnose a recipe or a run; show it, and give back what ``--json`` prints."""
    of_run = subject is not None and subject.is_dir()
    if of_run and (changes or seed is not None):
        option = "--set" if changes else "--seed"
        raise InputError(
            option,
            got=str(subject),
            expected="a recipe to change; a run is judged as it was trained",
        )
    recipe = (
        _recipe_of(subject, member) if of_run and subject else recipe_from(subject, changes, seed)
    )
    place = new_file(out or Path(f"{recipe.name}-cured.toml")) if cure else None
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
                *proof.besides,
                *([f"written to {place}"] if proof.accepted else []),
            ]
            Console(stderr=True).print("\n".join(lines), highlight=False, markup=False)
        found["cure"] = proof.to_dict() | {"file": str(place) if proof.accepted else None}
    return found


def _recipe_of(run: Path, member: int) -> Recipe:
    recipes = RunDir.open(run).recipes
    if not 0 <= member < len(recipes):
        raise InputError(
            "--member", got=member, expected=f"a number under {len(recipes)}: the members of {run}"
        )
    return recipes[member]


@contextmanager
def _pulse(text: str, quiet: bool) -> Iterator[None]:
    """A bar that moves while something of unknown length goes on, and vanishes; on standard
    error."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, disable=quiet or not console.is_terminal, transient=True
    ) as bar:
        bar.add_task(text, total=None)
        yield


@contextmanager
def _bar(quiet: bool) -> Iterator[trial.Report]:
    """The part of the budget that is spent, what is being trained, and the time left; on standard
    error."""
    columns = (
        TextColumn("proof: {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task("first candidates", total=1.0)
        yield lambda part, what: bar.update(task, completed=part, description=what)


def _show(diagnosis: Diagnosis) -> None:
    colour = {"healthy": "green", "sick": "red"}.get(diagnosis.verdict, "yellow")
    Console(stderr=True).print(
        f"[bold {colour}]{diagnosis.verdict}[/] {diagnosis.why}", highlight=False
    )
    print_findings(as_tables(diagnosis.findings), most=10)


def _write(path: Path, cure: Cure) -> None:
    """The cured recipe with its evidence as a comment."""
    write_text(path, "".join(f"# {line}\n" for line in cure.evidence) + cure.recipe)
