"""``train``, ``train_many`` and ``resume``: what users call. Recipes become programs, programs
train, runs come back."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from ravine import durations
from ravine.data.read.cache import look_also_in
from ravine.doctor.judgement import Checkup
from ravine.engine import finetune, snapshot
from ravine.engine.execution import pilot
from ravine.engine.execution.denormals import denormals_flushed
from ravine.engine.execution.memory import give_back_freed_memory
from ravine.engine.loop.calendar import Calendar
from ravine.engine.loop.halving import Halving
from ravine.engine.loop.trainer import Progress, Trainer
from ravine.engine.programs import Model, Program, Rows, program_of, programs_of
from ravine.engine.run import Run
from ravine.errors import InputError, RavineError
from ravine.optim.plan import tabulate
from ravine.recipe import Recipe, from_keywords
from ravine.rundir import RunDir, snapshot_step

_NEEDED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
Report = Callable[[Progress], None]
_P = ParamSpec("_P")
_T = TypeVar("_T")


def train(
    recipe: Recipe | None = None,
    *,
    model: Any = None,
    data: Any = None,
    out: str | Path | None = None,
    quiet: bool = False,
    doctor: bool = True,
    **fields: Any,
) -> Run:
    """Train one network and give back its run.

    ``recipe`` says everything; any of its fields may be given by keyword instead (``lr=``,
    ``batch=``, ``optimizer=``, ``epochs=``, ``validation=``, ``precision=``, …). ``model`` is a
    technique's name, a list of layers, an ``nn.Module`` (trained from the weights it has) or a
    function that makes one; ``data`` is ``(x, y)``, a ``Dataset``, a ``DataLoader``, or a source
    such as ``"csv:houses.csv"``; ``schedule`` may be a function of (epoch, lr). The run directory
    is ``out``, or a new one under ``runs/``. ``doctor`` examines the recipe before the first step
    and the run at its end, and changes no number of it: its findings stand in the run.

    >>> run = train(model="softmax", data="blobs", lr=0.1, epochs=3, quiet=True, out=tmp / "blobs")
    >>> run.result["test_accuracy"] > 0.8
    True
    """
    recipe, module, arrays = given(recipe or Recipe(), model, data, fields)
    return train_many([recipe], model=module, data=arrays, out=out, quiet=quiet, doctor=doctor)[0]


def _apart(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A person's random numbers go on as if the function had not been called: theirs are not
    ours."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with torch.random.fork_rng(
            devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        ):
            return function(*args, **kwargs)

    return call


@_apart
def train_many(
    recipes: Sequence[Recipe],
    *,
    model: Any = None,
    data: Any = None,
    out: str | Path | None = None,
    quiet: bool = False,
    test: bool = True,
    width: int | None = None,
    halving: Halving | None = None,
    rows: Rows | None = None,
    trace: Sequence[str] = (),
    report: Report | None = None,
    doctor: bool = False,
) -> list[Run]:
    """Train many recipes, those that share a program as one population; the runs come back in the
    recipes' order.

    ``test=False`` leaves the test part untouched, for searches that choose among the runs. At most
    ``width`` members of a program train at a time: the others take the rows of those that end, or
    that ``halving`` drops. ``rows`` are the weights to start from and the pruning masks; ``trace``
    are places of the run (``"0it"``, ``"2ep"``) whose weights are kept; ``report`` is called with
    the progress instead of drawing a bar. ``doctor`` stores the doctor's findings with the run.
    """
    if not recipes:
        raise InputError("train_many", got="no recipes", expected="a list of at least one recipe")
    said = [given(recipe, model, data, {}) for recipe in recipes]
    recipes, module, arrays = [recipe for recipe, _, _ in said], said[0][1], said[0][2]
    programs = programs_of(recipes, module, arrays, test=test, width=width, halving=halving)
    rundir = RunDir.create(
        None if out is None else Path(out), list(recipes), facts=_facts(programs, width, halving)
    )
    for program in programs:
        _describe(program, rundir)
    if rows is not None:
        rows.enter(programs)
    for program in programs:
        program.trace = tuple(trace)
    rundir.set_facts(trace=list(trace), doctor=doctor)
    checkup = _examined(programs, module, rundir) if doctor else None
    trainers = [
        Trainer(program, rundir, mask=None if rows is None else rows.mask) for program in programs
    ]
    _run(trainers, rundir, quiet, report, checkup)
    return [
        Run(rundir.path, member, module=_own(module, len(recipes)))
        for member in range(len(recipes))
    ]


@_apart
def resume(
    directory: str | Path,
    *,
    model: Any = None,
    data: Any = None,
    after: str | None = None,
    quiet: bool = False,
    report: Report | None = None,
) -> list[Run]:
    """Continue a run to the very bits of an uninterrupted one; ``after`` extends a finished run to
    a later end.

    Percentages are then of the new total; a jump of the learning rate that follows from this is
    recorded and shown.
    """
    rundir = RunDir.open(Path(directory))
    look_also_in(rundir.facts.get("directory"))
    module, arrays = (model if not isinstance(model, str) else None), data
    recipes = (
        rundir.recipes if after is None else [r.edit({"stop.after": after}) for r in rundir.recipes]
    )
    _check_given(recipes[0], module, arrays)
    said = rundir.facts
    halving = Halving(**said["halving"]) if said.get("halving") else None
    programs = programs_of(
        recipes,
        module,
        arrays,
        test=said.get("test", True),
        width=said.get("width"),
        halving=halving,
    )
    for program in programs:
        _check_data(program, rundir)
    checkup = _examined(programs, module, rundir) if said.get("doctor") else None
    for program in programs:
        program.trace = tuple(said.get("trace", ()))
    trainers = [
        trainer
        for program in programs
        for trainer in _entered(program, rundir, module, arrays, after)
    ]
    if after is not None:
        rundir.set_recipes(recipes)
    for trainer in trainers:
        trainer.save()
        trainer.truncate()
    _run(trainers, rundir, quiet, report, checkup)
    return [
        Run(rundir.path, member, module=_own(module, len(recipes)))
        for member in range(len(recipes))
    ]


# --- recipes to programs --------------------------------------------------------------------------


def given(
    recipe: Recipe, model: Any, data: Any, fields: dict[str, Any]
) -> tuple[Recipe, Model, Any]:
    """The recipe with everything said in keywords; the module and the arrays that no recipe can
    hold."""
    module, arrays = None, None
    _check_model(model)
    if isinstance(model, nn.Module) or (
        callable(model) and not isinstance(model, str | dict | list)
    ):
        module = model
        name = (
            type(model).__name__
            if isinstance(model, nn.Module)
            else getattr(model, "__name__", "model")
        )
        model = {"kind": "module", "name": name}
    if (
        data is not None
        and not isinstance(data, str)
        and not (isinstance(data, dict) and "kind" in data)
    ):
        arrays, data = data, "arrays"
    changes: dict[str, Any] = {}
    if model is not None:
        changes["model"] = (
            {"kind": "layers", "layers": model} if isinstance(model, list | tuple) else model
        )
    if data is not None:
        changes["data.source"] = data
    return finetune.adopt(_said(recipe.edit(changes), fields)), module, arrays


def _said(recipe: Recipe, fields: dict[str, Any]) -> Recipe:
    """The recipe with ``train``'s keywords; a schedule that is a function of (epoch, lr) is
    tabulated over the epochs."""
    function = fields.get("schedule")
    if not callable(function):
        return from_keywords(recipe, fields)
    recipe = from_keywords(
        recipe, {name: value for name, value in fields.items() if name != "schedule"}
    )
    amount, unit = durations.parse(recipe.stop.after)
    if unit != "ep":
        got = f"a function of (epoch, lr), and an end after {recipe.stop.after}"
        raise InputError("schedule", got=got, expected="an end in epochs", repair="set epochs")
    return recipe.edit({"schedule": tabulate(function, math.ceil(amount), recipe.optimizer.lr)})


def _check_model(model: Any) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "model",
            got="a scripted module",
            expected="an ordinary nn.Module",
            repair="script it after training",
        )
    if callable(model) and not isinstance(model, nn.Module):
        needs = [
            p.name
            for p in inspect.signature(model).parameters.values()
            if p.default is p.empty and p.kind in _NEEDED
        ]
        if needs:
            expected = "a module, or a function that makes one without being told anything"
            raise InputError(
                "model",
                got=f"a function of {', '.join(needs)}",
                expected=expected,
                repair="wrap it in a lambda",
            )


def _check_data(program: Program, rundir: RunDir) -> None:
    """A run goes on with the data it began with."""
    if not rundir.data_path(program.number).exists():
        return _describe(program, rundir)  # it was killed before it had begun
    stored, facts = snapshot.read(rundir.data_path(program.number))
    tensors, found = program.pipeline.state()
    same = found == json.loads(json.dumps(facts)) and all(
        name in stored
        and stored[name].shape == tensor.shape
        and torch.allclose(stored[name], tensor, equal_nan=True)
        for name, tensor in tensors.items()
    )
    if not same:
        raise InputError(
            "data",
            got="other data than those that the run was trained on",
            expected="the same data",
            repair=f"a new run can start from its weights: start.weights = {rundir.path}",
        )
    return None


def _check_given(recipe: Recipe, module: Model, arrays: Any) -> None:
    if recipe.model.kind == "module" and module is None:
        raise InputError(
            "model",
            got=f"a run of the Python module {recipe.model.name}",
            expected="that module again",
            repair="resume it in Python: ravine.resume(run, model=...)",
        )
    if recipe.data.source.kind == "arrays" and arrays is None:
        raise InputError(
            "data",
            got="a run of arrays given in Python",
            expected="the same arrays again",
            repair="resume it in Python: ravine.resume(run, data=...)",
        )


# --- entering and running -------------------------------------------------------------------------


def _entered(
    program: Program, rundir: RunDir, module: Model, arrays: Any, after: str | None
) -> Iterator[Trainer]:
    """Trainers that stand where the program's snapshots stand."""
    if not rundir.begun(program.number):
        yield Trainer(program, rundir)  # it had not begun
        return
    recipes = dict([*zip(program.members, program.recipes, strict=True), *program.waiting])
    for held, facts, final in _standing(program, recipes, rundir, after):
        part, members = program, facts["members"]
        if members != program.members:
            chosen = [recipes[member] for member in members]
            part = program_of(
                program.number, chosen, members, module, arrays, {}, test=program.test
            )
            part.width, part.halving, part.trace = program.width, program.halving, program.trace
            part.waiting = [
                (m, r) for m, r in program.waiting if m > max(members) and rundir.result(m) is None
            ]
        pilot.replay(part.population, pilot.Execution(**facts["execution"]))
        part.execution = pilot.Execution(**facts["execution"])
        trainer = Trainer(part, rundir)
        trainer.load(held, facts)
        if final or after is not None:
            trainer.extend()
        yield trainer


