"""The commands and snippets of the guides: each one is understood, and runs in the order in which a reader
meets it. README, the first hour and the pages for people who bring code have tests of their own."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

from ravine.app import cli
from ravine.recipe import Recipe
from test_readme import houses, photos


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(sh|python|py|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    page.relative_to(DOCS).as_posix()
    for page in [*DOCS.glob("*.md"), *(DOCS / "studies").glob("*.md")]
    if BLOCK.search(page.read_text(encoding="utf-8"))
)
ELSEWHERE = {  # the test that runs the page
    "first-hour.md": "tests/project/test_site.py",
    "own-code.md": "tests/own/test_own_page.py",
    "from-a-loop.md": "tests/own/test_own_page.py",
    "from-fastai.md": "tests/own/test_own_page.py",
    "from-keras.md": "tests/own/test_own_page.py",
    "from-lightning.md": "tests/own/test_own_page.py",
    "from-skorch.md": "tests/own/test_own_page.py",
    "studies/gradcheck.md": "tests/study/test_checks.py",
    "studies/bowl.md": "examples/quadratic_bowl.py",
}
SHORT = {  # so that a command that trains for minutes ends in seconds; all else is as written
    "tables.md": [("ravine train houses.csv --target price", r"\g<0> --epochs 2")],
    "photographs.md": [
        (r"ravine train photos .*hf:.*\n", ""),  # a checkpoint is fetched
        (r"ravine train photos(?= )", r"\g<0> --epochs 2"),
    ],
    "elsewhere.md": [("8700", str(free_port()))],
    "studies/landscape.md": [  # CIFAR-10, and hours
        ("cifar10", "digits"),
        (r"validation=0\.8", "validation=0.2"),
        ("depth=56", "depth=8"),
        ("6ep", "1ep"),
        ("--points 25", "--points 5"),
    ],
    "studies/lottery.md": [("source=mnist", "source=digits"), ("6ep", "1ep"), ("15", "4")],
}
STUDIES = [p for p in PAGES if p.startswith("studies/") and p not in ELSEWHERE]


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def commands(page: str) -> list[str]:
    """The lines of a page that call ravine, without comments."""
    shell = "\n".join(code for language, code in blocks(page) if language == "sh")
    lines = shell.replace("\\\n", " ").splitlines()
    return [line.removesuffix("&") for line in lines if line.startswith("ravine ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page):
    """Its name, its options and their values, by the command line's own parser."""
    whole = typer.main.get_command(cli.app)
    for line in commands(page):
        _, name, *arguments = shlex.split(line.replace("$COMMON", ""), comments=True)
        whole.commands[name].make_context(name, arguments).close()


@pytest.mark.parametrize("page", PAGES)
def test_every_recipe_is_one(page):
    for language, code in blocks(page):
        if language == "toml":
            assert Recipe.from_toml(code)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_pages_that_others_run_are_named_there(page):
    assert page in PAGES
    text = (ROOT / ELSEWHERE[page]).read_text(encoding="utf-8")
    assert Path(page).name in text or Path(page).stem in text


def run(page: str, place: Path, *languages: str) -> str:
    """Run a page's blocks in their order, in one folder: commands, and what is in these languages."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = ""
    for language, code in blocks(page):
        if language not in ("sh", *languages):
            continue
        for pattern, short in SHORT.get(page, ()):
            code = re.sub(pattern, short, code)
        code = re.sub(r"runs/(\w+)-…", r"runs/\1-*", code)
        done = subprocess.run(
            ["bash", "-euc", code] if language == "sh" else [sys.executable, "-c", code],
            cwd=place,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        said += done.stdout + done.stderr
    return said


@pytest.mark.slow
@pytest.mark.parametrize("page", ["tables.md", "photographs.md"])
def test_the_guides_run_as_written(page, tmp_path):
    {"tables.md": houses, "photographs.md": photos}[page](tmp_path)
    if page == "tables.md":
        (tmp_path / "new.csv").write_text("area,side,rooms\n80,south,3\n", encoding="utf-8")
    else:
        (tmp_path / "new").mkdir()
        for i, picture in enumerate(sorted((tmp_path / "photos").rglob("*.png"))[:3]):
            (tmp_path / "new" / f"{i}.png").write_bytes(picture.read_bytes())
    assert "report: " in run(page, tmp_path)


@pytest.mark.slow
def test_the_page_of_exports_trackers_and_http_runs_as_written(tmp_path, monkeypatch):
    for library in ("mlflow", "wandb", "onnx", "starlette"):
        pytest.importorskip(library)
    monkeypatch.setenv("WANDB_SILENT", "true")
    said = run("elsewhere.md", tmp_path, "py")
    assert {one.name for one in tmp_path.glob("people.*")} > {"people.onnx", "people.pt2"}
    assert (tmp_path / "mlflow.db").is_file()
    assert (tmp_path / "followed" / "report.html").is_file()
    assert '"yes"' in said
    assert '"no"' in said


@pytest.mark.slow
@pytest.mark.parametrize("page", STUDIES)
def test_the_studies_run_as_written(page, tmp_path):
    run(page, tmp_path)
    assert list(tmp_path.glob("*/report.html"))


def test_the_snippets_of_the_doctors_page_run_in_their_order(capsys):
    torch.manual_seed(0)
    names: dict[str, object] = {}
    snippets = [code for language, code in blocks("doctor.md") if language == "python"]
    assert len(snippets) >= 3
    for number, code in enumerate(snippets):
        exec(compile(code, f"snippet {number + 1} of doctor.md", "exec"), names)
    said = capsys.readouterr().out
    assert said.startswith("sick the loss is not a number at step")
    assert "lr_too_high (lr)" in said
    assert "loss_output_mismatch" in said
