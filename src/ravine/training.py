"""``train``, ``train_many`` and ``resume``: what users call. Recipes become programs, programs train, runs come back."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ravine.engine import pilot, snapshot
from ravine.engine.programs import Model, Program, program_of, programs_of
from ravine.engine.rehearsal import rehearse
from ravine.engine.trainer import Progress, Trainer
from ravine.errors import InputError
from ravine.recipe import Recipe, from_keywords
from ravine.run import Run
from ravine.rundir import RunDir

Report = Callable[[Progress], None]


def train(
    recipe: Recipe | None = None, *, model: Any = None, data: Any = None, out: str | Path | None = None,
    quiet: bool = False, **fields: Any,
) -> Run:
    """Train one network and give back its run.

    ``recipe`` says everything; any of its fields may be given by keyword instead (``lr=``, ``batch=``, ``optimizer=``,
    ``epochs=``, ``validation=``, ``precision=``, …). ``model`` is a technique's name, a list of layers, an ``nn.Module`` (trained
    from the weights it has) or a function that makes one; ``data`` is ``(x, y)``, a ``Dataset``, a ``DataLoader``, or a source
    such as ``"csv:houses.csv"``. The run directory is ``out``, or a new one under ``runs/``.

    >>> run = train(model="softmax", data="blobs", epochs=3, seed=1, quiet=True, out=tmp / "blobs")
    >>> run.metrics["val_accuracy"].iloc[-1] > 0.5
    True
    """
    recipe, module, arrays = _said(recipe or Recipe(), model, data, fields)
    return train_many([recipe], model=module, data=arrays, out=out, quiet=quiet)[0]


def train_many(
    recipes: Sequence[Recipe], *, model: Any = None, data: Any = None, out: str | Path | None = None,
    quiet: bool = False, test: bool = True,
) -> list[Run]:
    """Train many recipes, those that share a program as one population; the runs come back in the recipes' order.

    ``test=False`` leaves the test part untouched, for searches that choose among the runs.
    """
    if not recipes:
        raise InputError("train_many", got="no recipes", expected="a list of at least one recipe")
    said = [_said(recipe, model, data, {}) for recipe in recipes]
    recipes, module, arrays = [recipe for recipe, _, _ in said], said[0][1], said[0][2]
    programs = programs_of(recipes, module, arrays, test=test)
    for program in programs:
        rehearse(program)
    rundir = RunDir.create(None if out is None else Path(out), list(recipes), facts=_facts(programs))
    for program in programs:
        _describe(program, rundir)
    _run([Trainer(program, rundir) for program in programs], rundir, quiet)
    return [Run(rundir.path, member, module=_own(module, len(recipes))) for member in range(len(recipes))]


def resume(
    directory: str | Path, *, model: Any = None, data: Any = None, after: str | None = None, quiet: bool = False
) -> list[Run]:
    """Continue a run to the very bits of an uninterrupted one; ``after`` extends a finished run to a later end.

    Percentages are then of the new total; a jump of the learning rate that follows from this is recorded and shown.
    """
    rundir = RunDir.open(Path(directory))
    module, arrays = (model if not isinstance(model, str) else None), data
    recipes = rundir.recipes if after is None else [r.edit({"stop.after": after}) for r in rundir.recipes]
    _check_given(recipes[0], module, arrays)
    programs = programs_of(recipes, module, arrays)
    trainers = [trainer for program in programs for trainer in _entered(program, rundir, module, arrays, after)]
    if after is not None:
        rundir.set_recipes(recipes)
    for trainer in trainers:
        rundir.truncate(trainer.step, trainer.members)
    _run(trainers, rundir, quiet)
    return [Run(rundir.path, member, module=_own(module, len(recipes))) for member in range(len(recipes))]


# --- recipes to programs ------------------------------------------------------------------------------------------


def _said(recipe: Recipe, model: Any, data: Any, fields: dict[str, Any]) -> tuple[Recipe, Model, Any]:
    """The recipe with everything said in keywords; the module and the arrays that no recipe can hold."""
    module, arrays = None, None
    if isinstance(model, nn.Module) or (callable(model) and not isinstance(model, str | dict | list)):
        module = model
        name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "model")
        model = {"kind": "module", "name": name}
    if data is not None and not isinstance(data, str | dict):
        arrays, data = data, "arrays"
    changes: dict[str, Any] = {}
    if model is not None:
        changes["model"] = {"kind": "layers", "layers": model} if isinstance(model, list | tuple) else model
    if data is not None:
        changes["data.source"] = data
    return from_keywords(recipe.edit(changes), fields), module, arrays


def _check_given(recipe: Recipe, module: Model, arrays: Any) -> None:
    if recipe.model.kind == "module" and module is None:
        raise InputError(
            "model", got=f"a run of the Python module {recipe.model.name}", expected="that module again",
            repair="resume it in Python: ravine.resume(run, model=...)",
        )
    if recipe.data.source.kind == "arrays" and arrays is None:
        raise InputError(
            "data", got="a run of arrays given in Python", expected="the same arrays again",
            repair="resume it in Python: ravine.resume(run, data=...)",
        )


# --- entering and running -----------------------------------------------------------------------------------------


def _entered(program: Program, rundir: RunDir, module: Model, arrays: Any, after: str | None) -> Iterator[Trainer]:
    """Trainers that stand where the program's snapshots stand."""
    for held, facts in _standing(program, rundir, after):
        rows = [program.members.index(member) for member in facts["members"]]
        part = program
        if rows != list(range(len(program.members))):
            recipes = [program.recipes[row] for row in rows]
            part = program_of(program.number, recipes, facts["members"], module, arrays, {}, test=program.test)
        pilot.replay(part.population, pilot.Execution(**facts["execution"]))
        part.execution = pilot.Execution(**facts["execution"])
        trainer = Trainer(part, rundir)
        trainer.load(held, facts)
        if after is not None:
            trainer.extend()
        yield trainer


def _standing(program: Program, rundir: RunDir, after: str | None) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """The snapshots to go on from: the newest of the live members, or every member's last when a run is extended."""
    live = [m for m in program.members if rundir.result(m) is None]
    if live:
        found = snapshot.newest(rundir.latest_snapshots(program.number))
        yield found.arrays, found.facts
    if after is not None:
        for path in rundir.final_snapshots(program.number):
            yield snapshot.read(path)


def _run(trainers: Sequence[Trainer], rundir: RunDir, quiet: bool) -> None:
    from ravine.report.page import write_report
    from ravine.progress import progress_bar

    with _deferred_signals() as asked, progress_bar(quiet) as report:
        for trainer in trainers:
            trainer.report, trainer.interrupted = report, lambda: bool(asked)
            with _threads(trainer.program.execution.threads):
                trainer.run()
    write_report(rundir)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted, so that the block ends, a snapshot is written and nothing is lost."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _facts(programs: Sequence[Program]) -> dict[str, Any]:
    return {
        "machine": pilot.machine(),
        "programs": [{"members": p.members, "execution": p.execution.to_dict()} for p in programs],
    }


def _describe(program: Program, rundir: RunDir) -> None:
    """Store what predicting needs without the data: the fitted statistics."""
    tensors, facts = program.pipeline.state()
    snapshot.write(rundir.data_path(program.number), tensors, facts)
    rundir.add_event(0, None, "execution", program.execution.sentence(), program.execution.to_dict())


def _own(module: Model, members: int) -> Model:
    """A module given in Python ends with the trained weights itself when it is the only member."""
    return copy.deepcopy(module) if isinstance(module, nn.Module) and members > 1 else module
