"""Time to 99 % test accuracy on MNIST, from process start to the end, imports included: LeNet,
Adam, batches of 128.

Every competitor looks at the test set after each epoch and stops at the first that reaches the
target. ``python -m ravine.bench.time_to_target PEER THREADS SEED`` is one run; ``race`` runs them all in
turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

TARGET = 0.99
MOST_EPOCHS = 10


def race(
    peers: Sequence[str],
    *,
    rounds: int,
    threads: int,
    report: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Each competitor in turn, round after round, each round another seed."""
    from ravine.bench.measure import installed

    columns = ("seconds", "accuracy", "epochs")
    rows: list[dict[str, Any]] = [
        {"peer": p, **{c: [] for c in columns}, "failed": ""} for p in peers if installed(p)
    ]
    for seed in range(rounds):
        for row in rows:
            began = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "ravine.bench.time_to_target",
                row["peer"],
                str(threads),
                str(seed),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - began
            if done.returncode:
                row["failed"] = (done.stderr.strip().splitlines() or ["it failed"])[-1]
                continue
            found = json.loads(done.stdout.strip().splitlines()[-1])
            row["seconds"].append(seconds)
            row["accuracy"].append(found["accuracy"])
            row["epochs"].append(found["epochs"])
            report(
                f"{row['peer']:16} seed {seed} {seconds:7.1f} s, {found['epochs']} epochs, {100 * found['accuracy']:.2f} %"
            )
    return rows


def _mnist() -> tuple[Any, Any, Any, Any]:
    """Images [N, 1, 28, 28] in [0, 1] and digits: 60,000 to train on, 10,000 to test."""
    from ravine.bench.mnist import load

    return load()


def _ravine(seed: int) -> tuple[float, int]:
    from ravine import train
    from ravine.bench.works import WORKS

    x, y, x_test, y_test = _mnist()
    run = train(
        data={"train": (x, y), "validation": (x_test, y_test)},
        model=list(WORKS["lenet"].model["layers"]),
        seed=seed,
        epochs=MOST_EPOCHS,
        target=TARGET,
        monitor="val_accuracy",
        quiet=True,
    )
    rows = run.metrics["val_accuracy"]
    return float(rows.iloc[-1]), len(rows)


def _epochs(peer: str, seed: int) -> Iterator[float]:
    """The test accuracy after each epoch."""
    import torch

    torch.manual_seed(seed)
    written = {
        "torch_loader": _torch,
        "torch_indexed": _torch,
        "lightning": _lightning,
        "skorch": _skorch,
    }
    yield from written.get(peer, _keras)(peer)


def _torch(peer: str) -> Iterator[float]:
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    from ravine.bench.works import WORKS

    x, y, x_test, y_test = map(torch.from_numpy, _mnist())
    model = WORKS["lenet"].torch()
    indexed = peer == "torch_indexed"
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=indexed or None)
    loader = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
    while True:
        model.train()
        batches = (
            ((x[rows], y[rows]) for rows in torch.randperm(len(x)).split(128))
            if indexed
            else loader
        )
        for inputs, targets in batches:
            loss = cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield _accuracy(model, x_test, y_test)


def _accuracy(model: Any, x: Any, y: Any) -> float:
    import torch

    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(a).argmax(1) == b).sum())
            for a, b in zip(x.split(500), y.split(500), strict=True)
        )
    return right / len(y)


def _lightning(peer: str) -> Iterator[float]:
    import logging
    import warnings

    import lightning as L
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    from ravine.bench.works import WORKS

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    x, y, x_test, y_test = map(torch.from_numpy, _mnist())

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = WORKS["lenet"].torch()
            self.scores: list[float] = []

        def training_step(self, batch: Any, index: int) -> Any:
            return cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

        def on_validation_epoch_end(self) -> None:
            score = float(self.trainer.callback_metrics["accuracy"])
            self.scores.append(score)
            self.trainer.should_stop = score >= TARGET

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    module = Module()
    trainer = L.Trainer(
        max_epochs=MOST_EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    training = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
    trainer.fit(module, training, DataLoader(TensorDataset(x_test, y_test), batch_size=500))
    yield from module.scores


def _skorch(peer: str) -> Iterator[float]:
    import torch
    from skorch import NeuralNetClassifier

    from ravine.bench.works import WORKS

    x, y, x_test, y_test = _mnist()
    net = NeuralNetClassifier(
        WORKS["lenet"].torch,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=128,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )
    net.initialize()
    while True:
        net.partial_fit(x, y, epochs=1)
        yield float((net.predict(x_test) == y_test).mean())


def _keras(peer: str) -> Iterator[float]:
    os.environ["KERAS_BACKEND"] = peer.removeprefix("keras_")
    import keras as k

    from ravine.bench.works import WORKS

    x, y, x_test, y_test = _mnist()
    x, x_test = x.transpose(0, 2, 3, 1), x_test.transpose(0, 2, 3, 1)
    layers = WORKS["lenet"].keras
    assert layers is not None
    model = k.Sequential([k.layers.Input(x.shape[1:]), *layers(k.layers)])
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=k.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
    while True:
        model.fit(x, y, batch_size=128, epochs=1, shuffle=True, verbose=0)
        yield float(model.evaluate(x_test, y_test, batch_size=500, verbose=0)[1])


def main(peer: str, threads: str, seed: str) -> None:
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = threads
    if peer == "ravine":
        accuracy, epochs = _ravine(int(seed))
    else:
        scores: list[float] = []
        for score in _epochs(peer, int(seed)):
            scores.append(score)
            if score >= TARGET or len(scores) == MOST_EPOCHS:
                break
        accuracy, epochs = scores[-1], len(scores)
    print(json.dumps({"accuracy": accuracy, "epochs": epochs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
