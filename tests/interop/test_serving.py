"""``ravine serve RUN --predict``: a run's predictions over HTTP."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

import ravine

pytest.importorskip("starlette", reason="the extra web is not installed")
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ravine.app.cli import app
from ravine.interop import serving
from ravine.report import connections

QUICK = {"epochs": 1, "quiet": True, "doctor": False}
TABLE = "age,city,member,joined,id,price\n" + "".join(
    f"{20 + i % 40},{('Bern', 'Oslo', 'Rome')[i % 3]},{'yes' if i % 2 else 'no'},"
    f"2020-0{1 + i % 9}-1{i % 10},u{i},{100 + 3 * (i % 40) + 20 * (i % 3)}\n"
    for i in range(120)
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    place = tmp_path_factory.mktemp("table")
    (place / "houses.csv").write_text(TABLE)
    return ravine.train(
        data=f"csv:{place / 'houses.csv'}", model="mlp", out=place / "run", baselines=False, **QUICK
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name, colour in (("<b>red</b>".replace("/", "_"), 0), ("blue", 2)):
        (place / "data" / name).mkdir(parents=True)
        for i in range(20):
            pixels = generator.integers(0, 60, (16, 16, 3), dtype=np.uint8)
            pixels[..., colour] += 180
            Image.fromarray(pixels).save(place / "data" / name / f"{i}.png")
    return ravine.train(
        data=f"folder:{place / 'data'}", model="softmax", out=place / "run", **QUICK
    )


def test_its_page_is_opened_where_asked(pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(serving.webbrowser, "open", seen.append)
    monkeypatch.setattr(connections.Server, "run", lambda self, sockets: None)
    handler = logging.StreamHandler(io.StringIO())  # of whoever calls, in a notebook say
    handler.close = handler.stream.close
    call = ["serve", str(pictures.directory), "--predict", "--port", "0"]
    for asked in ([], ["--open"]):
        answer = CliRunner().invoke(app, [*call, *asked])
        assert answer.exit_code == 0, answer.output
        assert len(seen) == len(asked)
    assert f"predicts at {seen[0]} " in answer.output
    assert not handler.stream.closed


def client(run):
    return TestClient(serving.application(run, ["testserver"]), raise_server_exceptions=False)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_row_of_a_table(table):
    here = client(table)
    said = here.get("/schema").json()
    columns = said["request"]["properties"]["rows"]["items"]["properties"]
    assert said["form"] == "table"
    assert {"age", "city", "member", "joined"} <= set(columns)
    assert columns["city"]["examples"] == ["Bern", "Oslo", "Rome"]
    rows = [
        {"age": 33, "city": "Oslo", "member": "yes", "joined": "2020-03-12"},
        {"age": "33", "city": "Oslo", "member": True, "joined": "2020-03-12"},
        {"age": None, "city": "Nowhere"},
    ]
    jsonschema.validate({"rows": rows}, said["request"])
    found = here.post("/predict", json={"rows": rows}).json()
    assert found["predictions"][0] == pytest.approx(found["predictions"][1], rel=1e-5)
    assert any("Nowhere" in text for text in found["warnings"]), found
    # as a file that is read
    place = table.directory.parent / "new.csv"
    place.write_text("age,city,member,joined\n33,Oslo,yes,2020-03-12\n,Nowhere,,\n")
    expected = table.predict(table.pipeline.read(place)[0])
    np.testing.assert_allclose(found["predictions"][1:], expected[:, 0].tolist(), rtol=1e-5)


def test_a_picture_is_dropped(pictures):
    here = client(pictures)
    red = np.zeros((20, 30, 3), dtype=np.uint8)
    red[..., 0] = 220
    for kind in ("application/octet-stream", "image/png"):
        reply = here.post("/predict", content=png(red), headers={"Content-Type": kind})
        found = reply.json()
        assert list(found["probabilities"][0]) == list(pictures.pipeline.classes)
        assert found["predictions"][0] in pictures.pipeline.classes
        assert sum(found["probabilities"][0].values()) == pytest.approx(1.0, abs=1e-3)


def test_arrays_and_several_inputs(tmp_path):
    run = ravine.train(data="digits", model="softmax", out=tmp_path / "digits", **QUICK)
    x = np.random.default_rng(0).uniform(0, 16, (3, 1, 8, 8))
    here = client(run)
    jsonschema.validate({"x": x.tolist()}, here.get("/schema").json()["request"])
    found = here.post("/predict", json={"x": x.tolist()}).json()
    assert found["predictions"] == run.predict(x.astype(np.float32)).tolist()

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def forward(self, a, b):
            return self.layer(torch.cat([a, b], 1))

    a, b = torch.randn(50, 2), torch.randn(50, 1)
    given = {"a": a, "b": b, "y": (a[:, 0] > b[:, 0]).long()}
    both = ravine.train(data=given, model=Both, out=tmp_path / "both", **QUICK)
    found = client(both).post("/predict", json={"x": {"a": [[1.0, 2.0]], "b": [[0.0]]}}).json()
    assert found["predictions"] == both.predict({"a": [[1.0, 2.0]], "b": [[0.0]]}).tolist()


class Placed(torch.nn.Module):
    """One score of numbers and a place in a table."""

    def __init__(self):
        super().__init__()
        self.layer, self.table = torch.nn.Linear(3, 1), torch.nn.Embedding(5, 1)

    def forward(self, x, place):
        return self.layer(x) + self.table(place)


def test_inputs_in_order_and_one_output_for_two_classes(tmp_path):
    x, place = torch.randn(60, 3), torch.randint(0, 5, (60,))
    run = ravine.train(
        data=((x, place), (x[:, 0] > 0).long()),
        model=Placed,
        loss=torch.nn.BCEWithLogitsLoss(),
        out=tmp_path / "run",
        **QUICK,
    )
    here = client(run)
    few = {"x": [x[:2].tolist(), place[:2].tolist()]}
    schema = here.get("/schema").json()["request"]
    jsonschema.validate(few, schema)
    found = here.post("/predict", json=few).json()
    assert found["predictions"] == run.predict((x[:2], place[:2])).tolist()
    assert all(sum(row.values()) == pytest.approx(1, abs=1e-3) for row in found["probabilities"])
    assert set(found["probabilities"][0]) == {"0", "1"}
    for wrong in ([[[1, 2, 3], 0]], [[[1, 2, 3]], [0, 1]], [[[1, 2]], [0]], [[["a", 2, 3]], [0]]):
        refused = here.post("/predict", json={"x": wrong})
        assert refused.status_code == 400
        assert "x1 [N, 3], x2 [N]" in refused.json()["error"]


REFUSED = {  # body, content type, status, text
    "no JSON": (b"{", "application/json", 400, "no JSON"),
    "deep": (b"[" * 200_000, "application/json", 400, "no JSON"),
    "digits": (b'{"rows": [{"age": ' + b"9" * 400 + b"}]}", "application/json", 400, "no JSON"),
    "another key": (b'{"path": "/etc/passwd"}', "application/json", 400, "rows"),
    "no rows": (b'{"rows": []}', "application/json", 400, "at least one"),
    "rows are no objects": (b'{"rows": [1]}', "application/json", 400, "column: value"),
    "an unknown column": (b'{"rows": [{"agee": 1}]}', "application/json", 400, "age"),
    "a list in a cell": (b'{"rows": [{"age": [1]}]}', "application/json", 400, "a number, a text"),
    "infinity": (b'{"rows": [{"age": Infinity}]}', "application/json", 400, "infinite"),
    "a picture": (b"\x89PNG", "image/png", 415, "JSON"),
    "a form": (b"rows=1", "application/x-www-form-urlencoded", 415, "application/json"),
    "nothing": (b"", "", 415, "application/json"),
    "too many": (b'{"rows": [' + b"{}," * 1000 + b"{}]}", "application/json", 400, "at most 1000"),
    "too large": (b" " * (serving.MOST_BYTES + 1), "application/json", 413, "16 MiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, table):
    body, kind, status, text = REFUSED[case]
    reply = client(table).post("/predict", content=body, headers={"Content-Type": kind})
    assert reply.status_code == status, reply.text
    assert text in reply.json()["error"]
    assert str(table.directory) not in reply.text


def test_pictures_that_are_none(pictures):
    for body in (b"", b"GIF89a", b"not a picture", png(np.zeros((4, 4, 3), np.uint8))[:40]):
        reply = client(pictures).post(
            "/predict", content=body, headers={"Content-Type": "application/octet-stream"}
        )
        assert reply.status_code == 400, reply.text
        assert "/tmp" not in reply.text


def test_other_sites_and_names_are_refused(table):
    here = client(table)
    body = {"rows": [{"age": 1}]}
    for site in (
        "https://evil.example",
        "http://testserver:3000",
        "http://testserver.evil",
        "null",
    ):
        strange = here.post("/predict", json=body, headers={"Origin": site})
        assert strange.status_code == 403, site
    plain = {"Origin": "null", "Content-Type": "text/plain"}  # as a form of another site may send
    assert here.post("/predict", content=b'{"rows": [{}]}', headers=plain).status_code == 403
    assert here.post("/predict", json=body, headers={"Origin": "http://testserver"}).is_success
    assert here.get("/schema", headers={"Host": "evil.example"}).status_code == 400
    assert here.get("/predict").status_code == 405
    assert here.get("/web/../serving.py").status_code == 404


def test_the_page_writes_nothing_as_html(pictures):
    page = client(pictures).get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    script = (serving._WEB / "predict.js").read_text()
    assert "innerHTML" not in script
    assert "<b>" not in page.text  # a class's name reaches the page as JSON alone


def test_the_command_answers_a_real_client(table):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ravine", "serve", str(table.directory), "--predict"]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/predict",
            json.dumps({"rows": [{"age": 30, "city": "Rome"}]}).encode(),
            {"Content-Type": "application/json"},
        )
        found = None
        for _ in range(50):
            with contextlib.suppress(urllib.error.URLError):
                with urllib.request.urlopen(request, timeout=20) as reply:
                    found = json.load(reply)
                break
            time.sleep(0.1)
        assert found is not None
        assert len(found["predictions"]) == 1
        slow = socket.create_connection(("127.0.0.1", port))
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Content-Length: 9\r\n\r\n{{".encode())
        time.sleep(0.1)
        process.terminate()
        assert process.wait(10) == 1  # though a client still sends
        slow.close()
    finally:
        process.kill()
