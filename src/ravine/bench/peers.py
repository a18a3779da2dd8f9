"""The competitors, each written the way its own documentation says.

A competitor is a function (work, bf16) -> fit; ``fit(epochs)`` trains on and gives the seconds of
each epoch. Adam with its defaults everywhere, batches shuffled anew each epoch, nothing logged or
stored beyond what the library does by itself.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from ravine.bench.population_peers import POPULATION_PEERS
from ravine.bench.works import POPULATIONS, WORKS, Work, arrays

Fit = Callable[[int], list[float]]


def ravine(name: str, bf16: bool = False, precision: str = "auto") -> Fit:
    """``ravine.train_many``: metrics, losses and snapshots are recorded as in any run."""
    from ravine import Recipe, train_many
    from ravine.rundir import RunDir

    work, members = (
        (WORKS[POPULATIONS[name][0]], POPULATIONS[name][1])
        if name in POPULATIONS
        else (WORKS[name], 1)
    )
    data = {"batch": work.batch, "validation": 0.0, "test": 0.0}
    x, y = arrays(work)
    folder = Path(tempfile.mkdtemp())

    def fit(epochs: int) -> list[float]:
        fields = {
            "data": data,
            "model": work.model,
            "precision": precision,
            "stop": {"after": f"{epochs}ep"},
        }
        recipes = [Recipe(seed=i, **fields) for i in range(members)]
        run = train_many(
            recipes, data=(x, y), out=folder / str(len(list(folder.iterdir()))), quiet=True
        )[0]
        ends = [0.0, *(row["seconds"] for row in RunDir.open(run.directory).epochs(0, clock=True))]
        return [(b - a) / members for a, b in pairwise(ends)]

    return fit


def ravine_float32(name: str, bf16: bool = False) -> Fit:
    """The same with ``precision = "float32"``."""
    return ravine(name, precision="float32")


def _loss(work: Work, output: Any, target: Any) -> Any:
    from torch.nn.functional import cross_entropy

    return (
        cross_entropy(output.flatten(0, 1), target.flatten())
        if work.vocabulary
        else cross_entropy(output, target)
    )


def torch_loader(name: str, bf16: bool = False) -> Fit:
    """The training loop of PyTorch's quickstart: DataLoader, Adam."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    work = WORKS[name]
    model = work.torch()
    loader = DataLoader(
        TensorDataset(*map(torch.from_numpy, arrays(work))), batch_size=work.batch, shuffle=True
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> None:
        model.train()
        for x, y in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = _loss(work, model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return lambda epochs: [_timed(epoch) for _ in range(epochs)]


def torch_indexed(name: str, bf16: bool = False) -> Fit:
    """What an expert writes for data in memory: tensors indexed by a permutation, fused Adam."""
    import torch

    work = WORKS[name]
    model = work.torch()
    inputs, targets = map(torch.from_numpy, arrays(work))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def epoch() -> None:
        model.train()
        for rows in torch.randperm(work.samples).split(work.batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = _loss(work, model(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return lambda epochs: [_timed(epoch) for _ in range(epochs)]


def lightning(name: str, bf16: bool = False) -> Fit:
    """A LightningModule and a Trainer without logger, checkpoints and progress bar."""
    import logging
    import warnings

    import lightning as L
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    work = WORKS[name]

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = work.torch()

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            return _loss(work, self.model(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    class Clock(L.Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    module, seconds = Module(), list[float]()
    loader = DataLoader(
        TensorDataset(*map(torch.from_numpy, arrays(work))), batch_size=work.batch, shuffle=True
    )

    def fit(epochs: int) -> list[float]:
        seconds.clear()
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            precision="bf16-mixed" if bf16 else "32-true",
            callbacks=[Clock()],
        )
        trainer.fit(module, loader)
        return list(seconds)

    return fit


def skorch(name: str, bf16: bool = False) -> Fit:
    """skorch's NeuralNetClassifier; its own callbacks time the epochs."""
    import torch
    from skorch import NeuralNetClassifier

    work = WORKS[name]
    if work.vocabulary or bf16:
        raise NotImplementedError("a class for each sample, in float32")
    net = NeuralNetClassifier(
        work.torch,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=work.batch,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )
    x, y = arrays(work)
    net.initialize()

    def fit(epochs: int) -> list[float]:
        before = len(net.history)
        net.partial_fit(x, y, epochs=epochs)
        return [row["dur"] for row in net.history[before:]]

    return fit


def keras(name: str, bf16: bool = False, backend: str = "jax") -> Fit:
    """``model.compile`` and ``model.fit``, with compilation as Keras chooses it."""
    os.environ["KERAS_BACKEND"] = backend
    import keras as k

    work = WORKS[name]
    if work.keras is None:
        raise NotImplementedError("written for the sequential works")
    if bf16:
        k.mixed_precision.set_global_policy("mixed_bfloat16")
    x, y = arrays(work)
    # channels last, Keras's own order
    x = x.transpose(0, 2, 3, 1).copy() if len(work.shape) == 3 else x
    model = k.Sequential([k.layers.Input(x.shape[1:], dtype=x.dtype), *work.keras(k.layers)])
    model.compile(
        optimizer=k.optimizers.Adam(1e-3),
        loss=k.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    class Clock(k.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.began)

    seconds: list[float] = []

    def fit(epochs: int) -> list[float]:
        seconds.clear()
        model.fit(
            x, y, batch_size=work.batch, epochs=epochs, shuffle=True, verbose=0, callbacks=[Clock()]
        )
        return list(seconds)

    return fit


def keras_torch(name: str, bf16: bool = False) -> Fit:
    """Keras on PyTorch."""
    return keras(name, bf16, backend="torch")


def keras_jax(name: str, bf16: bool = False) -> Fit:
    """Keras on JAX."""
    return keras(name, bf16, backend="jax")


def _timed(epoch: Callable[[], None]) -> float:
    began = time.perf_counter()
    epoch()
    return time.perf_counter() - began


PEERS: dict[
    str, tuple[str, Callable[..., Fit], tuple[str, ...]]
] = {  # name -> (title, competitor, what it imports)
    "ravine": ("Ravine", ravine, ()),
    "ravine_float32": ("Ravine, float32", ravine_float32, ()),
    "torch_loader": ("PyTorch + DataLoader", torch_loader, ()),
    "torch_indexed": ("PyTorch, indexed, fused Adam", torch_indexed, ()),
    "lightning": ("Lightning", lightning, ("lightning",)),
    "skorch": ("skorch", skorch, ("skorch",)),
    "keras_torch": ("Keras on PyTorch", keras_torch, ("keras",)),
    "keras_jax": ("Keras on JAX", keras_jax, ("keras", "jax")),
    **POPULATION_PEERS,
}
