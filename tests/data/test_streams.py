"""Data larger than memory: the order and the bits of data in memory, in bounded memory, from any step."""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import tarfile
import textwrap
import tracemalloc

import numpy as np
import pandas
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torch.utils.data import DataLoader, Dataset, TensorDataset

import ravine
from ravine import InputError, Recipe
from ravine.data import room
from ravine.data.objects import stream
from ravine.data.objects.convert import tensor
from ravine.data.pipeline import Pipeline
from ravine.data.read import row_file
from ravine.data.read.row_file import FileRows, RowFile
from ravine.recipe import Data
from ravine.starters.guess import guess

COUNT = 60


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (COUNT, 7, 5, 3), dtype=np.uint8), rng.integers(0, 3, COUNT)


def encoded(pixels) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "png")
    return held.getvalue()


def write_folder(place):
    for i, (pixels, label) in enumerate(zip(*pictures(), strict=True)):
        (place / f"class {label}").mkdir(parents=True, exist_ok=True)
        (place / f"class {label}" / f"{i:03d}.png").write_bytes(encoded(pixels))
    return f"folder:{place}"


def write_tar(file, samples):
    with tarfile.open(file, "w") as tar:
        for name, content in samples:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shards(place):
    place.mkdir()
    x, y = pictures()
    for shard in range(3):
        mine = range(shard * 20, shard * 20 + 20)
        pairs = [
            pair
            for i in mine
            for pair in ((f"a/{i:03d}.png", encoded(x[i])), (f"a/{i:03d}.cls", b"%d" % y[i]))
        ]
        write_tar(place / f"part-{shard}.tar", pairs)
    return f"shards:{place}"


def frame():
    rng = np.random.default_rng(1)
    columns = {f"c{i}": rng.normal(size=COUNT) for i in range(4)}
    return pandas.DataFrame({**columns, "whole": np.arange(COUNT), "y": rng.normal(size=COUNT)})


def write_parquet(place):
    place.mkdir()
    frame()[:25].to_parquet(place / "a.parquet", row_group_size=7)
    frame()[25:].to_parquet(place / "b.parquet")
    return f"parquet:{place}"


def write_arrow(place):
    place.mkdir()
    frame().to_feather(place / "a.feather")
    return f"parquet:{place}"


def write_pictures_in_parquet(place):
    place.mkdir()
    x, y = pictures()
    rows = [{"bytes": encoded(pixels), "path": "p"} for pixels in x]
    pandas.DataFrame({"image": rows, "label": y}).to_parquet(place / "train-0.parquet")
    return f"parquet:{place}"


WRITTEN = {
    "folder": write_folder,
    "shards": write_shards,
    "parquet": write_parquet,
    "arrow": write_arrow,
    "pictures in parquet": write_pictures_in_parquet,
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_does_not_fit_into_memory_has_the_same_order_and_bits(kind, tmp_path, monkeypatch):
    source = WRITTEN[kind](tmp_path / "data")
    data = Data(source=source, preprocess=["standardize"], batch=8)
    kept = Pipeline(data)
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    streamed = Pipeline(data)
    for part in ("train", "validation", "test"):
        assert isinstance(streamed.part(part), FileRows)
        pairs = zip(kept.split(part), streamed.split(part), strict=True)
        assert all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in pairs)
    check_same_batches(kept, streamed, 20)
    check_same_batches(kept, Pipeline(data), 6, first=11)  # from the middle of an epoch
    for name, statistic in kept.state()[0].items():
        assert torch.equal(statistic, streamed.state()[0][name])


def check_same_batches(one, other, count, first=0):
    pairs = zip(one.batches(first, first + count), other.batches(first, first + count), strict=True)
    for a, b in pairs:
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
        assert torch.equal(a.index, b.index)


@pytest.mark.parametrize("kind", ["folder", "shards", "pictures in parquet"])
def test_rows_are_what_was_written(kind, tmp_path):
    source = WRITTEN[kind](tmp_path / "data")
    pipeline = Pipeline(Data(source=source, validation=0.0, test=0.0))
    x, y = pictures()
    order = np.argsort(y, kind="stable") if kind == "folder" else np.arange(COUNT)
    found, targets = pipeline.raw("train", COUNT)
    assert found.numpy().tolist() == x[order].transpose(0, 3, 1, 2).tolist()
    assert targets.tolist() == y[order].tolist()


