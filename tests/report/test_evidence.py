"""What a report shows of single samples is what the network does with them, counted another way."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import ravine
from ravine.report import run_page
from ravine.rundir import RunDir
from ravine.study.measuring import pipeline_of


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    place = tmp_path_factory.mktemp("text")
    words = np.random.default_rng(0).choice(["ab", "cd\n", "abc", "bad <i>"], 900)
    (place / "book.txt").write_text(" ".join(words), encoding="utf-8")
    recipe = ravine.Recipe(
        data={"source": {"kind": "text", "path": str(place / "book.txt"), "length": 16}},
        model={"kind": "char_rnn", "units": 12},
        stop={"after": "2ep"},
    )
    return ravine.train(recipe, out=place / "run", quiet=True)


def test_a_text_is_shown_step_by_step(text):
    found = json.loads((text.directory / "evidence.json").read_text(encoding="utf-8"))
    pipeline = pipeline_of(text.recipe)
    x, y = pipeline.raw("test", found["samples"])
    with torch.no_grad():
        scores = text.model(x)  # [N, T, K]
    right = scores.argmax(2) == y
    for row in found["per_class"]:
        k = [one.replace("\n", "⏎").replace(" ", "␣") for one in pipeline.classes].index(
            row["class"]
        )
        assert row["samples"] == int((y == k).sum())
        if row["samples"]:
            assert row["recall"] == pytest.approx(float(right[y == k].float().mean()))
    losses = torch.nn.functional.cross_entropy(scores.mT, y, reduction="none").mean(1)
    assert found["worst"][0]["row"] == int(losses.argmax())
    assert found["worst"][0]["note"] == f"loss {float(losses.max()):.3g} a step"
    assert [step for _, step in found["worst"][0]["steps"]] == right[losses.argmax()].tolist()
    assert sum(map(sum, found["confusion"]["counts"])) == y.numel()
    page = run_page.render(RunDir.open(text.directory))
    assert "<i>" not in page
    assert "marked where the network was wrong" in page


def test_a_table_shows_its_first_rows(tmp_path):
    x = torch.arange(400.0).reshape(40, 10)
    run = ravine.train(
        model=torch.nn.Linear(10, 1),
        data=(x, x[:, 0]),
        epochs=1,
        lr=1e-6,
        out=tmp_path / "run",
        quiet=True,
    )
    found = json.loads((run.directory / "evidence.json").read_text(encoding="utf-8"))
    rows = found["data"]["rows"]
    assert rows["heads"] == [*(f"x{i}" for i in range(8)), "y"]
    assert rows["left_out"] == 2
    for cells in rows["cells"]:
        first = float(cells[0])
        assert [float(cell) for cell in cells] == [*(first + i for i in range(8)), first]
    assert "without 2 further columns" in run_page.render(RunDir.open(run.directory))
