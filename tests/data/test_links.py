"""Folders of data with links and with what is no file: own data are read wherever they lie, and nothing loops."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ravine.app.cli import app
from ravine.data import sources
from ravine.data.read import classes
from ravine.errors import InputError


def image(place: Path, value: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(place)


@pytest.fixture
def data(tmp_path) -> Path:
    """Two classes of three images, and three more of each outside."""
    for place in ("data", "store"):
        for number, name in enumerate(("cats", "dogs")):
            for i in range(3):
                image(tmp_path / place / name / f"{place}{i}.png", 100 * number + i)
    return tmp_path / "data"


def count(data: Path) -> list[int]:
    """How many images of each class are read."""
    found = sources.folder(Path(), path=str(data), size=8)
    return np.bincount(found.parts["train"].y).tolist()


def test_links_to_files_and_folders_are_followed(data):
    store = data.parent / "store"
    (data / "cats" / "a.png").symlink_to(store / "cats" / "store0.png")
    (data / "cats" / "more").symlink_to(store / "cats")
    (data / "birds").symlink_to(store / "dogs")  # a class that lies elsewhere
    assert count(data) == [3, 7, 3]


def test_a_folder_with_many_names_is_read_once(data):
    """Thirty folders, each with two links to the next: a thousand million ways lead to the last."""
    place = data.parent / "many"
    for i in range(30):
        (place / str(i)).mkdir(parents=True)
        for name in "ab":
            (place / str(i) / name).symlink_to(place / str(i + 1))
    image(place / "30" / "x.png", 1)
    (data / "cats" / "many").symlink_to(place / "0")
    assert count(data) == [4, 3]


LOOPS = {
    "to itself": ("cats/in", "."),
    "to its class": ("cats/a/in", "../../cats"),
    "to the data": ("cats/in", "../../data"),
    "a class that is the data": ("birds", "."),
    "a class that is above the data": ("birds", ".."),
}


@pytest.mark.parametrize("case", LOOPS)
def test_links_that_lead_back_are_refused(data, case):
    """They would give images a class that they do not have."""
    name, to = LOOPS[case]
    (data / name).parent.mkdir(parents=True, exist_ok=True)
    (data / name).symlink_to(to)
    with pytest.raises(InputError, match="leads back to a folder above it"):
        count(data)
    done = CliRunner().invoke(app, ["train", str(data), "--epochs", "1"])
    assert (done.exit_code, len(done.output.strip().splitlines())) == (2, 1), done.output


def test_a_folder_of_two_classes_is_refused(data):
    (data / "pets").symlink_to(data / "dogs")
    with pytest.raises(InputError, match="one folder by two names, dogs and pets"):
        count(data)


def test_what_is_no_file_is_refused(data, monkeypatch):
    place = data / "cats" / "x.png"
    monkeypatch.chdir(data / "cats")

    def unix():
        made = socket.socket(socket.AF_UNIX)
        made.bind("x.png")
        made.close()

    ways = [
        lambda: os.mkfifo(place),
        lambda: place.symlink_to("/dev/zero"),
        unix,
    ]
    for make in ways:
        make()
        with pytest.raises(InputError, match=r"x\.png.*a device, a pipe or a socket"):
            count(data)
        place.unlink()
    assert count(data) == [3, 3]


def test_links_whose_files_are_gone_are_named(data):
    (data / "cats" / "gone.png").symlink_to(data.parent / "none.png")
    (data / "cats" / "self.png").symlink_to("self.png")
    with pytest.warns(UserWarning, match=r"2 file\(s\) cannot be read .*gone\.png, .*self\.png"):
        assert count(data) == [3, 3]


def test_hidden_folders_and_files_stay_out(data):
    image(data / "cats" / ".cache" / "x.png", 1)
    image(data / "cats" / "._x.png", 1)
    image(data / "__MACOSX" / "x.png", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*: fewer than 5 images")
        assert count(data) == [3, 3]


def test_levels_without_end_are_refused(tmp_path):
    place = tmp_path
    for _ in range(classes.MOST_LEVELS + 2):
        place = place / "a"
        place.mkdir()
    with pytest.raises(InputError, match="too many levels"):
        classes.files(tmp_path)
