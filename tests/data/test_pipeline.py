"""The pipeline: splits, order, batches as a pure function of seed and step, state, Datasets and
DataLoaders."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from ravine.data import pipeline as pipeline_file
from ravine.data import room
from ravine.data.holdout import hold_out
from ravine.data.inspect.counts import summarize
from ravine.data.order import Order
from ravine.data.pipeline import Pipeline
from ravine.errors import InputError
from ravine.recipe import Data

X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0] * 120 + [1] * 60 + [2] * 20)


def rows_of(batches):
    return torch.cat([batch.index for batch in batches])


# --- splits ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=20, max_size=200),
    st.floats(0.05, 0.4),
    st.integers(0, 1000),
)
def test_stratified_split(labels, fraction, seed):
    labels = torch.tensor(labels)
    kept, held = hold_out(len(labels), fraction, labels, seed, "test")
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(labels)))
    assert len(held) == max(1, int(len(labels) * fraction + 0.5))
    for k in labels.unique():
        share = len(held) * (labels == k).float().mean()
        assert (
            abs((labels[held] == k).sum() - share) <= 1 + 1e-4
        )  # within one sample of the exact share
        assert (labels[kept] == k).any()


@pytest.mark.parametrize(
    ("counts", "fraction"), [((1, 1, 1, 7), 0.5), ((1, 2, 3, 9), 0.6), ((1, 1, 1, 8, 8), 0.7)]
)
def test_every_class_keeps_a_training_row(counts, fraction):
    """By largest remainders alone these splits would hold out every row of a class."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    for seed in range(5):
        kept, held = hold_out(len(labels), fraction, labels, seed, "test")
        assert sorted(kept.tolist() + held.tolist()) == list(range(len(labels)))
        assert len(labels[kept].unique()) == len(counts)


def test_splits_differ_by_seed_alone():
    of = {seed: Pipeline(Data(seed=seed), arrays=(X, Y)) for seed in (0, 1)}
    again = Pipeline(Data(seed=0, batch=7, order="fixed"), arrays=(X, Y))
    for name in ("train", "validation", "test"):
        first, second, third = (
            torch.cat([b.x for b in p.split(name)]) for p in (of[0], of[1], again)
        )
        assert torch.equal(first, third)
        assert not torch.equal(first, second)


def test_split_sizes_and_their_order():
    pipeline = Pipeline(Data(validation=0.1, test=0.2), arrays=(X, Y))
    assert [pipeline.size(name) for name in ("train", "validation", "test")] == [144, 16, 40]
    assert pipeline.class_counts().tolist() == [86, 43, 15]
    all_rows = torch.cat(
        [b.x for name in ("train", "validation", "test") for b in pipeline.split(name)]
    )
    assert torch.equal(all_rows.sort(0).values, X.sort(0).values)


@pytest.mark.parametrize(
    ("arrays", "fields", "has"),
    [
        ((X, Y), {}, {"train": 144, "validation": 16, "test": 40}),
        ((X, Y), {"validation": 0.0, "test": 0.0}, {"train": 200}),
        ((X, Y, X[:30], Y[100:130]), {}, {"train": 200, "validation": 30}),
        ((X, Y, X[:30], Y[100:130]), {"test": 0.5}, {"train": 100, "validation": 30, "test": 100}),
        ((X, Y, X[:30], Y[100:130], X[:9], Y[:9]), {}, {"train": 200, "validation": 30, "test": 9}),
        (
            {"train": (X, Y), "test": (X[:9], Y[:9])},
            {"validation": 0.25},
            {"train": 150, "validation": 50, "test": 9},
        ),
        (((X, Y), (X[:30], Y[:30])), {}, {"train": 200, "validation": 30}),
        ({"train": (X, Y), "val": (X[:9], Y[:9])}, {}, {"train": 200, "validation": 9}),
        (TensorDataset(X, Y), {}, {"train": 144, "validation": 16, "test": 40}),
        (Subset(TensorDataset(X, Y), range(180)), {"test": 0.0, "validation": 0.0}, {"train": 180}),
        (
            (TensorDataset(X, Y), DataLoader(TensorDataset(X, Y), 10)),
            {},
            {"train": 200, "validation": 200},
        ),
    ],
)
def test_what_python_gives(arrays, fields, has):
    pipeline = Pipeline(Data(**fields), arrays=arrays)
    assert {
        name: pipeline.size(name) for name in ("train", "validation", "test") if pipeline.has(name)
    } == has


