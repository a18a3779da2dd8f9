"""Whether another machine or other versions take the steps of a run to the same bits: the run's first steps
are taken twice here, and held against each other and against what the run recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ravine.engine.execute import running
from ravine.engine.execution import pilot
from ravine.engine.execution.execution import Execution
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.loop.record import Memory
from ravine.engine.programs import Program
from ravine.rundir import RunDir, environment
from ravine.terminal import say

STEPS = 3  # losses that are compared: the last one depends on two updates of the weights
_ROUNDING = {"bfloat16": 0.05, "float32": 1e-3, "float64": 1e-9}  # relative, of a loss
_COMPARED = {"versions": ("torch", "numpy", "ravine"), "machine": ("cpu", "instructions", "gpu")}
KIND = "determinism"  # of the event that holds the level


def changes(facts: Mapping[str, Any]) -> list[str]:
    """What differs between the machine and versions that began a run and those at hand.

    >>> now = environment()
    >>> changes(now | {"versions": now["versions"] | {"torch": "2.0"}})
    ['torch 2.0 -> ...']
    """
    now, found = environment(), []
    for group, names in _COMPARED.items():
        before = facts.get(group, {})
        for name in names if before else ():
            old, new = before.get(name), now[group].get(name)
            if old != new:
                found.append(f"{name} {_text(old)} -> {_text(new)}")
    return found


def say_level(
    rundir: RunDir, programs: Callable[[], list[Program]] | None, quiet: bool = False
) -> None:
    """Where a run goes on with other versions or on another machine: say how well its bits are repeated.

    ``programs`` builds the run's first program anew, its members at their start; None where that
    cannot be had again: the model was given in Python, or several ranks train.
    """
    text = level(rundir, programs)
    if text is not None and not quiet:
        say(f"{rundir.path}: {text}")


def level(rundir: RunDir, programs: Callable[[], list[Program]] | None) -> str | None:
    """The level in a sentence; None where nothing has changed since the run began. Tried once per
    machine, versions and program: the run's events hold the answer."""
    changed = "; ".join(changes(rundir.facts))
    if not changed:
        return None
    # the first steps of a longer plan may have other learning rates
    if programs is None or "earlier_sha256" in rundir.facts or not len(rundir.steps(0)):
        return f"not tried whether the bits are the same here ({changed})"
    for event in rundir.events(KIND):
        if event["data"].get("changes") == changed:
            return event["text"]
    text, data = _tried(rundir, lambda: programs()[0])
    text = f"{text} ({changed})"
    rundir.add_event(0, None, KIND, text, data | {"changes": changed})
    return text


def _tried(rundir: RunDir, program: Callable[[], Program]) -> tuple[str, dict[str, Any]]:
    first, theta, precision = _first_steps(rundir, program())
    again, theta_again, _ = _first_steps(rundir, program())
    recorded = {member: rundir.steps(member)[:STEPS] for member in first}
    if not _equal(first, again) or not np.array_equal(theta, theta_again, equal_nan=True):
        return "not bit-equal: here two trials of the same steps differ", {"level": "none"}
    if _equal(first, recorded):
        return "bit-equal: the run's first steps have the same bits here", {"level": "bits"}
    largest = max(_relative(first[member], recorded[member]) for member in first)
    data = {"difference": largest}
    if largest <= _ROUNDING.get(precision, 1e-3):
        text = (
            f"equal up to rounding: the losses of the first steps differ by {largest:.1e} of them"
        )
        return text, data | {"level": "rounding"}
    text = f"different: the losses of the first steps differ by {largest:.1e} of them"
    return text, data | {"level": "different"}


def _first_steps(rundir: RunDir, program: Program) -> tuple[dict[int, np.ndarray], np.ndarray, str]:
    """Losses of the members that begin first, their weights after these steps, and the precision."""
    execution = Execution.from_dict(rundir.facts["programs"][program.number]["execution"])
    pilot.replay(program.population, execution)
    record = Memory()
    loop = TrainingLoop(replace(program, execution=execution), record, sparing=True)
    members = list(loop.members.numbers)
    with running(loop):
        loop.advance(STEPS)
    weights = program.population.theta.detach().cpu().double().numpy()
    return {m: record.losses(m)[:STEPS] for m in members}, weights, execution.precision


def _equal(a: Mapping[int, np.ndarray], b: Mapping[int, np.ndarray]) -> bool:
    return all(np.array_equal(a[member], b[member], equal_nan=True) for member in a)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float((np.abs(a - b) / np.maximum(np.abs(b), 1e-12)).max(initial=0.0))


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "none")