def test_numbers_are_what_was_written(tmp_path):
    source = write_parquet(tmp_path / "data")
    pipeline = Pipeline(Data(source=source, validation=0.0, test=0.0))
    x, y = pipeline.raw("train", COUNT)
    assert x.dtype == torch.float64
    assert x.numpy().tolist() == frame().drop(columns="y").to_numpy().tolist()
    assert torch.allclose(y.double().flatten(), torch.tensor(frame()["y"].to_numpy()))
    again = Pipeline.from_state(pipeline.data, *pipeline.state())
    new, _ = again.read(tmp_path / "data" / "a.parquet")
    assert torch.equal(new, x[:25])


def test_a_run_of_data_on_the_disk_is_that_of_data_in_memory_and_resumes(tmp_path, monkeypatch):
    source = write_shards(tmp_path / "data")
    recipe = Recipe(
        data={"source": source, "batch": 8, "augment": ["shift"], "preprocess": ["rescale"]},
        model={"kind": "mlp", "hidden": [6]},
        stop={"after": "13it"},
    )
    kept = ravine.train(recipe, out=tmp_path / "kept", quiet=True, doctor=False)
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    streamed = ravine.train(recipe, out=tmp_path / "streamed", quiet=True, doctor=False)
    assert torch.equal(kept.theta, streamed.theta)
    longer = ravine.resume(tmp_path / "streamed", after="22it", quiet=True)[0]
    whole = ravine.train(
        recipe.edit({"stop.after": "22it"}), out=tmp_path / "whole", quiet=True, doctor=False
    )
    assert torch.equal(longer.theta, whole.theta)


def test_any_dataloader_is_read_in_the_order_of_memory(monkeypatch):
    x, y = torch.randn(COUNT, 3), torch.arange(COUNT) % 2
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    kept = Pipeline(Data(), arrays=loader)
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    streamed = Pipeline(Data(), arrays=loader)
    check_same_batches(kept, streamed, 12)
    check_same_batches(kept, Pipeline(Data(), arrays=loader), 3, first=7)


