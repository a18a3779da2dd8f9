"""Fuzzing of everything that reads a file of somebody else's: atheris changes sound files, guided by coverage.

    python bench/fuzz.py GROUP [--seconds 300] [--seed 0]      GROUP: idx npz recipe csv image text weights json shards parquet

A reader gives its result or an InputError; whatever else it raises, what takes longer than 10 s or more than
1 GiB is a finding. A finding is written to tests/safety/findings/GROUP-SHA, which tests/safety/test_hostile.py reads
from then on.
`make fuzz` gives every group five minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "safety")]
KEPT = ROOT / "tests" / "safety" / "findings"
GROUPS = ("idx", "npz", "recipe", "csv", "image", "text", "weights", "json", "shards", "parquet")
READERS = ("formats", "npz", "weights", "shards", "parquet", "arrow_messages", "text")

with atheris.instrument_imports(include=["ravine"]):
    import hostile
    from ravine.data.read import images
    from ravine.errors import InputError
    from test_hostile import ENDS, reader

    # what readers import when they are called would not be guided by
    for name in ("sources", "tables.load", *(f"read.{one}" for one in READERS)):
        importlib.import_module(f"ravine.data.{name}")


def target(group: str, place: Path):
    """What reads the bytes that atheris makes."""
    read, path = reader(group), place / ENDS[group]

    def one(data: bytes) -> None:
        try:
            path.write_bytes(data)
            read(path)
        except InputError:
            return
        except images.BROKEN:
            if group != "image":  # left out of its folder, with a warning
                keep(group, data)
                raise
        except Exception:
            keep(group, data)
            raise

    return one


def keep(group: str, data: bytes) -> None:
    (KEPT / f"{group}-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus"
        corpus.mkdir()
        KEPT.mkdir(exist_ok=True)
        for name, group, path in hostile.sound(Path(place) / "sound"):
            if group == given.group or (given.group == "json" and name.endswith(".json")):
                (corpus / name).write_bytes(path.read_bytes())
        limits = ["-max_len=65536", "-timeout=10", "-rss_limit_mb=2048", f"-seed={given.seed}"]
        limits += [f"-max_total_time={given.seconds}", f"-artifact_prefix={KEPT}/{given.group}-"]
        atheris.Setup([sys.argv[0], *limits, str(corpus)], target(given.group, Path(place)))
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        atheris.Fuzz()


if __name__ == "__main__":
    main()
