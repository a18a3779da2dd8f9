"""Samples and batches that are dataclasses and other objects with fields: trained, measured, resumed and
predicted as the same data in a dictionary."""

from __future__ import annotations

import collections
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import ravine
from given import Rows
from ravine.interop.export import export
from ravine.records import fields_of, made

DRAWS = torch.Generator().manual_seed(0)
A, B = torch.randn(60, 3, generator=DRAWS), torch.randn(60, 2, generator=DRAWS)
Y = (A.sum(1) > B.sum(1)).long()


@dataclass
class Held:
    a: Tensor
    b: Tensor
    label: Tensor
    note: str | None = None

    def joined(self):
        return torch.cat([self.a, self.b], 1)


@dataclass(frozen=True, slots=True)
class Frozen:
    a: Tensor
    b: Tensor
    label: Tensor
    note: str | None = field(default=None)

    def joined(self):
        return torch.cat([self.a, self.b], 1)


class Named(NamedTuple):
    label: Tensor
    a: Tensor
    b: Tensor

    def joined(self):
        return torch.cat([self.a, self.b], 1)


class Plain:
    """As in PyTorch's page on memory pinning."""

    def __init__(self, a, b, label):
        self.a, self.b, self.label = a, b, label

    def joined(self):
        return torch.cat([self.a, self.b], 1)


class Space(SimpleNamespace):
    joined = Plain.joined


KINDS = {"dataclass": Held, "frozen": Frozen, "named tuple": Named, "plain": Plain, "space": Space}
if attr := sys.modules.get("attrs") or pytest.importorskip("attrs"):

    @attr.define
    class Defined:
        a: Tensor
        b: Tensor
        label: Tensor
        joined = Plain.joined

    KINDS["attrs"] = Defined


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def forward(self, a, b):
        return self.layer(torch.cat([a, b], 1))


class Whole(ByName):
    """Takes the batch as one object."""

    def forward(self, batch):
        return self.layer(batch.joined())


class Keyed(ByName):
    def forward(self, batch):
        return self.layer(torch.cat([batch["a"], batch["b"]], 1))


def train(tmp_path, name, **given):
    given = {"epochs": 2, "seed": 3, "batch": 16, "quiet": True, "doctor": False} | given
    return ravine.train(**given, out=tmp_path / name)


def rows(kind):
    return Rows(lambda i: kind(a=A[i], b=B[i], label=Y[i]))


def loader(kind, **how):
    def collate(samples):
        named = [fields_of(sample) for sample in samples]
        return kind(**{n: torch.stack([each[n] for each in named]) for n in ("a", "b", "label")})

    return DataLoader(rows(kind), 16, collate_fn=collate, **how)


class Stream(IterableDataset):
    def __init__(self, kind):
        self.kind = kind

    def __iter__(self):
        for start in range(0, 60, 16):
            part = slice(start, start + 16)
            yield self.kind(a=A[part], b=B[part], label=Y[part])


GIVEN = {
    "rows": rows,
    "loader": loader,
    "whole": lambda kind: kind(a=A, b=B, label=Y),
    "list": lambda kind: [kind(a=A[i], b=B[i], label=Y[i]) for i in range(60)],
}


CASES = [("rows", kind) for kind in KINDS] + [(form, "dataclass") for form in list(GIVEN)[1:]]


@pytest.mark.parametrize(("form", "kind"), [*CASES, ("whole", "plain"), ("loader", "named tuple")])
def test_fields_are_inputs_by_name(form, kind, tmp_path):
    """The run is that of the same data in a dictionary; a module takes fields by name or the object."""
    given = GIVEN[form]
    run = train(tmp_path, "object", data=given(KINDS[kind]), model=ByName)
    same = train(tmp_path, "same", data=given(dict), model=ByName)
    assert np.array_equal(run.losses, same.losses)
    whole = train(tmp_path, "whole", data=given(KINDS[kind]), model=Whole)
    assert np.array_equal(run.losses, whole.losses)
    few = KINDS[kind](a=A[:4], b=B[:4], label=Y[:4])
    expected = run.predict_proba({"a": A[:4], "b": B[:4]})
    assert np.array_equal(run.predict_proba(few), expected)
    assert np.array_equal(whole.predict_proba(few), expected)
    assert run.evaluate(data=few) == whole.evaluate(data=({"a": A[:4], "b": B[:4]}, Y[:4]))