def test_nothing_reads_ahead_after_training(tmp_path, monkeypatch):
    """The garbage collector would wait 5 seconds for each process that reads."""
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    before = set(multiprocessing.active_children())
    given = {"data": Counted(0.1), "model": "softmax", "batch": 8, "quiet": True, "doctor": False}
    run = ravine.train(epochs=1, out=tmp_path / "run", **given)
    with pytest.raises(InputError):
        ravine.train(epochs=1, out=tmp_path / "run", **given)
    assert run.result["stopped"] == "finished"
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("kind", ["shards", "parquet", "dataset", "drawn", "in memory"])
def test_each_of_several_processes_reads_its_part_of_a_batch(kind, tmp_path, monkeypatch):
    """Rows that are drawn anew at each look are read by all, and so are those in memory."""
    if kind != "in memory":
        monkeypatch.setattr(room, "MOST_BYTES", 0)
    monkeypatch.setattr(stream, "reading_processes", lambda: 0)
    monkeypatch.setattr(row_file, "BLOCK_BYTES", 1)  # of rows that are read at a time
    given = {"batch": 8, "validation": 0.0, "test": 0.0}
    dataset = None if kind in WRITTEN else Counted(noise=kind == "drawn")
    if kind in WRITTEN:
        given["source"] = WRITTEN[kind](tmp_path / "data")
    whole = Pipeline(Data(**given), arrays=dataset)
    alone = kind not in ("drawn", "in memory")
    assert whole.reads_parts == alone
    if not alone:
        return
    ranks = [
        whole.in_parts(lambda n, rank=rank: (n // 3 * rank, n // 3 + n % 3 * (rank == 2)))
        for rank in range(3)
    ]
    for step in (0, 1, 5, 7, 19):
        batch, parts = whole.batch(step), [rank.batch(step) for rank in ranks]
        for name in ("x", "y", "index"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined, getattr(batch, name))
        assert [part.size for part in parts] == [len(batch.y)] * 3
    read = []
    if dataset is None:
        found = RowFile.read
        monkeypatch.setattr(RowFile, "read", lambda self, p: (read.extend(p), found(self, p))[1])
    else:
        dataset.read = read
    sizes = [ranks[0].batch(step).size for step in range(20, 24)]
    assert len(read) == sum(size // 3 for size in sizes)


class Counted(Dataset):
    """A Dataset that notes which rows are read."""

    def __init__(self, noise):
        self.noise, self.read = noise, []

    def __len__(self):
        return COUNT

    def __getitem__(self, place):
        self.read.append(place)
        return torch.full((3,), float(place)) + self.noise * torch.randn(3), place % 2


def test_rows_are_written_once_and_anew_where_a_file_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    source = write_shards(tmp_path / "data")
    cached = tmp_path / "cache" / "ravine" / "data" / "rows"
    first = Pipeline(Data(source=source))
    (written,) = cached.glob("*/rows.bin")
    before = written.stat().st_mtime_ns
    assert torch.equal(Pipeline(Data(source=source)).batch(0).x, first.batch(0).x)
    assert written.stat().st_mtime_ns == before
    write_tar(
        tmp_path / "data" / "part-3.tar", [("1.png", encoded(pictures()[0][0])), ("1.cls", b"1")]
    )
    assert Pipeline(Data(source=source)).train_size > first.train_size
    assert len(list(cached.glob("*/rows.bin"))) == 2


def test_images_that_cannot_be_read_are_left_out_in_memory_and_on_the_disk(tmp_path, monkeypatch):
    write_folder(tmp_path / "data")
    broken = next((tmp_path / "data").glob("*/005.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    data = Data(source=f"folder:{tmp_path / 'data'}", validation=0.0, test=0.0)
    with pytest.warns(UserWarning, match=r"005\.png"):
        kept = Pipeline(data)
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    for _ in range(2):  # when it is written, and when it is read
        with pytest.warns(UserWarning, match=r"005\.png"):
            streamed = Pipeline(data)
        assert streamed.train_size == COUNT - 1
        check_same_batches(kept, streamed, 3)


def write_table(place, rows, columns):
    rng = np.random.default_rng(0)
    numbers = {f"c{i}": rng.normal(size=rows).astype("float32") for i in range(columns)}
    table = pandas.DataFrame({**numbers, "y": rng.normal(size=rows)})
    table.to_parquet(place, row_group_size=20_000)


def test_reading_takes_memory_for_some_rows_whatever_the_size_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    write_table(tmp_path / "a.parquet", rows=200_000, columns=40)  # 32 MB of inputs
    Pipeline(Data(source=write_arrow(tmp_path / "first")))  # what is imported is not counted
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    data = Data(source=f"parquet:{tmp_path / 'a.parquet'}", batch=128)
    pipeline = Pipeline(data, dtype=torch.float32)
    for _ in pipeline.batches(0, 50):
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12e6  # targets and their numbers take 3 MB
    assert pyarrow.total_allocated_bytes() - before < 1e6


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS limits memory")
def test_a_table_larger_than_the_memory_of_the_process_trains(tmp_path):
    """The limit is that of ``ulimit -v``: the table has 800 MB, the process 640 MiB beside its code."""
    write_table(tmp_path / "large.parquet", rows=1_000_000, columns=200)
    code = f"""
    import json, re, resource, torch
    from pathlib import Path
    from ravine.data.pipeline import Pipeline
    from ravine.recipe import Data
    torch.set_num_threads(1)
    used = re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
    limit = 1024 * int(used) + 640 * 2**20
    if LIMITED:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipeline = Pipeline(Data(source="parquet:{tmp_path / "large.parquet"}", batch=128))
    batches = pipeline.batches(0, 200)
    kind = type(pipeline.part("train")).__name__
    print(json.dumps([kind, sum(float(batch.x.sum()) for batch in batches)]))
    """
    found = []
    for limited in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code).replace("LIMITED", str(limited))],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert [kind for kind, _ in found] == ["FileRows", "Arrays"]
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ([("1.png", b"x")], "got 'an input without a target'"),
        ([("1.png", b"no image"), ("1.cls", b"1")], "no image that can be read"),
        ([("1.cls", b"1")], "no samples"),
    ],
)
def test_shards_that_cannot_be_read_get_one_message(samples, text, tmp_path):
    write_tar(tmp_path / "a.tar", samples)
    with pytest.raises(InputError, match=text):
        Pipeline(Data(source=f"shards:{tmp_path / 'a.tar'}"))


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """Of a member, with any size."""
    found = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    found[124:136] = bytes([0xFF if size < 0 else 0x80]) + (size % 256**11).to_bytes(11, "big")
    found[148:157] = b" " * 8 + kind
    found[148:156] = b"%06o\0 " % sum(found)
    return bytes(found)


SOUND = header("1.cls", 1) + b"1".ljust(512, b"\0")


@pytest.mark.parametrize(
    "content",
    [
        SOUND + header("1.png", -512) + bytes(2048),  # was read without end
        SOUND + header("1.png", -1024) + bytes(2048),
        SOUND + header("1.png", 10**18) + bytes(2048),
        SOUND + header("1.png", 4096) + bytes(1024),
        SOUND + header("1.png", 512, b"S") + bytes(2048),
        *(header("x", size, kind) + b"9 path=a\n".ljust(512, b"\0") + SOUND
          for size in (10**18, -1024) for kind in (b"x", b"L")),
        header("x", 28, b"x") + b"99999999999999999999 path=a\n".ljust(512, b"\0") + SOUND,
        header("x", 26, b"x") + b"26 GNU.sparse.map=a,b,c,d\n".ljust(512, b"\0") + SOUND,
        (header("x", 4, b"L") + b"abc".ljust(512, b"\0")) * 3000 + SOUND,
    ],
)  # fmt: skip
def test_shards_whose_headers_lie_get_one_message(content, tmp_path):
    """Endless reading, a MemoryError and other errors of Python's tarfile before."""
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tar"):
        Pipeline(Data(source=f"shards:{tmp_path / 'a.tar'}"))


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array(["ab"]), "text"),
        (np.array(["2024-01-01"], "M8[D]"), "numbers"),
        (np.zeros(3, [("a", "f4"), ("b", "i4")]), "numbers"),
        (np.zeros((3, 0, 4)), "no numbers"),
        (np.array([1.0, np.nan]), "NaN"),
    ],
)
def test_shards_of_what_is_no_number_get_one_message(array, text, tmp_path):
    write_tar(tmp_path / "a.tar", [("1.npy", stored(array)), ("1.cls", b"1")])
    with pytest.raises(InputError, match=text):
        Pipeline(Data(source=f"shards:{tmp_path / 'a.tar'}"))


