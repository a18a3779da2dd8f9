"""What somebody who knows PyTorch tries: it trains, or one message says what to write instead."""

from __future__ import annotations

import copy
import functools
import warnings
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.optim import lr_scheduler
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

import ravine
from given import Rows
from ravine.engine.rows.samples_tried import _advice

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, :2].sum(1) > 0).long()
Sample = namedtuple("Sample", "x y")


def net(outputs=2):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))


def one():
    return net(1)


def train(tmp_path, **given):
    given = {"model": net, "data": (X, Y), "epochs": 1, "quiet": True, "doctor": False} | given
    return ravine.train(**given, out=tmp_path / "run")


class Endless(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Gathering(nn.Module):
    """As torchmetrics' metrics are."""

    def __init__(self):
        super().__init__()
        self.reset()

    def reset(self):
        self.right = self.all = 0

    def update(self, output, target):
        self.right += float((output.argmax(1) == target).sum())
        self.all += len(target)

    def compute(self):
        return torch.tensor(self.right / self.all)


class Own(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.layers, self.way = net(), forward

    def forward(self, *inputs, **named):
        return self.way(self.layers, *inputs, **named)


class Callable:
    def __call__(self, output, target):
        return F.cross_entropy(output, target)


class Failing(torch.optim.Optimizer):
    def __init__(self, parameters, lr=0.1):
        super().__init__(parameters, {"lr": lr})

    def step(self, closure):
        closure(1)


def with_hook():
    made = net()
    made[0].weight.register_hook(lambda slope: slope * 2)
    return made


def pruned():
    made = net()
    prune.l1_unstructured(made[0], "weight", 0.5)
    return made


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 2)))


def on_meta():
    with torch.device("meta"):
        return net()


def complex_one():
    made = net()
    made.shift = nn.Parameter(torch.zeros(2, dtype=torch.cfloat))
    return made


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear}, dtype=torch.qint8)


def accuracy(output, target, num_classes):
    return float((output.argmax(1) == target).float().mean())


def spread_out(w, g, state, t, layout, lr=0.1):
    w.sub_(lr.expand_as(g) * g)


def going_backwards(model, batch):
    loss = F.cross_entropy(model(batch.x), batch.y)
    loss.backward()
    return loss


def tokens():
    layers = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Flatten(), nn.Linear(24, 2))
    data = (torch.randint(0, 10, (60, 6), generator=torch.Generator().manual_seed(0)), Y)
    return {"model": lambda: layers, "data": data}


