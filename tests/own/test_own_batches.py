"""What a step is given, in the form in which the data give it; networks of several outputs."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate, random_split

import ravine
from given import Rows

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(60, 6, generator=DRAWS)
Y = (X[:, :2].sum(1) > 0).long()
Z = X @ torch.tensor([1.0, 2.0, 0.0, 0.0, -1.0, 0.0])
FAR = Y.flip(0).bool()


def net(outputs=2):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))


def train(tmp_path, name="run", **given):
    given = {"model": net, "data": (X, Y), "epochs": 2, "quiet": True, "doctor": False} | given
    return ravine.train(**given, out=tmp_path / name)


SHAPES = {
    "a pair": (lambda: (X, Y), ((6,), ())),
    "three tensors": (lambda: TensorDataset(X, X.flip(0), Z), ((6,), (6,), ())),
    "five tensors": (lambda: TensorDataset(X, Y, Z, X.flip(0), FAR), ((6,), (), (), (6,), ())),
    "a part of them": (
        lambda: tuple(random_split(TensorDataset(X, X.flip(0), Z), [50, 10])),
        ((6,), (6,), ()),
    ),
    "one tensor": (lambda: TensorDataset(X), ((6,),)),
    "inputs alone": (lambda: X, ((6,),)),
    "a loader of one": (lambda: DataLoader(TensorDataset(X), 16, shuffle=True), ((6,),)),
    "a loader of three": (lambda: DataLoader(TensorDataset(X, X, Z), 16), ((6,), (6,), ())),
    "samples alone": (lambda: Rows(lambda i: X[i]), ((6,),)),
    "samples of three": (lambda: Rows(lambda i: (X[i], X[-i], X[i // 2])), ((6,), (6,), (6,))),
    "inputs within": (lambda: Rows(lambda i: ((X[i], Z[i]), Y[i])), (((6,), ()), ())),
    "a sampler": (
        lambda: DataLoader(TensorDataset(X, X, Z), 16, sampler=range(60)),
        ((6,), (6,), ()),
    ),
}


def shapes_of(value):
    return tuple(map(shapes_of, value)) if isinstance(value, tuple) else tuple(value.shape[1:])


@pytest.mark.parametrize("form", SHAPES)
def test_a_batch_has_the_form_of_the_data(form, tmp_path):
    data, expected = SHAPES[form]
    seen = set()

    def step(model, batch):
        assert isinstance(batch, tuple)
        seen.add(shapes_of(batch))
        first = batch[0][0] if isinstance(batch[0], tuple) else batch[0]
        return F.mse_loss(model(first), torch.zeros(len(first), 2))

    run = train(tmp_path, data=data(), step=step, validation=0)
    assert seen == {expected}
    assert run.result["stopped"] == "finished"


def test_samples_keep_their_types_and_values(tmp_path):
    """Whole numbers and truths are not made floats; rows stay together."""

    def step(model, batch):
        x, y, z, flipped, far = batch
        places = (x[:, None] == X).all(-1).nonzero()[:, 1]
        assert torch.equal(y, Y[places])
        assert torch.equal(z, Z[places])
        assert torch.equal(flipped, X.flip(0)[places])
        assert torch.equal(far.bool(), FAR[places])
        assert y.dtype == torch.int64
        return F.cross_entropy(model(x), y)

    train(tmp_path, data=TensorDataset(X, Y, Z, X.flip(0), FAR), step=step)


def test_a_dictionary_batch_is_a_dictionary_with_its_target(tmp_path):
    def step(model, batch):
        assert list(batch) == ["a", "b", "labels"]
        batch = {name: value.clone() for name, value in batch.items()}
        labels = batch.pop("labels")
        return F.cross_entropy(model(torch.cat([batch["a"], batch["b"]], 1)), labels)

    def popped(model, batch):
        labels = batch.pop("labels")
        return F.cross_entropy(model(torch.cat([*batch.values()], 1)), labels)

    data = {"a": X[:, :2], "b": X[:, 2:], "labels": Y}
    losses = [train(tmp_path, n, data=data, step=s).losses for n, s in (("a", step), ("b", popped))]
    assert np.array_equal(*losses)


def test_what_fails_is_shown_the_batch(tmp_path):
    with pytest.raises(ravine.InputError, match=r"a batch of \(\[4, 6\], \[4, 6\], \[4\]\)"):
        train(tmp_path, data=TensorDataset(X, X, Z), step=lambda model, batch: batch[3])
    with pytest.raises(ravine.InputError, match=r"a batch of a \[4, 6\], y \[4\].*dictionary"):
        train(tmp_path, data={"a": X, "y": Y}, step=lambda model, batch: batch["b"])


def test_draws_of_python_and_numpy_are_functions_of_the_step(tmp_path):
    def step(model, batch):
        x, y = batch
        share, place = np.random.beta(0.4, 0.4), random.random()
        return share * F.cross_entropy(model(x), y) + place * model(x + torch.randn(())).mean()

    before = random.getstate()[1][:9], np.random.get_state()[1][:9].tolist()
    runs = [train(tmp_path, str(i), step=step) for i in range(2)]
    assert np.array_equal(runs[0].losses, runs[1].losses)
    assert (random.getstate()[1][:9], np.random.get_state()[1][:9].tolist()) == before
    (again,) = ravine.resume(
        runs[0].directory, own=[step], model=net, data=(X, Y), after="4ep", quiet=True
    )
    assert np.array_equal(again.losses, train(tmp_path, "whole", step=step, epochs=4).losses)


class Taught(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.target = nn.Linear(6, 2), nn.Linear(6, 2).requires_grad_(False)

    def forward(self, x):
        return self.q(x)


def followed(model, batch):
    x, y = batch
    with torch.no_grad():
        for slow, fast in zip(model.target.parameters(), model.q.parameters(), strict=True):
            slow.lerp_(fast, 0.1)
    return F.cross_entropy(model(x), y) + (model(x) - model.target(x)).square().mean()


def test_a_network_that_follows_moves_by_the_steps_of_training_alone(tmp_path):
    """As the target network of Q-learning: evaluation runs the same step and leaves it where it is."""
    torch.manual_seed(0)
    given = {"step": followed, "order": "fixed", "optimizer": "sgd", "lr": 0.1, "epochs": 4}
    made = Taught()
    state = {name: value.clone() for name, value in made.state_dict().items()}

    def model():
        fresh = Taught()
        fresh.load_state_dict(state)
        return fresh

    run = train(tmp_path, model=model, data=(X, Y, X[:8], Y[:8]), **given)
    by_hand = model()
    optimizer = torch.optim.SGD(by_hand.q.parameters(), lr=0.1)
    for _ in range(4):
        for start in range(0, 60, run.recipe.data.batch):
            chosen = slice(start, start + run.recipe.data.batch)
            loss = followed(by_hand, (X[chosen], Y[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(run.model.target.weight, by_hand.target.weight)
    train(tmp_path, "part", model=model, data=(X, Y, X[:8], Y[:8]), **given | {"epochs": 2})
    (again,) = ravine.resume(
        tmp_path / "part",
        model=model,
        own=[followed],
        data=(X, Y, X[:8], Y[:8]),
        after="4ep",
        quiet=True,
    )
    assert torch.equal(again.model.target.weight, run.model.target.weight)
    assert np.array_equal(again.losses, run.losses)


# --- several outputs ------------------------------------------------------------------------------


class Several(nn.Module):
    """Gives its scores and the hidden layer, in a form."""

    def __init__(self, form):
        super().__init__()
        self.body, self.head, self.form = nn.Linear(6, 8), nn.Linear(8, 2), form

    def forward(self, x):
        hidden = F.relu(self.body(x))
        return self.form(self.head(hidden), hidden)


class Named(NamedTuple):
    hidden: Tensor
    logits: Tensor


@dataclass
class Held:
    hidden: Tensor
    logits: Tensor


FORMS = {
    "a tuple": lambda scores, hidden: (scores, hidden),
    "a list": lambda scores, hidden: [scores, hidden],
    "a named tuple": lambda scores, hidden: Named(hidden, scores),
    "a dataclass": lambda scores, hidden: Held(hidden, scores),
    "a dictionary": lambda scores, hidden: {"hidden": hidden, "logits": scores},
}


def both(output, target):
    scores, hidden = output
    return F.cross_entropy(scores, target) + hidden.square().mean()


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_among_several_outputs(form, tmp_path):
    """By name, or the first: the run is that of the network that gives the answer alone."""

    def model(form=FORMS[form]):
        torch.manual_seed(0)
        return Several(form)

    alone = train(tmp_path, "alone", model=lambda: model(lambda scores, hidden: scores))
    run = train(tmp_path, model=model)
    assert np.array_equal(run.losses, alone.losses)
    assert run.result["test_accuracy"] == alone.result["test_accuracy"]
    assert np.array_equal(run.predict_proba(X), alone.predict_proba(X))


def test_an_own_loss_takes_all_outputs_or_the_answer(tmp_path):
    def scored(output, target):
        return F.cross_entropy(output, target) + 0.0

    def by_name(output, target):
        return both((output["logits"], output["hidden"]), target)

    def model(form):
        torch.manual_seed(0)
        return Several(FORMS[form])

    runs = {
        name: train(tmp_path, name, model=functools.partial(model, form), loss=loss)
        for name, form, loss in (
            ("whole", "a tuple", both),
            ("by name", "a dictionary", by_name),
            ("answer", "a tuple", scored),
            ("torch", "a tuple", nn.CrossEntropyLoss()),
        )
    }
    assert np.array_equal(runs["whole"].losses, runs["by name"].losses)
    assert np.array_equal(runs["answer"].losses, runs["torch"].losses)
    assert runs["whole"].losses[0] > runs["answer"].losses[0]
    again = ravine.Run(runs["whole"].directory, module=lambda: model("a tuple"), own=[both])
    assert again.evaluate(data=(X, Y))["loss"] == pytest.approx(
        float(both(again.model(X), Y)), rel=1e-6
    )


# --- outputs that are no answers ------------------------------------------------------------------


def pinball(output, target):
    gap = target.reshape(-1, 1) - output
    share = torch.tensor([0.1, 0.5, 0.9])
    return torch.maximum(share * gap, (share - 1) * gap).sum(1)


def in_order(output, target):
    return F.binary_cross_entropy_with_logits(
        output, (target[:, None] > torch.arange(2)).float(), reduction="none"
    ).sum(1)


def covered(output, target):
    return float((output[:, 0] < target.reshape(-1)).float().mean())


MASKS = torch.randint(0, 3, (60, 4, 4), generator=DRAWS)
IMAGES = F.one_hot(MASKS, 3).permute(0, 3, 1, 2).float()


def test_outputs_that_are_no_answers_are_judged_by_own_metrics_alone(tmp_path):
    run = train(tmp_path, "a", model=lambda: net(3), data=(X, Z), loss=pinball, metrics=[covered])
    assert {"val_covered", "val_loss"} <= set(run.metrics)
    assert "val_rmse" not in run.metrics
    assert run.predict(X).shape == (60, 3)
    thirds = torch.bucketize(Z, torch.tensor([-1.0, 1.0]))
    run = train(tmp_path, "b", data=(X, thirds), loss=in_order, epochs=1)
    assert "val_accuracy" not in run.metrics


def test_a_class_for_each_pixel(tmp_path):
    def right(output, target):
        return float((output.argmax(1) == target).float().mean())

    given = {"model": lambda: nn.Conv2d(3, 3, 1), "data": (IMAGES, MASKS), "lr": 0.1, "epochs": 20}
    run = train(tmp_path, "a", loss=nn.CrossEntropyLoss(), metrics=[right], **given)
    assert run.result["val_right"] == 1.0
    assert run.predict(IMAGES).shape == (60, 3, 4, 4)
    with pytest.raises(ravine.InputError, match=r"loss=torch\.nn\.CrossEntropyLoss\(\)"):
        train(tmp_path, "b", **given)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits])
def test_two_classes_and_one_output(loss, tmp_path):
    run = train(tmp_path, model=lambda: net(1), loss=loss, epochs=20, lr=0.05)
    assert run.result["test_accuracy"] > 0.8
    assert set(run.predict(X).tolist()) == {0, 1}


def test_a_schedule_of_transformers_steps_with_every_batch(tmp_path):
    transformers = pytest.importorskip("transformers")
    run = train(
        tmp_path,
        optimizer="sgd",
        schedule=lambda optimizer: transformers.get_linear_schedule_with_warmup(optimizer, 2, 6),
        batch=16,
        lr=0.1,
        validation=0,
    )
    rates = [0.0, 0.05, 0.1, 0.075, 0.05, 0.025]
    seen = []
    again = train(
        tmp_path,
        "again",
        recipe=run.recipe,
        on_step=lambda row: seen.append(row["lr"]),
    )
    assert again.recipe.schedule.every == "1it"
    assert seen[: len(rates)] == pytest.approx(rates[: len(seen)])


IDS = torch.randint(1, 50, (60, 8), generator=DRAWS)
MASK = torch.ones(60, 8).long()
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 32,
}
LABELS = torch.where(torch.arange(8) < 5, IDS % 4, -100)
OF_TRANSFORMERS = {
    "BertForSequenceClassification": ("Bert", IDS[:, 0] % 3, {"num_labels": 3}, "val_accuracy"),
    "BertForTokenClassification": ("Bert", LABELS, {"num_labels": 4}, "val_accuracy"),
    "DistilBertForSequenceClassification": (
        "DistilBert",
        torch.randn(60, generator=DRAWS),
        {"num_labels": 1},
        "val_rmse",
    ),
    "GPT2LMHeadModel": ("GPT2", IDS, {"bos_token_id": 0, "eos_token_id": 0}, None),
}


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_models_of_transformers_train_by_their_own_loss(name, tmp_path):
    """Dropout within attention too: what is resumed is the same to the bit. What a causal model predicts
    is the next token, so that accuracy at its own place would be no measure."""
    transformers = pytest.importorskip("transformers")
    config, labels, more, metric = OF_TRANSFORMERS[name]
    known = getattr(transformers, f"{config}Config")
    made = known(**SMALL, **more)

    def model():
        torch.manual_seed(0)
        return getattr(transformers, name)(made)

    data = {"input_ids": IDS, "attention_mask": MASK, "labels": labels}
    given = {"data": data, "model": model, "lr": 1e-3, "batch": 16, "optimizer": torch.optim.AdamW}
    whole = train(tmp_path, "whole", **given, epochs=2)
    train(tmp_path, "part", **given, epochs=1)
    (again,) = ravine.resume(
        tmp_path / "part", model=model, own=[torch.optim.AdamW], data=data, after="2ep", quiet=True
    )
    assert np.array_equal(whole.losses, again.losses)
    measured = {n for n in whole.metrics if n.startswith("val_")}
    assert measured == {
        "val_loss",
        *([metric] if metric else []),
        *(["val_r2"] if metric == "val_rmse" else []),
    }


class Gaps(Dataset):
    """A Dataset that has no sample in some rows, and a collate function that leaves them out."""

    def __init__(self, first: int):
        self.first = first

    def __len__(self):
        return 60

    def __getitem__(self, place):
        return None if place % 7 == self.first else (torch.ones(3) * place, place % 2)


def without_gaps(items):
    return default_collate([item for item in items if item is not None])


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("collate", [None, without_gaps])
def test_rows_without_a_sample_get_one_message(first, collate):
    """Left out while batches are made, they would shift the targets of those after them."""
    loader = DataLoader(Gaps(first), batch_size=8, collate_fn=collate)
    with pytest.raises(ravine.InputError, match=f"None as sample {first}.*Subset"):
        ravine.train(model="softmax", data=loader, epochs=1, quiet=True)


def test_a_loss_of_one_element_is_one_number(tmp_path):
    """As a parameter of one element makes it; that parameter is trained with the network."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, output, target):
            loss = nn.functional.cross_entropy(output, target)
            return torch.exp(-self.scale) * loss + self.scale

    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    given = {"data": (x, (x[:, 0] > 0).long()), "model": "softmax", "epochs": 3, "quiet": True}
    run = ravine.train(**given, loss=Scaled(), out=tmp_path / "run")
    assert run.result["stopped"] == "finished"
    assert run.theta.numel() == 3 * 2 + 2 + 1