@pytest.mark.parametrize("array", [np.array(3.0), np.zeros(4, ">f8"), np.zeros(4, np.float128)])
def test_shards_hold_any_numbers(array, tmp_path):
    samples = [(f"{i}.{end}", content) for i in range(40)
               for end, content in (("npy", stored(array + i)), ("cls", b"%d" % (i % 2)))]  # fmt: skip
    write_tar(tmp_path / "a.tar", samples)
    pipeline = Pipeline(Data(source=f"shards:{tmp_path / 'a.tar'}"))
    x, _ = next(iter(pipeline.part("train").chunks()))
    assert x.shape[1:] == (array.shape or (1,))


def stored(array) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


def test_a_pipe_among_shards_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train-0.tar")
    with pytest.raises(InputError, match="expected files and folders"):
        Pipeline(Data(source=f"shards:{tmp_path}"))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"a": ["x", "y"], "y": [1, 2]}, "column a: got 'large_string"),
        ({"a": [1.0, None], "y": [1, 2]}, "column a: got 'missing values'"),
        ({"a": [1.0, np.inf], "y": [1.5, 2]}, "infinite"),
        ({"y": [1, 2]}, "a target alone"),
        ({"a": [[1, 2], [3]], "y": [1, 2]}, "other lengths"),
        ({"a": [[[1], [1, 2]]] * 2, "y": [1, 2]}, "lists of numbers of one length"),
        ({"a": [[], []], "y": [1, 2]}, "lists of numbers of one length"),
        ({"a": [1, 2], "y": pandas.to_datetime(["2024-01-01", "2024-01-02"])}, "timestamp"),
        ({"a": [1, 2], "y": [{"b": 1}, {"b": 2}]}, "struct"),
        ({"a": [1, 2], "y": [b"\xff", b"b"]}, "binary"),
        ({"a": [1, 2], "y": [[[1], [1, 2]]] * 2}, "rows of equal shape"),
        ({"a": [1, 2], "y": ["a" * 1000, "b"]}, "a text of 1,000 letters"),
        ({}, "no columns"),
    ],
)
def test_tables_that_cannot_be_read_get_one_message(columns, text, tmp_path):
    pandas.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError) as caught:
        Pipeline(Data(source=f"parquet:{tmp_path / 'a.parquet'}"))
    assert text in str(caught.value)


@pytest.mark.parametrize("offset", [2**31 - 1, -5, 1000])
@pytest.mark.parametrize("values", [["abcdefgh", "zyxwvuts"], [b"abcdefgh", b"zyxwvuts"]])
def test_offsets_that_lead_out_of_a_file_are_refused(values, offset, tmp_path):
    """Of a text they read what else was in memory, as the name of a class."""
    table = pyarrow.table({"a": [1.0] * 40, "y": values * 20})
    with pyarrow.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    content = bytearray((tmp_path / "a.arrow").read_bytes())
    place = content.find(struct.pack("<4i", 0, 8, 16, 24))
    content[place + 8 : place + 12] = struct.pack("<i", offset)
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.arrow"):
        Pipeline(Data(source=f"parquet:{tmp_path / 'a.arrow'}"))


