"""``train``, ``train_many`` and ``resume``: what users call. Recipes become programs, programs
train, runs come back."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import torch
from torch import nn

from ravine.data.download.cache import look_also_in
from ravine.doctor.judgement import Checkup
from ravine.engine.begin import RecordOf, check_taken_up, describe_all, facts_of, programs_of_stored
from ravine.engine.directory_record import DirectoryRecord, check_space, record_of
from ravine.engine.evidence import write_evidence
from ravine.engine.execute import Report, execute
from ravine.engine.execution.memory import give_back_freed_memory
from ravine.engine.inputs import check_given_again, resolve_inputs
from ravine.engine.loop.halving import Halving
from ravine.engine.loop.hooks import Hook, Hooks
from ravine.engine.loop.loop import Interrupted, TrainingLoop
from ravine.engine.programs import Model, Program, StartRows, groups_of, programs_of
from ravine.engine.ranks.divide import divided
from ravine.engine.ranks.launcher import silent
from ravine.engine.ranks.ranks import ALONE, Ranks, joined
from ravine.engine.ranks.sharded import population_of, sharded_record
from ravine.engine.resume import continued, forget_later
from ravine.engine.run import Run
from ravine.engine.weights.stored import Opened, how_to_resume, open_with
from ravine.errors import InputError
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.rundir.contents import of_sound
from ravine.rundir.mark import trusting
from ravine.rundir.requests import requests_to
from ravine.starters.frames import table_first
from ravine.starters.start import start_with
from ravine.starters.written import Starter
from ravine.terminal import say
from ravine.training.following import Follows, followed
from ravine.training.outcome import print_outcome, say_finished
from ravine.training.repeated import say_level

if TYPE_CHECKING:
    import pandas

_P = ParamSpec("_P")
_T = TypeVar("_T")


# What ``train`` takes that is no field of the recipe; every other keyword is one
_NOT_FIELDS = {
    "recipe",
    "model",
    "data",
    "on_epoch",
    "on_step",
    "track",
    "out",
    "quiet",
    "doctor",
    "baselines",
    "fields",
}


def train(
    recipe: Recipe | str | Path | pandas.DataFrame | None = None,
    *,
    model: Any = None,
    data: Any = None,
    target: str | float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    lr: float | None = None,
    batch: int | Literal["full"] | None = None,
    minutes: float | None = None,
    optimizer: Any = None,
    schedule: Any = None,
    loss: Any = None,
    step: Any = None,
    metrics: Any = None,
    preprocess: Any = None,
    augment: Any = None,
    validation: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
    device: str | None = None,
    name: str | None = None,
    on_epoch: Hook | None = None,
    on_step: Hook | None = None,
    track: Sequence[Follows] = (),
    out: str | Path | None = None,
    quiet: bool = False,
    doctor: bool = True,
    baselines: bool = True,
    **fields: Any,
) -> Run:
    """Train one network and give back its run.

    ``recipe`` says everything; or it is the path of a recipe file or of your data, or a DataFrame:
    then a recipe is made that fits it. Any field may be given by keyword instead: those above, and every
    other (``weight_decay=``, …). ``target``: the column of a table to predict, or the value of the
    monitored metric at which to end. ``model``: a technique's name, a list of layers, an ``nn.Module``
    (trained from the weights it has) or a function that makes one. ``data``: ``(x, y)``, ``(texts, labels)``,
    a ``Dataset``, a ``DataLoader``, or a source such as ``"csv:houses.csv"``. Functions and classes of your own
    stand in place of names: docs/own-code.md. ``out``: the run directory, else a new one. ``baselines``: classical models.

    Errors: an unknown field, a value that it cannot take, data that cannot be read.

    >>> run = train(model="softmax", data="blobs", lr=0.1, epochs=3, quiet=True, out=tmp / "blobs")
    >>> run.result["test_accuracy"] > 0.8
    True
    """
    named = {name: value for name, value in locals().items() if name not in _NOT_FIELDS}
    fields = {name: value for name, value in named.items() if value is not None} | fields
    given_as, data = table_first(recipe, data, fields, model)
    begun, fields = _started(given_as, model, fields, quiet)
    recipe, module, arrays = resolve_inputs(begun.recipe, model, data, fields)
    written = replace(begun, recipe=recipe).to_toml() if begun.title else None
    more: dict[str, Any] = {"hooks": Hooks(on_epoch, on_step), "track": track, "written": written}
    given: dict[str, Any] = {"model": module, "data": arrays, "out": out}
    runs = train_many([recipe], **given, quiet=quiet, doctor=doctor, **more)
    if not quiet and not silent():
        print_outcome(runs, _beside(recipe) if baselines else "")
    return runs[0]


def _started(
    recipe: Recipe | str | Path | None, model: Any, fields: dict[str, Any], quiet: bool
) -> tuple[Starter, dict[str, Any]]:
    """The recipe to begin with, untitled where it was given in Python; the fields that remain to be
    set."""
    if recipe is None or isinstance(recipe, Recipe):
        return Starter(recipe or Recipe(), {}, ""), fields
    begun, fields = start_with(recipe, model if isinstance(model, str | dict) else None, fields)
    if begun.found and not quiet:
        say(begun.found)
    return begun, fields


def _beside(recipe: Recipe) -> str:
    """What classical models reach on a table."""
    if recipe.data.source.kind != "csv":
        return ""
    from ravine.training.classical import beside, sentence  # they bring scikit-learn

    return sentence(beside(recipe))


def _own_random_state(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The caller's random numbers go on as if the function had not been called."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with torch.random.fork_rng(
            devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        ):
            return function(*args, **kwargs)

    return call


@dataclass(frozen=True)
class Share:
    """One program of a list of recipes, trained by one of several processes. Its members and its
    number in the run directory are those that it has among all recipes."""

    number: int
    record: Callable[[DirectoryRecord], DirectoryRecord]  # what stands before the run directory


@_own_random_state
def train_many(
    recipes: Sequence[Recipe],
    *,
    model: Any = None,
    data: Any = None,
    out: str | Path | None = None,
    quiet: bool = False,
    test: bool = True,
    width: int | None = None,
    group: int | None = None,
    halving: Halving | None = None,
    rows: StartRows | None = None,
    trace: Sequence[str] = (),
    report: Report | None = None,
    doctor: bool = False,
    written: str | None = None,
    hooks: Hooks | None = None,
    share: Share | None = None,
    track: Sequence[Follows] = (),
) -> list[Run]:
    """Train many recipes, those that share a program as one population; the runs come back in the
    recipes' order.

    ``test=False`` leaves the test part untouched, for searches that choose among the runs. At most
    ``width`` members of a program train at a time: the others take the rows of those that end, or
    that ``halving`` drops. At most ``group`` members make a population, so that processes can share
    a program. ``rows`` are the weights to start from and the pruning masks; ``trace`` are places of
    the run (``"0it"``, ``"2ep"``) whose weights are kept; ``report`` is called with the progress
    instead of drawing a bar. ``doctor`` stores the doctor's findings with the run; ``written`` is
    kept as recipe.toml, for people, with the reasons of its choices. ``share``: one program alone.
    """
    if not recipes:
        raise InputError("train_many", got="no recipes", expected="a list of at least one recipe")
    resolved = [resolve_inputs(recipe, model, data, {}) for recipe in recipes]
    recipes, module, arrays = [each[0] for each in resolved], resolved[0][1], resolved[0][2]
    ranks, group = _ranks_of(recipes, group, apart=not (width or halving or share))
    if begun := ranks.begun():  # a rank had died: all were started again
        again = {"model": module, "data": arrays, "quiet": quiet, "report": report, "track": track}
        return _again(begun, hooks or Hooks(), **again)
    recipes = ranks.agreed(recipes, module)
    given: dict[str, Any] = {"test": test, "width": width, "group": group}
    given |= {"only": _only(ranks, share), "population": population_of(ranks, recipes)}
    programs = [divided(p, ranks) for p in programs_of(recipes, module, arrays, **given)]
    options: dict[str, Any] = {"width": width, "halving": halving, "trace": trace}
    facts = facts_of(programs, groups_of(recipes, group), ranks, group=group, **options)
    facts["doctor"] = doctor
    fill = functools.partial(describe_all, programs, written)
    rundir = ranks.directory(lambda: RunDir.create(out, recipes, facts=facts, fill=fill))
    checkup = _examined(programs, module, arrays, rundir, ranks) if doctor else None
    record, loops = _record_of(rundir, ranks, share), []
    if ranks.leads and not ranks.writes:
        describe_all(programs, None, rundir, record)
    for program in programs:
        if rows is not None:
            rows.write_to(program, len(recipes))
            options["mask"] = rows.of(program.members).mask
        loops.append(TrainingLoop(program, record(program), hooks=hooks, ranks=ranks, **options))
    return _run(loops, rundir, module, quiet, report, checkup, ranks, share, track)


@_own_random_state
@of_sound
def resume(
    directory: str | Path,
    *,
    model: Any = None,
    data: Any = None,
    own: Any = (),
    after: str | None = None,
    on_epoch: Hook | None = None,
    on_step: Hook | None = None,
    quiet: bool = False,
    report: Report | None = None,
    share: Share | None = None,
    track: Sequence[Follows] = (),
    trust: bool = False,
) -> list[Run]:
    """Continue a run to the very bits of an uninterrupted one; ``after`` extends a finished run to
    a later end.

    Percentages are then of the new total; a jump of the learning rate that follows from this is
    recorded and shown. A directory that was made elsewhere reads the files that its recipe names
    only with ``trust`` or where ``data`` are given. ``own`` are the functions and classes of your
    own that the recipe names, in a list or by name: no file holds them.
    """
    rundir = open_with(directory, own, None if isinstance(model, str) else model)
    _check_trust(rundir, trust or data is not None)
    look_also_in(rundir.facts.get("directory"))
    module, recipes, facts = None if isinstance(model, str) else model, rundir.recipes, rundir.facts
    if after is not None:
        recipes = [recipe.edit({"stop.after": after}) for recipe in recipes]
    check_given_again(recipes[0], module, data, directory)
    ranks = joined(recipes[0], len(groups_of(recipes, facts.get("group"))))
    alone = ranks.writes and share is None and (after is not None or rundir.state != "finished")
    with rundir.begins_to_write() if alone else nullcontext():
        programs = programs_of_stored(rundir, recipes, module, data, _only(ranks, share), ranks)
        halving, record = facts.get("halving"), _record_of(rundir, ranks, share)
        if ranks.leads:
            check_taken_up(programs, rundir, ranks, record)
        looks = facts.get("doctor")
        checkup = _examined(programs, module, data, rundir, ranks) if looks else None

        def loop_of(program: Program) -> TrainingLoop:
            return TrainingLoop(
                divided(program, ranks),
                record(program),
                width=facts.get("width"),
                halving=Halving(**halving) if halving else None,
                trace=facts.get("trace", ()),
                hooks=Hooks(on_epoch, on_step),
                ranks=ranks,
            )

        each = (continued(program, rundir, data, loop_of, after=after) for program in programs)
        loops = [loop for found in each for loop in found]
        if ranks.writes and share is None:
            _say_before(loops, rundir, data, quiet, ranks is ALONE and module is None)
        ranks.meet(False)  # nothing is written before all ranks have read what they go on from
        if ranks.writes and after is not None:
            rundir.set_recipes(recipes)
        _begin_again(loops, ranks, record)
    return _run(loops, rundir, module, quiet, report, checkup, ranks, share, track)


def _begin_again(loops: Sequence[TrainingLoop], ranks: Ranks, record: RecordOf) -> None:
    """Forget what came after the snapshots that loops go on from, which are stored anew first."""
    for loop in loops:
        loop.save()
        if ranks.leads:
            forget_later(loop, record(loop.program))


def _check_trust(rundir: RunDir, trust: bool) -> None:
    with trusting(trust):
        rundir.check_trust()


def _say_before(
    loops: Sequence[TrainingLoop], rundir: RunDir, data: Any, quiet: bool, alone: bool
) -> None:
    if loops:
        given = (rundir, rundir.recipes, None, data, (0).__eq__, ALONE)
        say_level(rundir, functools.partial(programs_of_stored, *given) if alone else None, quiet)
    elif not quiet:
        say_finished(rundir)


def _record_of(rundir: RunDir, ranks: Ranks, share: Share | None) -> RecordOf:
    """What makes the record of a program."""
    if share is not None:
        return record_of(rundir, share.record)
    if ranks.shards:
        return lambda program: sharded_record(ranks, rundir, program)
    return lambda program: ranks.record(rundir, program.number)


def _ranks_of(
    recipes: Sequence[Recipe], group: int | None, *, apart: bool
) -> tuple[Ranks, int | None]:
    """The ranks, and how many members train together: where members may train ``apart``, they are
    divided among the ranks."""
    ranks = joined(recipes[0], len(groups_of(recipes, group or 1)) if apart else 1)
    if group is None and ranks.groups > 1:
        group = math.ceil(len(recipes) / ranks.groups)
    return ranks, group


def _again(begun: str, hooks: Hooks, **given: Any) -> list[Run]:
    return resume(begun, on_epoch=hooks.on_epoch, on_step=hooks.on_step, **given)


def _only(ranks: Ranks, share: Share | None) -> Callable[[int], bool]:
    """Which programs this process trains."""
    return ranks.mine if share is None else share.number.__eq__


# --- around the loops -----------------------------------------------------------------------------


def _run(
    loops: Sequence[TrainingLoop],
    rundir: RunDir,
    module: Model,
    quiet: bool,
    report: Report | None,
    checkup: Checkup | None,
    ranks: Ranks,
    share: Share | None = None,
    track: Sequence[Follows] = (),
) -> list[Run]:
    """Run the loops, then the doctor's checkup and the report; the runs that came out. A share has
    no report: the whole has."""
    from ravine.training.progress_bar import progress_bar

    with rundir:  # at its end another process may write the run
        hidden = quiet or report is not None or not loops or not ranks.writes
        track = track if ranks.writes else ()
        with (
            progress_bar(hidden, rundir.recipes) as bar,
            followed(rundir, track, report or bar) as reports,
        ):
            if ranks.writes:
                check_space(rundir, loops)
            try:
                execute(loops, reports, requests_to(rundir.path), ranks)
            except Interrupted as interrupted:
                raise Interrupted(f"{interrupted}; {how_to_resume(rundir)} continues it") from None
            if ranks.writes:
                DirectoryRecord(rundir, 0).settle()
            if checkup is not None:
                with _doctor_may_fail(rundir):
                    checkup.conclude(rundir)
        give_back_freed_memory()
        if share is not None:
            return []
        if ranks.writes:
            if checkup is not None:
                with _doctor_may_fail(rundir, "the evidence of the report"):
                    write_evidence(loops, rundir, module)
            # what draws is not held in memory while networks train
            from ravine.report.run_page import write_report

            write_report(rundir)
    members = len(rundir.recipes)
    # a module given in Python ends with the trained weights itself when it is the only member
    shared = members > 1 and isinstance(module, nn.Module)
    opened = Opened(open_with(rundir.path))
    runs = [
        Run(opened, member, module=copy.deepcopy(module) if shared else module)
        for member in range(members)
    ]
    for program in (loop.program for loop in loops if not loop.program.folds):
        for member in program.members:
            if program.recipes[0].data.source.kind == "arrays":
                runs[member].given = program.pipeline
    if isinstance(module, nn.Module) and not shared:
        runs[0].model  # noqa: B018  # which writes the weights into it
    return runs


def _examined(
    programs: Sequence[Program], module: Model, arrays: Any, rundir: RunDir, ranks: Ranks
) -> Checkup | None:
    if not ranks.writes:
        return None
    if ranks.shards:  # the examination runs the whole network in one process
        rundir.add_event(0, None, "doctor", "not examined: its parameters are divided among ranks")
        return None
    if ranks.groups > 1:  # members that train elsewhere are judged with those that are like them
        alike = {program.recipes[0].program: program for program in programs}
        every = [(m, recipe.program) for m, recipe in enumerate(rundir.recipes)]
        programs = [
            replace(program, members=[m for m, own in every if own == of])
            for of, program in alike.items()
        ]
    with _doctor_may_fail(rundir):
        return Checkup.of(programs, module, arrays)
    return None


@contextmanager
def _doctor_may_fail(rundir: RunDir, what: str = "the examination") -> Iterator[None]:
    """A person's module may be unlike any that the doctor knows: its failure is recorded and takes
    no run with it."""
    try:
        yield
    except Exception as error:
        text = f"{what} failed: {type(error).__name__}: {error}"
        rundir.add_event(0, None, "doctor", text)
