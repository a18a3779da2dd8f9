"""The training loop of one program's population: blocks of steps, epochs' ends, stops, compaction,
refilling, snapshots.

The clock decides where blocks end and when snapshots are written; it never changes a number. The
loop reports what happens to a record and knows nothing of files.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ravine.engine.execution import pilot
from ravine.engine.execution.device import kernel_threads
from ravine.engine.loop.calendar import Calendar
from ravine.engine.loop.changes import KIND, Changes, answer
from ravine.engine.loop.divergence import Rollback, record_frozen, report_averages, skipped
from ravine.engine.loop.epoch import EpochSteps, without_rest
from ravine.engine.loop.evaluation import Evaluation
from ravine.engine.loop.folds import training_data
from ravine.engine.loop.halving import Halving
from ravine.engine.loop.hooks import Hooks
from ravine.engine.loop.kept_weights import Weights
from ravine.engine.loop.layer_records import LayerRecords
from ravine.engine.loop.member_columns import ScheduleColumn, bootstrap_counts
from ravine.engine.loop.progress import Progress, shown_means
from ravine.engine.loop.record import Record, last_train_loss
from ravine.engine.loop.stopping import Stopping, cut_late, depends_on_validation
from ravine.engine.programs import Program, objective
from ravine.engine.ranks.ranks import ALONE, Ranks
from ravine.engine.rows.graphed import GraphedSteps
from ravine.engine.rows.members import Arrays, Facts, Members, Newcomers, Values
from ravine.engine.rows.step import Stepper
from ravine.errors import RavineError
from ravine.optim.rows.planned_rates import Schedules

BLOCK_SECONDS, STORING = 0.4, 4e-4  # and at least so many a member: to store is a twentieth of it
SNAPSHOT_SECONDS = 10.0


class Interrupted(RavineError):
    """Training was asked to stop. A snapshot has been written, so the run can be resumed."""


class TrainingLoop:
    """Trains a program's members to their ends, from the beginning or from a snapshot.

    The population holds the first members. The others wait and take the rows of members that have
    ended, so that at most ``width`` members train at a time. ``halving`` drops members before their
    end; ``trace`` names places of the run (``"0it"``, ``"2ep"``) whose weights are recorded;
    ``mask`` [P, D] is False for pruned weights. ``sparing`` skips validation at epochs' ends if no
    member's schedule, stop or best weights depend on it.
    """

    def __init__(
        self,
        program: Program,
        record: Record,
        *,
        width: int | None = None,
        halving: Halving | None = None,
        trace: Sequence[str] = (),
        mask: Tensor | None = None,
        sparing: bool = False,
        hooks: Hooks | None = None,
        ranks: Ranks = ALONE,
    ):
        self.program, self.record, self.halving, self.ranks = program, record, halving, ranks
        self.hooks = hooks or Hooks()
        self.pipeline, self.population = program.pipeline, program.population
        live = len(self.population)
        recipes = program.recipes[:live]
        self.waiting = list(zip(program.members[live:], program.recipes[live:], strict=True))
        self.width = width or live
        self.lead = program.members[0]
        # the table of everything that a member owns: compaction, refilling, roll-back, snapshots and
        # graph replay go through it, so each object below registers its own columns there
        self.members = Members(recipes, program.members[:live])
        low = self.population.way.input_dtype
        data = training_data(self.pipeline, program.folds, low, self.members)
        self.calendar = Calendar(recipes[0], data)
        self.stops = [Stopping(recipe, self.calendar) for recipe in recipes]
        longest = max(stop.total for stop in self.stops)
        given: dict[str, Any] = {"sample_weights": bootstrap_counts(program, recipes)}
        self.stepper = Stepper(self.population, self.members, mask=mask, ranks=ranks, **given)
        if (unfreeze := recipes[0].start.unfreeze) is not None:
            self.stepper.unfreeze = self.calendar.steps(unfreeze, longest)
        self.graphed = GraphedSteps(self.stepper) if program.execution.graphs else None
        self.schedules = Schedules(
            [r.schedule for r in recipes],
            epoch_steps=self.calendar.epoch_steps,
            totals=[stop.total for stop in self.stops],
        )
        self.members.add(ScheduleColumn(self.schedules, self.calendar))
        stops = Values("stops", self, "stops", self._new_stops, Stopping.state, Stopping.restored)
        self.members.add(stops)
        self.weights = Weights(self.stepper, self.members, program.recipes[live:])
        self.epoch = EpochSteps(self.members)
        self.rollback = Rollback(self.members)
        self.changes = Changes(program.number, record.events(KIND))
        depends = halving is not None or any(map(depends_on_validation, program.recipes))
        validates = self.pipeline.has("validation") and (depends or not sparing)
        measured = (self.weights, self.epoch, validates, ranks, data)
        self.evaluation = Evaluation(program, record, *measured)
        self.trace = {self.calendar.steps(place, longest) for place in trace}
        self.layers = LayerRecords(program, record, self.calendar, self.members)
        self.step, self.over = 0, False  # over: every member has ended
        self._begun = False
        self._rate = 0.0  # steps per second
        self._seconds_before = 0.0  # of what a snapshot continues
        self._since = self._saved = time.monotonic()
        self._latest, self._rows = dict[str, float](), list[dict[str, Any]]()

    # --- the loop ---------------------------------------------------------------------------------

    def run(
        self,
        report: Callable[[Progress], None] = lambda progress: None,
        interrupted: Callable[[], bool] = lambda: False,
        requests: Callable[[], Sequence[Mapping[str, Any]]] = tuple,
    ) -> None:
        """Train until every member has ended; ``requests`` gives what others have asked for since:
        to stop, a snapshot, another learning rate."""
        self.begin()
        while not self.over:
            self._block(self.ranks.decide(self._block_end))
            report(self._progress())
            # signals and requests are answered between blocks: all rows then stand at the same step
            stop = [answer(self, request) for request in ([] if self.over else requests())]
            if not self.over and any([interrupted(), *stop]):  # asked in any case: ranks meet there
                self.save()
                raise Interrupted(f"interrupted after step {self.step}")
            due = self.ranks.decide(lambda: time.monotonic() - self._saved > SNAPSHOT_SECONDS)
            if due and not self.over:
                self.save()

    def advance(self, to: int, deadline: float = math.inf) -> None:
        """Train to a step of the population, if the members let it, and at most until this process has
        used ``deadline`` seconds of processor time: a busy machine changes nothing."""
        self.begin()
        while not self.over and self.step < to and time.process_time() < deadline:
            self._block(min(to, self._block_end()))

    def begin(self) -> None:
        """Record where the members begin, once; and be ready to train."""
        if not self._begun and self.step == 0:
            self.rollback.begin(range(len(self.members)))
            self.save()
            self._keep_trace()
        self._begun = True
        self.population.train()

    def _block(self, last: int) -> None:
        """Take steps up to step ``last``, and do what is due there. Within a block nothing is read
        from the device, so that a GPU never waits for Python."""
        began, first = time.monotonic(), self.step
        self.layers.before(first, last, self.stops, self.schedules.starts)
        self._take_steps(last)
        if any(stop.stop.minutes is not None for stop in self.stops):
            seconds = self.ranks.decide(lambda: self.seconds)
            cut_late(self.stops, self.step, self.schedules.starts, seconds)
        if last > first + 1 or not self._rate:  # a single step says little
            self._rate = (last - first) / max(time.monotonic() - began, 1e-9)
        self.layers.after(self.step, self.schedules.starts, self.stepper.alive)
        self._keep_trace()
        if self.calendar.is_end(self.step) or any(end <= self.step for end in self._ends()):
            self._end_epoch()

    def _block_end(self) -> int:
        """The next step at which something is due: an epoch's end, a member's end, a trace. Where
        that is far, a step about BLOCK_SECONDS from here, for progress and interrupts."""
        ends = [end for end in self._ends() if end > self.step]
        places = [*self.trace, *self.layers.ends(self.step, self.stops, self.schedules.starts)]
        due = min([self.calendar.end(self.step), *ends, *(p for p in places if p > self.step)])
        block = max(BLOCK_SECONDS, STORING * len(self.members))
        steps = int(self._rate * block) if self._rate else 8  # the first block measures
        steps = steps if self.hooks.on_step is None else 1  # it may end a member after any step
        return min(due, self.step + max(1, steps))

    def _ends(self) -> list[int]:
        """The population's step at which each member ends at the latest."""
        starts = self.schedules.starts
        return [stop.total + start for stop, start in zip(self.stops, starts, strict=True)]

    def _take_steps(self, last: int) -> None:
        """Take the steps, and record their losses and what went wrong."""
        first, alive = self.step, self.stepper.alive.cpu().clone()
        starts = self.schedules.starts
        with kernel_threads(self.program.execution.step_threads):
            measured = self.stepper.run(
                self.calendar.batches(first, last),
                first,
                self.learning_rates(first, last),
                self.schedules.momentum(first, last),
                starts,
                None if self.graphed is None else self.graphed.one,
            )
        dead = (alive & ~self.stepper.alive.cpu()).nonzero().flatten().tolist()
        record_frozen(self.record, dead, self.members.numbers, first, starts, measured)
        self._record_graphs()
        self.step = last
        if not bool(self.stepper.alive.any()) and not self.rollback.waits:
            # every member has diverged and none may go back: skip the rest of the epoch
            self.step = min([self.calendar.end(first), *(e for e in self._ends() if e > first)])
            measured = without_rest(measured, alive, self.step - first)
        self.epoch.add(measured)
        # a member counts its steps from its own start (it may have taken over a row); members with
        # the same start are written together
        for start in np.unique(starts):
            rows = np.flatnonzero(np.array(starts) == start)
            numbers = [self.members.numbers[row] for row in rows]
            losses, norms = self.epoch.losses[-1][:, rows], self.epoch.norms[-1][:, rows]
            self.record.add_steps(first - int(start), numbers, losses, norms)
        if self.hooks.on_step is not None:
            self._after_step(last)

    def _after_step(self, last: int) -> None:
        """Show ``on_step`` the step; a member that it ends has no more of them."""
        rates = self.learning_rates(last - 1, last)[0]
        losses, norms = self.epoch.losses[-1][-1], self.epoch.norms[-1][-1]
        for row, number in enumerate(self.members.numbers):
            own = last - self.schedules.starts[row]
            seen = {"member": number, "step": own, "lr": float(rates[row])}
            seen |= {"loss": float(losses[row]), "grad_norm": float(norms[row])}
            if self.ranks.decide(lambda seen=seen: self.hooks.step(seen)):  # type: ignore[misc]
                self.stops[row].total = own

    def learning_rates(self, first: int, last: int) -> np.ndarray:
        """The learning rates of steps first, …, last - 1 [n, P]: schedule x lr x what roll-backs have
        left of it."""
        own = np.array([r.optimizer.lr for r in self.members.recipes], float)
        base = self.changes.rates(first, last, self.members.numbers, own)
        return self.schedules.factors(first, last) * (base * self.rollback.factors())

    def _record_graphs(self) -> None:
        if self.graphed is not None and self.graphed.why is not None:
            text = f"steps without CUDA graphs: {self.graphed.why}"
            self.record.add_event(self.step, None, "execution", text)
            self.graphed = None

    # --- the end of an epoch ----------------------------------------------------------------------

    def _end_epoch(self) -> None:
        """Average, evaluate, judge; members that are to end leave, and others join."""
        # the modules' own buffers (running statistics) become rows of the stacked ones
        self.population.gather_buffers()
        # a member whose plan ends within an epoch is judged alone: the epoch of the others goes on
        at_end = self.calendar.is_end(self.step)
        due = [row for row, end in enumerate(self._ends()) if at_end or end <= self.step]
        if averaged := [row for row in due if self._swa_has_begun(row)]:
            self.weights.average_epoch(averaged)
        rates = self.learning_rates(self.step - 1, self.step)[0][due]
        measured = self.evaluation.epoch(due, self._places(due), rates)
        report_averages(self.record, self.weights.broken(due), self.members.numbers, self.step)
        # who is alive is noted first: a roll-back brings a member back to life
        alive = [bool(self.stepper.alive[row]) for row in due]
        self._observe(due, measured, alive)
        self._handle_trouble(due)
        if at_end:  # schedules that watch a metric see it once an epoch
            columns = {n: np.array([row.get(n, math.nan) for row in measured]) for n in measured[0]}
            self.schedules.observe(columns)
            self.epoch.clear()
        self.record.add_epochs(measured)
        ended = self._ended(due, measured, alive)
        self._rows, self._latest = measured, shown_means(measured)
        if ended:
            self._end_members(ended)
        elif at_end and self._refill():
            self.save()

    def _swa_has_begun(self, row: int) -> bool:
        begin, own = self.members.recipes[row].average.swa, self.step - self.schedules.starts[row]
        return begin is not None and own >= self.calendar.steps(begin, self.stops[row].total)

    def _places(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """How far each of these members has come, counted from its own start."""
        places = []
        for row in rows:
            own = self.step - self.schedules.starts[row]
            place = {"member": self.members.numbers[row], "epoch": self.calendar.epochs(own)}
            places.append(place | {"step": own, "seconds": self.seconds})
        return places

    def _observe(self, due: list[int], measured: list[dict[str, Any]], alive: list[bool]) -> None:
        """Judge the members that live by their stop criteria, and keep what is the best so far."""
        improved = [
            row
            for row, metrics, lives in zip(due, measured, alive, strict=True)
            if lives and self.stops[row].observe(metrics["step"], metrics, metrics["seconds"])
        ]
        asked = self.ranks.decide(lambda: [self.hooks.ended(metrics) for metrics in measured])
        for row, reason in zip(due, asked, strict=True):
            self.stops[row].reason = reason or self.stops[row].reason
        self.weights.keep_best(improved)

    def _handle_trouble(self, due: list[int]) -> None:
        """Members that diverged go back to their last good state, or report what they skipped, as
        their recipes have it."""
        for row in due:
            recipe, text = self.members.recipes[row], None
            own = self.step - self.schedules.starts[row]
            losses, norms = self.epoch.of(row)
            if recipe.stop.on_trouble == "rollback":
                text = self.rollback.judge(row, own, losses, self.stepper.alive)
            elif recipe.stop.on_trouble == "report":
                text = skipped(losses, norms)
            if text is not None:
                lr = float(self.learning_rates(self.step - 1, self.step)[0, row])
                number = self.members.numbers[row]
                self.record.add_event(own, number, recipe.stop.on_trouble, text, {"lr": lr})

    def _ended(
        self, due: list[int], measured: list[dict[str, Any]], alive: list[bool]
    ) -> dict[int, str]:
        """The rows that end here, and why."""
        reasons: list[str | None] = [None] * len(due)
        if self.halving is not None:
            totals = [self.stops[row].total for row in due]
            judged = (self.record, measured, self.calendar.epoch_steps, totals)
            reasons = self.ranks.decide(functools.partial(self.halving.judge, *judged))
        ended = {}
        for row, metrics, lived, halved in zip(due, measured, alive, reasons, strict=True):
            lives, stop = bool(self.stepper.alive[row]), self.stops[row]
            if lives and not lived:
                # it went back: the metrics above belong to weights that it no longer has
                stop.observe(metrics["step"], dict.fromkeys(metrics, math.nan), metrics["seconds"])
            reason = (stop.reason if lives else "diverged") or halved
            if reason is not None:
                ended[row] = reason
        return ended

    def keep(self, numbers: Sequence[int]) -> None:
        """Drop all other members, without results."""
        staying = [row for row, number in enumerate(self.members.numbers) if number in numbers]
        if len(staying) == len(self.members):
            return
        self.population.gather_buffers()
        if staying:
            self.members.keep(staying)
        self.over = self.over or not staying

    # --- members end, others join -----------------------------------------------------------------

    def _end_members(self, ended: dict[int, str]) -> None:
        """Evaluate and record the members that have ended; the others train on without them."""
        rows = sorted(ended)
        for row in rows:
            self.stops[row].reason = ended[row]
        final = self.weights.final(self.stops)
        numbers = [self.members.numbers[row] for row in rows]
        results = self.evaluation.final(final, rows, self._places(rows), self.stops)
        for number, result in zip(numbers, results, strict=True):
            if "train_loss" not in result:  # the epoch's losses have been recorded already
                result["train_loss"] = last_train_loss(self.record, number)
        # their whole state is stored too, optimiser slots included: a finished run can be extended
        arrays, facts = self.state(rows) if self.record.lasts else ({}, {"members": numbers})
        arrays["final"] = final[0][rows]
        arrays |= {f"final_buffer/{name}": stacked[rows] for name, stacked in final[1].items()}
        self.record.snapshot("final", self.step, numbers[0], arrays, facts)
        for number, result in zip(numbers, results, strict=True):
            self.record.set_result(number, result)
        staying = [row for row in range(len(self.members)) if row not in ended]
        if staying:
            # compaction: the remaining rows move together, so that no work is done for the others
            self.members.keep(staying)
            self._refill()
        elif self.waiting:
            # the next members begin with an epoch, as all do
            if not self.calendar.is_end(self.step):
                self.step = self.calendar.end(self.step)
            self.epoch.clear()
            self._refill(leaving=len(self.members))
        else:
            self.over = True
            return
        self.save()

    def _refill(self, leaving: int = 0) -> bool:
        """Between epochs, waiting members take the free rows and begin. The first ``leaving`` rows
        leave only after the new ones have joined, because a population is never empty."""
        room = self.width - len(self.members) + leaving
        if not self.waiting or room < 1 or not self.calendar.is_end(self.step):
            return False
        numbers, recipes = zip(*self.waiting[:room], strict=True)
        self.waiting = self.waiting[room:]
        dtype = self.population.theta.dtype
        fresh = [objective(r, self.pipeline, self.program.module, dtype) for r in recipes]
        weights = bootstrap_counts(self.program, recipes)
        self.members.grow(self.population.newcomers(fresh, recipes, numbers, self.step, weights))
        if leaving:
            self.members.keep(range(leaving, len(self.members)))
        self.rollback.begin(range(len(self.members) - len(numbers), len(self.members)))
        # the number of rows has changed: set up the recorded way of running again
        pilot.replay(self.population, self.program.execution)
        self.population.train()
        return True

    def _new_stops(self, new: Newcomers) -> list[Stopping]:
        return [Stopping(recipe, self.calendar) for recipe in new.recipes]

    # --- snapshots --------------------------------------------------------------------------------

    def state(self, rows: Sequence[int] | None = None) -> tuple[Arrays, Facts]:
        """What resuming these members (all, unless given) needs: arrays, and plain facts."""
        arrays, facts = self.members.state(rows)
        execution = self.program.execution.to_dict()
        return arrays, facts | {"step": self.step, "execution": execution, "seconds": self.seconds}

    def save(self) -> None:
        """Record the state of the members that train, where the record lasts."""
        if not self.record.lasts:
            return
        self.population.gather_buffers()
        self.record.sync()  # losses first: a snapshot promises that everything before it is stored
        self.record.snapshot("latest", self.step, self.lead, *self.state())
        self._saved = time.monotonic()

    def load(self, arrays: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Continue from a snapshot. The program must hold the snapshot's members, in its order."""
        self.members.load(arrays, facts)
        self.step, self._seconds_before = facts["step"], facts["seconds"]

    def _keep_trace(self) -> None:
        if self.step in self.trace:
            self.population.gather_buffers()
            arrays = {"theta": self.population.theta} | self.population.saved_buffers()
            facts = {"step": self.step, "members": self.members.numbers}
            self.record.snapshot("trace", self.step, self.lead, arrays, facts)

    # --- progress ---------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resumed snapshot included."""
        return self._seconds_before + time.monotonic() - self._since

    def _progress(self) -> Progress:
        metrics = dict(self._latest)
        if self.epoch.losses and np.isfinite(self.epoch.losses[-1][-1]).any():
            metrics["loss"] = float(np.nanmean(self.epoch.losses[-1][-1]))
        live = 0 if self.over else len(self.members)
        total = max(self._ends()) if live else self.step
        steps = self.calendar.epoch_steps
        return Progress(self.step, total, steps, live, self._rate, metrics, self._rows)
