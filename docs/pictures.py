"""The pictures of docs/studies: the figures of studies that were run as their pages say, in the colours of a reader's theme.

``python docs/pictures.py DIRECTORY …`` takes study directories and writes docs/studies/pictures/STUDY-FIGURE.svg for the figures
that the page STUDY.md shows. ``DIRECTORY:FIGURE=NAME`` writes this figure of it alone, as STUDY-NAME.svg.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ravine.gallery.drawing import in_both_themes

PICTURES = Path(__file__).parent / "studies" / "pictures"
GROUND = '<rect width="100%" height="100%" fill="#ffffff"/>'  # of figures as files of their own


def main() -> None:
    for given in sys.argv[1:]:
        directory, _, renamed = given.partition(":")
        chosen, _, name = renamed.partition("=")
        study = json.loads((Path(directory) / "study.json").read_text(encoding="utf-8"))["kind"]
        page = PICTURES.with_name(f"{study}.md").read_text(encoding="utf-8")
        for figure in sorted((Path(directory) / "figures").glob(f"{chosen or '*'}.svg")):
            place = PICTURES / f"{study}-{name or figure.stem}.svg"
            if f"(pictures/{place.name})" in page:
                text = figure.read_text(encoding="utf-8").replace(GROUND, "", 1)
                place.write_text(in_both_themes(text), encoding="utf-8")
                print(place)


if __name__ == "__main__":
    main()
