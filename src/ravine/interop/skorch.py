"""``ravine.watch`` as a callback of skorch (extra: interop)."""

from __future__ import annotations

from typing import Any

from skorch.callbacks import Callback

from ravine.interop.watching import Watching


class WatchCallback(Watching, Callback):
    """``NeuralNetClassifier(…, callbacks=[WatchCallback()])``: the doctor's diagnosis when ``fit`` ends."""

    def _get_param_names(self) -> list[str]:
        """What a copy is made with, as ``cross_val_score`` and searches make: not what was seen."""
        return ["data", "loss", "every", "report"]

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.begin(net.module_, net.optimizer_)

    def on_batch_end(
        self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        if training and self.eye is not None:
            self.eye.step(kwargs["loss"])

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        if self.eye is None:
            return
        row = net.history[-1]
        self.eye.total = net.max_epochs * self.eye.steps // len(net.history)
        if row.get("valid_loss") is not None:
            self.eye.validation(row["valid_loss"])

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self.end()
