"""What is answered for a few validation images over training: recorded through the record, of images alone,
without a change of any number; a resumed run records the same."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ravine
from ravine import Recipe, Run
from ravine.data.pipeline import Pipeline
from ravine.engine.loop.sample_records import KIND, SHOWN, SampleRecords
from ravine.report import overview
from ravine.rundir import RunDir

IMAGES = {"model": "softmax", "data": "digits", "epochs": 4, "threads": 1}
QUIET = {"quiet": True, "doctor": False}


def stored(path):
    with RunDir.open(path) as run:
        return run.events(KIND), overview.sample_records(run), [run.steps(0), run.epochs(0)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("samples") / "run"
    ravine.train(**IMAGES, **QUIET, out=place)
    return place


def test_each_record_has_truth_answer_and_probability(trained):
    events, found, _ = stored(trained)
    assert [event["data"]["epoch"] for event in events] == [1, 2, 3, 4]
    assert ["pictures" in event["data"] for event in events] == [True, False, False, False]
    assert len(found["pictures"]) == SHOWN == len(found["records"][-1]["samples"])
    run, pipeline = Run(trained), Pipeline(Recipe(data={"source": "digits"}).data)
    x, y = pipeline.raw("validation", 64)
    shown = found["records"][-1]["samples"]
    assert {one["truth"] for one in shown} == {str(k) for k in y.tolist()}  # every class
    for one, picture in zip(shown, found["pictures"], strict=True):
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))))
        scaled = [
            ((p - p.min()) / (p.max() - p.min()) * 255).astype(np.uint8) for p in x[:, 0].numpy()
        ]
        (row,) = [i for i, p in enumerate(scaled) if np.abs(p.astype(int) - pixels).max() <= 1]
        assert one["truth"] == str(int(y[row]))
        # the last weights are those of the last record
        assert one["answer"] == str(run.predict(x[row : row + 1])[0])
        assert one["sure"] == pytest.approx(
            float(run.predict_proba(x[row : row + 1]).max()), abs=6e-4
        )


class Own(nn.Module):
    """Draws from the global generator and counts its calls, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.head(x.flatten(1) + 0.01 * torch.randn(()) * (self.calls % 3))


def test_it_changes_no_number_of_a_module_that_draws(tmp_path, monkeypatch):
    def losses(name):
        torch.manual_seed(0)
        ravine.train(**IMAGES | {"model": Own()}, **QUIET, out=tmp_path / name)
        return stored(tmp_path / name)

    events, _, (with_them, _) = losses("with")
    monkeypatch.setattr(SampleRecords, "look", lambda *given: None)
    _, _, (without, _) = losses("without")
    assert len(events) == 4
    np.testing.assert_array_equal(with_them, without)


def test_it_changes_no_number_and_a_resumed_run_records_the_same(trained, tmp_path, monkeypatch):
    ravine.train(**IMAGES | {"epochs": 2}, **QUIET, out=tmp_path / "cut")
    ravine.resume(tmp_path / "cut", after="4ep", quiet=True)
    events, _, _ = stored(trained)
    assert stored(tmp_path / "cut")[0] == events
    monkeypatch.setattr(SampleRecords, "look", lambda *given: None)
    ravine.train(**IMAGES, **QUIET, out=tmp_path / "without")
    for one, other in zip(stored(trained)[2], stored(tmp_path / "without")[2], strict=True):
        if isinstance(one, list):
            drop = lambda rows: [{k: v for k, v in r.items() if k != "seconds"} for r in rows]  # noqa: E731
            assert drop(one) == drop(other)
        else:
            np.testing.assert_array_equal(one, other)


def test_numbers_are_predicted_in_their_units_and_tables_have_no_pictures(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (60, 1, 6, 6)).astype("uint8")
    y = 1000 + x.mean((1, 2, 3)).astype("float32")
    quick = {"epochs": 1, "threads": 1, **QUIET}
    ravine.train(model="mlp", data=(x, y), out=tmp_path / "numbers", **quick)
    (record,) = stored(tmp_path / "numbers")[1]["records"]
    assert all(900 < float(one["truth"].replace(",", "")) < 1300 for one in record["samples"])
    assert not any("sure" in one for one in record["samples"])
    ravine.train(model="softmax", data="blobs", out=tmp_path / "table", **quick)
    assert stored(tmp_path / "table")[0] == []


def test_records_of_another_form_are_passed_over(tmp_path):
    run = RunDir.create(tmp_path / "run", [Recipe()], facts={})
    good = [{"truth": "a", "answer": "<b>", "sure": 0.5}]
    for i, data in enumerate(
        (
            {"epoch": 1.0, "samples": good, "pictures": ["javascript:alert(1)"]},
            {"epoch": 2.0, "samples": good, "pictures": ["data:image/png;base64,AAAA"]},
            {"epoch": 3.0, "samples": [{"truth": 1, "answer": "b"}]},
            {"epoch": 4.0, "samples": good * 2},
            {"epoch": "5", "samples": good},
            {"samples": good},
        )
    ):
        run.add_event(i, 0, KIND, "samples", data)
    found = overview.sample_records(run)
    run.close()
    assert found["pictures"] == ["data:image/png;base64,AAAA"]
    assert [record["epoch"] for record in found["records"]] == [1.0, 2.0]
