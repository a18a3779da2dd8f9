"""Data larger than memory against the same data in memory: 60,000 JPEG files, and a Parquet table.

``python bench/streaming.py`` writes the data to a temporary folder, trains on them in processes that
may take 640 MiB beside their code (``RLIMIT_AS``, as by ``ulimit -v``) and in processes without a
limit, in turn, and prints for each the samples per second of its steps, and a sum of the weights, which is equal
where order and bits were. The data are read or decoded before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 640  # MiB beside the code
JPEG, TABLE = "JPEG files", "a Parquet table"
WORKS: dict[str, dict[str, Any]] = {
    JPEG: {
        "after": "400it",
        "data": {"source": "folder:{place}/images", "batch": 128, "augment": ["flip"]},
        "model": {
            "layers": [
                {"kind": "conv", "channels": 16, "kernel": 3, "stride": 2},
                "relu",
                {"kind": "conv", "channels": 32, "kernel": 3, "stride": 2},
                "relu",
                "flatten",
                {"kind": "dense", "units": 10},
            ]
        },
    },
    TABLE: {
        "after": "1500it",
        "data": {"source": "parquet:{place}/table.parquet", "batch": 256},
        "model": {"kind": "mlp", "hidden": [256, 256]},
    },
}


def write_images(place: Path, count: int) -> None:
    """Smooth colours of 64 by 64 pixels, in ten classes."""
    from PIL import Image

    def one(i: int) -> None:
        rng = np.random.default_rng(i)
        small = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 64)).save(place / str(i % 10) / f"{i}.jpg", quality=90)

    for label in range(10):
        (place / str(label)).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(count)))


def write_table(place: Path, rows: int) -> None:
    """200 columns of float32, and a target that they determine."""
    import pyarrow
    from pyarrow import parquet

    rng, weights, writer = np.random.default_rng(0), np.linspace(-1, 1, 200), None
    for _ in range(0, rows, 20_000):
        x = rng.normal(size=(20_000, 200)).astype("float32")
        table = pyarrow.table({**{f"c{i}": x[:, i] for i in range(200)}, "y": x @ weights})
        writer = writer or parquet.ParquetWriter(place, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def train(name: str, place: str, limit: int | None) -> dict[str, Any]:
    """Some steps in this process, and their speed."""
    import resource

    import torch

    import ravine
    import ravine.report.run_page  # code is not counted
    from ravine.rundir import RunDir

    torch.set_num_threads(1)
    work = json.loads(json.dumps(WORKS[name]).replace("{place}", place))
    work["data"] |= {"validation": 0.0, "test": 0.0, "last_batch": "drop"}
    after = work.pop("after")
    recipe = ravine.Recipe(**work, stop={"after": after}, precision="float32", threads=1)
    if limit is not None:
        used = re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())
        most = 1024 * int(used[1] if used else 0) + (limit << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    out = tempfile.mkdtemp(dir=place)
    (run,) = ravine.train_many([recipe], out=f"{out}/run", quiet=True)
    with RunDir.open(run.directory) as rundir:
        seconds = rundir.epochs(0, clock=True)[-1]["seconds"]
        speed = rundir.done * work["data"]["batch"] / seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"samples/s": round(speed), "MiB": peak, "weights": run.theta.double().sum().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=WORKS, nargs="+", default=list(WORKS))
    parser.add_argument("--one", nargs=2, metavar=("WORK", "PLACE"), help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(*options.one, options.limit)))
        return
    with tempfile.TemporaryDirectory() as place:
        for name in options.work:
            if name == JPEG:
                write_images(Path(place) / "images", options.images)
            else:
                write_table(Path(place) / "table.parquet", options.rows)
            for turn in range(options.rounds):
                for limit in ([], ["--limit", str(LIMIT)]):
                    words = [sys.executable, __file__, "--one", name, place, *limit]
                    own = os.environ | {"XDG_CACHE_HOME": f"{place}/cache", "OMP_NUM_THREADS": "1"}
                    done = subprocess.run(words, env=own, capture_output=True, text=True)
                    if done.returncode:
                        sys.exit(done.stderr)
                    where = f"at most {LIMIT} MiB" if limit else "in memory"
                    print(f"{name}, {where}, {turn + 1}:", done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
