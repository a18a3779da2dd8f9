import itertools
import json
import os
import random
import signal
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ravine.engine import snapshot
from ravine.errors import RavineError

NAMES = """float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 complex64 complex128
    int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool"""
DTYPES = [getattr(torch, name) for name in NAMES.split()]


def random_bits(shape, dtype, seed=0):
    """Any bits at all, NaNs of every payload among them."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    size = torch.empty((), dtype=dtype).element_size()
    raw = torch.randint(0, 256, (*shape, size), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


def bits(array):
    array = array.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return array.dtype, tuple(array.shape), array.reshape(-1).view(torch.uint8).tolist()


def same(a, b):
    return a.keys() == b.keys() and all(bits(a[k]) == bits(b[k]) for k in a)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7)], ids=str)
def test_every_dtype_and_shape_returns_bit_for_bit(tmp_path, dtype, shape):
    arrays = {"a": random_bits(shape, dtype)}
    snapshot.write(tmp_path / "s", arrays, {})
    assert same(snapshot.read(tmp_path / "s")[0], arrays)


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=4),
    dtype=st.sampled_from(DTYPES),
    facts=st.dictionaries(
        st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    ),
    seed=st.integers(0, 2**32),
)
def test_arrays_and_facts_return_as_they_were(tmp_path_factory, shapes, dtype, facts, seed):
    place = tmp_path_factory.mktemp("s")
    arrays = {
        f"array {i}/é": random_bits(tuple(shape), dtype, seed + i) for i, shape in enumerate(shapes)
    }
    snapshot.write(place, arrays, facts)
    read, told = snapshot.read(place)
    assert same(read, arrays)
    assert told == snapshot.facts(place) == facts


def test_views_of_one_matrix_are_kept_apart(tmp_path):
    theta = torch.arange(24.0).reshape(4, 6)
    pair = torch.tensor([1 + 2j, 3 - 4j])
    arrays = {
        "theta": theta,
        "again": theta,
        "row": theta[1],
        "rows": theta[1:3],
        "turned": theta.T,
    }
    arrays |= {
        "strided": theta[:, ::2],
        "expanded": theta[:1].expand(3, 6),
        "grown": theta.clone().requires_grad_(),
    }
    arrays |= {
        "conjugate": pair.conj(),
        "negative": pair.conj().imag,
        "one of a pair": pair[1:].imag,
    }
    snapshot.write(tmp_path / "s", arrays, {})
    assert same(snapshot.read(tmp_path / "s")[0], {k: v.detach() for k, v in arrays.items()})


def test_facts_keep_the_infinities(tmp_path):
    snapshot.write(
        tmp_path / "s", {}, {"best": float("inf"), "nested": {"steps": [1, 2], "name": "ö"}}
    )
    assert snapshot.read(tmp_path / "s") == (
        {},
        {"best": float("inf"), "nested": {"steps": [1, 2], "name": "ö"}},
    )


def test_a_snapshot_is_replaced_whole(tmp_path):
    for n in range(3):
        snapshot.write(tmp_path / "s", {"a": torch.full((10,), float(n))}, {"n": n})
    arrays, facts = snapshot.read(tmp_path / "s")
    assert arrays["a"].tolist() == [2.0] * 10
    assert facts == {"n": 2}
    assert len(list((tmp_path / "s").iterdir())) == 2


def arrays_file(place):
    return next(place.glob("arrays-*.safetensors"))


def flip_last_byte(place):
    """The last byte of the file is the last byte of the last array."""
    path = arrays_file(place)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_manifest(place):
    path = place / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["facts"]["step"] = 7
    path.write_text(json.dumps(manifest))


DAMAGE = [
    (flip_last_byte, "array 'theta' is not what was written"),
    (edit_manifest, "manifest.json is not what was written"),
    (lambda p: arrays_file(p).write_bytes(arrays_file(p).read_bytes()[:-5]), "arrays-"),
    (lambda p: arrays_file(p).unlink(), "arrays-"),
    (lambda p: (p / "manifest.json").unlink(), "no manifest: its writing was interrupted"),
    (lambda p: (p / "manifest.json").write_text("{"), "manifest.json"),
    (lambda p: (p / "manifest.json").write_text("[]"), "manifest.json"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[m for _, m in DAMAGE])
def test_damage_is_named(tmp_path, damage, message):
    snapshot.write(tmp_path / "s", {"theta": torch.ones(100)}, {"step": 1})
    damage(tmp_path / "s")
    with pytest.raises(RavineError, match=message):
        snapshot.read(tmp_path / "s")


def written(tmp_path, n):
    paths = [tmp_path / f"step-{i}" for i in range(n)]
    for i, path in enumerate(paths):
        snapshot.write(path, {"a": torch.full((4,), float(i))}, {"step": i})
    return paths[::-1]


@pytest.mark.parametrize("began", [False, True])
def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, began):
    """Not even an empty folder, whether the file has begun or cannot be made at all."""

    def full(arrays, path):
        if began:
            path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(snapshot, "save_file", full)
    with pytest.raises(OSError, match="no space left"):
        snapshot.write(tmp_path / "step-1", {"a": torch.ones(2)}, {})
    assert not list(tmp_path.iterdir())


def test_newest_passes_over_what_is_damaged_and_says_so(tmp_path):
    paths = written(tmp_path, 4)
    flip_last_byte(paths[0])
    (paths[1] / "manifest.json").unlink()
    found = snapshot.newest(paths)
    assert found.path == paths[2]
    assert found.facts == {"step": 1}
    assert found.arrays["a"].tolist() == [1.0] * 4
    assert ["step-3" in found.skipped[0], "step-2" in found.skipped[1], len(found.skipped)] == [
        True,
        True,
        2,
    ]


@pytest.mark.parametrize("n", [0, 2])
def test_no_intact_snapshot_is_an_error(tmp_path, n):
    paths = written(tmp_path, n)
    for path in paths:
        flip_last_byte(path)
    said = "step-1.*step-0" if n else "none was written yet"
    with pytest.raises(RavineError, match=f"no intact snapshot: .*{said}"):
        snapshot.newest(paths)


def test_prune_keeps_the_newest_that_are_complete(tmp_path):
    paths = written(tmp_path, 5)
    (paths[1] / "manifest.json").unlink()
    snapshot.prune(paths, keep=2)
    assert [path.exists() for path in paths] == [True, False, True, False, False]


def write_for_ever(place, pipe):
    for step in itertools.count(1):
        arrays = {name: torch.full((20_000,), float(step)) for name in "abcdefgh"}
        name = step if step % 3 else step - 1  # every third replaces the one before
        snapshot.write(place / f"step-{name:09d}", arrays, {"step": step})
        snapshot.prune(sorted(place.glob("step-*"), reverse=True), keep=2)
        os.write(pipe, b"%d\n" % step)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked writer")
def test_a_writer_killed_at_any_moment_leaves_an_intact_snapshot(tmp_path):
    chance = random.Random(0)
    for trial in range(20):
        place = tmp_path / str(trial)
        place.mkdir()
        out, into = os.pipe()
        writer = os.fork()
        if writer == 0:
            try:
                write_for_ever(place, into)
            finally:
                os._exit(1)
        os.close(into)
        with open(out) as told:
            assert told.readline() == "1\n"
            time.sleep(chance.random() * 0.1)
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            last = int(["1", *told.read().split()][-1])
        found = snapshot.newest(sorted(place.glob("step-*"), reverse=True))
        assert found.facts["step"] in (last, last + 1)
        assert all((array == found.facts["step"]).all() for array in found.arrays.values())
