"""docs/own-code.md: its snippets run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "own-code.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for place, text in enumerate(SNIPPETS):
        exec(compile(text, f"snippet {place + 1}", "exec"), names)
    assert len(SNIPPETS) >= 8
    assert names["run"].result["stopped"] == 'on_epoch gave "stop"'


def test_the_examples_that_it_names_exist():
    assert (PAGE.parent / "../examples/own").is_dir()
