import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest

import stored
from ravine.errors import InputError
from ravine.rundir import RunDir
from synthetic import EPOCH_STEPS, make_all, make_run, measurements, recipe

pytest.importorskip("starlette", reason="the extra web is not installed")
from starlette.testclient import TestClient

from ravine.report.run_index import RunIndex
from ravine.report.server import application, serve


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_all(root)
    (root / "not a run").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "recipe.json").write_text("{")
    (root / "broken" / "metrics.sqlite").write_text("")
    return root


@pytest.fixture(scope="module")
def client(runs):
    return TestClient(application(runs, ["localhost", "testserver"]))


def test_the_list_holds_every_run_and_only_runs(client):
    rows = client.get("/api/runs").json()["runs"]
    assert {row["id"] for row in rows} == {
        "one",
        "five-seeds",
        "rates",
        "regression",
        "study/adam",
        "study/slow",
        "stopped",
        "wild",
    }
    row = next(row for row in rows if row["id"] == "rates")
    assert (row["state"], row["members"], row["epochs"], row["total_epochs"]) == (
        "finished",
        25,
        20,
        30,
    )
    assert row["recipe"] == {
        "model.kind": "mlp",
        "data.source.kind": "digits",
        "optimizer.kind": "adam",
        "optimizer.lr": "varies",
        "data.batch": 64,
        "seed": 0,
    }
    assert row["curves"] == ["loss", "accuracy", "lr", "grad_norm", "step_loss"]
    assert next(row for row in rows if row["id"] == "wild")["state"] == "diverged"


def test_a_run_directory_may_be_served_itself(runs):
    rows = TestClient(application(runs / "one")).get("/api/runs").json()["runs"]
    assert [row["id"] for row in rows] == ["."]


@pytest.mark.parametrize("x", ["epoch", "step", "seconds"])
def test_curves_are_what_was_measured(client, runs, x):
    lines = client.get("/api/curves", params={"run": "one", "metric": "loss", "x": x}).json()[
        "series"
    ]
    rows = RunDir.open(runs / "one").epochs(0, clock=True)
    for line, metric in zip(lines, ("train_loss", "val_loss"), strict=True):
        assert (line["metric"], line["percent"]) == (metric, False)
        np.testing.assert_allclose(line["x"], [row[x] for row in rows])
        np.testing.assert_allclose(line["y"], [row[metric] for row in rows])


def test_many_members_are_a_median_and_a_band(client):
    (line,) = client.get("/api/curves", params={"run": "rates", "metric": "accuracy"}).json()[
        "series"
    ]
    assert line["label"] == "median of 25"
    assert all(
        low <= middle <= high
        for low, middle, high in zip(line["low"], line["y"], line["high"], strict=True)
    )


def test_what_is_not_finite_is_null(client):
    text = client.get("/api/curves", params={"run": "wild", "metric": "step_loss"}).text
    assert "NaN" not in text
    assert json.loads(text)["series"][0]["y"][-1] is None


@pytest.mark.parametrize("name", ["none", "../one", "/etc", "", "study", "broken", "one/../one"])
@pytest.mark.parametrize("path", ["/api/curves", "/report"])
def test_only_what_is_listed_is_served(client, path, name):
    answer = client.get(path, params={"run": name})
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_other_host_names_are_refused(client):
    assert client.get("/api/runs", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["index.html", "index.js", "charts.js", "charts.css", "theme.css", "index.css", "icon.svg"],
)
def test_the_page_asks_this_server_alone(client, path):
    answer = client.get(f"/web/{path}")
    assert answer.status_code == 200
    assert not re.findall(r"https?://(?!www\.w3\.org/)", answer.text)


def test_the_page_and_the_report_forbid_foreign_content(client):
    page, report = client.get("/"), client.get("/report", params={"run": "one"})
    assert page.headers["content-security-policy"].startswith(
        "default-src 'self'; style-src 'self'"
    )
    assert report.headers["content-security-policy"].startswith("default-src 'none'")
    assert "Test accuracy" in report.text


