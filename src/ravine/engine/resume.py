"""Training loops that continue from a run directory's snapshots."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ravine.engine import snapshot
from ravine.engine.directory_record import DirectoryRecord
from ravine.engine.execution import pilot
from ravine.engine.execution.execution import Execution
from ravine.engine.loop.calendar import Calendar
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.programs import Program, program_of
from ravine.errors import InputError, RavineError
from ravine.nn.answers import Answers
from ravine.rundir import RunDir, snapshot_step
from ravine.rundir.contents import sound

Loops = Callable[[Program], TrainingLoop]


def check_data(program: Program, rundir: RunDir) -> None:
    """Check that the data are those with which the run began."""
    place, new = rundir.data_path(program.number), "a new run can start from its weights"
    if not place.is_dir():
        raise InputError(
            str(rundir.path),
            got=f"no {place.relative_to(rundir.path)}",
            expected="what the run noted of its data when it began, to compare them",
            repair=f"bring it back from a copy; or {new}: start.weights = {rundir.path}",
        )
    stored, facts = snapshot.read(place)
    tensors, found = program.pipeline.state()
    facts, digest = dict(facts), facts.get("digest")  # the first versions kept none
    facts.pop("digest", None)
    same = (
        digest in (None, program.pipeline.digest)
        and found == json.loads(json.dumps(facts))
        and all(
            name in stored
            and stored[name].shape == tensor.shape
            and torch.allclose(stored[name], tensor, equal_nan=True)
            for name, tensor in tensors.items()
        )
    )
    if not same:
        raise InputError(
            "data",
            got="data that differ from those that the run was trained on",
            expected="the same data",
            repair=f"{new}: start.weights = {rundir.path}",
        )


def continued(
    program: Program,
    rundir: RunDir,
    arrays: Any,
    loop_of: Loops,
    *,
    after: str | None = None,
) -> Iterator[TrainingLoop]:
    """The loops of a program, each restored from its members' newest snapshot; made by ``loop_of``.

    ``after`` is the later end towards which a finished run is extended.
    """
    if not rundir.begun(program.number):
        yield loop_of(program)
        return
    # outputs are read as was decided when the run began
    stored = rundir.facts["programs"][program.number].get("answers")
    units = program.pipeline.target_units
    with sound(rundir.path):
        answers = program.answers if stored is None else Answers.from_dict(stored, units)
    recipes = dict(zip(program.members, program.recipes, strict=True))
    live = set(program.members[: len(program.population)])
    begun: set[int] = set()
    if after is not None:
        _check_longer(program, recipes, rundir)
    for held, facts, final in _standing(program, recipes, live, rundir, after):
        members = list(facts["members"])
        # those that had not begun wait after the members that had
        waiting = [m for m in recipes if m > max(members) and m not in live | begun]
        waiting = [m for m in waiting if rundir.result(m) is None]
        begun |= {*members, *waiting}
        part = program
        if members + waiting != program.members:
            part = _part(program, recipes, members, waiting, arrays)
        execution = Execution.from_dict(facts["execution"])
        pilot.replay(part.population, execution)
        loop = loop_of(replace(part, execution=execution, answers=answers))
        loop.load(part.population.parts_of(held), facts)
        if final or after is not None:
            extend(loop)
        yield loop


def _check_longer(program: Program, recipes: dict[int, Any], rundir: RunDir) -> None:
    """A plan that was interrupted may become longer: its schedule has counted on the steps it had."""
    for member in recipes:
        old, new = rundir.recipes[member], recipes[member]
        if rundir.result(member) is None:
            calendar = Calendar(new, program.pipeline)
            planned, wanted = (calendar.steps(r.stop.after) for r in (old, new))
            if wanted < planned:
                raise InputError(
                    "--after",
                    got=new.stop.after,
                    expected=f"no earlier end than {old.stop.after}, for which the run was begun",
                    repair=f"ravine resume {rundir.path} trains to that end; Ctrl-C stops it earlier",
                )


def _part(
    program: Program,
    recipes: dict[int, Any],
    members: list[int],
    waiting: list[int],
    arrays: Any,
) -> Program:
    """The program restricted to some of its members; the last of them wait."""
    chosen = [*members, *waiting]
    part = program_of(
        program.number,
        [recipes[member] for member in chosen],
        chosen,
        program.module,
        arrays,
        {},
        test=program.test,
        width=len(members),
    )
    return replace(part, begun_with=program.members)


def _standing(
    program: Program, recipes: dict[int, Any], live: set[int], rundir: RunDir, after: str | None
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, Any], bool]]:
    """The newest intact snapshots that hold the members that go on, and whether each is of their
    end.

    Members go on when they have no result yet, or all of them when a run is extended.
    """
    wanted = {m for m in recipes if after is not None or rundir.result(m) is None}
    if wanted and not wanted & _held(program, rundir):
        # all that had begun have ended, and the next ones have no snapshot yet: they take over the rows
        # again at the end of those that were the last
        wanted |= _last_held(program, rundir)
    finals = rundir.final_snapshots(program.number)
    paths = sorted(
        [*finals, *rundir.latest_snapshots(program.number)], key=snapshot_step, reverse=True
    )
    skipped: list[str] = []
    found = False
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
        rundir.check_recipes(path, facts)
        if skipped:
            _say_older(rundir, path, facts["step"], skipped)
        wanted, found = wanted - members, True
        yield arrays, facts, final
    if wanted & live or (wanted and not found):
        raise RavineError(
            f"no intact snapshot of members {sorted(wanted)}: "
            + ("; ".join(skipped) or "none was written yet")
        )


def _held(program: Program, rundir: RunDir) -> set[int]:
    """The members that have begun: those of whole snapshots."""
    paths = [*rundir.final_snapshots(program.number), *rundir.latest_snapshots(program.number)]
    return {m for path in paths for m in _members(path)}


def _last_held(program: Program, rundir: RunDir) -> set[int]:
    """The members of the newest whole snapshot of those that trained."""
    found = (_members(path) for path in rundir.latest_snapshots(program.number))
    return set(next((members for members in found if members), []))


def _members(path: Path) -> list[int]:
    with suppress(RavineError):
        return snapshot.facts(path)["members"]
    return []


def _say_older(rundir: RunDir, path: Path, step: int, skipped: list[str]) -> None:
    """Say aloud that damaged snapshots were passed over."""
    text = f"{path}: an older snapshot is used, of step {step}; passed over: {'; '.join(skipped)}"
    rundir.add_event(step, None, "snapshot", text)
    warnings.warn(text, stacklevel=2)


def _goes_on(program: Program, recipes: dict[int, Any], final: Path, after: str | None) -> bool:
    """Whether ended members train on: the run is extended, or an extension was interrupted."""
    facts = snapshot.facts(final)
    recipe = recipes[facts["members"][0]]
    return (
        after is not None
        or Calendar(recipe, program.pipeline).steps(recipe.stop.after) > facts["step"]
    )


def extend(loop: TrainingLoop) -> None:
    """Continue towards later ends; jumps of the learning rate are recorded."""
    numbers = loop.members.numbers
    if loop.calendar.is_end(loop.step):
        loop.epoch.clear()
    for member, stop in zip(numbers, loop.stops, strict=True):
        if stop.total <= loop.step:
            expected = f"an end after the {loop.step} steps that member {member} has done"
            raise InputError("--after", got=stop.stop.after, expected=expected)
    rates = loop.learning_rates(loop.step, loop.step + 1)[0]
    for member, stop, rate in zip(numbers, loop.stops, rates, strict=True):
        stop.extend(loop.step)
        epochs = loop.record.epochs(member)
        before = epochs[-1]["lr"] if epochs else float(rate)
        if abs(rate - before) > 0.05 * max(abs(before), 1e-12):
            text = (
                f"the learning rate jumps from {before:.3g} to {rate:.3g}: "
                f"its schedule now spans {stop.total} steps"
            )
            data = {"before": before, "after": float(rate)}
            loop.record.add_event(loop.step, member, "lr_jump", text, data)


def forget_later(loop: TrainingLoop, record: DirectoryRecord) -> None:
    """Delete the measurements after the loop's step."""
    starts = loop.schedules.starts
    for member, start in zip(loop.members.numbers, starts, strict=True):
        record.truncate(loop.step - start, [member])
    if not any(starts):
        record.truncate(loop.step, loop.members.numbers)
