"""Pages for people who bring code: their snippets run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {  # how many snippets they have at least, and the library that they need
    "own-code.md": (8, None),
    "from-a-loop.md": (3, None),
    "from-lightning.md": (3, "lightning"),
    "from-fastai.md": (2, None),
    "from-skorch.md": (3, "skorch"),
    "from-keras.md": (3, "keras"),
}


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    least, library = PAGES[page]
    if library is not None:
        pytest.importorskip(library)
    text = (DOCS / page).read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, object] = {}
    for place, snippet in enumerate(snippets):
        exec(compile(snippet, f"snippet {place + 1} of {page}", "exec"), names)
    assert len(snippets) >= least


def test_the_program_of_fastai_runs_where_fastai_is(tmp_path, monkeypatch):
    pytest.importorskip(
        "fastai",
        reason="fastai is in no extra of Ravine, since it brings torchvision, spaCy and a web server; "
        "pip install -c constraints.txt fastai lets this run",
    )
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "from-fastai.md").read_text(encoding="utf-8")
    theirs = re.search(r"```py\n(.*?)```", text, flags=re.DOTALL)
    data = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, object] = {}
    for snippet in (data, theirs):
        assert snippet is not None
        exec(snippet[1], names)
    assert names["learn"].recorder.values[-1][-1] > 0.8  # F1 of the last epoch


def test_the_examples_that_the_page_names_exist():
    assert (DOCS / "../examples/own").is_dir()