def _standing(
    program: Program, recipes: dict[int, Recipe], rundir: RunDir, after: str | None
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, Any], bool]]:
    """The newest intact snapshots that hold the members that go on, and whether each is of their
    end.

    Members go on when they have no result yet, or all of them when a run is extended.
    """
    wanted = {m for m in recipes if after is not None or rundir.result(m) is None}
    finals = rundir.final_snapshots(program.number)
    paths = sorted(
        [*finals, *rundir.latest_snapshots(program.number)], key=snapshot_step, reverse=True
    )
    skipped: list[str] = []
    for path in paths:
        if not wanted:
            return
        try:
            members = set(snapshot.facts(path)["members"])
            final = path in finals
            if not members & wanted or (
                final and (not members <= wanted or not _goes_on(program, recipes, path, after))
            ):
                continue
            arrays, facts = snapshot.read(path)
        except RavineError as error:
            skipped.append(str(error))
            continue
        wanted -= members
        yield arrays, facts, final
    if wanted - {member for member, _ in program.waiting}:
        raise RavineError(
            f"no intact snapshot of members {sorted(wanted)}: "
            + ("; ".join(skipped) or "none was written yet")
        )


def _goes_on(program: Program, recipes: dict[int, Recipe], final: Path, after: str | None) -> bool:
    """Whether members that have ended are to go on: a run is extended, or its extension was
    interrupted."""
    facts = snapshot.facts(final)
    recipe = recipes[facts["members"][0]]
    return (
        after is not None
        or Calendar(recipe, program.pipeline).steps(recipe.stop.after) > facts["step"]
    )