def test_a_run_is_followed_while_it_is_written(tmp_path):
    made = recipe()
    losses, rows = measurements(made, 6)
    index = RunIndex(tmp_path)
    assert index.rows() == []
    run = RunDir.create(tmp_path / "run", [made], facts={})
    for done in range(1, 7):
        first = (done - 1) * EPOCH_STEPS
        run.add_steps(first, [0], losses[first : done * EPOCH_STEPS, None])
        run.add_epochs([{"member": 0, **rows[done - 1]}])
        (row,) = index.rows()
        assert (row["state"], row["epochs"], row["steps"]) == ("running", done, done * EPOCH_STEPS)
    run.set_result(
        0,
        {
            "val_loss": 0.5,
            "stopped": "finished",
            "epochs": 6,
            "steps": 6 * EPOCH_STEPS,
            "seconds": 3.0,
        },
    )
    assert index.rows()[0]["state"] == "finished"
    run.close()
    shutil.rmtree(run.path)
    assert index.rows() == []


def test_an_unchanged_run_is_not_read_again(tmp_path, monkeypatch):
    RunDir.create(tmp_path / "run", [recipe()], facts={}).close()
    index = RunIndex(tmp_path)
    for _ in range(3):  # closing the last connection may tidy the files once
        first = index.rows()
    monkeypatch.setattr(RunDir, "open", lambda path: pytest.fail("read again"))
    assert index.rows() == first


def test_bad_places_and_ports_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="a directory of runs"):
        serve(tmp_path / "absent")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="a free port; try --port"):
            serve(tmp_path, port=taken.getsockname()[1])


def start(directory):
    """A server of its own process, which must not import torch; its address."""
    code = (
        "import sys; from ravine.report import server; server.serve(sys.argv[1], port=0)"
        " if 'torch' not in sys.modules else sys.exit('torch was imported')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True
    )
    return process, re.search(r"http://\S+", process.stdout.readline())[0].split("/?")


def test_serving_from_the_command_line(runs):
    process, (address, token) = start(runs)
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address}/api/runs", timeout=20)
        with urllib.request.urlopen(f"{address}/api/runs?{token}", timeout=20) as answer:
            assert len(json.load(answer)["runs"]) == 8
    finally:
        process.terminate()
        process.wait(20)


def test_only_who_has_the_token_may_ask(runs):
    client = TestClient(application(runs, ["testserver"], token="secret"))
    assert client.get("/api/runs").status_code == 401
    assert client.get("/api/runs?token=other").status_code == 401
    assert client.get("/web/index.js").status_code == 401
    assert client.get("/api/runs?" + "a=1&" * 60).status_code == 401
    first = client.get("/?token=secret")
    assert first.status_code == 200
    assert "HttpOnly; SameSite=Strict" in first.headers["set-cookie"]
    assert client.get("/api/runs").status_code == 200  # the cookie


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 200),
        ({"origin": "http://testserver"}, "", 200),
        ({"origin": "http://evil.example"}, "", 403),
        ({"origin": "null"}, "", 403),
        ({"origin": "http://["}, "", 403),
        ({"sec-fetch-site": "cross-site"}, "", 403),
        ({"host": "evil.example"}, "", 400),
        ({"content-length": "99999999"}, "", 413),
        ({"transfer-encoding": "chunked"}, "", 413),
        ({}, "?run=" + "a" * 10_000, 414),
    ],
)
def test_other_pages_and_large_requests_are_refused(client, headers, query, status):
    assert client.get(f"/api/runs{query}", headers=headers).status_code == status


POISON = {
    "no recipes": lambda about: about.update(recipes=[], explicit=[]),
    "recipes that are numbers": lambda about: about.update(recipes=[1], explicit=[1]),
    "no table of facts": lambda about: about.update(facts=[]),
    "programs of text": lambda about: about["facts"].update(programs="a"),
    "members of nobody": lambda about: about["facts"].update(programs=[{"members": [99]}]),
    "a date that is a list": lambda about: about.update(created=[1]),
    "an unknown model": lambda about: [one.update(model="none") for one in about["recipes"]],
    "other recipes": lambda about: about.update(explicit=[{"seed": "a"}]),
    "a folder that is a list": lambda about: about["facts"].update(directory=[1]),
}


@pytest.mark.parametrize("poison", POISON)
def test_a_damaged_run_leaves_the_list_as_it_is(tmp_path, poison):
    for name in ("good", "bad"):
        make_run(tmp_path / name, [recipe()], epochs=2).close()
    stored.edit(tmp_path / "bad", POISON[poison])
    client = TestClient(application(tmp_path, ["testserver"]), raise_server_exceptions=False)
    listed = client.get("/api/runs")
    assert listed.status_code == 200
    assert "good" in {row["id"] for row in listed.json()["runs"]}
    for page in ("/report?run=bad", "/api/curves?run=bad&metric=loss"):
        assert client.get(page).status_code in (200, 404)
