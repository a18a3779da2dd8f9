"""What the callbacks for other people's training loops share: a watch that begins with the training, and
its diagnosis at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from ravine.doctor.finding import Diagnosis
from ravine.interop.watch import Watch, watch


class Watching:
    """A watch that a callback begins, feeds and ends.

    ``data`` and ``loss``: what the loop trains on, and its loss; where they are given or known, the
    training is judged as ``ravine doctor RUN`` judges a run. ``report`` is called with the diagnosis;
    by default its findings are printed.
    """

    def __init__(
        self,
        *,
        data: Any = None,
        loss: Any = None,
        every: int | None = None,
        report: Callable[[Diagnosis], Any] | None = None,
    ):
        super().__init__()
        self.data, self.loss, self.every, self.report = data, loss, every, report
        self.eye: Watch | None = None
        self.diagnosis: Diagnosis | None = None  # once the training has ended

    def begin(self, model: nn.Module, optimizer: Any, steps: int | None = None) -> Watch:
        """Watch a training that begins now, of ``steps`` steps if that is known."""
        plan: dict[str, Any] = {"steps": steps, "data": self.data, "loss": self.loss}
        self.eye = watch(model, optimizer, every=self.every, **plan)
        return self.eye

    def end(self) -> None:
        """The training is over: its diagnosis is ``diagnosis``, and is reported."""
        if self.eye is None:
            return
        self.diagnosis = self.eye.diagnose()
        (self.report or show)(self.diagnosis)


def show(diagnosis: Diagnosis) -> None:
    """Print a diagnosis on standard error."""
    lines = [f"ravine: {diagnosis.verdict}: {diagnosis.why}"]
    lines += [f"ravine: {finding.text}" for finding in diagnosis.findings]
    print("\n".join(lines), file=sys.stderr)
