"""Parquet and Arrow files that hold far more than their size: memory and time are in proportion to the file."""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import ipc, parquet

from ravine.data import sources
from ravine.data.read import arrow_messages
from ravine.errors import InputError

N = 400_000  # numbers of a list


def lists(rows: int, length: int, number: float = 0) -> pa.RecordBatch:
    values = pa.array(np.full(rows * length, number, np.float64))
    places = pa.array(np.arange(rows + 1) * length, pa.int32())
    columns = [pa.ListArray.from_arrays(places, values), pa.array(np.arange(rows) % 2)]
    return pa.record_batch(columns, names=["x", "y"])


def written(place, batches, form: str, packing: str | None):
    if form == "parquet":
        parquet.write_table(pa.Table.from_batches(batches), place, compression=packing or "none")
        return place
    make = ipc.new_file if form == "file" else ipc.new_stream
    with make(place, batches[0].schema, options=ipc.IpcWriteOptions(compression=packing)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return place


@pytest.mark.parametrize(
    ("form", "packing"),
    [("file", "zstd"), ("file", "lz4"), ("stream", "zstd"), ("parquet", "zstd")],
)
def test_a_few_bytes_that_say_millions_of_zeros_are_refused(form, packing, tmp_path):
    """60 lists of 5 million took 40 seconds and 5 GB from 10 kB."""
    ending = "parquet" if form == "parquet" else "arrow"
    place = written(tmp_path / f"a.{ending}", [lists(60, N)], form, packing)
    assert place.stat().st_size < 1_500_000
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError, match="unpacks to more than"):
        sources.parquet(tmp_path, path=str(place))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < (500 << 20 if sys.platform == "linux" else sys.maxsize)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("form", ["file", "stream", "parquet"])
@pytest.mark.parametrize("packing", ["zstd", None])
def test_what_packs_well_is_read(form, packing, tmp_path):
    """Columns of zeros and ones, in several batches, with names of classes by number."""
    draw = np.random.default_rng(0)
    hot = np.eye(200)[draw.integers(0, 200, 3000)]
    names = pa.array(["no", "yes"] * 1500).dictionary_encode()
    columns = {f"x{i}": pa.array(hot[:, i]) for i in range(200)}
    table = pa.table({**columns, "y": names})
    place = written(tmp_path / "a.parquet", table.to_batches(1000), form, packing)
    place = place.rename(tmp_path / ("a.parquet" if form == "parquet" else "a.arrow"))
    found = sources.parquet(tmp_path, path=str(place))
    assert found.classes == ("no", "yes")
    x, y = found.parts["train"].take(torch.arange(3000))
    np.testing.assert_array_equal(x.numpy(), hot)
    assert y.tolist() == [0, 1] * 1500


@pytest.mark.parametrize("form", ["file", "stream"])
def test_messages_that_lie_are_refused(form, tmp_path):
    """Any byte of an Arrow file may be another: what a message needs is found, or the file is refused."""
    place = written(tmp_path / "a.arrow", [lists(8, 20, 1.5)] * 2, form, "zstd")
    sound, draw = place.read_bytes(), np.random.default_rng(0)
    arrow_messages.check(place)
    refused = 0
    for number in range(200):
        damaged = bytearray(sound)
        for at in draw.integers(0, len(sound), 1 + number % 3):
            damaged[at] = draw.choice([0, 1, 127, 128, 255])
        place.write_bytes(bytes(damaged[: len(sound) if number % 5 else draw.integers(len(sound))]))
        try:
            arrow_messages.check(place)
        except InputError:
            refused += 1
    assert refused > 10


def test_the_sizes_are_those_that_arrow_unpacks(tmp_path):
    place = written(tmp_path / "a.arrow", [lists(10, 1000), lists(3, 10)], "file", "zstd")
    with place.open("rb") as file:
        found = list(arrow_messages._sizes(file, place.stat().st_size))
    with ipc.open_file(place) as whole:
        batches = [whole.get_batch(i) for i in range(2)]
    needed = [sum(b.size for c in each.columns for b in c.buffers() if b) for each in batches]
    assert found[1:] == pytest.approx(needed, rel=0.02, abs=64)


def test_rows_beyond_what_so_small_a_file_may_hold_are_refused(tmp_path):
    """One value that stands in millions of rows: minutes to be read, a few bytes to be stored."""
    zeros = pa.array(np.zeros(2_000_000, np.int8))
    parquet.write_table(pa.table({"a": zeros, "target": zeros}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"2,000,000 rows in a file of .* at most 1,"):
        sources.parquet(tmp_path, path="t.parquet")