# --- order ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(["shuffle", "fixed"]),
    st.sampled_from(["keep", "drop"]),
    st.integers(0, 9),
)
def test_every_epoch_has_each_row_once(size, batch, kind, last, seed):
    if batch > size:
        return
    order = Order(size, batch, kind, last, seed)
    assert order.epoch_steps == (size // batch if last == "drop" else -(-size // batch))
    for epoch in range(3):
        steps = [order.rows(epoch * order.epoch_steps + i) for i in range(order.epoch_steps)]
        rows = torch.cat(steps).tolist()
        assert (
            len(set(rows)) == len(rows) == (order.epoch_steps * batch if last == "drop" else size)
        )
        assert all(len(step) == batch for step in (steps if last == "drop" else steps[:-1]))


def test_orders():
    first = {
        kind: [Order(50, 50, kind, "keep", 0).epoch(e) for e in range(2)]
        for kind in ("shuffle", "fixed", "replacement")
    }
    assert not torch.equal(*first["shuffle"])
    assert torch.equal(*first["fixed"])
    assert not torch.equal(first["fixed"][0], torch.arange(50))
    assert len(first["replacement"][0].unique()) < 40
    assert not torch.equal(Order(50, 50, "shuffle", "keep", 1).epoch(0), first["shuffle"][0])


def test_with_replacement_each_row_comes_as_often():
    order = Order(10, 5, "replacement", "keep", 0)
    counts = torch.cat([order.rows(step) for step in range(4000)]).bincount(minlength=10)
    assert counts.sub(2000).abs().max() < 200


@pytest.mark.parametrize("order", ["shuffle", "fixed", "replacement"])
@pytest.mark.parametrize("ready", [True, False])
def test_batches_are_pure(order, ready, monkeypatch):
    """The batch of a step is the same whichever steps were asked for before, preprocessed
    beforehand or on the way."""
    if not ready:
        monkeypatch.setattr(pipeline_file, "READY_BYTES", 0)
    data = Data(order=order, batch=32, preprocess=["standardize"])
    walked, jumped = (Pipeline(data, arrays=(X, Y)) for _ in range(2))
    assert bool(walked._ready) == ready
    batches = list(walked.batches(0, 14))
    for step in (13, 2, 7, 3, 0, 13):
        batch = jumped.batch(step)
        assert torch.equal(batch.x, batches[step].x)
        assert torch.equal(batch.y, batches[step].y)
        assert torch.equal(batch.index, batches[step].index)
    train = torch.cat([b.x for b in walked.split("train")])
    assert all(torch.equal(train[b.index], b.x) for b in batches)


def test_ready_and_made_batches_are_the_same(monkeypatch):
    data = Data(
        source="digits", preprocess=["rescale", {"kind": "standardize", "per": "channel"}], batch=32
    )
    ready = Pipeline(data)
    monkeypatch.setattr(pipeline_file, "READY_BYTES", 0)
    made = Pipeline(data)
    assert torch.equal(ready.batch(40).x, made.batch(40).x)
    for name in ("train", "validation", "test"):
        for a, b in zip(ready.split(name, batch=100), made.split(name, batch=100), strict=True):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.y, b.y)


def test_blocks_of_batches_are_cut_at_epochs(monkeypatch):
    monkeypatch.setattr(pipeline_file, "BLOCK_BYTES", 3 * 32 * 16)
    pipeline = Pipeline(Data(batch=32), arrays=(X, Y))
    sizes = [len(pipeline.batch(step).x) for step in range(10)]
    assert sizes == [32, 32, 32, 32, 16] * 2


