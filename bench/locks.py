"""The versions of constraints.txt with the sha256 of their files, and a page of them with their licences.

    python bench/locks.py          writes requirements.lock and docs/dependencies.md (make locks)

requirements.lock is for `pip install --no-deps --require-hashes -r requirements.lock`, after torch: which build
of torch is right depends on the machine, so it is not among them. pip says which file it would take on this
machine; hashes that the lock has already of the same version stay, so that running it on several machines and
Pythons collects the hashes of all. No address is written: the files may come from any index.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, PAGE = ROOT / "requirements.lock", ROOT / "docs" / "dependencies.md"
# licences of packages whose files state none: what their repositories say
REPOSITORIES = {"atheris": "Apache-2.0", "axe-playwright-python": "MIT", "namex": "Apache-2.0"}
HEAD = """# Written by bench/locks.py (make locks): the files that CI's versions are. torch is not among them: see its docstring.
"""
TEXT = """# Dependencies

What `make test` and the other commands install: the versions of `constraints.txt`, written by `make locks`.
`requirements.lock` holds the sha256 of their files: `make install-locked` installs these and nothing else, after torch,
whose build depends on the machine. The lock was made with Python 3.11 on Linux (x86-64); `make locks` elsewhere adds the
files of that Python and processor. CI installs by version and not by hash: its machines may take other files of the same
versions. `make audit` asks pip-audit whether a weakness of one of them is known; it needs the network.

| package | version | licence |
|---|---|---|
"""


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0])
    return dict(pairs)


def files(packages: dict[str, str]) -> dict[str, str]:
    """The sha256 of the file that pip would take of each package."""
    with tempfile.TemporaryDirectory() as place:
        report, wanted = Path(place) / "report", Path(place) / "wanted"
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
        options = ["--dry-run", "--quiet", "--ignore-installed", "--no-deps"]
        pip = [sys.executable, "-m", "pip", "install", *options]
        subprocess.run([*pip, "--report", str(report), "-r", str(wanted)], check=True)
        found = json.loads(report.read_text())["install"]
    return {
        plain(one["metadata"]["name"]): one["download_info"]["archive_info"]["hashes"]["sha256"]
        for one in found
    }


def kept() -> dict[tuple[str, str], set[str]]:
    """The hashes that the lock has already, by name and version."""
    text = LOCK.read_text() if LOCK.exists() else ""
    rows = re.findall(
        r"^(\S+)==(\S+)((?: \\\n {4}--hash=sha256:[0-9a-f]{64})+)$", text, re.MULTILINE
    )
    return {
        (name, version): set(re.findall("[0-9a-f]{64}", hashes)) for name, version, hashes in rows
    }


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(name: str) -> str:
    """What a package says of its licence, in a line."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed here"
    classifiers = found.get_all("Classifier") or []
    names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")]
    first = (found.get("License") or "").strip().split("\n")[0]
    said = found.get("License-Expression") or ("; ".join(names)) or first
    if not said and name in REPOSITORIES:
        return f"{REPOSITORIES[name]} (its repository; the package states none)"
    return said.replace("|", "/")[:80] or "not stated"


def main() -> None:
    packages = {name: version for name, version in pinned().items() if name != "torch"}
    before, now = kept(), files(packages)
    rows = []
    for name, version in packages.items():
        hashes = before.get((name, version), set()) | {now[plain(name)]}
        rows.append(
            " \\\n    ".join(
                [f"{name}=={version}", *(f"--hash=sha256:{h}" for h in sorted(hashes))]
            )
        )
    LOCK.write_text(HEAD + "\n".join(rows) + "\n")
    table = [f"| {name} | {version} | {licence(name)} |\n" for name, version in pinned().items()]
    PAGE.write_text(TEXT + "".join(sorted(table, key=str.lower)))


if __name__ == "__main__":
    main()
