"""Every study on the command line: its directory, one JSON line, exit codes; killed and resumed it
ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ravine
from ravine.app.cli import app
from ravine.starters.written import Starter
from ravine.study.declare import resume_study

RUNNER = CliRunner()
SMALL = [
    "--set",
    "data={source='blobs'}",
    "--set",
    "model=mlp",
    "--set",
    "model.hidden=[8]",
    "--set",
    "stop.after=3ep",
]
STUDIES = {
    "search": [
        "search",
        *SMALL,
        "--vary",
        "optimizer.lr=loguniform:1e-3:1",
        "--members",
        "3",
        "--rounds",
        "1",
        "--finals",
        "1",
    ],
    "compare": [
        "compare",
        *SMALL,
        "--over",
        "optimizer.kind=sgd,adam",
        "--seeds",
        "3",
        "--rates",
        "0.01,0.1",
        "--baselines",
    ],
    "lr": ["lr", *SMALL, "--rates", "6", "--after", "20it"],
    "ensemble": ["ensemble", *SMALL, "--members", "3"],
    "lottery": ["lottery", *SMALL, "--rounds", "2", "--rate", "0.5", "--seeds", "2"],
    "signals": [
        "signals",
        *SMALL,
        "--depth",
        "3",
        "--width",
        "16",
        "--init",
        "he_normal",
        "--activation",
        "relu",
    ],
    "gradcheck": ["gradcheck", *SMALL, "--coordinates", "4"],
    "babysit": ["babysit", *SMALL, "--steps", "30", "--rates", "4"],
}
ON_RUNS = {
    "landscape": ["landscape", "@run", "--kind", "line", "--points", "5", "--samples", "50"],
    "features": ["features", "@run"],
    "advise": ["advise", "@run", "--human", "0.01"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "run"
    ravine.train(
        data="blobs", model={"kind": "mlp", "hidden": [8]}, epochs=2, quiet=True, out=place
    )
    return place


@pytest.mark.parametrize("name", ["compare", "lr"])
def test_target_names_the_column_of_a_table(name, tmp_path):
    """Also where the study has a --target of its own, which is a number."""
    rows = "\n".join(f"{i},{3 * i},{i % 7}" for i in range(60))
    (tmp_path / "houses.csv").write_text(f"size,price,age\n{rows}\n")
    words = {"compare": ["--over", "optimizer.lr=0.01,0.03", "--seeds", "2", "--no-tune"]}
    command = [name, str(tmp_path / "houses.csv"), "--target", "price", "--epochs", "1"]
    more = ["--model", "linear", "--out", str(tmp_path / "out"), "--quiet"]
    result = RUNNER.invoke(app, [*command, *words.get(name, []), *more])
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))
    assert '"target": "price"' in json.dumps(stored)


def test_a_study_goes_on_with_the_plan_that_it_was_begun_with(tmp_path, monkeypatch):
    """A plan for data follows from measured times: the same command, later, would make another."""
    path, out = tmp_path / "houses.csv", tmp_path / "out"
    path.write_text("size,age,price\n" + "\n".join(f"{i},{i % 7},{3 * i}" for i in range(60)))

    def study(*more: str) -> int:
        words = ["lr", str(path), "--model", "linear", "--after", "2it", "--rates", "3", "--quiet"]
        words += ["--minutes", "0.02", "--epochs", "1", "--out", str(out), *more]
        result = RUNNER.invoke(app, words)
        assert result.exit_code in (0, 2), result.output
        return result.exit_code

    assert study() == 0
    begun = (out / "study.json").read_text(encoding="utf-8")
    monkeypatch.setattr("ravine.starters.sizing.LEAST_SHARE", 0.7)
    assert study() == 0
    assert (out / "study.json").read_text(encoding="utf-8") == begun
    assert study("--minutes", "0.03") == 2  # it was not begun with that
    assert study("--lr", "0.1") == 2


def test_a_call_with_data_goes_on_with_its_plan(tmp_path, monkeypatch):
    path = tmp_path / "houses.csv"
    path.write_text("size,price\n" + "\n".join(f"{i % 7},{3 * i}" for i in range(60)))

    def study(after: str) -> list[float]:
        fields = {"source": {"kind": "csv", "path": str(path)}, "batch": 16}
        made = Starter(ravine.Recipe(model="linear", data=fields, stop={"after": after}), {}, "")
        monkeypatch.setattr("ravine.study.declare.start_with", lambda *given: (made, {}))
        found = ravine.lr(str(path), after="2it", rates=3, out=tmp_path / "out", quiet=True)
        return [row["optimizer.lr"] for row in found["table"]]

    assert study("3ep") == study("4ep")
    with pytest.raises(ravine.InputError, match="differs in its recipe"):
        ravine.lr(ravine.Recipe(), after="2it", rates=3, out=tmp_path / "out", quiet=True)


@pytest.mark.parametrize("name", [*STUDIES, *ON_RUNS])
def test_a_study_directory(name, run, tmp_path, drawn):
    words = [str(run) if word == "@run" else word for word in (STUDIES | ON_RUNS)[name]]
    out = tmp_path / name
    result = RUNNER.invoke(app, [*words, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.strip().splitlines()[-1])
    assert said == json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert said["kind"] == name
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace(
        "https://github.com/leeoniya/uPlot", ""
    )
    assert list((out / "figures").glob("*.png"))
    assert (
        resume_study(out, quiet=True) == said
    )  # entered again, nothing is computed and nothing changes
    other = RUNNER.invoke(app, ["lr", *SMALL, "--rates", "7", "--out", str(out)])
    assert other.exit_code == 2
    assert "this very study" in other.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", *SMALL], "--over: expected at least one field"),
        (["compare", *SMALL, "--over", "optimizer.kind=sgd,admw"], "did you mean 'adamw'"),
        (["compare", *SMALL, "--over", "optimizer.kind=sgd,sgd"], "variants that all differ"),
        (
            ["compare", *SMALL, "--over", "optimizer.kind=sgd", "--metric", "accuracy"],
            "val_accuracy, val_loss",
        ),
        (
            ["compare", *SMALL, "--over", "optimizer.kind=sgd,adam", "--tune", "lrr"],
            "--tune: got 'lrr'",
        ),
        (
            [
                "compare",
                *SMALL,
                "--over",
                "optimizer.kind=sgd,adam",
                "--tune",
                "lr",
                "--rates",
                "a,b",
            ],
            "--rates: got 'a'",
        ),
        (
            ["compare", *SMALL, "--over", "optimizer.kind=sgd,adam", "--tune", "lr", "--rates", ""],
            "numbers by commas",
        ),
        (
            ["compare", *SMALL, "--over", "optimizer.kind=sgd,adam", "--no-tune", "--rates", "0.1"],
            "add --tune lr",
        ),
        (
            ["compare", *SMALL, "--over", "optimizer.kind=sgd,adam", "--target", "95"],
            "as a fraction from 0 to 1",
        ),
        (
            ["search", *SMALL, "--method", "asha", "--first", "0ep"],
            "--first: got '0ep'; expected a duration longer than 0",
        ),
        (["search", *SMALL, "--method", "asha", "--first", "soon"], "--first: got 'soon'"),
        (["search", *SMALL, "--method", "asha", "--eta", "1"], "--eta: got 1"),
        (["lr", *SMALL, "--low", "1", "--high", "0.1"], "0 < low < high"),
        (["lr", *SMALL, "--after", "20"], 'write "20ep" for epochs'),
        (["ensemble", *SMALL, "--method", "boosting"], "one of seed, bagging, snapshot"),
        (["ensemble", *SMALL, "--members", "1"], "from 2 to 10000"),
        (["lottery", *SMALL, "--rate", "1.5"], "between 0 and 1"),
        (["lottery", *SMALL, "--scope", "row"], "one of global, layer"),
        (["lottery", *SMALL, "--rewind", "soon"], "--rewind: got 'soon'"),
        (["landscape", "nowhere"], "run directory"),
        (["landscape", "@run", "--kind", "between"], "name the other run too"),
        (
            ["landscape", "@run", "--samples", "0"],
            "--samples: got 0; expected a whole number of at least 1",
        ),
        (["landscape", "@run", "--kind", "surface"], "one of plane, line, between, path"),
        (["landscape", "@run", "--set", "seed=1"], "No such option"),
        (
            ["landscape", "@run", "--split", "tset"],
            "--split: got 'tset'; expected one of train, validation, test",
        ),
        (["signals", *SMALL, "--samples", "0"], "--samples: got 0"),
        (["signals", *SMALL, "--init", "he"], "--init: got 'he'; expected one of"),
        (["signals", *SMALL, "--init", "normal:x"], "KIND:NUMBER"),
        (["gradcheck", *SMALL, "--coordinates", "0"], "at least 1"),
        (["features", "@run", "--layer", "9"], "--layer"),
        (["features", "@run", "--units", "0"], "--units: got 0"),
        (["advise", "@run", "--human", "2"], "2 % is 0.02"),
        (["advise", "@run", "--target", "-0.1"], "a part of the samples from 0 to 1"),
        (["advise", "@run", "--human", "0.1", "--target", "0.2"], "one of them"),
        (["export", "@run", "--format", "pickle"], "one of onnx, safetensors, torch"),
        (
            ["search", "--set", "data.validation=0", "--vary", "optimizer.lr=0.1,0.2"],
            "set data.validation above 0",
        ),
    ],
)
def test_bad_input_gets_one_message(words, said, run, tmp_path):
    words = [str(run) if word == "@run" else word for word in words]
    result = RUNNER.invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_killed_search_ends_with_the_same_table(tmp_path):
    words = [
        "search",
        *SMALL,
        "--set",
        "stop.after=40ep",
        "--set",
        "threads=1",
        "--vary",
        "optimizer.lr=loguniform:1e-4:1",
        "--members",
        "4",
        "--rounds",
        "2",
        "--finals",
        "2",
        "--json",
        "--out",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "ravine", *words, str(out)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    whole = json.loads(start(tmp_path / "whole").communicate()[0])
    process = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while (
        not (tmp_path / "killed" / "runs" / "random-2" / "snapshots").exists()
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "summary.json").exists()
    resumed = RUNNER.invoke(app, ["resume", str(tmp_path / "killed"), "--json"])
    found = json.loads(resumed.stdout.strip().splitlines()[-1])
    for name in ("table", "finals", "chosen", "spaces"):
        expected = whole[name]
        if name == "chosen":
            expected, found[name] = (
                {k: v for k, v in one.items() if k != "recipe"} for one in (expected, found[name])
            )
        assert found[name] == expected


def test_a_study_of_python_data_wants_them_resume_study(tmp_path):
    import numpy as np

    from ravine import InputError, Recipe
    from ravine.study.lr.study import lr

    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    data = (x, (x[:, 0] > 0).astype(np.int64))
    found = lr(
        Recipe(model="softmax"), rates=3, after="5it", data=data, quiet=True, out=tmp_path / "lr"
    )
    with pytest.raises(InputError, match="the same data again"):
        resume_study(tmp_path / "lr", quiet=True)
    assert resume_study(tmp_path / "lr", data=data, quiet=True) == found


def test_a_directory_that_cannot_be_made_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = RUNNER.invoke(app, ["lr", *SMALL, "--out", str(tmp_path / "file" / "out")])
    assert result.exit_code == 2, result.output
    assert "expected a place for a new directory" in result.output