@pytest.mark.parametrize(
    ("fields", "size", "steps"),
    [
        ({}, 128, 2),
        ({"batch": 144}, 144, 1),
        ({"batch": "full"}, 144, 1),
        ({"batch": 50, "last_batch": "drop"}, 50, 2),
        ({"batch": 1}, 1, 144),
    ],
)
def test_batch_sizes(fields, size, steps):
    pipeline = Pipeline(Data(**fields), arrays=(X, Y))
    assert (pipeline.batch_size, pipeline.epoch_steps) == (size, steps)


def test_the_default_batch_shrinks_to_small_data():
    assert (
        Pipeline(Data(), arrays=(X[:100:2], Y[:100:2] * 0 + torch.arange(50) % 2)).batch_size == 36
    )


def test_a_stored_recipe_gives_the_same_data():
    """It names every field, those that nobody set too."""
    for arrays in (
        (X, Y),
        (X, Y, X[:30], Y[100:130]),
        (X[:60:2], Y[100:130]),
        DataLoader(TensorDataset(X, Y), 10),
    ):
        data = Data()
        stored = Data(**data.model_dump())
        first, second = Pipeline(data, arrays=arrays), Pipeline(stored, arrays=arrays)
        assert first.batch_size == second.batch_size
        assert torch.equal(first.batch(1).x, second.batch(1).x)
        assert [first.has(n) for n in ("validation", "test")] == [
            second.has(n) for n in ("validation", "test")
        ]


def test_limit_and_order_of_a_split():
    pipeline = Pipeline(Data(test=0.0, validation=0.0), arrays=(X, Y))
    batches = list(pipeline.split("train", limit=70, batch=32))
    assert [len(b.x) for b in batches] == [32, 32, 6]
    assert torch.equal(torch.cat([b.x for b in batches]), X[:70])
    assert torch.equal(rows_of(batches), torch.arange(70))


# --- tasks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "task", "outputs", "shape", "dtype"),
    [
        (X, Y, "classification", 3, (), torch.int64),
        (X, Y.numpy().astype(np.uint8), "classification", 3, (), torch.int64),
        (X, Y > 0, "classification", 2, (), torch.int64),
        (X, np.array(["b", "a"])[(Y > 0).int().numpy()], "classification", 2, (), torch.int64),
        (X, torch.nn.functional.one_hot(Y), "classification", 3, (), torch.int64),
        (X, torch.nn.functional.one_hot(Y).float(), "classification", 3, (), torch.int64),
        (X, torch.softmax(X, 1), "classification", 4, (4,), torch.float32),
        (X, (X > 0).long(), "multilabel", 4, (4,), torch.float32),
        (X, X[:, 0], "regression", 1, (1,), torch.float32),
        (X, X[:, :1].double(), "regression", 1, (1,), torch.float32),
        (X, X[:, :2], "regression", 2, (2,), torch.float32),
        (X.view(200, 2, 2), X.view(200, 2, 2), "regression", 4, (2, 2), torch.float32),
        (
            torch.randint(0, 9, (200, 6)),
            torch.randint(0, 9, (200, 6)),
            "sequence",
            9,
            (6,),
            torch.int64,
        ),
        (torch.randn(200, 6, 3), torch.randint(0, 2, (200, 6)), "sequence", 2, (6,), torch.int64),
    ],
)
def test_what_targets_say(x, y, task, outputs, shape, dtype):
    pipeline = Pipeline(Data(), arrays=(x, y))
    batch = pipeline.batch(0)
    assert (pipeline.task, pipeline.outputs) == (task, outputs)
    assert tuple(batch.y.shape[1:]) == shape
    assert batch.y.dtype == dtype
    assert len(pipeline.classes) == (0 if task == "regression" else outputs)


