"""Answers of a trained run to a person's own Datasets and DataLoaders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ravine
from ravine import InputError


class Named(torch.utils.data.Dataset):
    """Samples by name, of which one is longer than the others."""

    def __init__(self, count, labels=True):
        self.count, self.labels = count, labels

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        words = torch.arange(1, 3 + i % 4)
        return {"words": words} | ({"labels": i % 2} if self.labels else {})


def together(items):
    words = nn.utils.rnn.pad_sequence([item["words"] for item in items], batch_first=True)
    labels = {"labels": torch.tensor([i["labels"] for i in items])} if "labels" in items[0] else {}
    return {"words": words} | labels


def test_a_run_answers_and_is_evaluated_on_datasets_and_loaders(tmp_path):
    def network():
        return nn.Sequential(nn.Embedding(9, 3, padding_idx=0), nn.Flatten(), nn.Linear(15, 2))

    def loader(*args, **options):
        return torch.utils.data.DataLoader(Named(*args), collate_fn=together, **options)

    run = ravine.train(
        model=network, data=loader(60, batch_size=10), epochs=2, quiet=True, out=tmp_path / "run"
    )
    whole = together([Named(12)[i] for i in range(12)])
    expected = run.predict(whole["words"])
    assert (run.predict(loader(12, shuffle=True, batch_size=5)) == expected).all()
    assert (run.predict(loader(12, False, batch_size=12)) == expected).all()
    pairs = torch.utils.data.TensorDataset(whole["words"], whole["labels"])
    assert (run.predict(pairs) == expected).all()
    found = run.evaluate(data=loader(12, batch_size=5))
    assert found == run.evaluate(data=pairs) == run.evaluate(data=tuple(whole.values()))
    assert found["accuracy"] == (expected == whole["labels"].numpy()).mean()
    with pytest.raises(InputError, match="samples without targets"):
        run.evaluate(data=loader(12, False, batch_size=12))


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([(torch.randn(2), i % 2) for i in range(40)])


def test_a_stream_that_is_read_for_long_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("ravine.data.objects.stream.PATIENCE", -1.0)
    with pytest.warns(UserWarning, match="20 samples of a stream .*islice") as said:
        ravine.train(
            model=nn.Linear(2, 2), data=Stream(), batch=20, epochs=1, quiet=True, out=tmp_path / "r"
        )
    assert len([w for w in said if "islice" in str(w.message)]) == 1
