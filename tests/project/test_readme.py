"""The README's examples run as they are written, on small data of their kind."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ravine import Run
from ravine.app.cli import app
from ravine.layout import Layout
from ravine.optim import arithmetic, optimizers
from ravine.rundir import RunDir

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def photos(place):
    rng = np.random.default_rng(0)
    for kind, sign in (("day", 1), ("night", -1)):
        (place / "photos" / kind).mkdir(parents=True)
        for i in range(60):
            pixels = np.clip(
                128 + 60 * sign + 40 * rng.normal(size=(30 + i % 3, 32)), 0, 255
            ).astype("uint8")
            Image.fromarray(pixels).save(place / "photos" / kind / f"{i}.png")


def houses(place):
    draw = random.Random(0)
    rows = [
        (draw.uniform(30, 200), draw.choice(["north", "south"]), draw.randint(1, 5))
        for _ in range(300)
    ]
    lines = [f"{a:.1f},{b},{c},{1000 * a + (b == 'south') * 2e4 + 3e3 * c:.0f}" for a, b, c in rows]
    (place / "houses.csv").write_text(
        "\n".join(["area,side,rooms,price", *lines]), encoding="utf-8"
    )


def book(place):
    (place / "book.txt").write_text(
        "the rain in spain stays mainly in the plain; " * 200, encoding="utf-8"
    )


def nothing(place):
    pass


MADE = {
    "Your own images": photos,
    "Your own table": houses,
    "Your own text": book,
    "Your own module": nothing,
}
QUESTIONS = {
    "What is wrong with it": "lr_too_low (optimizer.lr)",
    "Many runs at once": "report: runs/lr-",
}
SEVERAL = "Several processes"


# plans for three minutes are cut, and questions are asked of a small network
SHORTER = {
    r"^ravine train (?:photos|book.txt)": " --epochs 2",
    r"^ravine train houses.csv": " --epochs 20",
    r"^(?:ravine|torchrun) .*(?:--ranks|-m ravine train)|^ravine (?:doctor|lr)": " --set model.kind=mlp",
}


def shorter(code):
    for start, more in SHORTER.items():
        code = re.sub(rf"({start}.*)$", rf"\1{more}", code, flags=re.MULTILINE)
    return code


def run_in_shell(code, place):
    """What a person types, in processes of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", "-euc", shorter(code)],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert said.returncode == 0, f"{code}\n{said.stdout}\n{said.stderr}"
    return said.stdout + said.stderr


def run_here(language, code):
    """The same commands and programs in this process, where PyTorch is loaded."""
    if language == "python":
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
        return said.getvalue()
    said = ""
    for line in shorter(code).splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "ravine", line
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
        said += done.output
    return said


@pytest.mark.parametrize("title", MADE)
def test_the_examples_run_as_written(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MADE[title](tmp_path)
    blocks = BLOCK.findall(SECTIONS[title])
    assert blocks
    said = ""
    for language, code in blocks:
        if language == "toml":
            (tmp_path / code.split("\n", 1)[0].removeprefix("# ")).write_text(
                code, encoding="utf-8"
            )
        else:
            said += run_here(language, code)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    check(title, tmp_path, said)


@pytest.mark.parametrize("title", QUESTIONS)
def test_the_questions_are_answered_as_written(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "".join(run_here(language, code) for language, code in BLOCK.findall(SECTIONS[title]))
    assert QUESTIONS[title] in said


@pytest.mark.slow  # ten starts of Python; .ci/run runs it
def test_several_processes_train_as_written(tmp_path):
    ((language, code),) = BLOCK.findall(SECTIONS[SEVERAL])
    assert language == "sh"
    run_in_shell(code, tmp_path)
    two, members, others = (
        RunDir.open(tmp_path / "runs" / name) for name in ("two", "members", "torchrun")
    )
    assert [len(each.recipes) for each in (two, members, others)] == [1, 4, 1]
    assert {each.state for each in (two, members, others)} == {"finished"}
    np.testing.assert_array_equal(two.steps(0), others.steps(0)[: len(two.steps(0))])


def check(title, place, said):
    """That something was learned, and written where the example says."""
    if title == "Your own images":
        assert (place / "predictions.csv").read_text(encoding="utf-8").count("\n") == 121
    elif title == "Your own text":
        assert len((place / "sample.txt").read_text(encoding="utf-8")) >= 300
    elif title == "Your own table":
        assert Run(place / "runs" / "houses").evaluate("test")["r2"] > 0.8
    elif title == "Your own module":
        assert re.match(r"\[[01 ]{9}\]", said)


def test_every_block_is_run():
    languages = [language for title in MADE for language, _ in BLOCK.findall(SECTIONS[title])]
    others = [
        block
        for title in ("Two commands", SEVERAL, *QUESTIONS)
        for block in BLOCK.findall(SECTIONS[title])
    ]
    assert len(BLOCK.findall(README)) == len(languages) + len(others)


def test_the_two_commands_are_targets():
    targets = set(
        re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    said = re.findall(r"^make (\w+)", BLOCK.findall(SECTIONS["Two commands"])[0][1], re.MULTILINE)
    assert said == ["run", "test"]
    assert set(said) <= targets


def test_the_technique_of_the_contributing_page():
    """Its code block is an optimiser that does what its docstring says."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = textwrap.dedent(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    made: dict = {**vars(arithmetic), **vars(optimizers)}
    exec(compile("from __future__ import annotations\n" + code, "CONTRIBUTING.md", "exec"), made)
    w, state = torch.zeros(2, 3, dtype=torch.float64), {"v": torch.zeros(2, 3, dtype=torch.float64)}
    g = torch.tensor([[1.0, -2.0, 3.0], [-1.0, 2.0, 0.5]], dtype=torch.float64)
    lr = torch.tensor([[0.1], [0.2]], dtype=torch.float64)
    made["signum"](
        w, g, state, torch.ones(2, 1), Layout.of([("w", (3,), "weight", 0)]), lr=lr, momentum=0.9
    )
    assert torch.equal(w, -lr * g.sign())
    assert torch.allclose(state["v"], 0.1 * g, rtol=1e-12)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/decisions.md"]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link