def _run(
    trainers: Sequence[Trainer],
    rundir: RunDir,
    quiet: bool,
    shown: Report | None = None,
    checkup: Checkup | None = None,
) -> None:
    from ravine.progress import progress_bar

    with _deferred_signals() as asked, progress_bar(quiet or shown is not None) as bar:
        for trainer in trainers:
            trainer.report, trainer.interrupted = shown or bar, lambda: bool(asked)
            with pilot.kernel_threads(trainer.program.execution.threads), denormals_flushed():
                trainer.run()
    if checkup is not None:
        with _spared(rundir):
            checkup.conclude(rundir)
    give_back_freed_memory()
    from ravine.report.run_page import (
        write_report,
    )  # what draws is not held in memory while networks train

    write_report(rundir)


def _examined(programs: Sequence[Program], module: Model, rundir: RunDir) -> Checkup | None:
    with _spared(rundir):
        return Checkup.of(programs, module)
    return None


@contextmanager
def _spared(rundir: RunDir) -> Iterator[None]:
    """A person's module may be unlike any that the doctor knows: its failure is recorded and takes
    no run with it."""
    try:
        yield
    except Exception as error:
        rundir.add_event(
            0, None, "doctor", f"the examination failed: {type(error).__name__}: {error}"
        )


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted, so that the block ends, a snapshot is written and nothing is
    lost."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _facts(
    programs: Sequence[Program], width: int | None, halving: Halving | None
) -> dict[str, Any]:
    return {
        "machine": pilot.machine(),
        "programs": [
            {
                "members": [*p.members, *(m for m, _ in p.waiting)],
                "execution": p.execution.to_dict(),
            }
            for p in programs
        ],
        "test": programs[0].test,
        **({"width": width} if width else {}),
        **({"halving": halving.to_dict()} if halving else {}),
    }


def _describe(program: Program, rundir: RunDir) -> None:
    """Store what predicting needs without the data: the fitted statistics."""
    tensors, facts = program.pipeline.state()
    snapshot.write(rundir.data_path(program.number), tensors, facts)
    rundir.add_event(
        0, None, "execution", program.execution.sentence(), program.execution.to_dict()
    )


def _own(module: Model, members: int) -> Model:
    """A module given in Python ends with the trained weights itself when it is the only member."""
    return copy.deepcopy(module) if isinstance(module, nn.Module) and members > 1 else module
