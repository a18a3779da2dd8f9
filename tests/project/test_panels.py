"""The site's figures of several panels, cut into their panels: nothing is lost, and no label is small."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
VIEW = re.compile(r'viewBox="0 0 ([\d.]+)')
WIDE = [
    path
    for path in sorted(DOCS.rglob("*.svg"))
    if float(VIEW.search(path.read_text(encoding="utf-8"))[1]) > 400
]


@pytest.fixture(scope="module")
def panels():
    spec = importlib.util.spec_from_file_location("docs_panels", DOCS / "panels.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.split = functools.cache(module.split)
    return module


@pytest.mark.parametrize("path", WIDE, ids=lambda path: path.stem)
def test_panels_hold_what_the_figure_holds(panels, path):
    found = panels.split(path).values()
    if not found:
        return
    whole = path.read_text(encoding="utf-8")
    for text in found:
        defined = set(re.findall(r'\bid="([^"]+)"', text))
        assert set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text)) <= defined
        assert float(re.search(r'width="([\d.]+)pt"', text)[1]) < 420
    assert set(words(whole)) == {word for text in found for word in words(text)}
    for drawn in ("<path", "<use", "<image"):
        assert sum(text.count(drawn) for text in found) >= whole.count(drawn) - whole.count(
            "patch_1"
        )


def words(svg):
    return [
        "".join(one.itertext()) for one in ET.fromstring(svg).iter() if one.tag.endswith("}text")
    ]


WHOLE = {  # tables of pictures, surfaces, and one chart of many bars
    "features-filters",
    "features-patches",
    "features-saliency",
    "landscape-surface",
}


def test_wide_figures_are_cut(panels):
    whole = {path.stem for path in WIDE if not panels.split(path)}
    assert {name for name in whole - WHOLE if width(name) > 435} == set()


def width(name):
    text = next(path for path in WIDE if path.stem == name).read_text(encoding="utf-8")
    return float(VIEW.search(text)[1])
