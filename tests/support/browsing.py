"""Pages in a real browser: what they log, whom they ask, whether they fit, whether they are accessible."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needed = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
LOOKS = ((390, "dark"), (800, "light"), (1400, "dark"))
# elements that reach beyond the page at the right, and text that its own box cuts off
CUT = """() => {
  const width = document.documentElement.clientWidth, found = [];
  for (const one of document.querySelectorAll("main *, header *")) {
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    if (!box.width || !box.height || one.closest("svg, .uplot, .u-wrap, .hidden, [hidden]")) continue;
    if (box.right > width + 1) found.push(`beyond the page: ${one.outerHTML.slice(0, 120)}`);
    const hides = style.overflowX !== "visible" && !one.matches("input, select, textarea");
    if (hides && one.scrollWidth > one.clientWidth + 1) found.push(`cut off: ${one.outerHTML.slice(0, 120)}`);
  }
  return found;
}"""


@contextmanager
def launched():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def opened(browser, address, width=1400, scheme="light"):
    """A page; that it logs no error and asks nobody else is held at its end."""
    address = address.resolve().as_uri() if isinstance(address, Path) else address
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors, outside = [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda r: (
            None
            if "//127.0.0.1" in r.url or r.url.startswith(("file:", "data:", "blob:"))
            else outside.append(r.url)
        ),
    )
    page.goto(address)
    yield page
    page.close()
    assert errors == [], errors
    assert outside == [], outside


def assert_fits(page, width):
    """Nothing scrolls sideways, reaches beyond the page or is cut off."""
    page.wait_for_timeout(200)
    found = page.evaluate(CUT)
    assert found == [], found
    reached = page.evaluate("document.documentElement.scrollWidth")
    assert reached == width, reached


def serious_faults(page, ignored=()):
    """What axe calls a serious fault of accessibility: rule and element."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    return [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in axe.Axe().run(page).response["violations"]
        if one["impact"] in ("serious", "critical") and one["id"] not in ignored
    ]
