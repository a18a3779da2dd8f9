"""``ravine.watch`` as a callback of Lightning (extra: interop)."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback

from ravine.interop.watching import Watching


class WatchCallback(Watching, Callback):
    """``Trainer(callbacks=[WatchCallback()])``: the doctor's diagnosis when ``fit`` ends.

    With ``loss=`` (the criterion of (output, target) that ``training_step`` uses) the training data are
    examined too, and the plan is judged. Trainings with manual optimisation call ``eye.step(loss)``
    themselves.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.loss is not None and self.data is None:
            self.data = trainer.train_dataloader
        total = trainer.estimated_stepping_batches
        self.begin(pl_module, trainer.optimizers[0], None if math.isinf(total) else int(total))
        self._step = trainer.global_step
        self._losses: list[Any] = []  # of the batches whose gradients are added up to one step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None or self.eye is None:
            return
        self._losses.append(loss)
        if trainer.global_step != self._step:
            # where several batches make a step, Lightning has divided each loss by their number
            times = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self.eye.step(times * sum(self._losses) / len(self._losses))
            self._step, self._losses = trainer.global_step, []

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        loss = trainer.callback_metrics.get("val_loss")
        if self.eye is not None and loss is not None and not trainer.sanity_checking:
            self.eye.validation(float(loss))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.end()