@pytest.mark.parametrize("kind", ["dataclass", "frozen", "named tuple", "space"])
def test_a_step_is_given_the_object(kind, tmp_path):
    def step(model, batch):
        assert type(batch) is KINDS[kind]
        return F.cross_entropy(model.layer(batch.joined()), batch.label)

    def keyed(model, batch):
        assert batch.a is batch["a"]
        return F.cross_entropy(model(batch.a, batch["b"]), batch["label"])

    given = {"data": loader(KINDS[kind]), "model": ByName, "batch": 16}
    run = train(tmp_path, "object", step=step, **given)
    same = train(tmp_path, "same", **given | {"data": loader(dict)}, step=keyed)
    assert np.array_equal(run.losses, same.losses)
    assert run.result["test_accuracy"] == same.result["test_accuracy"]
    (again,) = ravine.resume(
        run.directory, own=[step], model=ByName, data=given["data"], after="3ep", quiet=True
    )
    longer = train(tmp_path, "longer", step=step, **given, epochs=3)
    assert np.array_equal(again.losses, longer.losses)


def test_streams_of_objects_and_two_seeds_at_once(tmp_path):
    data = DataLoader(Stream(Held), batch_size=None)
    held = (data, Held(A[:20], B[:20], Y[:20]))
    same = (DataLoader(Stream(dict), batch_size=None), {"a": A[:20], "b": B[:20], "label": Y[:20]})
    runs = [
        train(tmp_path, name, data=given, model=ByName, validation=0)
        for name, given in (("object", held), ("same", same))
    ]
    assert np.array_equal(runs[0].losses, runs[1].losses)
    recipes = [runs[0].recipe.edit({"seed": seed, "data.validation": 0.15}) for seed in (3, 4)]
    both = ravine.train_many(
        recipes, model=Whole, data=rows(Held), quiet=True, out=tmp_path / "both"
    )
    assert len({run.losses[-1] for run in both}) == 2


@dataclass
class Picture:
    image: Tensor
    label: int
    name: str = "none"


IMAGES = torch.rand(60, 1, 6, 6, generator=DRAWS)


class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))

    def forward(self, sample):
        return self.layers(sample.image)


@pytest.mark.parametrize("kind", [Picture, lambda **named: named], ids=["dataclass", "dictionary"])
def test_one_input_keeps_its_shape_and_its_name(kind, tmp_path):
    """Images can still be augmented; a step is given them under their names."""

    def step(model, batch):
        assert batch.image.shape[1:] == (1, 6, 6)
        return F.cross_entropy(model(batch.image), batch.label)

    data = Rows(lambda i: kind(image=IMAGES[i], label=int(Y[i]), name="some"))
    net = lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 2))  # noqa: E731
    run = train(tmp_path, "a", data=data, model=net, augment=["flip"])
    stepped = train(tmp_path, "b", data=data, model=net, step=step, augment=["flip"])
    assert np.allclose(run.losses, stepped.losses)
    assert run.predict(IMAGES[:3]).tolist() == run.predict({"image": IMAGES[:3]}).tolist()
    looks = train(tmp_path, "c", data=data, model=Looks, augment=["flip"])
    assert looks.predict(IMAGES[:3]).shape == (3,)


class Transition(NamedTuple):
    state: Tensor
    action: Tensor
    following: Tensor


@pytest.mark.parametrize("kind", [Transition, lambda **named: named, SimpleNamespace])
def test_samples_without_a_target_are_for_a_step(kind, tmp_path):
    """As a buffer of transitions is."""

    def step(model, batch):
        assert not hasattr(batch, "label")
        return F.mse_loss(model(batch.state), batch.following) + 0.0 * batch.action.float().mean()

    named = {"state": A, "action": Y, "following": A.flip(1)}
    data = {
        "rows": Rows(lambda i: kind(**{name: each[i] for name, each in named.items()})),
        "whole": named,
    }
    runs = [
        train(tmp_path, name, data=given, model=lambda: nn.Linear(3, 3), step=step)
        for name, given in data.items()
    ]
    assert np.array_equal(runs[0].losses, runs[1].losses)
    with pytest.raises(ravine.InputError, match="a target called y"):
        train(tmp_path, "none", data=named, model=ByName)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def test_objects_inside_pairs(tmp_path):
    """Inputs that are an object beside a target, and targets that are one."""

    def loss(output, target):
        return F.mse_loss(output[:, 0], target.right[:, 0]) + output[:, 1].square().mean()

    def step(model, batch):
        inputs, y = batch
        return F.cross_entropy(model(inputs.left, inputs.right), y)

    order = nn.Module()
    data = Rows(lambda i: (Pair(A[i], B[i]), Y[i]))
    run = train(tmp_path, "a", data=data, model=lambda: Ordered(), step=step)
    plain = train(tmp_path, "b", data=Rows(lambda i: ((A[i], B[i]), Y[i])), model=Ordered)
    assert np.allclose(run.losses, plain.losses)
    del order
    targets = Rows(lambda i: (A[i], Held(A[i], B[i], Y[i])))

    def several(output, target):
        assert type(target) is Held
        return (
            F.cross_entropy(output[:, :2], target.label)
            + (output[:, 2:] - target.b).square().mean()
        )

    run = train(tmp_path, "c", data=targets, model=lambda: nn.Linear(3, 4), loss=several)
    assert run.result["stopped"] == "finished"