def test_a_value_that_is_stored_once_does_not_fill_memory(tmp_path, monkeypatch):
    """4,096 rows of it were decoded together: gigabytes of a file of kilobytes."""
    places, values = pyarrow.array([0] * 3000, pyarrow.int32()), pyarrow.array(["x" * 4_000_000])
    column = pyarrow.DictionaryArray.from_arrays(places, values)
    table = pyarrow.table({"a": column, "y": [0.0, 1.0] * 1500})
    how = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 10**8}
    parquet.write_table(table, tmp_path / "a.parquet", **how)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pytest.raises(InputError, match="column a: got 'string'"):
        Pipeline(Data(source=f"parquet:{tmp_path / 'a.parquet'}"))


def test_numbers_beyond_int64_are_floats():
    assert tensor(np.array([2**64 - 1], np.uint64), "y").tolist() == [float(2**64 - 1)]


def test_files_that_are_damaged_get_one_message(tmp_path):
    for name, kind in (("a.parquet", "parquet"), ("a.feather", "parquet"), ("a.tar", "shards")):
        (tmp_path / name).write_bytes(b"PAR1 and what is no table" * 40)
        with pytest.raises(InputError, match=name):
            Pipeline(Data(source=f"{kind}:{tmp_path / name}"))


def test_what_lies_at_a_path_is_known(tmp_path):
    for write, kind, alone in (
        (write_shards, "shards", "shards"),
        (write_parquet, "parquet", "csv"),
    ):
        write(tmp_path / kind)
        assert guess(tmp_path / kind).source["kind"] == kind
        first = next(iter(sorted((tmp_path / kind).iterdir())))
        assert guess(first).source == {"kind": alone, "path": str(first)}  # a table of its own


def test_reading_ahead_announces_a_few_blocks_and_holds_one(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    pipeline = Pipeline(Data(source=write_parquet(tmp_path / "data"), batch=4))
    part, announced, read = pipeline.part("train"), [], []
    whole = RowFile.read
    monkeypatch.setattr(RowFile, "announce", lambda self, places: announced.append(places))
    monkeypatch.setattr(
        RowFile, "read", lambda self, places: (read.append(places), whole(self, places))[1]
    )
    monkeypatch.setattr(row_file, "BLOCK_BYTES", 1)
    for _ in itertools.islice(part.steps(pipeline._order, 0), 3):
        pass
    assert len(read) == 3
    assert len(announced) == 3 + row_file.AHEAD
    assert all(torch.equal(a, b) for a, b in zip(announced, read, strict=False))


def test_a_long_stream_is_read_by_a_process_beside_with_the_same_rows(tmp_path, monkeypatch):
    """From the first steps over the start of that process, past the end of an epoch, into the next."""
    given = {"source": write_parquet(tmp_path / "data"), "batch": 7, "last_batch": "keep"}
    kept = Pipeline(Data(**given))
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    monkeypatch.setattr(row_file, "BLOCK_BYTES", 1)
    monkeypatch.setattr(row_file, "IN_PLACE", 2)
    monkeypatch.setattr(row_file, "spare_core", lambda: True)
    before, streamed = set(multiprocessing.active_children()), Pipeline(Data(**given))
    for step in range(25):
        held, read = kept.batch(step), streamed.batch(step)
        assert all(torch.equal(getattr(held, n), getattr(read, n)) for n in ("x", "y", "index"))
        beside = len(set(multiprocessing.active_children()) - before)
        assert beside == (step > 1)
    streamed.stop_reading()
    assert set(multiprocessing.active_children()) <= before


def test_a_file_that_loses_rows_while_it_is_read_beside_gets_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    monkeypatch.setattr(row_file, "BLOCK_BYTES", 1)
    monkeypatch.setattr(row_file, "IN_PLACE", 1)
    monkeypatch.setattr(row_file, "spare_core", lambda: True)
    pipeline = Pipeline(Data(source=write_parquet(tmp_path / "data"), batch=4))
    pipeline.batch(0)
    path = pipeline.part("train").dataset.path
    path.write_bytes(path.read_bytes()[:1])
    with pytest.raises(InputError, match="all of its rows"):
        list(map(pipeline.batch, range(1, 20)))
    pipeline.stop_reading()


def test_rows_in_the_systems_cache_are_not_announced(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    rows = Pipeline(Data(source=write_parquet(tmp_path / "data"))).part("train").dataset
    announced, places = [], torch.arange(0, 40, 3)
    monkeypatch.setattr(row_file.os, "posix_fadvise", lambda *given: announced.append(given))
    for cached in (False, True):
        monkeypatch.setattr(RowFile, "_cached", lambda self, offsets, answer=cached: answer)
        rows.announce(places)
    assert [offset for _, offset, _, _ in announced] == (places * rows.row_bytes).tolist()
