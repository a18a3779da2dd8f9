"""Pictures of more than 8 bits and transparent ones: one rule for a set, kept for new pictures."""

import io
import tarfile
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ravine.data import room
from ravine.data.pipeline import Pipeline
from ravine.data.read import folders
from ravine.recipe import Data

WHOLE = {"validation": 0.0, "test": 0.0, "order": "fixed"}


def written(root, pictures, ending):
    """Two classes of the same pictures."""
    for of in ("a", "b"):
        (root / of).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(root / of / f"{i}{ending}")


def loaded(root):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = Pipeline(Data(source=f"folder:{root}", **WHOLE))
        x, y = pipeline.raw("train", pipeline.train_size)
    said = " ".join(str(w.message) for w in caught if "more than 8 bits" in str(w.message))
    return pipeline, x[y == 0], said


@pytest.mark.parametrize(
    ("dtype", "ending", "factor", "shown"),
    [
        (np.float32, ".tif", 1 / 255, "0 to 1 "),
        (np.float32, ".tif", 1.0, "0 to 255 "),
        (np.int32, ".tif", 1, "0 to 255 "),
        (np.uint16, ".png", 16, "0 to 4,095 "),
        (np.uint16, ".tif", 257, "0 to 65,535 "),
        (np.float32, ".tif", 1e-4, "0 to 0.03125 "),
    ],
)
def test_deep_pictures_keep_what_they_show(dtype, ending, factor, shown, tmp_path):
    """Gray steps of which the old code left 1 to 16."""
    steps = np.tile(np.arange(250), (4, 1)) * factor
    written(tmp_path / "in", [steps.astype(dtype), (steps / 2).astype(dtype)], ending)
    pipeline, x, said = loaded(tmp_path / "in")
    assert shown in said
    assert len(x[0].unique()) >= 200
    assert abs(int(x[0].max()) - 2 * int(x[1].max())) <= 2  # not each by its own largest
    again = Pipeline.from_state(pipeline.data, *pipeline.state())
    dim = (steps / 10).astype(dtype)
    Image.fromarray(dim).save(tmp_path / f"new{ending}")
    new, _ = again.read(tmp_path / f"new{ending}")
    assert 0.08 < float(new.max() / x.max()) < 0.12


def test_numbers_below_0_and_those_that_are_none(tmp_path):
    picture = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    picture[0, :2] = np.nan, -np.inf
    written(tmp_path, [picture], ".tif")
    _, x, said = loaded(tmp_path)
    assert "-1 to 1 " in said
    assert x[0].flatten()[[0, 1, -1]].tolist() == [0, 0, 255]
    assert 126 <= int(x[0].flatten()[32]) <= 130


def glyph(colour, background=0):
    """A square of one colour on transparent ground."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., :3] = background
    pixels[2:6, 2:6] = (*colour, 255)
    return pixels


@pytest.mark.parametrize(
    ("colours", "ground"),
    [
        ([(0, 0, 0), (20, 10, 10)], 255),
        ([(255, 255, 255), (250, 250, 250)], 0),
        ([(200, 0, 0), (0, 0, 90)], 255),
        ([(255, 255, 255), (0, 0, 0), (0, 0, 0)], 255),  # one ground for all
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_transparent_parts(colours, ground, streamed, tmp_path, monkeypatch):
    if streamed:
        monkeypatch.setattr(room, "MOST_BYTES", 0)
        monkeypatch.setattr(folders, "on_disk", lambda size: False)
    written(tmp_path / "in", [glyph(colour) for colour in colours], ".png")
    pipeline, x, _ = loaded(tmp_path / "in")
    assert (x[:, :, 0, 0] == ground).all()
    assert x[:, :, 4, 4].tolist() == [list(colour) for colour in colours]
    again = Pipeline.from_state(pipeline.data, *pipeline.state())
    Image.fromarray(glyph(colours[0], 99)).save(tmp_path / "new.png")
    assert torch.equal(again.read(tmp_path / "new.png")[0][0], x[0])


def test_transparent_gray_palettes_and_single_colours(tmp_path):
    square = Image.fromarray(glyph((0, 0, 0)))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    square.convert("LA").save(tmp_path / "a" / "gray.png")
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0] * 4)
    palette.paste(1, (2, 2, 6, 6))
    palette.save(tmp_path / "a" / "palette.png", transparency=3)
    single = Image.new("RGB", (8, 8), (1, 2, 3))
    single.paste((0, 0, 0), (2, 2, 6, 6))
    single.save(tmp_path / "b" / "single.png", transparency=(1, 2, 3))
    pipeline = Pipeline(Data(source=f"folder:{tmp_path}", **WHOLE))
    x, _ = pipeline.raw("train", 3)
    assert (x[:, :, 0, 0] == 255).all()
    assert (x[:, :, 4, 4] == 0).all()


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_images_in_one_file_are_read_by_the_same_rule(kind, tmp_path):
    """12 bits and white shapes on transparent ground, trained on and read again."""
    steps = np.tile(np.arange(250, dtype=np.uint16), (4, 1)) * 16
    for pixels, place, wanted in ((steps, (3, 249), 248), (glyph((255, 255, 255)), (0, 0), 0)):
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "png")
        file = tmp_path / f"{wanted}.{'tar' if kind == 'shards' else kind}"
        if kind == "shards":
            with tarfile.open(file, "w") as archive:
                for i in range(10):
                    for end, content in ((".png", encoded.getvalue()), (".cls", b"%d" % (i % 2))):
                        member = tarfile.TarInfo(f"{i}{end}")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
        else:
            arrow = pytest.importorskip("pyarrow")
            columns = {"image": [encoded.getvalue()] * 10, "label": [0, 1] * 5}
            pytest.importorskip("pyarrow.parquet").write_table(arrow.table(columns), file)
        pipeline = Pipeline(Data(source={"kind": kind, "path": str(file)}, **WHOLE))
        x, _ = pipeline.raw("train", 10)
        assert (x[:, :, *place] == wanted).all()
        again = Pipeline.from_state(pipeline.data, *pipeline.state())
        (tmp_path / "new.png").write_bytes(encoded.getvalue())
        new = again.read(file if kind == "parquet" else tmp_path / "new.png")[0]
        assert torch.equal(new[0], x[0])
