"""A real notebook, executed with and without ipywidgets: runs and studies display themselves, progress is
plain text."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import ravine
from ravine.errors import InputError
from ravine.study.page import Findings, Page, PageTable
from ravine.training.outcome import print_findings

CELLS = [
    "import ravine, sys\nsys.modules['ipywidgets'] = None",  # as where they are not installed
    "run = ravine.train(model='softmax', data='blobs', lr=0.1, epochs=4, out='run', threads=1)",
    "run",
    "run.plot('accuracy')",
    "run.confusion()",
    "print(run.findings, run.report())",
    "found = ravine.lr(run.recipe, out='lr')\nfound",
    "del sys.modules['ipywidgets']\nimport ipywidgets",
    "again = ravine.train(model='softmax', data='blobs', lr=0.1, epochs=4, out='again', threads=1)",
]


def test_a_notebook_shows_runs_and_studies(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("ipywidgets")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [cell.outputs for cell in made.cells]
    for trained in (outputs[1], outputs[8]):  # without ipywidgets, and with them
        text = "".join(str(one) for one in trained)
        assert "epoch 4/4" in text  # the progress
        assert "Test accuracy" in text  # the closing lines
        assert "/report.html" in text
        assert {one["output_type"] for one in trained} <= {"display_data", "stream"}
        assert all("widget" not in str(one) and one.get("name") != "stderr" for one in trained)
    shown = outputs[2][0]["data"]["text/html"]
    assert shown.count("<svg") == 2
    assert "Test accuracy" in shown
    assert "<svg" in outputs[3][0]["data"]["image/svg+xml"]
    assert "answer" in outputs[4][0]["data"]["text/html"]
    assert "<table>" in outputs[6][-1]["data"]["text/html"]


def test_a_study_shows_the_rows_around_its_best_one():
    rows = [{"lr": i, "loss": abs(i - 20) / 10} for i in range(30)]
    shown = PageTable("Rates", rows, best=20)
    assert [row["lr"] for row in shown.around()] == [*range(14, 26)]
    assert len(PageTable("Few", rows[:3], best=None).around()) == 3
    html = Findings({"report": "r.html"}, Page("Rates", ["Take 20."], tables=[shown]))._repr_html_()
    assert "<td>20</td>" in html
    assert "<td>5</td>" not in html


def test_closing_lines_say_what_to_do_where_no_remedy_was_tried(capsys):
    general = {
        "what_to_do": "Ten times the rate.",
        "cause": "Too short.",
        "consequences": ["Slow."],
    }
    finding = {"code": "lr_too_low", "where": "optimizer.lr", "evidence": "1e-7", "remedies": []}
    print_findings([finding | general | {"strength": 0.7}])
    assert "what to do, in general: Ten times the rate." in capsys.readouterr().err


def test_confusion_counts_every_sample():
    run = ravine.train(model="softmax", data="blobs", lr=0.1, epochs=2, quiet=True, threads=1)
    counts = run.confusion()
    assert counts.to_numpy().trace() / counts.to_numpy().sum() == pytest.approx(
        run.result["test_accuracy"], abs=1e-6
    )
    x = np.random.default_rng(0).normal(size=(7, *run.pipeline.raw_shape)).astype("float32")
    own = run.confusion(data=(x, np.zeros(7, int)))
    assert own.to_numpy()[0].sum() == 7 == own.to_numpy().sum()
    with pytest.raises(InputError, match="plot"):
        run.plot("nothing")


def test_a_run_of_arrays_is_looked_at_in_the_process_that_gave_them(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    common = {"model": "softmax", "epochs": 2, "quiet": True, "threads": 1, "out": tmp_path / "run"}
    run = ravine.train(data=(x, y), **common)
    for split, name in (("test", "test"), ("validation", "val")):
        right = run.evaluate(split)["accuracy"]
        counts = run.confusion(split).to_numpy()
        assert right == pytest.approx(run.result[f"{name}_accuracy"], abs=1e-6)
        assert counts.trace() / counts.sum() == pytest.approx(right, abs=1e-6)
    with pytest.raises(InputError, match=r"expected data = \(x, y\)"):  # no file holds them
        ravine.Run(tmp_path / "run").confusion()


@pytest.mark.parametrize("study", [ravine.advise, ravine.features, ravine.Run])
def test_what_looks_at_a_run_names_what_it_was_given_instead(study):
    with pytest.raises(InputError, match="got 'Recipe'; expected a run that"):
        study(ravine.Recipe())


def test_an_editor_completes_every_public_name_and_the_studies_keywords():
    """What editors read: the imports under TYPE_CHECKING and the signatures of the functions."""
    tree = ast.parse(Path(ravine.__file__).read_text(encoding="utf-8"))
    seen = {
        a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names
    }
    assert set(ravine.__all__) <= seen
    for name in ("search", "compare", "lr", "advise", "ensemble"):
        keywords = inspect.signature(getattr(ravine, name)).parameters
        assert {"out", "quiet", "data", "model"} <= set(keywords)
        assert all(p.kind is not p.VAR_KEYWORD for p in keywords.values())


@pytest.mark.parametrize(("steps", "few"), [(4, True), (400, False)])
def test_a_run_of_few_steps_is_not_called_sound(steps, few, tmp_path, capsys):
    ravine.train(model="softmax", data="blobs", steps=steps, lr=0.1, out=tmp_path / "run")
    said = "4 steps are too few to judge learning by"
    assert (said in " ".join(capsys.readouterr().err.split())) is few
