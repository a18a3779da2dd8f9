"""``ravine.watch`` in other people's training loops, with the real libraries: a planted fault is named,
a sound training is left alone."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports keras

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

SOUND, FAULT = 0.05, 1e-9  # learning rates
DEEP = 9  # sigmoid layers


def data(n=512):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=generator)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def network(deep=False):
    torch.manual_seed(0)
    if not deep:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    layers = [nn.Linear(8, 32), nn.Sigmoid()]
    for _ in range(DEEP - 1):
        layers += [nn.Linear(32, 32), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(32, 2))


def with_lightning(lr, deep, tmp_path, **options):
    lightning = pytest.importorskip("lightning")
    from ravine.interop.lightning import WatchCallback

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network(deep)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            x, y = batch
            return F.cross_entropy(self(x), y)

        def validation_step(self, batch, index):
            x, y = batch
            self.log("val_loss", F.cross_entropy(self(x), y))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=lr, momentum=0.9)

    callback = WatchCallback(**options)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data()), batch_size=64, shuffle=True
    )
    trainer = lightning.Trainer(
        max_epochs=20,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Net(), loader, loader)
    return callback


def with_transformers(lr, deep, tmp_path, **options):
    transformers = pytest.importorskip("transformers")
    from ravine.interop.transformers import WatchCallback

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network(deep)

        def forward(self, x, labels=None):
            logits = self.net(x)
            loss = None if labels is None else F.cross_entropy(logits, labels)
            return {"loss": loss, "logits": logits}

    x, y = data()
    rows = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    callback = WatchCallback(**options)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=20,
        per_device_train_batch_size=64,
        learning_rate=lr,
        lr_scheduler_type="constant",
        optim="sgd",
        optim_args="momentum=0.9",
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        max_grad_norm=0.0,
    )
    trainer = transformers.Trainer(
        Net(), arguments, train_dataset=rows, eval_dataset=rows[:64], callbacks=[callback]
    )
    trainer.train()
    return callback


def with_skorch(lr, deep, tmp_path, **options):
    skorch = pytest.importorskip("skorch")
    from ravine.interop.skorch import WatchCallback

    callback = WatchCallback(**options)
    net = skorch.NeuralNetClassifier(
        network(deep),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=lr,
        max_epochs=20,
        batch_size=64,
        callbacks=[callback],
        verbose=0,
    )
    x, y = data()
    net.fit(x.numpy(), y.numpy())
    return callback


def with_accelerate(lr, deep, tmp_path, **options):
    accelerate = pytest.importorskip("accelerate")
    from ravine.interop.accelerate import accelerated

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = network(deep)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data()), batch_size=32, shuffle=True
    )
    net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    eye = accelerated(accelerator, net, optimizer, **options)
    for _ in range(20):
        for x, y in loader:
            with accelerator.accumulate(net):
                eye.backward(F.cross_entropy(net(x), y))
                optimizer.step()
                optimizer.zero_grad()
    eye.diagnosis = eye.diagnose()
    return eye


def with_keras(lr, deep, tmp_path, **options):
    keras = pytest.importorskip("keras")
    from ravine.interop.keras import WatchCallback

    keras.utils.set_random_seed(0)
    hidden = [32] * (DEEP if deep else 1)
    layers = [keras.layers.Input((8,))]
    for width in hidden:
        layers += [
            keras.layers.Dense(width),
            keras.layers.Activation("sigmoid" if deep else "relu"),
        ]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    model.compile(
        optimizer=keras.optimizers.SGD(lr, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    callback = WatchCallback(**options)
    x, y = (each.numpy() for each in data())
    model.fit(
        x, y, epochs=20, batch_size=64, verbose=0, callbacks=[callback], validation_data=(x, y)
    )
    return callback


LOOPS = {
    "lightning": with_lightning,
    "transformers": with_transformers,
    "skorch": with_skorch,
    "accelerate": with_accelerate,
    "keras": with_keras,
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_sound_training_is_left_alone(loop, tmp_path, capsys):
    found = LOOPS[loop](SOUND, False, tmp_path)
    assert found.diagnosis.verdict == "healthy", found.diagnosis
    assert found.diagnosis.findings == []
    assert found.eye.steps == 160 or loop == "skorch"  # which holds out a fifth for validation
    assert abs(found.eye.losses[0] - np.log(2)) < 0.3
    assert found.eye.losses[-1] < 0.3


FAULTS = {"lr_too_low": (FAULT, False), "vanishing_gradient": (0.01, True)}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("code", FAULTS)
def test_a_planted_fault_is_named(loop, code, tmp_path, capsys):
    found = LOOPS[loop](*FAULTS[code], tmp_path)
    assert found.diagnosis.verdict == "sick", found.diagnosis
    assert code in found.diagnosis.codes
    if loop != "accelerate":
        assert code in capsys.readouterr().err


@pytest.mark.parametrize("loop", LOOPS)
def test_with_the_data_it_judges_as_the_doctor_judges_a_run(loop, tmp_path, capsys):
    """A rate that Adam or SGD could have, but that ends the plan in mid-descent."""
    x, y = data()
    given = {} if loop == "lightning" else {"data": (x, y)}
    more = {"steps": 160, "batch": 64} if loop == "accelerate" else {}
    slow = LOOPS[loop](1e-3, False, tmp_path, loss=nn.CrossEntropyLoss(), **given, **more)
    assert slow.diagnosis.verdict == "sick", slow.diagnosis
    assert {"lr_too_low", "too_few_epochs"} & set(slow.diagnosis.codes), slow.diagnosis.codes
    sound = LOOPS[loop](SOUND, False, tmp_path, loss=nn.CrossEntropyLoss(), **given, **more)
    assert sound.diagnosis.verdict == "healthy", sound.diagnosis
    assert "of the best constant predictor's" in sound.diagnosis.why


def test_batches_that_lightning_adds_up_have_their_own_loss(tmp_path):
    """Lightning divides each loss by the number of batches that make a step."""
    lightning = pytest.importorskip("lightning")
    from ravine.interop.lightning import WatchCallback

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, index):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-9)

    callback = WatchCallback(report=lambda diagnosis: None)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=32)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[callback],
        accumulate_grad_batches=4,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **quiet,
    )
    net = Net()
    trainer.fit(net, loader)
    x, y = data()
    own = [
        float(F.cross_entropy(net.net(a), b))
        for a, b in zip(x.split(128), y.split(128), strict=True)
    ]
    np.testing.assert_allclose(callback.eye.losses, own, rtol=1e-4)


def test_skorch_copies_its_callback_for_each_fold():
    skorch = pytest.importorskip("skorch")
    from sklearn.model_selection import cross_val_score

    from ravine.interop.skorch import WatchCallback

    seen = []
    callback = WatchCallback(report=seen.append)
    net = skorch.NeuralNetClassifier(
        network(),
        criterion=nn.CrossEntropyLoss,
        lr=0.05,
        max_epochs=2,
        callbacks=[callback],
        verbose=0,
    )
    x, y = data()
    assert len(cross_val_score(net, x.numpy(), y.numpy(), cv=3)) == len(seen) == 3
