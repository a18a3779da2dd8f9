"""Pages for people who bring code: their snippets run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"own-code.md": 8, "coming-from.md": 5}  # and how many snippets they have at least


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, object] = {}
    for place, snippet in enumerate(snippets):
        exec(compile(snippet, f"snippet {place + 1} of {page}", "exec"), names)
    assert len(snippets) >= PAGES[page]


def test_the_examples_that_the_page_names_exist():
    assert (DOCS / "../examples/own").is_dir()