REFUSED = {
    "a scheduler with its optimiser": (
        lambda: {"schedule": lr_scheduler.StepLR(torch.optim.SGD(net().parameters(), 0.1), 1)},
        r"schedule=lambda optimizer: torch\.optim\.lr_scheduler\.StepLR",
    ),
    "an optimiser with parameters": (
        lambda: {"optimizer": torch.optim.SGD(net().parameters(), 0.1)},
        r"optimizer=torch\.optim\.SGD",
    ),
    "ReduceLROnPlateau": (
        lambda: {"schedule": lr_scheduler.ReduceLROnPlateau},
        'schedule={"kind": "on_plateau"',
    ),
    "OneCycleLR": (
        lambda: {"schedule": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, 10)},
        'schedule="one_cycle"',
    ),
    "a schedule of another argument": (
        lambda: {"schedule": lambda e: 0.9**e},
        "lambda epoch, lr: …, and lambda optimizer",
    ),
    "an optimiser whose step fails": (lambda: {"optimizer": Failing}, r"step\(closure\)"),
    "an optimiser that is none": (lambda: {"optimizer": lambda p: None}, "@ravine.technique"),
    "a formula that fails": (lambda: {"optimizer": spread_out}, r"w\.sub_\(lr \* g\)"),
    "a name of torch.optim": (lambda: {"optimizer": "torch.optim.AdamW"}, "mean 'adamw'"),
    "a name of torch.nn": (lambda: {"loss": "CrossEntropyLoss"}, "mean 'cross_entropy'"),
    "a loss that is a float": (lambda: {"loss": lambda o, t: 1.0}, "a tensor"),
    "a detached loss": (
        lambda: {"loss": lambda o, t: F.cross_entropy(o, t).detach()},
        r"leave out \.detach\(\)",
    ),
    "two losses": (lambda: {"loss": [nn.MSELoss(), nn.L1Loss()]}, "multi_task"),
    "CTC": (lambda: {"loss": nn.CTCLoss()}, r"in a step= of \(model, batch\)"),
    "a metric that gives a dictionary": (
        lambda: {"metrics": [lambda o, t: {"a": 1.0}]},
        r"metrics=\[one, other\]",
    ),
    "a metric that gives nothing": (lambda: {"metrics": [lambda o, t: None]}, "a number"),
    "a metric that gives text": (lambda: {"metrics": [lambda o, t: "good"]}, "a number"),
    "a metric of scikit-learn": (
        lambda: {"metrics": [accuracy_score]},
        r"f\(target, output.argmax\(1\)\)",
    ),
    "metrics by name": (lambda: {"metrics": {"mine": accuracy_score}}, r"metrics=\[f, g\]"),
    "outputs without a tensor": (lambda: {"model": lambda: Own(lambda m, x: "x")}, "logits"),
    "optimisers by part": (
        lambda: {"optimizer": {"0": torch.optim.SGD, "2": torch.optim.Adam}},
        r"lambda model: {'0': torch\.optim\.SGD\(model\.0\.parameters\(\)\)",
    ),
    "a metric called as one that is there": (
        lambda: {"metrics": [functools.partial(accuracy, num_classes=2)]},
        "def my_accuracy",
    ),
    "accuracy of numbers": (
        lambda: {"data": (X, Y.float()), "metrics": ["accuracy"], "loss": "squared"},
        r"y\.long\(\)",
    ),
    "tensors beside the loss": (
        lambda: {"step": lambda model, batch: {"loss": model(batch.x).mean(), "out": batch.x}},
        r"\.mean\(\)",
    ),
    "outputs of other rows": (
        lambda: {"model": lambda: Own(lambda m, x: m(x).mean(0, keepdim=True))},
        "keep the first axis",
    ),
    "a function of inputs": (lambda: {"model": lambda: abs}, "forward of a class of nn.Module"),
    "a class with arguments": (lambda: {"model": nn.Linear}, "lambda"),
    "a scripted module": (lambda: {"model": torch.jit.script(net())}, "script it after training"),
    "a module on meta": (lambda: {"model": on_meta}, "to_empty"),
    "complex parameters": (lambda: {"model": complex_one}, "view_as_real"),
    "a hook on a parameter": (lambda: {"model": with_hook()}, "hooks on modules"),
    "a pruned module": (lambda: {"model": pruned}, r"prune\.remove"),
    "the old weight_norm": (lambda: {"model": old_weight_norm}, r"parametrizations\.weight_norm"),
    "a quantised module": (lambda: {"model": quantised}, r"quantise run\.model"),
    "nothing to train": (lambda: {"model": net().requires_grad_(False)}, "requires_grad_"),
    "sparse gradients": (tokens, "sparse=False"),
    "a step that goes backwards": (lambda: {"step": going_backwards}, "return the loss"),
    "a step that gives nothing": (lambda: {"step": lambda model, batch: None}, "return loss"),
    "a step of Lightning": (
        lambda: {"step": lambda self, batch, batch_idx: 0.0},
        r"a function of \(model, batch\)",
    ),
    "a hook of two arguments": (lambda: {"on_epoch": lambda a, b: None}, "def seen"),
    "a hook that is none": (lambda: {"on_step": "stop"}, "def seen"),
    "callbacks": (lambda: {"callbacks": [print]}, "on_epoch"),
    "a generator as data": (lambda: {"data": (row for row in zip(X, Y, strict=True))}, "a list"),
    "a target of a frame beside a recipe": (
        lambda: {
            "recipe": ravine.Recipe(),
            "data": pd.DataFrame(X.numpy()).assign(won=Y),
            "target": "won",
        },
        r"data\.rename\(columns={'won': 'y'}\)",
    ),
    "texts": (lambda: {"data": Rows(lambda i: ("word", i % 2))}, "make it tokens"),
    "texts by name": (
        lambda: {"data": Rows(lambda i: {"text": "word", "label": i % 2})},
        "collate_fn",
    ),
    "samples of a class": (
        lambda: {"data": Rows(lambda i: Callable())},
        "from __getitem__",
    ),
    "inputs alone": (lambda: {"data": X}, r"data=\(x, y\)"),
    "ignored classes": (
        lambda: {"data": (X, torch.where(torch.arange(60) < 5, -100, Y))},
        "leave out samples",
    ),
    "signs as classes": (lambda: {"data": (X, 2 * Y - 1)}, r"made classes by \(y > 0\)"),
    "a forward that fails": (
        lambda: {"model": lambda: Own(lambda m, x: m(x) * {}["foo"])},
        r"KeyError: 'foo' \(test_refusals\.py, line \d+\)",
    ),
    "classes as floats": (
        lambda: {"data": (X, Y.float()), "loss": nn.CrossEntropyLoss()},
        r"y\.long\(\)",
    ),
    "one label each for a loss of several": (
        lambda: {"data": (X, F.one_hot(Y, 2).float()), "loss": nn.BCEWithLogitsLoss()},
        "cross_entropy",
    ),
    "a scaler": (lambda: {"preprocess": StandardScaler()}, 'preprocess="standardize"'),
    "fewer samples after augmentation": (
        lambda: {"augment": lambda x: x[:2]},
        r"a function of \(x, y\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_what_to_do(case, tmp_path):
    given, text = REFUSED[case]
    with pytest.raises(ravine.InputError, match=text) as raised:
        train(tmp_path, **given())
    assert raised.value.expected or raised.value.repair
    assert not (tmp_path / "run" / "metrics.sqlite").exists()


TRAINED = {
    "LBFGS": lambda: {"optimizer": torch.optim.LBFGS},
    "groups": lambda: {
        "optimizer": lambda model: torch.optim.AdamW(
            [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 1e-2}]
        )
    },
    "LambdaLR": lambda: {
        "schedule": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda e: 0.9**e)
    },
    "a loss [B, T]": lambda: {
        "loss": lambda o, t: F.cross_entropy(o, t, reduction="none")[:, None].expand(-1, 3)
    },
    "a partial": lambda: {"loss": functools.partial(F.cross_entropy, label_smoothing=0.1)},
    "an object": lambda: {"loss": Callable()},
    "a class": lambda: {"loss": nn.CrossEntropyLoss},
    "class weights": lambda: {"loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))},
    "a metric that is a tensor": lambda: {"metrics": [lambda o, t: (o.argmax(1) == t).float().mean()]},
    "a metric that gathers": lambda: {"metrics": [Gathering()]},
    "forward(**batch)": lambda: {
        "model": lambda: Own(lambda m, **batch: {"logits": m(torch.cat([batch["a"], batch["b"]], 1))}),
        "data": {"a": X[:, :3], "b": X[:, 3:], "y": Y},
    },
    "DataParallel": lambda: {"model": nn.DataParallel(net())},
    "a module in eval mode": lambda: {"model": net().eval()},
    "weight_norm": lambda: {
        "model": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)))
    },
    "half precision": lambda: {"model": lambda: net().half()},
    "lazy layers": lambda: {"model": lambda: nn.Sequential(nn.LazyLinear(2))},
    "an IterableDataset": lambda: {"data": Endless()},
    "Subset": lambda: {"data": Subset(TensorDataset(X, Y), range(30))},
    "ConcatDataset": lambda: {"data": ConcatDataset([TensorDataset(X, Y)] * 2)},
    "random_split": lambda: {"data": tuple(random_split(TensorDataset(X, Y), [40, 10, 10]))},
    "a sampler": lambda: {
        "data": DataLoader(TensorDataset(X, Y), 16, sampler=WeightedRandomSampler([1.0] * 60, 60))
    },
    "a batch sampler": lambda: {
        "data": DataLoader(
            TensorDataset(X, Y), batch_sampler=BatchSampler(RandomSampler(range(60)), 16, False)
        )
    },
    "named tuples": lambda: {
        "data": DataLoader(
            TensorDataset(X, Y), 16,
            collate_fn=lambda rows: Sample(*map(torch.stack, zip(*rows, strict=True))),
        )
    },
    "a list of samples": lambda: {"data": list(zip(X, Y, strict=True))},
    "a Series": lambda: {
        "data": (pd.DataFrame(X.numpy()), pd.Series(np.where(Y.numpy(), "a", "b"), dtype="category"))
    },
    "several labels": lambda: {
        "data": (X, torch.stack([Y, 1 - Y, Y], 1).float()), "loss": nn.BCEWithLogitsLoss(),
        "model": lambda: net(3),
    },
    "one-hot targets": lambda: {"data": (X, F.one_hot(Y, 2)), "loss": nn.CrossEntropyLoss()},
}  # fmt: skip


