"""``python -m ravine``."""

from ravine.app.cli import main

main()