def test_a_task_that_is_named_wins():
    data = Data(source={"kind": "arrays", "task": "regression"})
    assert Pipeline(data, arrays=(X, Y)).task == "regression"
    assert (
        Pipeline(
            Data(source={"kind": "arrays", "task": "classification"}), arrays=(X, Y.float())
        ).task
        == "classification"
    )


def test_names_of_classes():
    names = np.array(["cat", "dog"])[(X[:, 0] > 0).long().numpy()]
    pipeline = Pipeline(Data(validation=0.0, test=0.0, batch="full"), arrays=(X, names))
    batch = pipeline.batch(0)
    assert pipeline.classes == ("cat", "dog")
    assert torch.equal(batch.y, (batch.x[:, 0] > 0).long())


def test_inputs_alone():
    batch = Pipeline(Data(), arrays=X).batch(0)
    assert (batch.y == 0).all()


def test_dtypes():
    for dtype in (torch.float32, torch.float64):
        for x in (X, X.double(), X.double().numpy(), (X * 9).byte(), X.half()):
            pipeline = Pipeline(Data(preprocess=["standardize"]), arrays=(x, X[:, 0]), dtype=dtype)
            assert pipeline.batch(0).x.dtype == pipeline.batch(0).y.dtype == dtype
    whole = Pipeline(Data(), arrays=(torch.randint(0, 50, (200, 8)), Y))
    assert whole.batch(0).x.dtype == torch.int64
    assert whole.vocabulary is not None
    assert (
        Pipeline(
            Data(preprocess=["standardize"]), arrays=(torch.randint(0, 50, (200, 8)), Y)
        ).vocabulary
        is None
    )
    assert (
        Pipeline(Data(), arrays=(torch.randint(-5, 50, (200, 8)), Y)).batch(0).x.dtype
        == torch.float32
    )


def test_doubles_lose_nothing_before_they_are_standardised():
    x = torch.arange(200.0).double()[:, None] + 1e9
    batch = Pipeline(Data(preprocess=["standardize"], batch="full"), arrays=(x, Y)).batch(0)
    assert batch.x.unique().numel() == 144


# --- sequences of different lengths ---------------------------------------------------------------


def test_sequences_of_different_lengths_are_padded():
    lengths = [3, 5, 2, 7] * 10
    x = [np.random.default_rng(i).normal(5, 2, (n, 2)) for i, n in enumerate(lengths)]
    pipeline = Pipeline(
        Data(
            preprocess=[{"kind": "standardize", "per": "channel"}],
            validation=0.0,
            test=0.0,
            batch="full",
            order="fixed",
        ),
        arrays=(x, np.arange(40) % 2),
    )
    batch = pipeline.batch(0)
    assert pipeline.input_shape == (7, 2)
    for row, index in zip(batch.x, batch.index.tolist(), strict=True):
        assert (row[lengths[index] :] == 0).all()
        assert (row[: lengths[index]] != 0).all()
    known = torch.cat(
        [row[: lengths[i]] for row, i in zip(batch.x, batch.index.tolist(), strict=True)]
    )
    torch.testing.assert_close(known.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(known.std(0, correction=0), torch.ones(2))
    again = Pipeline.from_state(pipeline.data, *pipeline.state())
    short = again.transform([x[2], x[2][:1]])
    assert short.shape == (2, 2, 2)
    assert (short[1, 1] == 0).all()


def test_tokens_of_different_lengths_are_padded_with_0():
    x = [[1, 2, 3], [4], [5, 6]] * 20
    pipeline = Pipeline(Data(validation=0.0, test=0.0, batch="full"), arrays=(x, [0, 1, 1] * 20))
    batch = pipeline.batch(0)
    assert pipeline.vocabulary == 7
    assert {tuple(row) for row in batch.x.tolist()} == {(1, 2, 3), (4, 0, 0), (5, 6, 0)}


def test_steps_without_a_target():
    x, y = [[1, 2, 3], [4, 1]] * 20, [[1, 0, 1], [0, 2]] * 20
    batch = Pipeline(Data(validation=0.0, test=0.0, batch="full"), arrays=(x, y)).batch(0)
    assert {tuple(row) for row in batch.y.tolist()} == {(1, 0, 1), (0, 2, -100)}


# --- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "arrays"),
    [
        ({"preprocess": ["rescale", "zca"]}, ((X * 50 + 128).byte().view(200, 1, 2, 2), Y)),
        (
            {"preprocess": ["standardize", {"kind": "fourier", "features": 9}]},
            (X.double(), X[:, 0]),
        ),
        ({}, (torch.randint(0, 9, (200, 6)), Y)),
        ({"preprocess": [{"kind": "one_hot", "per": "step"}]}, (torch.randint(0, 9, (200, 6)), Y)),
    ],
)
def test_state_restores_without_the_data(fields, arrays):
    data = Data(**fields)
    pipeline = Pipeline(data, arrays=arrays)
    tensors, facts = pipeline.state()
    again = Pipeline.from_state(data, tensors, json.loads(json.dumps(facts)))
    assert torch.equal(pipeline.transform(arrays[0]), again.transform(arrays[0]))
    for name in ("task", "classes", "outputs", "input_shape", "vocabulary"):
        assert getattr(again, name) == getattr(pipeline, name)
    assert torch.equal(again.class_counts(), pipeline.class_counts())


