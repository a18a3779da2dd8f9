"""The documentation as a site: a folder for its version, beside those of earlier versions, which stay.

``python docs/publish.py [FOLDER]`` (site) builds FOLDER/VERSION; ``versions.json`` beside it is what the pages' switch reads,
``index.html`` leads to the newest. To keep earlier versions, build into the folder that is published.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from ravine.version import VERSION

ROOT = Path(__file__).parents[1]


def main() -> None:
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "site").resolve()
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]
    subprocess.run([*build, str(site / VERSION)], cwd=ROOT, check=True)
    found = [place.parent.name for place in site.glob("*/index.html")]
    versions = sorted(found, key=lambda name: [*map(int, re.findall(r"\d+", name))], reverse=True)
    known = [{"version": name, "title": name, "aliases": []} for name in versions]
    (site / "versions.json").write_text(json.dumps(known) + "\n", encoding="utf-8")
    (site / "index.html").write_text(_lead(versions[0]), encoding="utf-8")


def _lead(version: str) -> str:
    place = f"{version}/index.html"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Ravine</title>'
        f'<meta http-equiv="refresh" content="0; url={place}"><a href="{place}">Ravine {version}</a></html>\n'
    )


if __name__ == "__main__":
    main()
