"""Data of other libraries: ``datasets``, frames of pandas and polars, WebDataset shards, streams."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import ravine
from ravine import InputError

QUICK = {"epochs": 4, "lr": 0.02, "batch": 32, "quiet": True, "doctor": False}
X = np.random.default_rng(0).normal(size=(300, 3)).astype("float32")
Y = (X.sum(1) > 0).astype(int)


def frame():
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(label=Y)


def hf(what, place):
    datasets = pytest.importorskip("datasets")
    if what == "columns":
        return datasets.Dataset.from_pandas(frame())
    if what == "parquet":
        frame().to_parquet(place / "x.parquet")
        return datasets.Dataset.from_parquet(str(place / "x.parquet"), cache_dir=str(place / "c"))
    if what == "arrow":
        datasets.Dataset.from_pandas(frame()).save_to_disk(str(place / "saved"))
        return datasets.load_from_disk(str(place / "saved"))
    whole = datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()})
    if what == "parts":
        return datasets.DatasetDict(
            train=whole.select(range(200)), test=whole.select(range(200, 300))
        )
    if what == "stream":
        return whole.to_iterable_dataset()
    return whole.with_format("torch") if what == "torch" else whole


def polars(what, place):
    library = pytest.importorskip("polars")
    table = library.DataFrame(X, schema=["a", "b", "c"])
    if what == "pair":
        return table, library.Series("label", Y)
    return table.with_columns(label=library.Series(Y))


def shards(what, place):
    library = pytest.importorskip("webdataset")
    for shard in range(2):
        with library.TarWriter(str(place / f"s-{shard}.tar")) as file:
            for i in range(150 * shard, 150 * shard + 150):
                file.write({"__key__": f"{i:05d}", "x.npy": X[i], "cls": int(Y[i])})
    urls = str(place / "s-{0..1}.tar")
    return library.WebDataset(urls, shardshuffle=False).decode().to_tuple("x.npy", "cls")


CASES = {
    **{
        f"datasets {w}": (hf, w)
        for w in ("columns", "list", "torch", "parquet", "arrow", "parts", "stream")
    },
    "polars pair": (polars, "pair"),
    "polars frame": (polars, "frame"),
    "pandas frame": (lambda what, place: frame(), ""),
    "pandas parts": (lambda what, place: (frame()[:200], frame()[200:]), ""),
    "webdataset": (shards, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_tables_of_other_libraries_train(case, tmp_path):
    make, what = CASES[case]
    given = make(what, tmp_path)
    stream = case in ("webdataset", "datasets stream")
    run = ravine.train(data=given, model="mlp", out=tmp_path / "run", **QUICK)
    assert run.pipeline.task == "classification"
    assert tuple(run.pipeline.raw_shape) == (3,)
    measured = run.result["train_loss" if stream else "val_accuracy"]
    assert measured < 0.4 if stream else measured > 0.8
    assert (run.predict(X) == Y).mean() > 0.8


def test_a_folder_of_pictures_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    for name, base in (("cat", 0), ("dog", 150)):
        (tmp_path / "img" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng(i).integers(base, base + 100, (8, 8, 3))
            Image.fromarray(pixels.astype("uint8")).save(tmp_path / "img" / name / f"{i}.png")
    place = {"data_dir": str(tmp_path / "img"), "cache_dir": str(tmp_path / "cache")}
    given = datasets.load_dataset("imagefolder", **place)
    fields = QUICK | {"batch": 8}
    run = ravine.train(data=given, model="softmax", out=tmp_path / "run", **fields)
    assert tuple(run.pipeline.raw_shape) == (3, 8, 8)
    assert run.pipeline.classes == ("cat", "dog")


def test_what_is_refused_names_the_way_out(tmp_path):
    with pytest.raises(InputError, match="rename the column"):
        ravine.train(data=frame().rename(columns={"label": "price"}), model="mlp", **QUICK)
    words = frame().assign(a=["x", "y", "z"] * 100)
    with pytest.raises(InputError, match="tokenise or encode them first"):
        ravine.train(data=words, model="mlp", **QUICK)
    with pytest.raises(InputError, match="can be read once"):
        ravine.train(data=iter(zip(X, Y, strict=True)), model="mlp", **QUICK)


class Words(torch.utils.data.Dataset):
    """Sequences of different lengths."""

    def __init__(self):
        draw = np.random.default_rng(0)
        self.rows = [draw.integers(1, 9, size=draw.integers(2, 9)) for _ in range(300)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = torch.from_numpy(self.rows[i])
        return {"input_ids": row, "labels": int((row == 8).any())}


def padded(samples):
    ids = nn.utils.rnn.pad_sequence([s["input_ids"] for s in samples], batch_first=True)
    labels = torch.tensor([s["labels"] for s in samples])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 16), nn.Linear(16, 2)

    def forward(self, input_ids, attention_mask, labels=None):
        logits = self.head((self.embedding(input_ids) * attention_mask[..., None]).sum(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def test_a_collate_that_pads_each_batch(tmp_path):
    loader = DataLoader(Words(), batch_size=16, collate_fn=padded, shuffle=True)
    run = ravine.train(
        data=loader, model=Bag, epochs=15, lr=0.02, quiet=True, doctor=False, out=tmp_path / "run"
    )
    assert run.result["val_accuracy"] > 0.9


def test_an_iterable_begins_again_in_every_epoch(tmp_path):
    class Stream(IterableDataset):
        begun = 0

        def __iter__(self):
            Stream.begun += 1
            return ((X[i], int(Y[i])) for i in range(300))

    run = ravine.train(data=Stream(), model="mlp", out=tmp_path / "run", **QUICK)
    assert Stream.begun >= 4
    assert run.result["train_loss"] < 0.4
