"""Images whose classes a table names: which table counts, which image a name means, what is told."""

import re
import warnings
from pathlib import Path

import pytest
from PIL import Image

from ravine.data.read import folders, labelled
from ravine.data.read.named_images import NamedImages
from ravine.errors import InputError
from ravine.starters.guess import guess


def write(root, places, rows=(), table="labels.csv"):
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4), len(place)).save(root / place)
    if rows:
        (root / table).write_text("\n".join(rows))


FOUR = ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]


def guessed(root):
    """The classes that a path alone gives, the images of each part, and the warnings."""
    source = guess(root).source
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classes, found = folders._listed(Path(source["path"]), source.get("labels"), None)
    said = [str(w.message) for w in caught]
    return classes, {part: len(rows) for part, rows in found.items()}, " ".join(said)


@pytest.mark.parametrize(
    ("header", "cells", "classes"),
    [
        ("label", ["cat", "dog", "dog", "cat"], ("cat", "dog")),  # not the folders' division
        ("label", ["cat", "cat", "dog", "dog"], ("a", "b")),  # the same one
        ("label", ["cat", "dog", "bat", "dog"], ("bat", "cat", "dog")),
        ("width", ["4", "6", "6", "4"], ("a", "b")),  # no class by its name
        ("label", ["cat", "cat", "cat", "cat"], ("a", "b")),
    ],
)
def test_a_table_beside_several_folders(header, cells, classes, tmp_path):
    rows = [f"{place},{cell}" for place, cell in zip(FOUR, cells, strict=True)]
    write(tmp_path, FOUR, [f"file,{header}", *rows * 2])
    assert guessed(tmp_path)[0] == classes


def test_a_table_that_says_otherwise_of_the_same_classes_is_told(tmp_path):
    rows = [f"{place},{cell}" for place, cell in zip(FOUR, "abbb", strict=True)]
    write(tmp_path, FOUR, ["file,label", *rows])
    classes, _, said = guessed(tmp_path)
    assert classes == ("a", "b")
    assert "another class than the folder for 1 of 4 images" in said
    write(tmp_path, [], ["file,animal", *rows])
    assert "--target animal" in guessed(tmp_path)[2]


def test_parts_of_a_table_beside_folders_of_the_same_classes(tmp_path):
    parts = ("train", "test", "training", "test")
    rows = [f"{place},{place[0]},{part}" for place, part in zip(FOUR, parts, strict=True)]
    write(tmp_path, FOUR, ["file,label,split", *rows])
    assert guessed(tmp_path)[1] == {"train": 2, "test": 2}


def test_of_several_tables_that_with_classes_counts(tmp_path):
    images = [f"train/{i}.png" for i in range(4)] + [f"test/{i}.png" for i in range(4, 10)]
    write(tmp_path, images, ["id,label", *(f"{i},{'ab'[i % 2]}" for i in range(4))], "train.csv")
    write(tmp_path, [], ["id,label", *(f"{i},0" for i in range(4, 10))], "sample.csv")
    assert guess(tmp_path).source["labels"] == "train.csv"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("./a/x.jpg", "a/x.jpg"),
        ("a\\x.jpg", "a/x.jpg"),
        ("/home/ann/photos/a/x.jpg", "a/x.jpg"),
        ("C:\\photos\\a\\X.JPG", "a/x.jpg"),
        ("a/x.JPG", "a/x.jpg"),
        ("d/y", "c/d/y.png"),
        ("7", "c/007.png"),
        ("b/x.jpg", None),  # another folder
        ("x.jpeg", None),
        ("1", None),  # two are called so
        ("8", None),
    ],
)
def test_the_image_that_a_name_means(name, place, tmp_path):
    write(tmp_path, ["a/x.jpg", "c/d/y.png", "c/007.png", "c/01.png", "c/001.png"])
    found = NamedImages(tmp_path).find([name, None, ""])
    assert found == ({name: tmp_path / place} if place else {})


def test_two_names_that_are_alike_to_one_image_mean_none(tmp_path):
    write(tmp_path, ["a/1.png", "2.png"])
    images = NamedImages(tmp_path)
    assert not images.find(["A/1.png", "./a/1.png"])
    assert images.find(["2.png", "train/2.png"]) == {"2.png": tmp_path / "2.png"}


@pytest.mark.parametrize("places", [["im/x1.png", "im/x2.png"], ["x1.png", "x2.png"]])
def test_names_that_match_nothing_are_shown_beside_the_files(places, tmp_path):
    write(tmp_path, places, ["kind,file", "u,photo_1.png", "v,photo_2.png"])
    message = f"column file reads photo_1.png'; expected file names under {tmp_path}, such as "
    with pytest.raises(InputError, match=re.escape(f"{message}{places[0]!r}")):
        guess(tmp_path)


def test_names_that_match_nothing_beside_folders_of_classes_are_told(tmp_path):
    write(tmp_path, FOUR, ["file,label", *(f"photo_{i}.png,x" for i in range(4))])
    classes, _, said = guessed(tmp_path)
    assert classes == ("a", "b")
    assert "no images here, such as 'photo_0.png'; the classes are the folders'" in said


def test_all_that_is_left_out_is_told_in_one_warning(tmp_path):
    rows = ["file,label", "1.png,x", "2.png,y", "3.png,", "9.png,x", "8.png,y"]
    write(tmp_path, [f"{i}.png" for i in range(1, 7)], rows)
    with pytest.warns(UserWarning, match="left out") as caught:
        _, found = labelled.listed(tmp_path, None, None)
    assert len(found["train"]) == 2
    (told,) = caught
    for part in ("2 of 5 names have no image, such as '9.png'", "1 of 5 rows have no label"):
        assert part in str(told.message)
    assert "3 of 6 images are not named, such as '4.png'" in str(told.message)


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["10", "2", "0", "11"], ("0", "2", "10", "11")),
        (["1.5", "-3", "1.5", "-3"], ("-3", "1.5")),
        (["10", "2", "b", "2"], ("10", "2", "b")),
        (["nan.", "inf", "1", "inf"], ("1", "inf", "nan.")),
    ],
)
def test_numbers_as_classes_are_in_their_order(cells, classes, tmp_path):
    rows = [f"{place},{cell}" for place, cell in zip(FOUR, cells, strict=True)]
    write(tmp_path, FOUR, ["file,label", *rows * 2])
    assert labelled.listed(tmp_path, "labels.csv", None)[0] == classes


def test_a_target_of_folders_without_a_table_is_refused_by_its_name(tmp_path):
    write(tmp_path, FOUR)
    with pytest.raises(InputError, match=r"target: got 'breed'.*its folders are the classes"):
        folders._listed(tmp_path, None, "breed")