class Ordered(ByName):
    def forward(self, left, right):
        return self.layer(torch.cat([left, right], 1))


class Language(nn.Module):
    """Gives its own loss, as the models of Hugging Face do."""

    def __init__(self, gives=SimpleNamespace):
        super().__init__()
        self.layers, self.gives = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)), gives

    def forward(self, input_ids, labels=None):
        logits = self.layers(input_ids)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return self.gives(loss=loss, logits=logits)


def test_one_input_beside_labels_is_for_the_models_own_loss(tmp_path):
    ids = torch.randint(1, 9, (60, 4), generator=DRAWS)
    forms = {
        "rows": Rows(lambda i: {"input_ids": ids[i], "labels": ids[i]}),
        "whole": {"input_ids": ids, "labels": ids},
        "records": Rows(lambda i: SimpleNamespace(input_ids=ids[i], labels=ids[i])),
    }
    losses = [train(tmp_path, n, data=data, model=Language).losses for n, data in forms.items()]
    assert np.array_equal(losses[0], losses[1])
    assert np.array_equal(losses[0], losses[2])


class Tokens(IterableDataset):
    def __iter__(self):
        ids = torch.randint(1, 9, (60, 4), generator=torch.Generator().manual_seed(1))
        for row in ids:
            yield {
                "input_ids": row,
                "mask": torch.ones(4),
                "labels": torch.where(row > 4, row, -100),
            }


def test_a_class_for_each_token_from_a_stream_of_dictionaries(tmp_path):
    """Without a length, with places that are not predicted."""

    class Masked(Language):
        def forward(self, input_ids, mask, labels=None):
            return super().forward(input_ids, labels)

    loader = DataLoader(Tokens(), batch_size=16)
    run = train(tmp_path, "run", data=(loader, loader), model=Masked, validation=0)
    assert run.pipeline.task == "sequence"
    assert run.predict({"input_ids": torch.ones(2, 4).long(), "mask": torch.ones(2, 4)}).shape == (
        2,
        4,
    )


def test_encodings_and_outputs_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    ids = torch.randint(1, 9, (60, 4), generator=DRAWS)

    def encoded(i):
        return transformers.BatchEncoding({"input_ids": ids[i], "mask": ids[i] > 0, "labels": Y[i]})

    def step(model, batch):
        batch = batch.to("cpu")
        return F.cross_entropy(model(batch.input_ids.float()), batch.labels)

    run = train(tmp_path, "a", data=Rows(encoded), model=lambda: nn.Linear(4, 2), step=step)
    same = train(
        tmp_path, "b", data=Rows(lambda i: (ids[i].float(), Y[i])), model=lambda: nn.Linear(4, 2)
    )
    assert np.allclose(run.losses, same.losses)


def test_a_class_that_this_process_has_not_met_is_replaced(tmp_path):
    """A stored run names no class that is imported: without the data a plain object takes its place."""
    assert made("nowhere.Known", {"a": 1}).a == 1
    assert made("os.path", (1, 2)) == (1, 2)
    run = train(tmp_path, "run", data=rows(Held), model=Whole)
    code = f"""
import torch, ravine
class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 2)
    def forward(self, batch):
        return self.layer(torch.cat([batch.a, batch["b"]], 1))
run = ravine.Run({str(run.directory)!r}, module=Whole)
print(run.predict({{"a": torch.ones(2, 3), "b": torch.ones(2, 2)}}).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    expected = run.predict({"a": torch.ones(2, 3), "b": torch.ones(2, 2)}).tolist()
    assert done.stdout.strip() == str(expected), done.stderr


def test_exports_take_the_fields(tmp_path):
    run = train(tmp_path, "run", data=rows(Held), model=Whole)
    path = tmp_path / "model.pt2"
    export(run, out=path)
    program = torch.export.load(path)
    found = program.module()(A[:7], B[:7])
    assert torch.allclose(found, run.model(Held(A[:7], B[:7], Y[:7])), atol=1e-6)


def test_objects_with_fields():
    Point = collections.namedtuple("Point", "x y")
    assert fields_of(Point(1, None)) == {"x": 1}
    assert fields_of([1]) is fields_of(3.0) is fields_of(A) is fields_of(Held) is None
    assert fields_of(rows(Held)) is None
    assert fields_of(ByName()) is None
    assert fields_of(SimpleNamespace(a=1)) is None  # holds no array
