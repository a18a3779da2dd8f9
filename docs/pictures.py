"""The pictures of docs/studies: the figures of studies that were run as their pages say, in the colours of a reader's theme.

``python docs/pictures.py lr/ search/ …`` takes study directories by their names and writes docs/studies/pictures/NAME-FIGURE.svg
those that the page NAME.md shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ravine.gallery.drawing import in_both_themes

PICTURES = Path(__file__).parent / "studies" / "pictures"
GROUND = '<rect width="100%" height="100%" fill="#ffffff"/>'  # of figures as files of their own


def main() -> None:
    for study in map(Path, sys.argv[1:]):
        name = study.resolve().name
        page = PICTURES.with_name(f"{name}.md").read_text(encoding="utf-8")
        for figure in sorted((study / "figures").glob("*.svg")):
            place = PICTURES / f"{name}-{figure.name}"
            if f"(pictures/{place.name})" in page:
                text = figure.read_text(encoding="utf-8").replace(GROUND, "", 1)
                place.write_text(in_both_themes(text), encoding="utf-8")
                print(place)


if __name__ == "__main__":
    main()
