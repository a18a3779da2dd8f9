"""The documentation site: it builds without a warning, has every public name, fetches nothing from elsewhere;
and the first hour runs as it is written, in its order."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import ravine

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^```(sh|python)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)  # a language, a program, and what is shown of its output


@pytest.mark.slow  # a minute; .ci/run runs it
def test_the_first_hour_runs_as_written(tmp_path):
    page = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    assert len(blocks) > 7
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for language, code, shown in blocks:
        command = ["bash", "-euc", code] if language == "sh" else [sys.executable, "-c", code]
        said = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert said.returncode == 0, f"{code}\n{said.stdout}\n{said.stderr}"
        lines = {_without_numbers(line) for line in (said.stdout + said.stderr).splitlines()}
        assert [line for line in shown.splitlines() if _without_numbers(line) not in lines] == []
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 179
    assert (tmp_path / "wine-model" / "model.safetensors").is_file()


def _without_numbers(line):
    return " ".join(re.sub(r"\d+(\.\d+)?", "0", line).split())


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: [\w.]+\.(\w+)$", page, re.MULTILINE))
    assert named == set(ravine.__all__)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of this version, built without a warning beside an older one."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings")
    place = tmp_path_factory.mktemp("site")
    (place / "0.0.9").mkdir()
    (place / "0.0.9" / "index.html").write_text("what it was", encoding="utf-8")
    command = [sys.executable, "docs/publish.py", str(place)]
    said = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert said.returncode == 0, said.stderr[-3000:]
    return place / ravine.__version__


def test_older_versions_stay_and_the_newest_is_led_to(site):
    known = json.loads((site.parent / "versions.json").read_text(encoding="utf-8"))
    assert [one["version"] for one in known] == [ravine.__version__, "0.0.9"]
    assert f"url={ravine.__version__}/index.html" in (site.parent / "index.html").read_text()
    assert (site.parent / "0.0.9" / "index.html").read_text() == "what it was"


def test_the_site_fetches_nothing(site):
    assert (site / "search" / "search_index.json").is_file()
    for place in ("index.html", "api.html", "catalogue/optimizer.html"):
        text = (site / place).read_text(encoding="utf-8")
        fetched = re.findall(
            r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(https?://[^"' >]+)""", text
        )
        assert not [one for one in fetched if "canonical" not in one], place
    text = (site / "api.html").read_text(encoding="utf-8")
    assert "ravine.train" in text
    assert "<blockquote>" not in text  # examples are code


class Links(HTMLParser):
    """What a page leads to, and what in it can be led to."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}


def test_every_link_and_anchor_of_the_site_leads_somewhere(site):
    pages = {
        path: Links(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
        if path.name != "404.html"
    }
    broken = []
    for path, page in pages.items():
        for link in page.links:
            where = urlsplit(link)
            if where.scheme or where.netloc or link.startswith("//"):
                continue
            target = path if not where.path else (path.parent / unquote(where.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                broken.append(f"{path.name}: {link}")
            elif where.fragment and target in pages:
                known = pages[target].anchors
                if unquote(where.fragment) not in known and not where.fragment.startswith("__"):
                    broken.append(f"{path.name}: {link}")
    assert len(pages) > 60
    assert sorted(set(broken)) == []


SEEN = ("index.html", "catalogue/optimizer.html", "studies/search.html", "api.html")


@pytest.fixture
def address(site):
    """The site, served: axe reads its style sheets."""
    handler = functools.partial(Quiet, directory=str(site.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{site.name}"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SEEN, "first-hour.html", "gallery/index.html", "doctor.html"])
def test_a_page_of_the_site_in_a_browser(address, name):
    browsing = pytest.importorskip("browsing")
    if browsing.BROWSER is None:
        pytest.skip("no chromium on this machine")
    page_at = f"{address}/{name}"
    with browsing.launched() as browser:
        for width, scheme in browsing.LOOKS:
            with browsing.opened(browser, page_at, width, scheme) as page:
                page.wait_for_timeout(300)
                shown = page.locator(".md-version__current")
                assert shown.inner_text().strip() == ravine.__version__
                assert page.evaluate("document.documentElement.scrollWidth") == width
        for scheme in ("light", "dark"):
            with browsing.opened(browser, page_at, 1400, scheme) as page:
                page.wait_for_timeout(100)  # extra.js waits for the theme's own script
                assert browsing.serious_faults(page) == []


def test_figures_follow_the_theme():
    """No white ground: of every drawn figure the colours are the reader's."""
    figures = [*(ROOT / "docs").rglob("*.svg")]
    assert len(figures) > 150
    for figure in figures:
        text = figure.read_text(encoding="utf-8")
        assert "prefers-color-scheme" in text, figure.name
        assert not re.search(r'<g id="patch_\d+">\s*<path d="[^"]*" style="fill: #ffffff"', text)