@pytest.mark.parametrize("case", TRAINED)
def test_what_is_usual_trains(case, tmp_path):
    assert train(tmp_path, **TRAINED[case]()).result["stopped"] == "finished"


def test_objects_that_differ_in_a_setting_alone_are_two(tmp_path):
    """``label_smoothing`` is in no ``repr`` and no ``state_dict``."""
    losses = [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.5)]
    found = []
    for place, loss in enumerate([*losses, losses[0]]):
        run = train(tmp_path / str(place), loss=loss, validation=0.2)
        answer = torch.from_numpy(run.predict_proba(X)).log()
        found.append((run.recipe.loss.code, float(loss(answer, Y)), run.result["val_loss"]))
    assert found[0] == found[2]
    assert found[0][0] != found[1][0]
    assert found[1][2] != found[0][2]
    with_names = [
        ravine.Recipe(loss=each) for each in (nn.HuberLoss(delta=0.1), nn.HuberLoss(delta=2.0))
    ]
    assert len({recipe.hash for recipe in with_names}) == 2


def test_a_module_given_is_the_trained_one(tmp_path):
    given = net()
    before = copy.deepcopy(given.state_dict())
    train(tmp_path, model=given)
    assert not torch.equal(given[0].weight, before["0.weight"])


def test_a_compiled_module_and_a_lightning_module_are_said(tmp_path):
    given = net()
    with pytest.warns(UserWarning, match="torch.compile is left out"):
        run = train(tmp_path / "a", model=torch.compile(given))
    assert run.model is given

    class LightningModule(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = net()

        def forward(self, x):
            return self.layers(x)

    with pytest.warns(UserWarning, match="training_step and configure_optimizers"):
        train(tmp_path / "b", model=LightningModule)


LENGTHS = [3 + place * 7 % 9 for place in range(48)]


def worded(place):
    ids = torch.arange(LENGTHS[place]) % 5 + 1 + 5 * (place % 2)
    return {"ids": ids, "mask": torch.ones_like(ids), "labels": place % 2}


def padded(rows):
    """As tokenizers pad: to the longest of the batch, with a number of their own."""
    fill = {"ids": 11, "mask": 0}
    named = {
        name: nn.utils.rnn.pad_sequence([row[name] for row in rows], True, value)
        for name, value in fill.items()
    }
    return named | {"labels": torch.tensor([row["labels"] for row in rows])}


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(12, 8), nn.Linear(8, 2)

    def forward(self, ids, mask, labels=None):
        assert bool((ids[mask == 0] == 11).all())  # padded as its own collate_fn pads
        each = mask[..., None].float()
        logits = self.layer((self.table(ids) * each).sum(1) / each.sum(1))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return {"logits": logits, "loss": loss}


class Worded(Rows):
    def __len__(self):
        return len(LENGTHS)


def test_a_sampler_of_batches_of_one_length(tmp_path):
    """Each batch is as wide as its samples: rows of a population have one width."""
    order = sorted(range(len(LENGTHS)), key=LENGTHS.__getitem__)
    buckets = [order[start : start + 8] for start in range(0, len(order), 8)]
    loader = DataLoader(Worded(worded), batch_sampler=buckets, collate_fn=padded)
    given = {"model": Words, "epochs": 12, "lr": 0.05, "batch": 8}
    run = train(tmp_path / "a", data=(loader, loader), **given)
    assert run.result["val_accuracy"] == 1.0
    assert next(iter(loader))["ids"].shape[1] < max(LENGTHS)  # the loader is as it was

    class Batches(IterableDataset):
        def __iter__(self):
            return (padded([worded(place) for place in batch]) for batch in buckets)

    with pytest.raises(ravine.InputError, match="padding='max_length'"):
        train(tmp_path / "b", data=DataLoader(Batches(), batch_size=None), **given)


@pytest.mark.parametrize("given", [(np.ones((4, 2)), np.ones(4)), np.ones((4, 2)), 3], ids=type)
def test_what_is_no_recipe_in_the_first_place_says_where_it_belongs(given, tmp_path):
    with pytest.raises(ravine.InputError, match=r"data=\(x, y\)"):
        ravine.train(given, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("outputs", "said"), [(1, "one output for two classes"), (3, "targets are the classes")]
)
def test_whole_targets_that_do_not_fit_get_advice(outputs, said):
    assert said in _advice(
        "loss", ValueError(), torch.zeros(4, outputs), torch.tensor([0, 1, 0, 1])
    )
