"""Folders by class: which folders are parts, which are classes, and what is refused."""

import re

import pytest
from PIL import Image

from ravine.data.pipeline import Pipeline
from ravine.data.read import classes as by_class
from ravine.errors import InputError
from ravine.recipe import Data
from ravine.starters.guess import guess


def laid_out(root, *names):
    """A file for each name, all of them of other content."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def counts(root):
    classes, listed = by_class.listed(root, "texts", (".txt",))
    return classes, {part: len(rows) for part, rows in listed.items()}


@pytest.mark.parametrize(
    ("training", "test"),
    [
        ("training_set", "test_set"),
        ("Training", "Testing"),
        ("train_images", "test-images"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("news-bydate-train", "news-bydate-test"),
        ("trainset", "TestData"),
        ("train/train", "test"),
    ],
)
def test_folders_called_after_parts(training, test, tmp_path):
    for part, count in ((training, 3), (test, 2)):
        laid_out(tmp_path, *(f"{part}/{of}/{i}.txt" for of in ("cat", "dog") for i in range(count)))
    assert counts(tmp_path) == (("cat", "dog"), {"train": 6, "test": 4})
    assert guess(tmp_path).words == "texts of 2 classes"


def test_validation_by_other_names_and_a_part_with_one_class_alone(tmp_path):
    names = "train/a/1 train/b/1 validation_set/a/x/1 dev.d/a/1 seg_pred/1"
    laid_out(tmp_path, *(f"{name}.txt" for name in names.split()))
    with pytest.warns(UserWarning, match=r"dev\.d, seg_pred: not called after a part"):
        assert counts(tmp_path) == (("a", "b"), {"train": 2, "validation": 1})


@pytest.mark.parametrize(
    "names",
    [
        ["bus/1", "car/1", "train/1"],
        ["freight_train/1", "passenger_train/1", "test_tube/1"],
        ["bus/images/1", "car/images/1"],
        ["bus/a/1", "bus/b/1", "car/a/1", "car/c/1"],
        ["bus/a/1", "bus/b/1", "bus/1", "car/a/1", "car/b/1"],
    ],
)
def test_folders_that_are_classes(names, tmp_path):
    laid_out(tmp_path, *(f"{name}.txt" for name in names))
    assert counts(tmp_path)[0] == tuple(dict.fromkeys(name.split("/")[0] for name in names))


def test_parts_within_the_classes(tmp_path):
    names = [f"{of}/{part}/1.txt" for of in ("cat", "dog") for part in ("train", "val", "test_set")]
    laid_out(tmp_path, *names, "cat/train/2.txt")
    found = counts(tmp_path)
    assert found == (("cat", "dog"), {"train": 3, "validation": 2, "test": 2})
    assert guess(tmp_path).words == "texts of 2 classes"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a/cat/1", "a/dog/1", "b/cat/1", "b/dog/1"],
            "a, b that all hold the same folders, cat, dog'; expected one folder for each class, or",
        ),
        (
            ["cat/train/1", "cat/test/1", "dog/1"],
            "parts such as cat/train, and others in dog'; expected every class divided",
        ),
        (["cat/train/1", "cat/test/1", "dog/train/1", "dog/test/1", "dog/2"], "others in dog"),
        (
            ["train/a/1", "train/b/1", "training/a/1", "training/b/1"],
            "folders train, training, all for train'; expected at most one",
        ),
        (["train/a/1", "train/b/1", "test/1"], "'no files by class for test'; expected"),
        (["train/1", "test/1"], "0 folder(s)"),
    ],
)
def test_refused(names, message, tmp_path):
    laid_out(tmp_path, *(f"{name}.txt" for name in names))
    with pytest.raises(InputError, match=re.escape(message)):
        counts(tmp_path)


def test_classes_of_too_few_images_are_named(tmp_path):
    for name, count in {"cat": 9, "dog": 5, "emu": 2, "fox": 1}.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("L", (4, 4), i).save(tmp_path / name / f"{i}.png")
    with pytest.warns(UserWarning, match=r"fewer than 5 images, .*: emu \(2\), fox \(1\);"):
        Pipeline(Data(source=f"folder:{tmp_path}"))
