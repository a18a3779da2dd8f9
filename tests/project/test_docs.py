"""The generated documentation is up to date: every technique has its entry and its figure, and
nothing is left over."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ravine.catalogue import FILES, table

DOCS = Path(__file__).parents[2] / "docs"
ROWS = [(kind, name) for kind in FILES for name in table(kind)]


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_what_the_sources_say(build):
    for path, text in build.pages().items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.name} is out of date: run `make docs`"
        )
    generated = {
        *build.PAGES.glob("*.md"),
        *build.GALLERY.glob("*.md"),
        build.DOCTOR,
        build.API_PAGE,
    }
    assert generated == set(build.pages())


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=[f"{kind}-{name}" for kind, name in ROWS])
def test_every_technique_has_an_entry_and_a_figure(build, kind, name):
    page = (build.PAGES / f"{kind}.md").read_text(encoding="utf-8")
    assert f"\n## {name}\n" in page
    figure = build.figure_path(table(kind)[name])
    assert f"]({figure.relative_to(build.PAGES).as_posix()})" in page
    assert figure.stat().st_size > 1000, "run `make docs`"


def test_no_figure_is_left_over(build):
    expected = {build.figure_path(technique) for technique in build.techniques()}
    assert set((build.PAGES / "figures").iterdir()) <= expected
