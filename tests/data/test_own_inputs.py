"""Samples of several inputs: tuples, dictionaries, Datasets and DataLoaders of either."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

import ravine
from ravine.data.objects.fields import Fields
from ravine.data.objects.samples import parts_of
from ravine.data.objects.stream import _longest

GENERATOR = torch.Generator().manual_seed(0)
NUMBERS = torch.randn(300, 3, generator=GENERATOR)
IDS = torch.randint(0, 7, (300, 4), generator=GENERATOR)
Y = ((NUMBERS.sum(1) + (IDS == 3).sum(1)) > 0.5).long()
GIVEN = {"epochs": 6, "lr": 0.01, "quiet": True}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 8), nn.Linear(3 + 32, 2)

    def forward(self, numbers, ids):
        assert ids.dtype == torch.int64
        return self.head(torch.cat([numbers, self.embed(ids).flatten(1)], 1))


class Shifted(Net):
    """Gives its own loss, on labels that it turns round first: only that loss is right."""

    def forward(self, ids, numbers, labels=None):
        logits = super().forward(numbers, ids)
        loss = None if labels is None else F.cross_entropy(logits.flip(1), labels)
        return {"loss": loss, "logits": logits.flip(1)}


class Rows(Dataset):
    def __init__(self, target="labels"):
        self.target = target

    def __len__(self):
        return 300

    def __getitem__(self, i):
        return {"ids": IDS[i], "numbers": NUMBERS[i], self.target: int(Y[i])}


def together(items):
    return {name: torch.stack([torch.as_tensor(i[name]) for i in items]) for name in items[0]}


CASES = {
    "tuple": (Net, ((NUMBERS, IDS), Y)),
    "dictionary": (Net, {"numbers": NUMBERS, "ids": IDS, "y": Y}),
    "numpy": (Net, ({"numbers": NUMBERS.numpy(), "ids": IDS.numpy()}, Y.numpy())),
    "triples": (Net, [(n, i, int(y)) for n, i, y in zip(NUMBERS, IDS, Y, strict=True)]),
    "Dataset": (Net, Rows("y")),
    "its own loss": (Shifted, Rows()),
    "DataLoader": (Shifted, DataLoader(Rows(), batch_size=32, shuffle=True)),
    "collate": (Shifted, DataLoader(Rows(), batch_size=32, collate_fn=together)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_network_of_several_inputs_learns(case, tmp_path):
    model, data = CASES[case]
    if case == "triples":
        data = DataLoader(data, batch_size=32)
    run = ravine.train(model=model, data=data, out=tmp_path / "run", **{**GIVEN, "epochs": 12})
    assert run.result["train_loss"] < 0.55
    few = (
        (NUMBERS[:4], IDS[:4])
        if case in ("tuple", "triples")
        else {"numbers": NUMBERS[:4], "ids": IDS[:4]}
    )
    assert run.predict(few).shape == (4,)
    again = ravine.Run(run.directory, module=model)
    assert np.array_equal(again.predict(few), run.predict(few))
    assert not [e for e in run.events_of("doctor") if "failed" in e["text"]]


def test_the_models_own_loss_is_the_one_that_is_trained(tmp_path):
    own = ravine.train(model=Shifted, data=Rows(), out=tmp_path / "own", **GIVEN)
    said = ravine.train(model=Shifted, data=Rows(), step=lambda m, batch: m(**batch)["loss"],
                        out=tmp_path / "said", **GIVEN)  # fmt: skip
    assert np.array_equal(own.losses, said.losses)
    assert own.result["test_accuracy"] == said.result["test_accuracy"]
    assert own.evaluate(data=({"ids": IDS, "numbers": NUMBERS}, Y))["accuracy"] > 0.6


def test_a_sampler_is_left_alone(tmp_path):
    weights = torch.where(Y == 0, 0.05, 1.0)
    loader = DataLoader(Rows(), batch_size=30, sampler=WeightedRandomSampler(weights, 300))
    seen = []

    def step(model, batch):
        seen.append(batch["labels"].float().mean().item())
        return model(**batch)["loss"]

    ravine.train(model=Shifted, data=loader, step=step, validation=0, test=0, epochs=1,
                 quiet=True, out=tmp_path / "run")  # fmt: skip
    assert np.mean(seen) > 0.85 > float(Y.float().mean())


def test_members_of_several_inputs_share_kernels(tmp_path):
    recipes = [ravine.Recipe(seed=seed, stop={"after": "2ep"}) for seed in range(3)]
    runs = ravine.train_many(recipes, model=Net, data=((NUMBERS, IDS), Y), out=tmp_path / "run",
                             quiet=True)  # fmt: skip
    assert "vmap" in runs[0].events_of("execution")[0]["text"]


def test_remarks_beside_an_input_are_passed_over(tmp_path):
    rows = [{"x": n, "label": int(y), "id": k, "name": f"row {k}"}
            for k, (n, y) in enumerate(zip(NUMBERS, Y, strict=True))]  # fmt: skip
    net = nn.Sequential(nn.Linear(3, 2))
    for loader in (DataLoader(rows, batch_size=32), DataLoader(rows, sampler=range(300))):
        run = ravine.train(model=copy.deepcopy(net), data=loader, validation=0, test=0, quiet=True,
                           epochs=1, doctor=False, out=tmp_path / str(loader.batch_size))  # fmt: skip
        assert run.predict(NUMBERS[:3]).shape == (3,)


def test_the_longest_of_several_inputs_are_found_by_their_names():
    rows = [{"x": torch.zeros(n), "mask": torch.zeros(9 - n), "y": 0} for n in (3, 5, 4)]

    def padded(some):
        return {name: torch.stack([row[name] for row in some]) for name in ("x", "mask")}

    assert _longest(DataLoader(rows, batch_size=1, collate_fn=padded)) == (0, 1)


def test_samples_by_name_without_a_target_have_zero_for_one():
    assert torch.equal(parts_of({"x": torch.ones(5, 3)}, least=2)[1], torch.zeros(5))
    assert parts_of({"x": torch.ones(3)})[1] == 0.0


def test_outputs_by_name(tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x):
            return {"hidden": x, "logits": self.layer(x)}

    run = ravine.train(model=Named, data="blobs", out=tmp_path / "run", **{**GIVEN, "lr": 0.1})
    assert run.result["test_accuracy"] > 0.5
    assert set(run.model(torch.zeros(1, 2))) == {"hidden", "logits"}


def test_fields_come_back():
    inputs = {
        "a": torch.randint(-9, 9, (5, 2, 3)),
        "b": torch.randn(5),
        "c": torch.rand(5, 2) > 0.5,
    }
    fields = Fields.of(inputs)
    _, again = Fields.from_dict(fields.to_dict()).unpack(fields.pack(inputs))
    for name, tensor in inputs.items():
        assert torch.equal(again[name], tensor)
        assert again[name].dtype == tensor.dtype


REFUSALS = [
    ({"preprocess": "standardize"}, "in the Dataset or in collate_fn"),
    ({"augment": lambda x: x}, "in the Dataset or in collate_fn"),
    ({"data": ({"a": IDS, "b": [[1], [2, 3]] * 150}, Y)}, "pad"),
    ({"data": ((NUMBERS, IDS[:7]), Y)}, "as many of each"),
    ({"data": ((NUMBERS, IDS + 2**25), Y)}, "whole numbers up to"),
    ({"model": nn.Linear(3, 2)}, "module"),
]


@pytest.mark.parametrize(("given", "text"), REFUSALS, ids=[str(i) for i in range(len(REFUSALS))])
def test_a_refusal_says_what_to_do_instead(given, text, tmp_path):
    with pytest.raises(ravine.InputError, match=text):
        ravine.train(
            out=tmp_path / "run", **{"model": Net, "data": ((NUMBERS, IDS), Y), **GIVEN, **given}
        )
    assert not (tmp_path / "run").exists()
