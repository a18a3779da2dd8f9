"""The generated documentation is up to date: every technique has its entry and its figure, and
nothing is left over."""

from __future__ import annotations

import importlib.util
import json
import re
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
        build.RELIABILITY,
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


def test_the_page_of_promises_shows_the_stored_counts_of_tests_that_exist(build):
    """Each test that was counted is there, says what was broken to see it fail, and passed every trial."""
    counts = json.loads(build.COUNTS.read_text(encoding="utf-8"))
    text = build.RELIABILITY.read_text(encoding="utf-8")
    for tests in counts.values():
        for test, said in tests.items():
            file, _, name = test.partition("::")
            source = (DOCS.parent / file).read_text(encoding="utf-8")
            assert f"def {name}(" in source
            assert said["proof"].split(":")[0][:60] in " ".join(source.split())
            assert said["broken"].startswith("Broken")
            assert all(trials == passed > 0 for trials, passed in said["parts"].values())
            trials = sum(trials for trials, _ in said["parts"].values())
            assert f"**{trials:,} of {trials:,}** trials passed (`{test}`)" in text


def test_the_table_of_the_lectures_items_names_what_exists():
    """210 rows; a row without a test is not built, and says so, or has nothing to build."""
    text = (DOCS / "lectures.md").read_text(encoding="utf-8")
    rows = [
        re.split(r"(?<!\\)\|", line)[1:5]
        for line in text.splitlines()
        if re.match(r"\| \d+ \|", line)
    ]
    assert [int(row[0]) for row in rows] == list(range(1, 211))
    for number, _, page, test in rows:
        for target in re.findall(r"\]\(([^)#]+)", page):
            assert (DOCS / target).is_file(), (number, target)
        tests = re.findall("`([^`]+)`", test)
        assert tests or "decisions" in page or "nothing to build" in page, number
        for place in tests:
            assert (DOCS.parent / place).is_file(), (number, place)
