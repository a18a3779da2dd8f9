"""What is stored before a run begins, and checked before it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ravine.engine.directory_record import describe, record_of
from ravine.engine.loop.halving import Halving
from ravine.engine.programs import Model, Program, programs_of
from ravine.engine.ranks.ranks import Ranks
from ravine.engine.ranks.sharded import population_of
from ravine.engine.resume import check_data
from ravine.recipe import Recipe
from ravine.registering import differences
from ravine.rundir import RunDir
from ravine.storage.files import write_text

RecordOf = Callable[[Program], Any]  # DirectoryRecord, or what stands for it on other ranks


def describe_all(
    programs: Sequence[Program],
    written: str | None,
    rundir: RunDir,
    record: RecordOf | None = None,
) -> None:
    """Store what is known of a run before it begins."""
    if written is not None:
        write_text(rundir.path / "recipe.toml", written)
    for program in programs:
        describe(program, (record or record_of(rundir))(program))


def check_taken_up(
    programs: Sequence[Program], rundir: RunDir, ranks: Ranks, record: RecordOf
) -> None:
    """Check that a run goes on with its own data, and note what of a person's own has changed."""
    for text in differences(rundir.recipes) if ranks.writes else ():
        rundir.add_event(0, None, "own", text)
    for program in programs:
        if rundir.begun(program.number) or rundir.data_path(program.number).exists():
            check_data(program, rundir)
        else:  # it was killed before it had begun
            describe(program, record(program))


def programs_of_stored(
    rundir: RunDir,
    recipes: Sequence[Recipe],
    module: Model,
    data: Any,
    only: Callable[[int], bool],
    ranks: Ranks,
) -> list[Program]:
    """The programs of a run directory that this process trains."""
    facts = rundir.facts
    return programs_of(
        recipes,
        module,
        data,
        test=facts.get("test", True),
        width=facts.get("width"),
        group=facts.get("group"),
        only=only,
        population=population_of(ranks, recipes),
    )


def facts_of(
    programs: Sequence[Program],
    groups: Sequence[list[int]],
    ranks: Ranks,
    *,
    group: int | None,
    width: int | None,
    halving: Halving | None,
    trace: Sequence[str],
) -> dict[str, Any]:
    """What resuming needs beside the recipes; of programs that others train, their members alone."""
    listed: list[dict[str, Any]] = [{"members": members} for members in groups]
    for p in programs:
        listed[p.number] |= {"execution": p.execution.to_dict(), "answers": p.answers.to_dict()}
    for known in ranks.all_of({"programs": listed}):
        listed = [one | other for one, other in zip(listed, known["programs"], strict=True)]
    return {
        "programs": listed,
        "test": all(program.test for program in programs),
        "trace": list(trace),
        **({"width": width} if width else {}),
        **({"group": group} if group else {}),
        **({"halving": halving.to_dict()} if halving else {}),
    }
