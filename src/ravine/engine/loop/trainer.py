"""The loop over one program's population: blocks of steps, epochs' ends, stops, compaction,
snapshots, resume.

Nothing that depends on the clock changes a number: where blocks end and snapshots fall is timed,
what is computed is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.engine import snapshot
from ravine.engine.execution import pilot
from ravine.engine.loop import ending
from ravine.engine.loop.calendar import Calendar
from ravine.engine.loop.divergence import Rollback, skipped
from ravine.engine.loop.state import Borrowed, State, clones
from ravine.engine.loop.stopping import Stopping, keeps_best
from ravine.engine.programs import Program, objective
from ravine.engine.rows.evaluate import evaluate, metric_functions
from ravine.engine.rows.graphed import GraphedSteps
from ravine.engine.rows.step import Measured, Stepper
from ravine.errors import InputError, RavineError
from ravine.optim.plan import Schedules
from ravine.recipe import Recipe
from ravine.rundir import RunDir

BLOCK_SECONDS = 0.4
SNAPSHOT_SECONDS = 10.0


class Interrupted(RavineError):
    """Training was asked to stop; a snapshot stands and the run can be resumed."""


@dataclass
class Progress:
    """What a progress bar shows."""

    step: int
    total: int
    epoch_steps: int
    live: int
    rate: float  # steps per second
    metrics: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)  # the last evaluation of each member


class Trainer:
    """Trains a program to its end, from its beginning or from a snapshot."""

    def __init__(
        self,
        program: Program,
        rundir: RunDir,
        *,
        report: Callable[[Progress], None] = lambda progress: None,
        interrupted: Callable[[], bool] = lambda: False,
        mask: Tensor | None = None,
    ):
        self.program, self.rundir, self.report, self.interrupted = (
            program,
            rundir,
            report,
            interrupted,
        )
        self.pipeline, self.population = program.pipeline, program.population
        self.recipes, self.members = list(program.recipes), list(program.members)
        self.lead = self.members[0]
        self.stepper = Stepper(
            self.population, self.recipes, sample_weights=_bootstrap(program, self.recipes)
        )
        self.stepper.mask = (
            None if mask is None else mask.to(self.population.theta.device, torch.bool)
        )
        if program.execution.graphs:
            self.stepper.graphed = GraphedSteps(self.stepper)
        self.rollback = Rollback(self.population, self.stepper)
        low = self.population.input_dtype
        self.calendar = Calendar(
            self.recipes[0], self.pipeline if low is None else self.pipeline.lowered(low)
        )
        self.epoch_steps = self.calendar.epoch_steps
        self.stops = [Stopping(recipe, self.calendar) for recipe in self.recipes]
        totals = [stop.total for stop in self.stops]
        unfreeze = self.recipes[0].start.unfreeze
        self.stepper.unfreeze = (
            None if unfreeze is None else self.calendar.steps(unfreeze, max(totals))
        )
        self.schedules = Schedules(
            [r.schedule for r in self.recipes], epoch_steps=self.epoch_steps, totals=totals
        )
        parts = self.recipes[0].metrics
        self.metrics = metric_functions(self.pipeline.task, parts, self.recipes[0].loss)
        self.step = 0
        self.trace = {self.calendar.steps(place, max(totals)) for place in program.trace}
        self.swa_counts = [0] * len(self.members)
        self.best: Tensor | None = None  # [P, D]
        self.best_buffers: dict[str, Tensor] = {}
        if any(
            keeps_best(recipe)
            for recipe in [*self.recipes, *(waiting for _, waiting in program.waiting)]
        ):
            self.best = self.population.theta.detach().clone()
            self.best_buffers = clones(self.population.saved_buffers())
        self._losses: list[np.ndarray] = []  # this epoch's, in blocks [n, P]
        self._norms: list[np.ndarray] = []
        self._seconds_before = 0.0
        self._began = self._saved = time.monotonic()
        self._latest: dict[str, float] = {}
        self._rows: list[dict[str, Any]] = []

    # --- the loop ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until every member has ended."""
        if self.step == 0:
            self.rollback.begin(self.members, self.recipes, range(len(self.members)))
            self.save()
            self._keep_trace()
        rate = 0.0
        self.population.train()
        while self.members:
            last = self._block_end(rate)
            began = time.monotonic()
            first = self.step
            self._block(last)
            rate = (last - first) / max(time.monotonic() - began, 1e-9)
            self._keep_trace()
            if self._at_boundary():
                self._end_epoch()
            elif not bool(self.stepper.alive.any()) and not self.rollback.good:
                self._end_members(dict.fromkeys(range(len(self.members)), "diverged"))
            self.report(self._progress(rate))
            if self.members and self.interrupted():
                self.save()
                raise Interrupted(
                    f"interrupted after step {self.step}; ravine resume {self.rundir.path} continues it"
                )
            if self.members and time.monotonic() - self._saved > SNAPSHOT_SECONDS:
                self.save()

    def _keep_trace(self) -> None:
        if self.step in self.trace:
            self.population.gather_buffers()
            place = self.rundir.trace_path(self.program.number, self.step)
            arrays = {"theta": self.population.theta} | self.population.saved_buffers()
            snapshot.write(place, arrays, {"step": self.step, "members": self.members})

    @property
    def seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _block_end(self, rate: float) -> int:
        boundary = min(
            [
                self.calendar.end(self.step),
                *self._ends(),
                *(at for at in self.trace if at > self.step),
            ]
        )
        return min(boundary, self.step + max(1, int(rate * BLOCK_SECONDS) if rate else 8))

    def _ends(self) -> list[int]:
        return [end for end in self._totals() if end > self.step]

    def _totals(self) -> list[int]:
        """The step at which each member ends at the latest."""
        return [
            stop.total + start
            for stop, start in zip(self.stops, self.schedules.starts, strict=True)
        ]

    def _at_boundary(self) -> bool:
        return self.calendar.is_end(self.step) or any(end <= self.step for end in self._totals())

    def _block(self, last: int) -> None:
        first, alive = self.step, self.stepper.alive.cpu().clone()
        lr = self._rates(first, last)
        with pilot.kernel_threads(self.program.execution.step_threads):
            measured = self.stepper.run(
                self.calendar.batches(first, last), first, lr, self.schedules.momentum(first, last)
            )
        self.step = last
        losses, norms = measured.losses.cpu().numpy(), measured.norms.cpu().numpy()  # [n, P]
        self._report_frozen(first, alive, measured)
        self._losses.append(losses)
        self._norms.append(norms)
        self._tell_of_graphs()
        starts = np.array(self.schedules.starts)
        for start in np.unique(starts):
            rows = np.flatnonzero(starts == start)
            self.rundir.add_steps(
                first - int(start), [self.members[row] for row in rows], losses[:, rows]
            )

    def _tell_of_graphs(self) -> None:
        graphed = self.stepper.graphed
        if graphed is not None and graphed.why is not None:
            self.rundir.add_event(
                self.step, None, "execution", f"steps without CUDA graphs: {graphed.why}"
            )
            self.stepper.graphed = None

    def _rates(self, first: int, last: int) -> np.ndarray:
        """The learning rates of steps first, …, last - 1 [n, P]."""
        own = np.array([r.optimizer.lr for r in self.recipes]) * self.rollback.factors(self.members)
        return self.schedules.factors(first, last) * own

    def _report_frozen(self, first: int, alive: Tensor, measured: Measured) -> None:
        for row in (alive & ~self.stepper.alive.cpu()).nonzero().flatten().tolist():
            bad = ~(
                torch.isfinite(measured.losses[:, row]) & torch.isfinite(measured.norms[:, row])
            )
            at = int(bad.cpu().nonzero()[0])
            loss, norm = float(measured.losses[at, row]), float(measured.norms[at, row])
            step = first + at - self.schedules.starts[row]
            text = f"frozen at step {step}: loss {loss:g}, gradient norm {norm:g}"
            self.rundir.add_event(
                step, self.members[row], "frozen", text, {"loss": str(loss), "grad_norm": str(norm)}
            )

    # --- the end of an epoch ----------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self.population.gather_buffers()
        due, at_end = self._due(), self.calendar.is_end(self.step)
        self._average_epoch(due)
        rows = self._epoch_rows(due)
        self._meet_trouble(due)
        if at_end:
            named = {name: np.array([row.get(name, math.nan) for row in rows]) for name in rows[0]}
            self.schedules.observe(named)
            self._losses, self._norms = [], []
        self.rundir.add_epochs(rows)
        self._rows = rows
        ended: dict[int, str] = {}
        for i, row in zip(due, rows, strict=True):
            stop, alive = self.stops[i], bool(self.stepper.alive[i])
            if alive and stop.observe(row["step"], row, self.seconds):
                self._keep_best(i)
            reason = stop.reason if alive else "diverged"
            if reason is not None:
                ended[i] = reason
        if self.program.halving is not None:
            totals = [self.stops[i].total for i in due]
            reasons = self.program.halving.judge(self.rundir, rows, self.epoch_steps, totals)
            ended = {
                i: reason for i, reason in zip(due, reasons, strict=True) if reason is not None
            } | ended
        self._latest = {
            k: float(np.nanmean([row[k] for row in rows]))
            for k in ("train_loss", "val_loss", "val_accuracy")
            if k in rows[0] and any(math.isfinite(row[k]) for row in rows)
        }
        if ended:
            self._end_members(ended)
        elif at_end and self._refill():
            self.save()

    def _meet_trouble(self, due: list[int]) -> None:
        """Members that diverged go back to their last good state, or say what they skipped, as
        their recipes have it."""
        losses, norms = (
            np.concatenate(self._losses),
            np.concatenate(self._norms),
        )  # [epoch's steps, P]
        for i in due:
            recipe, text = self.recipes[i], None
            own = self.step - self.schedules.starts[i]
            if recipe.stop.on_trouble == "rollback":
                text = self.rollback.judge(self.members[i], recipe, i, own, losses[:, i])
            elif recipe.stop.on_trouble == "report":
                text = skipped(losses[:, i], norms[:, i])
            if text is not None:
                lr = float(self._rates(self.step - 1, self.step)[0, i])
                self.rundir.add_event(
                    own, self.members[i], recipe.stop.on_trouble, text, {"lr": lr}
                )

    def _due(self) -> list[int]:
        """The rows whose epoch or run is over; one that ends in the middle of an epoch does not
        concern the others."""
        totals = self._totals()
        return [
            i for i, end in enumerate(totals) if self.calendar.is_end(self.step) or end <= self.step
        ]

    def _epoch_rows(self, due: list[int]) -> list[dict[str, Any]]:
        losses, norms = (
            np.concatenate(self._losses)[:, due],
            np.concatenate(self._norms)[:, due],
        )  # [epoch's steps, due]
        columns: dict[str, np.ndarray] = {"train_loss": losses.mean(0), "grad_norm": norms.mean(0)}
        columns["lr"] = self._rates(self.step - 1, self.step)[0][due]
        if self.pipeline.has("validation"):
            with self._weights(self.evaluated()):
                objectives = [self.population.objectives[i] for i in due]
                found = evaluate(
                    objectives, self.pipeline, "validation", self.metrics, self.population.call
                )
            columns |= {f"val_{name}": values for name, values in found.items()}
        own = [self.step - self.schedules.starts[i] for i in due]
        return [
            {
                "member": self.members[i],
                "epoch": self.calendar.epochs(own[k]),
                "step": own[k],
                "seconds": self.seconds,
            }
            | {name: float(values[k]) for name, values in columns.items()}
            for k, i in enumerate(due)
        ]

    def _average_epoch(self, due: list[int]) -> None:
        """Stochastic weight averaging: the mean of the weights at the epochs' ends."""
        average = self.stepper.average
        for i in due:
            if average is None or self.recipes[i].average.swa is None or not self._swa_began(i):
                continue
            self.swa_counts[i] += 1
            average[i].lerp_(self.population.theta[i], 1.0 / self.swa_counts[i])

    def _swa_began(self, i: int) -> bool:
        return self.step - self.schedules.starts[i] >= self.calendar.steps(
            self.recipes[i].average.swa or "0it", self.stops[i].total
        )

    def evaluated(self) -> Tensor:
        """The weights that count [P, D]: the running average where a member keeps one, else
        theta."""
        average, theta = self.stepper.average, self.population.theta
        if average is None:
            return theta
        takes = [
            bool(r.average.ema) or n > 0 for r, n in zip(self.recipes, self.swa_counts, strict=True)
        ]
        return torch.where(torch.tensor(takes, device=theta.device)[:, None], average, theta)

    def _weights(self, rows: Tensor) -> Borrowed:
        return Borrowed(self.population, rows)

    def _keep_best(self, row: int) -> None:
        if self.best is not None and self.stops[row].keeps_best:
            self.best[row].copy_(self.evaluated()[row])
            for name, stacked in self.population.saved_buffers().items():
                self.best_buffers[name][row].copy_(stacked[row])

    # --- the end of members -----------------------------------------------------------------------

    def _end_members(self, ended: dict[int, str]) -> None:
        """Evaluate and store those that have ended; the others go on without them."""
        rows = sorted(ended)
        for row in rows:
            self.stops[row].reason = ended[row]
        final = ending.weights(self)
        results = ending.results(self, final, rows)
        members = [self.members[row] for row in rows]
        arrays, facts = self._part(rows).state()
        arrays["final"] = final[0][rows]
        arrays |= {f"final_buffer/{name}": stacked[rows] for name, stacked in final[1].items()}
        snapshot.write(
            self.rundir.final_path(self.program.number, self.step, members[0]), arrays, facts
        )
        for member, result in zip(members, results, strict=True):
            self.rundir.set_result(member, result)
        self._compact([row for row in range(len(self.members)) if row not in ended])
        self._refill()
        if self.members:
            self.save()

    def _refill(self) -> bool:
        """Between epochs: those that wait take the free rows, and begin."""
        program, room = self.program, self.program.width - len(self.members)
        if (
            not program.waiting
            or room < 1
            or (self.members and not self.calendar.is_end(self.step))
        ):
            return False
        if not self.members:
            self.step = (
                self.step if self.calendar.is_end(self.step) else self.calendar.end(self.step)
            )
            self._losses, self._norms = [], []
        members, recipes = zip(*program.waiting[:room], strict=True)
        program.waiting = program.waiting[room:]
        old = len(self.members)
        fresh = [
            objective(recipe, self.pipeline, program.module, self.population.theta.dtype)
            for recipe in recipes
        ]
        self.stepper.grow(fresh, recipes, self.step, _bootstrap(program, recipes))
        if not old:  # the rows of the last to end were kept until now
            self.stepper.keep(
                range(len(self.stepper.recipes) - len(members), len(self.stepper.recipes))
            )
        self.rollback.begin(
            members,
            recipes,
            range(len(self.stepper.recipes) - len(members), len(self.stepper.recipes)),
        )
        stops = [Stopping(recipe, self.calendar) for recipe in recipes]
        self.schedules.grow(
            [recipe.schedule for recipe in recipes], [stop.total for stop in stops], self.step
        )
        self.members, self.recipes, self.stops = (
            [*self.members, *members],
            [*self.recipes, *recipes],
            [*self.stops, *stops],
        )
        self.swa_counts = [*self.swa_counts, *[0] * len(members)]
        if self.best is not None:
            self.best = torch.cat([self.best, self.population.theta[old:].detach()])
            saved = self.population.saved_buffers()
            self.best_buffers = {
                name: torch.cat([held, saved[name][old:]])
                for name, held in self.best_buffers.items()
            }
        pilot.replay(self.population, program.execution)
        self.population.train()
        return True

    def _compact(self, rows: list[int]) -> None:
        if rows:
            self.stepper.keep(rows)
        self.schedules.keep(rows)
        index = torch.tensor(rows, dtype=torch.int64)
        for name in ("members", "recipes", "stops", "swa_counts"):
            held = getattr(self, name)
            setattr(self, name, [held[row] for row in rows])
        if self.best is not None:
            self.best = self.best[index.to(self.best.device)]
            self.best_buffers = {
                name: stacked[index.to(stacked.device)]
                for name, stacked in self.best_buffers.items()
            }
        self._losses = [block[:, rows] for block in self._losses]
        self._norms = [block[:, rows] for block in self._norms]

    # --- snapshots --------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that resuming needs: arrays, and plain facts."""
        return self._part(range(len(self.members))).state()

    def _part(self, rows: Sequence[int]) -> State:
        return State(self, list(rows))

    def save(self) -> None:
        """Write a snapshot of the members that are live."""
        self.population.gather_buffers()
        arrays, facts = self.state()
        self.rundir.sync()
        snapshot.write(
            self.rundir.snapshot_path(self.program.number, self.step, self.lead), arrays, facts
        )
        snapshot.prune(self.rundir.latest_snapshots(self.program.number, self.lead), keep=2)
        self._saved = time.monotonic()

    def load(self, arrays: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Enter where a snapshot stands. The program must hold the snapshot's members, in its
        order."""
        State(self, list(range(len(self.members)))).load(arrays, facts)

    def truncate(self) -> None:
        """Forget what was measured after the step at which the trainer stands."""
        for member, start in zip(self.members, self.schedules.starts, strict=True):
            self.rundir.truncate(self.step - start, [member])
        if not any(self.schedules.starts):
            self.rundir.truncate(self.step, self.members)

    def extend(self) -> None:
        """Go on after an end, towards later ones; jumps of the learning rate are recorded."""
        self._losses, self._norms = (
            (self._losses, self._norms) if not self.calendar.is_end(self.step) else ([], [])
        )
        rates = self._rates(self.step, self.step + 1)[0]
        for member, stop in zip(self.members, self.stops, strict=True):
            if stop.total <= self.step:
                got, expected = (
                    stop.stop.after,
                    f"an end after the {self.step} steps that member {member} has done",
                )
                raise InputError("--after", got=got, expected=expected)
        for member, stop, rate in zip(self.members, self.stops, rates, strict=True):
            stop.extend(self.step)
            before = next((row["lr"] for row in reversed(self.rundir.epochs(member))), float(rate))
            if abs(rate - before) > 0.05 * max(abs(before), 1e-12):
                text = f"the learning rate jumps from {before:.3g} to {rate:.3g}: its schedule now spans {stop.total} steps"
                self.rundir.add_event(
                    self.step, member, "lr_jump", text, {"before": before, "after": float(rate)}
                )

    def _progress(self, rate: float) -> Progress:
        total = max(self._totals(), default=self.step)
        metrics = dict(self._latest)
        if self._losses and self._losses[-1].size and np.isfinite(self._losses[-1]).any():
            metrics["loss"] = float(np.nanmean(self._losses[-1][-1]))
        return Progress(
            self.step, total, self.epoch_steps, len(self.members), rate, metrics, self._rows
        )


def _bootstrap(program: Program, recipes: Sequence[Recipe]) -> Tensor | None:
    """How often each member's bootstrap drew each training sample [P, N]; ones for members
    without."""
    from ravine.randomness import generator

    n = program.pipeline.train_size
    if not any(
        recipe.data.bootstrap
        for recipe in [*program.recipes, *(r for _, r in program.waiting), *recipes]
    ):
        return None
    counts = torch.ones(len(recipes), n)
    for row, recipe in zip(counts, recipes, strict=True):
        if recipe.data.bootstrap:
            drawn = torch.randint(n, (n,), generator=generator(recipe.seed, "bootstrap"))
            row.copy_(torch.bincount(drawn, minlength=n))
    return counts.to(program.population.theta.device, program.population.theta.dtype)
