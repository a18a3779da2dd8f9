"""What is installed is stated: versions, the sha256 of files, licences."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_the_lock_has_a_hash_of_every_version_but_torch():
    text = (ROOT / "requirements.lock").read_text()
    rows = re.findall(r"^(\S+)==(\S+)(?: \\\n    --hash=sha256:[0-9a-f]{64})+$", text, re.MULTILINE)
    assert dict(rows) == {name: version for name, version in pinned().items() if name != "torch"}
    assert len(rows) == len(re.findall(r"==", text))
    assert "://" not in text  # no address of an index


def test_the_page_states_every_version_and_licence():
    text = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", text, re.MULTILINE)
    assert {name: version for name, version, _ in rows if name != "package"} == pinned()
    assert not [
        name for name, _, licence in rows if licence in ("not stated", "not installed here")
    ]