def test_transform_is_what_the_split_had():
    pipeline = Pipeline(Data(preprocess=["standardize"], test=0.5), arrays=(X, Y))
    raw, _ = pipeline.raw("test", 100)
    assert torch.equal(pipeline.transform(raw), torch.cat([b.x for b in pipeline.split("test")]))


def test_a_test_part_of_ones_own():
    data = Data(preprocess=["standardize"])
    pipeline = Pipeline(data, arrays=(X, np.array(["a", "b", "c"])[Y]))
    test = Pipeline.of_test(data, (X[:20], ["c", "a"] * 10), *pipeline.state())
    (batch,) = test.split("test")
    assert batch.y.tolist() == [2, 0] * 10
    assert torch.equal(batch.x, pipeline.transform(X[:20]))
    assert test.has("test")
    assert not test.has("train")
    with pytest.raises(InputError, match="got 'd'"):
        Pipeline.of_test(data, (X[:2], ["d", "a"]), *pipeline.state())
    with pytest.raises(InputError, match="as many targets"):
        Pipeline.of_test(data, (X[:2], ["a"]), *pipeline.state())


def test_preprocessing_can_be_carried_over():
    data = Data(preprocess=["standardize"])
    source = Pipeline(data, arrays=(X, Y))
    other = Pipeline(Data(), arrays=(X * 3 + 7, Y), fitted=source.state())
    assert torch.equal(other.transform(X), source.transform(X))
    with pytest.raises(InputError, match="carried over"):
        Pipeline(Data(), arrays=(X[:, :2], Y), fitted=source.state())


def test_summary():
    x = X.clone()
    x[:, 1] = 5.0
    found = summarize(Pipeline(Data(validation=0.0), arrays=(x, Y)))
    train = found["parts"]["train"]
    assert found["task"] == "classification"
    assert train["samples"] == 160
    assert train["constant_features"] == 1
    assert train["class_counts"] == [96, 48, 16]
    assert train["max"] == 5.0
    assert train["missing"] == 0
    json.dumps(found)
    assert (
        summarize(Pipeline(Data(), arrays=(X, X[:, 0])))["parts"]["train"]["target"]["deviation"]
        > 0.5
    )


# --- Datasets and DataLoaders ---------------------------------------------------------------------


class Numbered(Dataset):
    """Row i is [i, i] plus noise; target i % 3."""

    def __init__(self, size=90, noise=0.0):
        self.size, self.noise = size, noise

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        added = self.noise * (torch.randn(2) + np.random.randn() + random.random())
        return torch.full((2,), float(i)) + added, i % 3


