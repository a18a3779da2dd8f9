"""Sources: what each gives, how new files of the same kind are read, and the message for each that
is wrong."""

import gzip
import hashlib
import json
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ravine
from ravine.catalogue import make, table
from ravine.data import room
from ravine.data.download import published
from ravine.data.inspect import examples
from ravine.data.pipeline import Pipeline
from ravine.data.read import folders, images
from ravine.errors import InputError
from ravine.recipe import Data

WHOLE = {"validation": 0.0, "test": 0.0, "batch": "full", "order": "fixed"}


def whole(source, **fields):
    """A pipeline of everything, and all of it in order."""
    pipeline = Pipeline(Data(source=source, **WHOLE, **fields))
    x, y = pipeline.raw("train", pipeline.train_size)
    return pipeline, x, y


def write_csv(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def write_idx(path, array, magic=None):
    kind = {np.uint8: 8, np.int32: 12, np.float32: 13}[array.dtype.type]
    head = magic or bytes([0, 0, kind, array.ndim])
    data = (
        head
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_images(folder, count, size=(6, 4), mode="RGB", suffix="png", value=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        colour = (
            value if value is not None else (10 * i, 0, 255) if mode.startswith("RGB") else 10 * i
        )
        Image.new(mode, size, colour).save(folder / f"{i}.{suffix}")


# --- synthetic ------------------------------------------------------------------------------------

SYNTHETIC = {
    "blobs": ((2,), "classification", 3),
    "circles": ((2,), "classification", 2),
    "spirals": ((2,), "classification", 3),
    "characters": ((1, 28, 28), "classification", 26),
    "parity": ((10, 1), "classification", 2),
    "copying": ((40,), "sequence", 11),
    "adding": ((50, 2), "regression", 1),
}
OTHERS = {
    "parquet",
    "shards",
    "digits",
    "mnist",
    "cifar10",
    "shakespeare",
    "text",
    "texts",
    "folder",
    "csv",
    "npz",
    "idx",
    "arrays",
}  # tested below


def test_every_source_is_tested():
    assert set(SYNTHETIC) | OTHERS == set(table("source"))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic(name):
    pipeline, x, y = whole(name)
    assert (pipeline.input_shape, pipeline.task, pipeline.outputs) == SYNTHETIC[name]
    _, again, again_y = whole(name)
    assert torch.equal(x, again)
    assert torch.equal(y, again_y)
    _, other, _ = whole({"kind": name, "seed": 1, "samples": 200})
    assert not torch.equal(x[:200], other)


def test_circles_and_blobs_are_where_they_should_be():
    _, x, y = whole({"kind": "circles", "noise": 0.0, "factor": 0.5})
    torch.testing.assert_close(x.norm(dim=1), torch.where(y == 0, 1.0, 0.5))
    _, x, y = whole(
        {"kind": "blobs", "samples": 4000, "deviation": 0.5, "features": 4, "classes": 5}
    )
    for k in range(5):
        torch.testing.assert_close(x[y == k].std(0), torch.full((4,), 0.5), rtol=0.1, atol=0)


def test_spirals():
    _, x, y = whole({"kind": "spirals", "noise": 0.0, "classes": 4, "samples": 400, "turns": 1.0})
    radius = x.norm(dim=1)
    angle = torch.atan2(x[:, 0], x[:, 1]) / (2 * torch.pi)
    apart = (angle - radius - y / 4) % 1
    assert torch.minimum(apart, 1 - apart).max() < 1e-5
    assert y.bincount().tolist() == [100] * 4


def test_parity():
    _, x, y = whole({"kind": "parity", "samples": 500, "length": 9})
    assert set(x.unique().tolist()) == {-1, 1}
    assert torch.equal((x == 1).sum((1, 2)) % 2, y)
    assert abs(y.double().mean() - 0.5) < 0.1


def test_copying():
    _, x, y = whole({"kind": "copying", "symbols": 5, "delay": 7})
    assert x.shape == y.shape == (4000, 17)
    assert torch.equal(x[:, :5], y[:, -5:])
    assert (x[:, :5] >= 3).all()
    assert (y[:, :-5] == 1).all()
    assert (x[:, 11] == 2).all()
    assert (x[:, 12:] == 1).all()


def test_adding():
    _, x, y = whole({"kind": "adding", "length": 20})
    torch.testing.assert_close((x[..., 0] * x[..., 1]).sum(1, keepdim=True), y)
    assert (x[:, :10, 1].sum(1) == 1).all()
    assert (x[:, 10:, 1].sum(1) == 1).all()
    assert abs((y - 1).square().mean() - 1 / 6) < 0.01


def test_characters_differ_and_can_be_told_apart():
    from sklearn.neighbors import KNeighborsClassifier

    pipeline, x, y = whole(
        {"kind": "characters", "alphabet": "digits", "samples": 1000, "size": 16}
    )
    assert pipeline.classes == tuple("0123456789")
    assert x.dtype == torch.uint8
    drawn = x.double().mean((0, 1))
    for axis in (0, 1):  # they stand in the middle
        mass = drawn.sum(1 - axis)
        assert (mass * torch.arange(16)).sum() / mass.sum() == pytest.approx(7.5, abs=0.5)
    x = x.flatten(1).numpy()
    assert KNeighborsClassifier(3).fit(x[:800], y[:800]).score(x[800:], y[800:]) > 0.7


# --- data sets ------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    _, x, y = whole("digits")
    expected = load_digits()
    np.testing.assert_array_equal(x.flatten(1), expected.data)
    np.testing.assert_array_equal(y, expected.target)


@pytest.mark.data("mnist")
def test_mnist():
    pipeline = Pipeline(Data(source="mnist", validation=0.0))
    assert (pipeline.size("train"), pipeline.size("test")) == (60000, 10000)
    x, y = pipeline.raw("train", 5)
    assert x.dtype == torch.uint8
    assert y.tolist() == [5, 0, 4, 1, 9]
    mean = pipeline.raw("train", 60000)[0].sum().item() / (60000 * 784 * 255)
    assert mean == pytest.approx(0.1306604, abs=1e-6)  # as everybody knows it
    assert pipeline.class_counts().tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]


@pytest.mark.data("mnist")
def test_mnist_that_is_damaged(tmp_path, data_root):
    (tmp_path / "mnist").mkdir()
    for file in (data_root / "mnist").iterdir():
        data = bytearray(gzip.decompress(file.read_bytes()))
        data[-1] ^= 1
        (tmp_path / "mnist" / file.name.removesuffix(".gz")).write_bytes(data)
    with pytest.raises(InputError, match="sha256"):
        Pipeline(Data(source="mnist"), root=tmp_path)


@pytest.mark.data("cifar10")
@pytest.mark.slow
def test_cifar10_as_jpeg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pipeline = Pipeline(Data(source="cifar10", validation=0.0))
    assert (pipeline.size("train"), pipeline.size("test")) == (50000, 10000)
    assert pipeline.class_counts().tolist() == [5000] * 10
    x, _ = pipeline.raw("train", 50000)
    assert (x.double().mean((0, 2, 3)) / 255).tolist() == pytest.approx(
        [0.4914, 0.4822, 0.4465], abs=2e-3
    )
    again = Pipeline(Data(source="cifar10", validation=0.0))  # from the cache
    assert torch.equal(again.raw("train", 50000)[0], x)


def small_cifar(folder, monkeypatch, records=20):
    monkeypatch.setattr(published, "_CIFAR10_RECORDS", records)
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in published._cifar10_names():
        rows = random.integers(0, 256, (records, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(records) % 10
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return np.frombuffer((folder / "data_batch_1.bin").read_bytes(), np.uint8).reshape(
        records, 3073
    )


def test_cifar10_as_published(tmp_path, monkeypatch):
    first = small_cifar(tmp_path / "cifar-10-batches-bin", monkeypatch)
    pipeline = Pipeline(Data(source="cifar10", validation=0.0, batch=10), root=tmp_path)
    x, y = pipeline.raw("train", 20)
    assert (pipeline.size("train"), pipeline.size("test")) == (100, 20)
    np.testing.assert_array_equal(x.flatten(1), first[:, 1:])
    np.testing.assert_array_equal(y, first[:, 0])
    assert pipeline.classes[3] == "cat"


def test_cifar10_packed(tmp_path, monkeypatch):
    import tarfile

    small_cifar(tmp_path / "unpacked" / "cifar-10-batches-bin", monkeypatch)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "unpacked" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    with pytest.raises(InputError, match="sha256"):  # of another archive nothing is unpacked
        Pipeline(Data(source="cifar10", validation=0.0, batch=10), root=tmp_path)
    content = (tmp_path / "cifar-10-binary.tar.gz").read_bytes()
    monkeypatch.setattr(published, "_CIFAR10_SHA256", hashlib.sha256(content).hexdigest())
    packed = Pipeline(Data(source="cifar10", validation=0.0, batch=10), root=tmp_path)
    plain = Pipeline(Data(source="cifar10", validation=0.0, batch=10), root=tmp_path / "unpacked")
    assert torch.equal(packed.raw("train", 100)[0], plain.raw("train", 100)[0])


def test_cifar10_as_jpeg_is_decoded_once(tmp_path, monkeypatch):
    """The small form of the same file: the second load reads the pixels from the cache."""
    import io

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stored, pictures = {"classes": np.array(published.CIFAR10_CLASSES)}, []
    for part in ("train", "test"):
        blobs = []
        for i in range(20):
            pictures.append(Image.new("RGB", (32, 32), (10 * i, 255 - 10 * i, 5)))
            pictures[-1].save(out := io.BytesIO(), "JPEG")
            blobs.append(np.frombuffer(out.getvalue(), np.uint8))
        stored[f"{part}_bytes"], stored[f"{part}_ends"] = (
            np.concatenate(blobs),
            np.cumsum([len(b) for b in blobs]),
        )
        stored[f"{part}_labels"] = np.arange(20, dtype=np.uint8) % 10
    root = tmp_path / "data"
    root.mkdir()
    np.savez(root / "cifar10-jpeg.npz", **stored)
    data = Data(source="cifar10", validation=0.0, batch=10)
    first = Pipeline(data, root=root).raw("train", 20)[0]
    assert (
        first[7].movedim(0, 2).int() - torch.from_numpy(np.array(pictures[7])).int()
    ).abs().max() < 6
    monkeypatch.setattr("ravine.data.read.images.load", lambda *_: pytest.fail("decoded twice"))
    assert torch.equal(Pipeline(data, root=root).raw("train", 20)[0], first)
    (kept,) = (tmp_path / "cache").rglob("*-train.npy")
    kept.write_bytes(kept.read_bytes()[:-1])  # what is kept and damaged is made again
    with pytest.raises(pytest.fail.Exception, match="decoded twice"):
        Pipeline(data, root=root)
    for wrong in ({"train_ends": np.arange(3)}, {"train_labels": np.zeros((2, 2))}):
        np.savez(root / "cifar10-jpeg.npz", **stored | wrong)
        with pytest.raises(InputError, match="an end and a label for each image"):
            Pipeline(data, root=root)
    (root / "cifar10-jpeg.npz").write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(InputError, match="a damaged archive"):
        Pipeline(data, root=root)


@pytest.mark.data("shakespeare")
def test_shakespeare():
    pipeline = Pipeline(Data(source="shakespeare", batch=32))
    assert pipeline.task == "sequence"
    assert pipeline.vocabulary == pipeline.outputs == len(pipeline.classes) == 66
    batch = pipeline.batch(0)
    assert batch.x.shape == batch.y.shape == (32, 64)
    assert torch.equal(batch.x[:, 1:], batch.y[:, :-1])


# --- text -----------------------------------------------------------------------------------------


def test_text_is_cut_into_contiguous_pieces(tmp_path):
    content = "".join(chr(97 + i % 5) for i in range(1000)) + "z" * 300
    (tmp_path / "a.txt").write_text(content)
    pipeline = Pipeline(
        Data(source=f"text:{tmp_path / 'a.txt'}", validation=0.25, test=0.2, batch=2)
    )
    assert pipeline.classes == ("\ufffd", *"abcde")  # the last pieces are not looked at
    (test,) = pipeline.split("test")
    assert (test.x == 0).all()  # z is unknown
    (validation,) = pipeline.split("validation")
    decoded = "".join(pipeline.classes[k] for k in validation.x[0].tolist())
    assert decoded == content[780 : 780 + 64]
    assert torch.equal(validation.x[:, 1:], validation.y[:, :-1])


def test_windows_differ_from_epoch_to_epoch_and_cover_the_text(tmp_path):
    (tmp_path / "a.txt").write_text("".join(chr(32 + i % 90) for i in range(90)) * 5)
    source = {"kind": "text", "path": str(tmp_path / "a.txt"), "length": 10}
    pipeline = Pipeline(Data(source=source, validation=0.0, test=0.0, batch="full"))
    epochs = [pipeline.batch(e) for e in range(8)]
    assert pipeline.epoch_steps == 1
    assert len({batch.x[batch.index.argmin(), 0].item() for batch in epochs}) > 3
    again = Pipeline(pipeline.data).batch(5)
    assert torch.equal(again.x, epochs[5].x)
    assert len(epochs[0].x) == 44


def test_a_prompt_and_a_text_file_as_tokens(tmp_path):
    (tmp_path / "a.txt").write_text("hello world " * 100, encoding="utf-8")
    pipeline = Pipeline(Data(source=f"text:{tmp_path / 'a.txt'}"))
    again = Pipeline.from_state(pipeline.data, *pipeline.state())
    tokens = again.transform("held?")
    assert "".join(pipeline.classes[k] for k in tokens[0].tolist()) == "held\ufffd"
    x, names = again.read(tmp_path / "a.txt")
    assert x.shape == (1, 1200)
    assert names == ["a.txt"]


# --- csv ------------------------------------------------------------------------------------------

ROWS = [
    f"{2 * i},{'red' if i % 3 else 'blue'},{i * 0.5},{'yes' if i % 2 else 'no'}" for i in range(60)
]


def csv_of(tmp_path, header="a,colour,b,label", rows=ROWS, **settings):
    path = write_csv(tmp_path / "table.csv", header, rows)
    return {"kind": "csv", "path": str(path), **settings}


def test_csv_classification(tmp_path):
    pipeline = Pipeline(Data(source=csv_of(tmp_path), **WHOLE))
    assert (pipeline.task, pipeline.classes, pipeline.input_shape) == (
        "classification",
        ("no", "yes"),
        (4,),
    )
    x = pipeline.transform(pipeline.raw("train", 60)[0])
    expected = [[2 * i, float(i % 3 == 0), float(i % 3 > 0), i * 0.5] for i in range(60)]
    assert x.tolist() == expected
    assert pipeline.raw("train", 60)[1].tolist() == [i % 2 for i in range(60)]


@pytest.mark.parametrize(
    ("settings", "task", "outputs", "features"),
    [
        ({"target": "b", "drop": ["a"]}, "regression", 1, 3),
        ({"target": "a", "drop": ["b"]}, "regression", 1, 3),
        ({"target": "a"}, "regression", 1, 3),  # b is a quarter of it: left out
        ({"target": "colour"}, "classification", 2, 3),
        ({"target": ["a", "b"]}, "regression", 2, 3),
        ({"drop": ["colour"]}, "classification", 2, 2),
        ({"categorical": "index"}, "classification", 2, 3),
        ({"target": "b", "task": "classification", "drop": ["a"]}, "classification", 60, 3),
    ],
)
def test_csv_targets_and_columns(tmp_path, settings, task, outputs, features):
    pipeline = Pipeline(Data(source=csv_of(tmp_path, **settings), **WHOLE))
    assert (pipeline.task, pipeline.outputs, pipeline.input_shape) == (task, outputs, (features,))


@pytest.mark.parametrize(
    ("header", "target"),
    [("a,b,c", "c"), ("a,Target,c", "Target"), ("y,b,c", "y"), ("a,b,label", "label")],
)
def test_csv_default_target(tmp_path, header, target):
    rows = [f"{i % 2},{i % 3},{i % 4}" for i in range(24)]
    pipeline = Pipeline(Data(source=csv_of(tmp_path, header, rows), **WHOLE))
    assert pipeline.preparation.facts["targets"] == [target]
    assert pipeline.outputs == {"c": 4, "Target": 3, "y": 2, "label": 4}[target]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_separators_quotes_and_byte_order_mark(tmp_path, separator):
    rows = [
        f'"{3 * i}"{separator}"{"xz"[i % 3 > 0]}{separator}y"{separator}{i % 2}' for i in range(12)
    ]
    (tmp_path / "t.csv").write_text(
        "\ufeff" + "\n".join([separator.join(["a", "b", "c"]), *rows]), encoding="utf-8"
    )
    pipeline = Pipeline(Data(source=f"csv:{tmp_path / 't.csv'}", **WHOLE))
    assert [c["name"] for c in pipeline.preparation.facts["columns"]] == ["a", "b"]
    assert pipeline.preparation.facts["columns"][1]["categories"] == [
        f"x{separator}y",
        f"z{separator}y",
    ]


def test_csv_without_a_header(tmp_path):
    (tmp_path / "t.csv").write_text("\n".join(f"{i * 3},{i * 2},{i % 2}" for i in range(30)))
    pipeline, x, _ = whole(f"csv:{tmp_path / 't.csv'}")
    assert pipeline.train_size == 30
    assert x[3].tolist() == [9, 6]


def test_csv_missing_values_by_the_stated_rule(tmp_path):
    """Medians, and zeros for categories, with an indicator where training misses some; zeros for
    what training did not have."""
    a = [None if i in (3, 20) else i**2 for i in range(40)]
    rows = [
        f"{'?' if v is None else v},{'NA' if i == 5 else 'red' if i % 3 else 'blue'},{2 * i},{i % 2}"
        for i, v in enumerate(a)
    ]
    pipeline = Pipeline(Data(source=csv_of(tmp_path, "a,colour,b,label", rows), **WHOLE))
    assert pipeline.preparation.inputs[0].names == (
        "a",
        "a missing",
        "colour=blue",
        "colour=red",
        "colour missing",
        "b",
    )
    median = float(np.median([v for v in a if v is not None]))
    x = pipeline.transform(pipeline.raw("train", 40)[0])
    assert x[3].tolist() == [median, 1, 1, 0, 0, 6]
    assert x[4].tolist() == [16, 0, 0, 1, 0, 8]
    assert x[5].tolist() == [25, 0, 0, 0, 1, 10]
    new, _ = pipeline.read(write_csv(tmp_path / "new.csv", "a,colour,b", [",green,", "1,,2"]))
    assert pipeline.transform(new).tolist() == [[median, 1, 0, 0, 0, 39], [1, 0, 0, 0, 1, 2]]


def test_csv_statistics_are_of_the_training_part(tmp_path):
    rows = [f"{2 * i},{'' if i % 7 == 0 else i * i},{i % 2}" for i in range(100)]
    data = Data(source=csv_of(tmp_path, "place,a,label", rows), validation=0.2, test=0.2)
    pipeline = Pipeline(data)
    train = pipeline.raw("train", 100)[0]
    fill = pipeline.preparation.inputs[0].fill
    assert fill[1] == pytest.approx(np.nanmedian(train[:, 1].numpy()))
    held = set(pipeline.raw("test", 100)[0][:, 0].tolist())
    changed = [
        f"{2 * i},{1000 if 2 * i in held else '' if i % 7 == 0 else i * i},{i % 2}"
        for i in range(100)
    ]
    other = Pipeline(
        Data(source=csv_of(tmp_path, "place,a,label", changed), validation=0.2, test=0.2)
    )
    assert torch.equal(other.preparation.inputs[0].fill, fill)


def test_csv_columns_of_names_are_left_out(tmp_path):
    rows = [f"person{i},{i * i},,{i % 2}" for i in range(150)]
    with pytest.warns(UserWarning, match=r"'name' \(150 different texts.*'nothing' \(empty\)"):
        pipeline = Pipeline(Data(source=csv_of(tmp_path, "name,a,nothing,label", rows), **WHOLE))
    assert pipeline.input_shape == (1,)


def test_csv_predict(tmp_path):
    pipeline = Pipeline(Data(source=csv_of(tmp_path), preprocess=["standardize"]))
    tensors, facts = pipeline.state()
    again = Pipeline.from_state(pipeline.data, tensors, json.loads(json.dumps(facts)))
    new = write_csv(tmp_path / "new.csv", "colour,b,a,more", ["red,1.5,3,x", "violet,,4,y"])
    x, names = again.read(new)
    assert names == ["new.csv:0", "new.csv:1"]
    assert x[0].tolist() == [3, 1, 1.5]
    assert x[1, 1] == -1
    assert torch.isfinite(again.transform(x)).all()
    other = write_csv(tmp_path / "other.csv", "a,b,colours", ["1,2,red"])
    with pytest.warns(UserWarning, match="no column 'colour': taken as missing"):
        x, _ = again.read(other)
    assert torch.isfinite(again.transform(x)).all()
    with pytest.raises(InputError, match="at least one of a, colour, b"):
        again.read(write_csv(tmp_path / "third.csv", "p,q", ["1,2"]))


# --- texts by class -------------------------------------------------------------------------------


def write_texts(root, texts):
    for name, contents in texts.items():
        (root / name).mkdir(parents=True)
        for i, content in enumerate(contents):
            (root / name / f"{i}.txt").write_text(content, encoding="utf-8")


def test_texts_are_hashed_words_and_pairs(tmp_path):
    write_texts(tmp_path, {"calm": ["A quiet day"], "loud": ["Shout, shout!"]})
    part = {"kind": "texts", "path": str(tmp_path), "buckets": 1000, "length": 4, "ngrams": 2}
    pipeline = Pipeline(Data(source=part, validation=0.0, test=0.0))
    x, y = pipeline.raw("train", 2)

    def token(words):
        return 1 + zlib.crc32(words.encode()) % 1000

    quiet = [token(w) for w in ("a", "quiet", "day")] + [0, token("a quiet"), token("quiet day")]
    shout = [token(w) for w in ("shout", ",", "shout", "!")]
    shout += [token(w) for w in ("shout ,", ", shout", "shout !")]
    expected = {0: [*quiet, 0, 0], 1: [*shout, 0]}
    assert {int(label): row.tolist() for row, label in zip(x, y, strict=True)} == expected
    assert (pipeline.task, pipeline.classes, pipeline.vocabulary) == (
        "classification",
        ("calm", "loud"),
        1001,
    )


@pytest.mark.parametrize(("many", "ngrams"), [(4, 1), (3, 2)])
def test_few_texts_are_words_alone(tmp_path, monkeypatch, many, ngrams):
    monkeypatch.setattr("ravine.data.read.texts.MANY", many)
    write_texts(tmp_path, {"calm": ["a b c", "b"], "loud": ["d"]})
    part = {"kind": "texts", "path": str(tmp_path), "length": 5}
    pipeline = Pipeline(Data(source=part, validation=0.0, test=0.0))
    assert pipeline.raw_shape == (5 * ngrams,)


def test_texts_with_subwords(tmp_path):
    write_texts(tmp_path, {"calm": ["A quiet, quiet day"], "loud": ["Shout!"]})
    part = {"kind": "texts", "path": str(tmp_path), "subwords": True}
    pipeline = Pipeline(Data(source=part, validation=0.0, test=0.0))
    x, y = pipeline.raw("train", 2)
    buckets = pipeline.vocabulary - 1
    assert buckets == 65536

    def within(word):
        marked = f"<{word}>"
        parts = [marked[k : k + n] for n in (3, 4, 5) for k in range(len(marked) - n + 1)]
        return [1 + zlib.crc32(part.encode()) % buckets for part in parts]

    quiet = [*within("a"), *within("quiet"), *within("quiet"), *within("day")]
    shout = within("shout")
    found = {int(label): row.tolist()[8:] for row, label in zip(x, y, strict=True)}
    most = len(found[0])  # that 95 % of the texts have: of two the shorter one's
    assert most == len(shout) == 12
    assert found == {0: quiet[:most], 1: shout}


def test_misspelt_words_are_learnt_by_their_letters(tmp_path):
    """Each word comes once, so that no whole word is known: what tells are the letters within."""
    random = np.random.default_rng(0)
    letters = list("abcdeghiklmn")

    def word(middle):
        return "".join([*random.choice(letters, 3), middle, *random.choice(letters, 3)])

    texts = {
        name: [f"{word(middle)} {word(middle)}" for _ in range(60)]
        for name, middle in (("sea", "rst"), ("land", "tsr"))
    }
    write_texts(tmp_path / "texts", texts)
    accuracy = {}
    for subwords in (False, True):
        run = ravine.train(
            data={
                "kind": "texts",
                "path": str(tmp_path / "texts"),
                "subwords": subwords,
                "buckets": 4096,
            },
            model={"kind": "word_bag", "units": 8},
            lr=0.03,
            batch=16,
            epochs=20,
            quiet=True,
            out=tmp_path / str(subwords),
        )
        accuracy[subwords] = run.evaluate("test")["accuracy"]
    assert accuracy[True] > 0.95
    assert accuracy[False] < 0.75


def test_texts_are_learnt_and_new_ones_predicted(tmp_path):
    random = np.random.default_rng(0)
    words = {"sea": ["wave", "ship", "salt"], "land": ["tree", "road", "sand"]}
    texts = {
        name: [" ".join(random.choice([*own, "the", "a", "old"], 9)) for _ in range(40)]
        for name, own in words.items()
    }
    write_texts(tmp_path / "texts", texts)
    run = ravine.train(
        data={"kind": "texts", "path": str(tmp_path / "texts")},
        model="word_bag",
        lr=0.03,
        batch=16,
        epochs=20,
        quiet=True,
        out=tmp_path / "run",
    )
    assert run.evaluate("test")["accuracy"] > 0.9
    write_texts(tmp_path / "new", {"x": ["The old wave!", "A sand road."]})
    found, names = run.pipeline.read(tmp_path / "new" / "x")
    assert names == ["0.txt", "1.txt"]
    assert run.predict(found).tolist() == ["sea", "land"]


def test_texts_are_shown_as_words_with_their_classes(tmp_path):
    contents = {"calm": ["A quiet\nday", "Sand"], "loud": ["Shout, shout!"]}
    write_texts(tmp_path, {name: [*of, *["x"] * 9] for name, of in contents.items()})
    pipeline = Pipeline(Data(source={"kind": "texts", "path": str(tmp_path)}))
    found = examples.lines_of(pipeline, 3, first=True)
    assert found == ["calm: A quiet day", "loud: Shout, shout!", "calm: Sand"]


def test_texts_refused(tmp_path):
    write_texts(tmp_path / "one", {"calm": ["a quiet day"]})
    with pytest.raises(InputError, match="two classes"):
        Pipeline(Data(source={"kind": "texts", "path": str(tmp_path / "one")}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="a folder of texts"):
        Pipeline(Data(source={"kind": "texts", "path": str(tmp_path / "empty")}))


# --- folders of images ----------------------------------------------------------------------------


def test_folder_by_class(tmp_path):
    write_images(tmp_path / "cat", 8)
    write_images(tmp_path / "dog", 12, value=(1, 2, 3))
    pipeline, x, y = whole(f"folder:{tmp_path}")
    assert (pipeline.classes, pipeline.input_shape) == (("cat", "dog"), (3, 4, 6))
    assert x.dtype == torch.uint8
    assert y.bincount().tolist() == [8, 12]
    assert (x[y == 1].movedim(1, 3) == torch.tensor([1, 2, 3])).all()


def named_images(root, rows, table="labels.csv"):
    """Images of one colour each under ``root``, and a table of such rows beside them."""
    for place in ("a/0.png", "a/1.png", "b/2.png", "b/3.png", "b/4.png"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4), 10 * int(Path(place).stem)).save(root / place)
    (root / table).write_text("\n".join(rows))


@pytest.mark.parametrize(
    ("rows", "target"),
    [
        (["file,label", "0.png,x", "1.png,y", "2.png,x", "3.png,y"], None),
        (["id;breed;age", "0;x;1", "1;y;2", "2;x;3", "3;y;4"], "breed"),
        (["who,path", "x,a/0.png", "y,a/1.png", "x,b/2.png", "y,b/3.png"], None),
        (["name,class,weight", "0.png,x,1", "1.png,y,2", "2.png,x,3", "3.png,y,5", ",x,2"], None),
    ],
)
def test_images_that_a_table_names(rows, target, tmp_path):
    """By file name, name without ending or place; the image that no row names is left out."""
    named_images(tmp_path, rows)
    source = {"kind": "folder", "path": str(tmp_path), "labels": "labels.csv", "target": target}
    pipeline, x, y = whole({name: value for name, value in source.items() if value})
    assert pipeline.classes == ("x", "y")
    assert sorted(zip(x[:, 0, 0, 0].tolist(), y.tolist(), strict=True)) == [
        (0, 0),
        (10, 1),
        (20, 0),
        (30, 1),
    ]


def test_a_column_divides_the_images_that_a_table_names(tmp_path):
    rows = ["file,label,split", "0,x,train", "1,y,train", "2,x,val", "3,y,test", "9,y,train"]
    named_images(tmp_path, rows)
    with pytest.warns(UserWarning, match="1 of 5 names have no image, such as '9'"):
        pipeline = Pipeline(
            Data(source={"kind": "folder", "path": str(tmp_path), "target": "label"})
        )
    assert [pipeline.size(part) for part in ("train", "validation", "test")] == [2, 1, 1]


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [
        (
            ["file,a,b", "0,x,1", "1,y,2"],
            {},
            "'columns a, b'; expected one that is the class; --target a",
        ),
        (["file,a", "0,x", "1,y"], {"target": "c"}, "target: got 'c'; expected one of a"),
        (["file,a", "0,x", "1,x"], {}, "'1 different values in 2 rows'; expected two classes"),
        (["file,a", "7,x", "8,y"], {}, "no column that names the images"),
        (["file,a", "0,x", "1,y"], {"labels": "../labels.csv"}, "expected the name of a table in"),
        (["file,a", "0,x", "1,y"], {"labels": "no.csv"}, "expected the name of a table in"),
    ],
)
def test_tables_that_name_no_images_are_refused(rows, given, message, tmp_path):
    named_images(tmp_path / "in", rows)
    source = {"kind": "folder", "path": str(tmp_path / "in"), "labels": "labels.csv"} | given
    with pytest.raises(InputError, match=re.escape(message)):
        Pipeline(Data(source=source))


def test_folder_with_parts(tmp_path):
    for part, count in {"train": 10, "val": 4, "test": 6}.items():
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name, count)
    pipeline = Pipeline(Data(source=f"folder:{tmp_path}"))
    assert {p: pipeline.size(p) for p in ("train", "validation", "test")} == {
        "train": 20,
        "validation": 8,
        "test": 12,
    }


def test_folder_of_different_sizes_and_modes(tmp_path):
    write_images(tmp_path / "a", 3, size=(10, 20), mode="L")
    write_images(tmp_path / "b", 2, size=(30, 40), mode="L", suffix="jpg")
    pipeline, x, _ = whole(f"folder:{tmp_path}")
    assert pipeline.input_shape == (1, 20, 10)  # the median
    assert whole({"kind": "folder", "path": str(tmp_path), "size": [5, 7]})[0].input_shape == (
        1,
        5,
        7,
    )
    assert whole({"kind": "folder", "path": str(tmp_path), "size": 8, "mode": "rgb"})[
        0
    ].input_shape == (3, 8, 8)
    write_images(tmp_path / "c", 2, size=(10, 20), mode="RGBA", value=(255, 0, 0, 255))
    Image.new("P", (10, 20)).save(tmp_path / "c" / "palette.gif")
    Image.fromarray(np.full((20, 10), 40000, dtype=np.uint16)).save(tmp_path / "c" / "deep.png")
    pipeline, x, _ = whole(f"folder:{tmp_path}")
    assert pipeline.input_shape[0] == 3
    assert (x == 156).any()  # 40000 >> 8


@pytest.mark.parametrize("colour", [(10,), (10, 20, 30), (10, 20, 30, 200)])
def test_what_is_padded_has_the_colour_of_the_border(colour):
    pixels = np.full((4, 8, len(colour)), colour, np.uint8)
    given = Image.fromarray(pixels[..., 0] if len(colour) == 1 else pixels)
    found = np.asarray(images.sized(given, (8, 8), "pad")).reshape(8, 8, -1)
    assert (found == colour).all()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_fit_keeps_the_shape_or_stretches(fit):
    """A picture twice as wide as high, its halves of two colours, brought to a square."""
    pixels = np.repeat([[200] * 8 + [100] * 8], 8, 0).astype(np.uint8)
    found = np.asarray(images.sized(Image.fromarray(pixels), (8, 8), fit))
    assert found.shape == (8, 8)
    middle = found[4].astype(int)
    assert abs(middle[0] - 200) < 5
    assert abs(middle[-1] - 100) < 5
    border = {"stretch": middle, "crop": middle, "pad": np.full(8, 150)}[fit]
    assert np.abs(found[0].astype(int) - border).max() <= 2


def test_an_image_that_is_postscript_inside_starts_no_program(tmp_path):
    """Pillow hands EPS to Ghostscript; the list of formats is closed."""
    import sys

    file = tmp_path / "a.png"
    file.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    )
    seen = []
    sys.addaudithook(
        lambda event, _: seen.append(event) if event.startswith("subprocess") else None
    )
    assert images.header(file) is None
    assert images.load([file], "RGB", (4, 4))[1] == [0]
    assert not seen


def test_folder_images_stand_upright(tmp_path):
    write_images(tmp_path / "a", 2, size=(4, 6))
    picture = Image.new("RGB", (6, 4))
    picture.putpixel((5, 0), (255, 255, 255))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    (tmp_path / "b").mkdir()
    picture.save(tmp_path / "b" / "turned.png", exif=exif)
    pipeline, x, y = whole(f"folder:{tmp_path}")
    assert pipeline.input_shape == (3, 6, 4)
    assert (x[y == 1][0, :, 5, 3] == 255).all()


def test_unreadable_files_are_named_in_one_warning(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 5)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    whole_file = (tmp_path / "dog" / "0.png").read_bytes()
    (tmp_path / "dog" / "cut.png").write_bytes(whole_file[: len(whole_file) - 30])
    (tmp_path / "dog" / ".hidden").write_text("not looked at")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, _, y = whole(f"folder:{tmp_path}")
    (message,) = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert all(
        part in message for part in ("3 file(s)", "cat/notes.txt", "dog/broken.png", "dog/cut.png")
    )
    assert y.bincount().tolist() == [5, 5]


def test_a_folder_that_is_too_large_is_streamed(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 10)
    data = Data(source=f"folder:{tmp_path}", preprocess=["rescale"], batch=4)
    kept = Pipeline(data)
    monkeypatch.setattr(room, "MOST_BYTES", 0)
    monkeypatch.setattr(folders, "on_disk", lambda size: False)
    streamed = Pipeline(data)
    assert type(streamed._parts["train"]).__name__ == "Items"
    for a, b in zip(kept.batches(0, 6), streamed.batches(0, 6), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_folder_predict(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / "data" / name, 5)
    pipeline = Pipeline(Data(source=f"folder:{tmp_path / 'data'}"))
    again = Pipeline.from_state(pipeline.data, *pipeline.state())
    write_images(tmp_path / "new" / "deep", 2, size=(50, 60))
    write_images(tmp_path / "new", 1, mode="L")
    x, names = again.read(tmp_path / "new")
    assert x.shape == (3, 3, 4, 6)
    assert names == ["0.png", "deep/0.png", "deep/1.png"]
    assert again.read(tmp_path / "new" / "0.png")[0].shape == (1, 3, 4, 6)


# --- npz and idx ----------------------------------------------------------------------------------


def test_npz(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2
    np.savez(tmp_path / "one.npz", x=x, y=y)
    np.savez(tmp_path / "keras.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    np.savez(
        tmp_path / "three.npz",
        X_train=x,
        Y_train=y,
        x_val=x[:8],
        y_val=y[:8],
        x_test=x[:9],
        y_test=y[:9],
    )
    assert Pipeline(Data(source=f"npz:{tmp_path / 'one.npz'}")).size("test") == 10
    keras = Pipeline(Data(source=f"npz:{tmp_path / 'keras.npz'}"))
    assert (keras.size("train"), keras.size("validation"), keras.size("test")) == (45, 5, 9)
    three = Pipeline(Data(source=f"npz:{tmp_path / 'three.npz'}"))
    assert (three.size("train"), three.size("validation"), three.size("test")) == (50, 8, 9)
    regression = Pipeline(
        Data(source={"kind": "npz", "path": str(tmp_path / "one.npz"), "task": "regression"})
    )
    assert regression.task == "regression"
    rows, names = keras.read(tmp_path / "one.npz")
    np.testing.assert_array_equal(rows, x)
    assert names[3] == "one.npz:3"


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx(tmp_path, end):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (30, 5, 4), dtype=np.uint8), (np.arange(30) % 3).astype(np.uint8)
    for stem, pictures, labels in (("train", x, y), ("t10k", x[:6], y[:6])):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte{end}", pictures)
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte{end}", labels)
    folder = Pipeline(Data(source=f"idx:{tmp_path}", validation=0.0))
    assert (folder.size("train"), folder.size("test"), folder.input_shape) == (30, 6, (1, 5, 4))
    file, raw, labels = whole(f"idx:{tmp_path}/train-images-idx3-ubyte{end}")
    np.testing.assert_array_equal(raw[:, 0], x)
    np.testing.assert_array_equal(labels, y)
    rows, _ = file.read(tmp_path / f"t10k-images-idx3-ubyte{end}")
    np.testing.assert_array_equal(rows[:, 0], x[:6])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_idx_types(tmp_path, dtype):
    from ravine.data.read import idx

    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    read = idx.parse(write_idx(tmp_path / "a.idx", array).read_bytes(), "a.idx")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == dtype


# --- paths ----------------------------------------------------------------------------------------


def test_relative_paths_are_looked_for_here_and_under_the_root(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RAVINE_DATA", str(tmp_path / "root"))
    (tmp_path / "root" / "a.txt").write_text("from the root " * 100)
    assert "r" in Pipeline(Data(source="text:a.txt")).classes
    (tmp_path / "here" / "a.txt").write_text("Q" * 2000)
    assert Pipeline(Data(source="text:a.txt")).classes == ("\ufffd", "Q")


# --- bad input ------------------------------------------------------------------------------------


def csv_file(header, rows):
    return lambda p: write_csv(p / "a.csv", header, rows)


def npz_file(**arrays):
    return lambda p: np.savez(p / "a.npz", **arrays)


def file(name, content):
    return lambda p: (p / name).write_bytes(content)


def folder(name, **classes):
    """Folders of so many images; a class of "text" holds a text file."""

    def make_folder(p):
        (p / name).mkdir()
        for k, count in classes.items():
            if count == "text":
                (p / name / k).mkdir()
                (p / name / k / "a.txt").write_text("no image")
            else:
                write_images(p / name / k.replace("_", "/"), count)

    return make_folder


def cut(p):
    np.savez(p / "a.npz", x=np.ones(99))
    (p / "a.npz").write_bytes((p / "a.npz").read_bytes()[:200])


def other_labels(p):
    write_idx(p / "a-images-idx3", np.zeros((3, 2, 2), np.uint8))
    write_idx(p / "a-labels-idx1", np.zeros(4, np.uint8))


def table_source(**settings):
    return {"kind": "csv", "path": "a.csv", **settings}


ALTERNATE = [f"{i},{i % 2}" for i in range(10)]
NAMED = [f"{i},n{i}" for i in range(50)]
DATES = np.array(["2020-01-01"] * 4, "M8[D]")
SHORT_IDX = bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 4, 4) + b"x" * 79

BAD_FILES = {
    "missing npz": ("npz:none.npz", None, ["none.npz", "exists"]),
    "missing csv": ("csv:none.csv", None, ["none.csv"]),
    "missing folder": ("folder:none", None, ["none", "folder"]),
    "missing text": ("text:none.txt", None, ["none.txt"]),
    "missing idx": ("idx:none", None, ["none"]),
    "a folder as npz": ("npz:empty", folder("empty"), ["not a folder"]),
    "a file as folder": ("folder:a.txt", file("a.txt", b"a"), ["not a file"]),
    "empty folder": ("folder:f", folder("f"), ["f", "no files", "for each class"]),
    "images without classes": (
        "folder:f",
        lambda p: write_images(p / "f", 3),
        ["files but no folders"],
    ),
    "one class": ("folder:f", folder("f", cat=3), ["1 folder(s)", "two classes"]),
    "empty class": ("folder:f", folder("f", cat=3, dog=0), ["f/dog", "no image"]),
    "class of no images": ("folder:f", folder("f", cat=3, dog="text"), ["f/dog", "no image"]),
    "no image at all": ("folder:f", folder("f", cat="text", dog="text"), ["none an image"]),
    "a class only in test": (
        "folder:f",
        folder("f", train_cat=2, train_dog=2, test_dgo=2),
        ["dgo", "'dog'"],
    ),
    "not an npz": ("npz:a.npz", file("a.npz", b"rubbish"), ["a.npz", "npz file"]),
    "a cut npz": ("npz:a.npz", cut, ["a.npz"]),
    "pickles": (
        "npz:a.npz",
        npz_file(x=np.array([{}, {}], dtype=object), y=np.arange(2)),
        ["never read"],
    ),
    "npz without y": ("npz:a.npz", npz_file(x=np.ones((9, 2))), ["arrays x", "x and y"]),
    "npz without anything": ("npz:a.npz", npz_file(), ["(none)"]),
    "npz of NaN": (
        "npz:a.npz",
        npz_file(x=np.full((9, 2), np.nan), y=np.arange(9) % 2),
        ["18 value(s)", "NaN"],
    ),
    "npz of dates": ("npz:a.npz", npz_file(x=DATES, y=np.arange(4)), ["numbers"]),
    "bad magic": (
        "idx:a-images-idx3",
        file("a-images-idx3", b"PK\x03\x04...."),
        ["magic", "50 4b"],
    ),
    "truncated idx": (
        "idx:a-images-idx3",
        file("a-images-idx3", SHORT_IDX),
        ["truncated", "96 bytes"],
    ),
    "truncated header": ("idx:a-images-idx3", file("a-images-idx3", SHORT_IDX[:6]), ["truncated"]),
    "overlong idx": ("idx:a-images-idx3", file("a-images-idx3", SHORT_IDX + b"xx"), ["too long"]),
    "damaged gzip": (
        "idx:a-images-idx3",
        file("a-images-idx3", gzip.compress(b"x" * 99)[:30]),
        ["a-images"],
    ),
    "idx without labels": (
        "idx:a",
        lambda p: write_idx(p / "a", np.zeros((3, 2, 2), np.uint8)),
        ["labels"],
    ),
    "idx of other labels": ("idx:a-images-idx3", other_labels, ["4 target(s) for 3"]),
    "idx folder of nothing": ("idx:f", folder("f"), ["train-images"]),
    "short text": ("text:a.txt", file("a.txt", b"short"), ["a.txt", "at least 128"]),
    "empty text": ("text:a.txt", file("a.txt", b""), ["a.txt", "0 characters"]),
    "text that is none": ("text:a.txt", file("a.txt", b"\xff\xfe\xfa" * 99), ["UTF-8"]),
    "text too short to be split": (
        "text:a.txt",
        file("a.txt", b"a" * 300),
        ["validation", "at least 65"],
    ),
    "empty csv": ("csv:a.csv", file("a.csv", b""), ["empty file"]),
    "csv of a header": ("csv:a.csv", csv_file("a,b", []), ["without rows"]),
    "ragged csv": (
        "csv:a.csv",
        csv_file("a,b", ["1,2", "1,2,3"]),
        ["3 values in row 3", "2, as in"],
    ),
    "csv that is none": ("csv:a.csv", file("a.csv", b"\xff\xfe\xfa" * 99), ["UTF-8"]),
    "infinite cell": (
        "csv:a.csv",
        csv_file("a,b", ["inf,1", *ALTERNATE]),
        ["column a", "1 infinite"],
    ),
    "missing target": (
        "csv:a.csv",
        csv_file("a,b", ["1,2", "3,", "5,NA"]),
        ["target b", "2 missing", "row 2"],
    ),
    "one target": ("csv:a.csv", csv_file("a,b", ["1,x", "3,x"]), ["one class (x)"]),
    "target of names": ("csv:a.csv", csv_file("a,b", NAMED), ["50 different texts"]),
    "only a target": ("csv:a.csv", csv_file("b", ["1", "0"] * 5), ["no usable input column"]),
    "unknown target": (
        table_source(target="prize"),
        csv_file("size,price", ALTERNATE),
        ["prize", "'price'"],
    ),
    "unknown column to drop": (
        table_source(drop=["sise"]),
        csv_file("size,price", ALTERNATE),
        ["sise", "'size'"],
    ),
    "regression of text": (
        table_source(task="regression"),
        csv_file("a,b", NAMED),
        ["a number", "'n0'", "row 1"],
    ),
    "classes in two columns": (
        table_source(target=["a", "b"], task="classification"),
        csv_file("a,b,c", ["1,2,3"] * 9),
        ["2 columns"],
    ),
    "one blob": ({"kind": "blobs", "classes": 1}, None, ["classes", "at least 2"]),
    "one circle": ({"kind": "circles", "factor": 1.0}, None, ["factor", "below 1"]),
    "too few characters": ({"kind": "characters", "samples": 5}, None, ["at least 26"]),
    "adding one": ({"kind": "adding", "length": 1}, None, ["length", "at least 2"]),
}


@pytest.mark.filterwarnings("ignore:.*cannot be read as images")
@pytest.mark.parametrize("case", BAD_FILES)
def test_refused(case, tmp_path, monkeypatch):
    source, make_files, holds = BAD_FILES[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAVINE_DATA", str(tmp_path))
    if make_files:
        make_files(tmp_path)
    data = Data(source=source)
    with pytest.raises(InputError) as caught:
        Pipeline(data)
    assert all(part in str(caught.value) for part in holds), str(caught.value)


READ = {
    "nothing": (lambda p: p / "none.png", "exists"),
    "a text": (lambda p: (p / "a.txt", (p / "a.txt").write_text("a"))[0], "expected images"),
    "npz without x": (
        lambda p: (p / "a.npz", np.savez(p / "a.npz", a=1, b=2))[0],
        "an array called x",
    ),
    "broken image": (lambda p: (p / "a.png", (p / "a.png").write_text("a"))[0], "none an image"),
}


@pytest.mark.parametrize("case", READ)
def test_reading_refuses(case, tmp_path):
    make_file, message = READ[case]
    with pytest.raises(InputError, match=message):
        Pipeline(Data(source="digits")).read(make_file(tmp_path))


def test_images_for_a_table_are_refused(tmp_path):
    write_images(tmp_path, 2)
    with pytest.raises(InputError, match="images"):
        Pipeline(Data(source="blobs")).read(tmp_path)


def test_every_source_has_a_part():
    for name, technique in table("source").items():
        required = {"path": "x"} if "path" in technique.fields else {}
        assert make("source", {"kind": name, **required}).kind == name
