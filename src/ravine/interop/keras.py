"""``ravine.watch`` as a callback of Keras on PyTorch (extra: interop)."""

from __future__ import annotations

from typing import Any

import keras
from torch import nn

from ravine.errors import InputError
from ravine.interop.watching import Watching


class WatchCallback(Watching, keras.callbacks.Callback):
    """``model.fit(…, callbacks=[WatchCallback()])``: the doctor's diagnosis when ``fit`` ends.

    Keras's backend must be PyTorch: ``KERAS_BACKEND=torch``. Gradients are measured weight by weight;
    what activations give is not seen, because Keras calls its layers past PyTorch's hooks.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        if keras.backend.backend() != "torch":
            raise InputError(
                "keras",
                got=f"the backend {keras.backend.backend()}",
                expected="the backend torch",
                repair="set KERAS_BACKEND=torch before keras is imported",
            )
        params = self.params or {}
        per_epoch = params.get("steps")
        total = None if per_epoch is None else per_epoch * params.get("epochs", 1)
        eye = self.begin(self.model, Rates(self.model.optimizer, self.model), total)
        eye.parts = nn.ParameterDict()  # in the order of the layers: Keras's own is by name
        for variable in self.model.trainable_variables:
            eye.parts[variable.path.replace(".", "_")] = variable.value
        self._sums = (0.0, 0.0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._sums = (0.0, 0.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # what Keras logs is the mean over the epoch: the batch's own loss is the difference of sums
        mean = next(metric for metric in self.model.metrics if metric.name == "loss")
        total, count = float(mean.total), float(mean.count)
        before, counted = self._sums
        self._sums = (total, count)
        if self.eye is not None and count > counted:
            self.eye.step((total - before) / (count - counted))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.eye is not None and "val_loss" in (logs or {}):
            self.eye.validation(logs["val_loss"])

    def on_train_end(self, logs: Any = None) -> None:
        self.end()


class Rates:
    """A Keras optimiser as a watch reads it: the learning rate that it has now."""

    def __init__(self, optimizer: Any, model: nn.Module):
        self.optimizer, self.model = optimizer, model

    @property
    def part(self) -> dict[str, Any]:
        """The optimiser as a recipe says it; one that the catalogue has not, as Adam."""
        kind = type(self.optimizer).__name__.lower()
        kind = kind if kind in ("sgd", "adam", "adamw", "rmsprop") else "adam"
        numbers = {"momentum": float(self.optimizer.momentum)} if kind == "sgd" else {}
        return {"kind": kind, "lr": float(self.optimizer.learning_rate), **numbers}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        rate = float(self.optimizer.learning_rate)
        return [{"params": list(self.model.parameters()), "lr": rate}]
