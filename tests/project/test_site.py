"""The documentation site: it builds without a warning, has every public name, fetches nothing from elsewhere;
and the first hour runs as it is written, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ravine

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_first_hour_runs_as_written(tmp_path):
    page = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    assert len(blocks) > 7
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for language, code in blocks:
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
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 179
    assert (tmp_path / "wine-model" / "model.safetensors").is_file()


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: [\w.]+\.(\w+)$", page, re.MULTILINE))
    assert named == set(ravine.__all__)


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    said = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert said.returncode == 0, said.stderr[-3000:]
    assert (tmp_path / "search" / "search_index.json").is_file()
    for place in ("index.html", "api.html", "catalogue/optimizer.html"):
        text = (tmp_path / place).read_text(encoding="utf-8")
        fetched = re.findall(
            r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(https?://[^"' >]+)""", text
        )
        assert not [one for one in fetched if "canonical" not in one], place
    assert "ravine.train" in (tmp_path / "api.html").read_text(encoding="utf-8")