class Streamed(IterableDataset):
    def __iter__(self):
        for i in range(90):
            yield torch.full((2,), float(i)), i % 3


class Images(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        from PIL import Image

        return {"image": Image.new("RGB", (6, 4), (i, 0, 255)), "label": i % 2}


LOADERS = {
    "kept": (lambda: Numbered(), "Arrays"),
    "random": (lambda: Numbered(noise=0.01), "Items"),
    "loader": (lambda: DataLoader(Numbered(noise=0.01), batch_size=16, shuffle=True), "Items"),
    "iterable": (lambda: Streamed(), "Ordered"),
    "iterable loader": (lambda: DataLoader(Streamed(), batch_size=16), "Ordered"),
    "sampler": (
        lambda: DataLoader(Numbered(), 16, sampler=WeightedRandomSampler([1.0] * 90, 60)),
        "Ordered",
    ),
}


@pytest.mark.parametrize("case", LOADERS)
def test_datasets(case):
    make, kind = LOADERS[case]
    data = Data(preprocess=["standardize"], seed=3)
    torch.manual_seed(0)
    first = Pipeline(data, arrays=make())
    assert type(first._parts["train"]).__name__ == kind
    assert first.task == "classification"
    assert first.outputs == 3
    steps = first.epoch_steps
    walked = list(first.batches(0, 2 * steps + 1))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    entered = Pipeline(data, arrays=make()).batch(2 * steps)
    assert torch.equal(
        torch.get_rng_state(), before
    )  # the person's own random numbers are left alone
    assert torch.equal(walked[-1].x, entered.x)
    assert torch.equal(walked[-1].y, entered.y)
    assert sum(len(batch.x) for batch in walked[:steps]) == first.train_size
    values = first._prepare._exact.inverse(walked[0].x.double())[:, 0]
    assert torch.equal(values.round().long() % 3, walked[0].y)
    whole = torch.cat([b.x for b in first.split("train")])
    assert len(whole) == first.train_size
    if kind != "Arrays" and case != "sampler":
        assert abs(whole.mean()) < 0.1


class Tokens(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return torch.randint(0, 2, (5,)) + i % 7, i % 2


def test_a_streamed_dataset_of_tokens():
    pipeline = Pipeline(Data(), arrays=Tokens())
    assert type(pipeline._parts["train"]).__name__ == "Items"
    assert pipeline.vocabulary == 8
    assert pipeline.batch(0).x.dtype == torch.int64


@pytest.mark.parametrize("shape", [(200, 6, 5), (200, 6, 5, 1), (200, 6, 5, 3), (200, 3, 6, 5)])
def test_bytes_are_images(shape):
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    expected = x[:, None] if x.ndim == 3 else x if shape[1] == 3 else x.permute(0, 3, 1, 2)
    pipeline = Pipeline(Data(validation=0.0, test=0.0), arrays=(x.numpy(), Y))
    assert torch.equal(pipeline.raw("train", 200)[0], expected)
    assert torch.equal(pipeline.transform(x), expected.float())


def test_a_random_dataset_is_random_anew_each_epoch():
    pipeline = Pipeline(
        Data(batch=90, validation=0.0, test=0.0, order="fixed"), arrays=Numbered(noise=1.0)
    )
    first, second = (pipeline.batch(step) for step in (0, 1))
    assert torch.equal(first.y, second.y)
    assert not torch.equal(first.x, second.x)


def test_what_is_too_large_to_keep_is_streamed(monkeypatch):
    kept = Pipeline(Data(batch=16), arrays=Numbered())
    monkeypatch.setattr(room, "MOST_BYTES", 100)
    streamed = Pipeline(Data(batch=16), arrays=Numbered())
    assert "Items" in type(streamed._parts["train"]).__name__
    assert "Arrays" in type(kept._parts["train"]).__name__
    for a, b in zip(kept.batches(0, 8), streamed.batches(0, 8), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_images_and_dicts_in_a_dataset():
    pipeline = Pipeline(Data(preprocess=["rescale"]), arrays=Images())
    batch = pipeline.batch(0)
    assert batch.x.shape[1:] == (3, 4, 6)
    assert (batch.x[:, 2] == 1).all()
    assert torch.equal((batch.x[:, 0, 0, 0] * 255).round().long() % 2, batch.y)


def test_the_batch_size_of_a_loader_unless_it_is_said():
    loader = DataLoader(Numbered(), batch_size=10)
    assert Pipeline(Data(), arrays=loader).batch_size == 10
    assert Pipeline(Data(batch=20), arrays=loader).batch_size == 20


def test_a_collate_of_ones_own():
    def collate(items):
        return torch.stack([x for x, _ in items]) * 10, torch.tensor([y for _, y in items])

    batch = Pipeline(
        Data(), arrays=DataLoader(Numbered(), batch_size=10, collate_fn=collate)
    ).batch(0)
    assert torch.equal((batch.x[:, 0] / 10).long() % 3, batch.y)


def test_a_mapped_file_is_not_read_into_memory(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (200, 4))
    mapped[:] = X.numpy()
    mapped.flush()
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    pipeline = Pipeline(Data(validation=0.0, test=0.0), arrays=(x, Y))
    assert pipeline._parts["train"].x.data_ptr() == x.ctypes.data
    assert torch.equal(pipeline.batch(0).x, X[pipeline.batch(0).index])


class Lengths(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, i):
        return torch.ones(1 + i % 4, 2), i % 2


def test_a_dataset_of_sequences():
    batch = Pipeline(Data(validation=0.0, test=0.0, batch="full"), arrays=Lengths()).batch(0)
    assert batch.x.shape == (30, 4, 2)
    assert batch.x.sum() == 2 * sum(1 + i % 4 for i in range(30))


# --- bad input ------------------------------------------------------------------------------------


def changed(x, place, value):
    x = x.clone()
    x[place] = value
    return x


class Empty(Dataset):
    def __len__(self):
        return 0

    def __getitem__(self, i):
        raise IndexError


BAD = {
    "a NaN": (
        (changed(X, (7, 2), float("nan")), Y),
        {},
        ["x: ", "1 value", "NaN", "column 2 of row 7"],
    ),
    "two infinities": (
        (changed(X, ([7, 9], 2), float("inf")), Y),
        {},
        ["2 value", "infinite", "column 2"],
    ),
    "a NaN in validation": (
        (X, Y, changed(X, (7, 2), float("nan")), Y),
        {},
        ["x of validation", "NaN"],
    ),
    "a NaN in an image": (
        (changed(X.view(200, 1, 2, 2), (3, 0, 1, 1), float("nan")), Y),
        {},
        ["NaN at [0, 1, 1] of row 3"],
    ),
    "a NaN in the targets": (
        (X, changed(X[:, 0], 5, float("nan"))),
        {},
        ["y: ", "1 value", "row 5"],
    ),
    "a NaN inside a sequence": (
        (changed(torch.randn(20, 5, 2), (3, 2), float("nan")), Y[:20]),
        {},
        ["NaN"],
    ),
    "lengths differ": ((X, Y[:150]), {}, ["150 target(s) for 200 inputs"]),
    "validation lengths differ": (
        (X, Y, X[:20], Y[:10]),
        {},
        ["y of validation", "10 target(s) for 20"],
    ),
    "widths differ": ((X, Y, X[:20, :2], Y[:20]), {}, ["x of validation", "[2]", "[4]"]),
    "a negative label": ((X, changed(Y, 4, -1)), {}, ["label -1 at row 4", "0 to 2"]),
    "a label out of range": (
        (X, Y, X, changed(Y, 4, 3)),
        {},
        ["y of validation", "label 3 at row 4", "0 to 2"],
    ),
    "an empty class": ((X, changed(Y, Y == 1, 0)), {}, ["no training sample of class 1"]),
    "one class": ((X, Y * 0), {}, ["one class", "two classes"]),
    "labels with a fraction": (
        (X, changed(Y.float(), 3, 0.5)),
        {"source": {"kind": "arrays", "task": "classification"}},
        ["0.5 at row 3", "whole numbers"],
    ),
    "a class name unknown": (
        (X[:4], ["a", "b"] * 2, X[:2], ["a", "c"]),
        {},
        ["y of validation", "'c'"],
    ),
    "one class by name": ((X[:4], ["a"] * 4), {}, ["one class (a)"]),
    "targets of a strange shape": ((X, torch.randint(0, 9, (200, 7))), {}, ["[200, 7]"]),
    "targets for multilabel that are not": (
        (X, Y),
        {"source": {"kind": "arrays", "task": "multilabel"}},
        ["0 or 1"],
    ),
    "targets by step that are not": (
        (X, Y),
        {"source": {"kind": "arrays", "task": "sequence"}},
        ["each time step"],
    ),
    "no samples": ((X[:0], Y[:0]), {}, ["at least one sample"]),
    "no features": ((X[:, :0], Y), {}, ["at least one number"]),
    "text inputs": ((np.array([["a", "b"]] * 4), [0, 1] * 2), {}, ["text", "csv"]),
    "objects": ((np.array([{}, {}], dtype=object), [0, 1]), {}, ["objects", "numbers"]),
    "complex numbers": ((X.to(torch.complex64), Y), {}, ["real numbers"]),
    "ragged rows": (([[1.0, [2.0]], [3.0, [4.0, 5.0]]], [0, 1]), {}, ["x"]),
    "an empty sequence": (([[1, 2], [], [3]], [0, 1, 0]), {}, ["length 0"]),
    "the padding as a token": (([[0, 2], [1]], [0, 1]), {}, ["the token 0", "add 1"]),
    "an unknown part": ({"train": (X, Y), "valdiation": (X, Y)}, {}, ["valdiation", "validation"]),
    "no training part": ({"test": (X, Y)}, {}, ["train"]),
    "three arrays": ((X, Y, X), {}, ["3 objects"]),
    "a number": (5, {}, ["int"]),
    "batch too large": ((X, Y), {"batch": 145}, ["data.batch", "145", "at most 144"]),
    "nothing left to train": (
        (X[:2], Y[[0, 150]]),
        {"validation": 0.0, "test": 0.9},
        ["leaves training data"],
    ),
    "a class only for test": (
        (X[:8], torch.arange(8) % 4),
        {"test": 0.6},
        ["every class", "8 samples of 4 classes"],
    ),
    "an empty Dataset": (Empty(), {}, ["empty Dataset"]),
    "a loader that cannot be split": (
        DataLoader(Streamed(), 10),
        {"validation": 0.2},
        ["cannot be split"],
    ),
    "a stack of sparse rows": (
        (__import__("scipy.sparse", fromlist=["x"]).eye(4), [0, 1] * 2),
        {},
        ["toarray"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case):
    arrays, fields, holds = BAD[case]
    with pytest.raises(InputError) as caught:
        Pipeline(Data(**fields), arrays=arrays)
    for part in holds:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], "first axis of 1"),
        (X[:, :3], "[N, 4]"),
        (changed(X, (0, 0), float("nan")), "NaN"),
        (np.array([["a"] * 4]), "text"),
        ("a text", "a file or folder that exists"),
    ],
)
def test_transform_refuses(x, message):
    with pytest.raises(InputError) as caught:
        Pipeline(Data(), arrays=(X, Y)).transform(x)
    assert message in str(caught.value)


def test_a_part_that_is_not_there():
    pipeline = Pipeline(Data(validation=0.0), arrays=(X, Y))
    with pytest.raises(InputError, match="no validation part"):
        pipeline.size("validation")


def test_a_recipe_of_arrays_alone():
    with pytest.raises(InputError, match="given in Python"):
        Pipeline(Data(source="arrays"))
