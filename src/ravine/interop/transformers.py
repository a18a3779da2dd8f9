"""``ravine.watch`` as a callback of Hugging Face's ``Trainer`` (extra: interop)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback

from ravine.interop.watching import Watching


class WatchCallback(Watching, TrainerCallback):
    """``Trainer(…, callbacks=[WatchCallback()])``: the doctor's diagnosis when ``train`` ends.

    Losses are those that the model gives; where it gives none, those that the trainer logs.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        model, optimizer = given["model"], given["optimizer"]
        self.begin(model, optimizer, state.max_steps if state.max_steps > 0 else None)
        self._losses: list[Tensor] = []  # of the batches whose gradients are added up to one step
        self._logged: float | None = None
        self._handle = model.register_forward_hook(self._take)

    def _take(self, module: nn.Module, given: Any, output: Any) -> None:
        loss = output.get("loss") if isinstance(output, Mapping) else None
        if module.training and isinstance(loss, Tensor):
            self._losses.append(loss.detach())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.eye is None:
            return
        if self._losses:
            self.eye.step(sum(self._losses[1:], self._losses[0]) / len(self._losses))
        elif self._logged is not None:
            self.eye.step(self._logged)
        self._losses = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        self._logged = (logs or {}).get("loss", self._logged)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any
    ) -> None:
        if self.eye is not None and "eval_loss" in (metrics or {}):
            self.eye.validation(metrics["eval_loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._handle.remove()
        self.end()
