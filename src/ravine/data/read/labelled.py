"""Images whose classes a table names: a column of file names, and one of classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ravine.data.endings import IMAGES, TABLES
from ravine.data.read import classes as by_class
from ravine.data.read.named_images import NamedImages
from ravine.errors import InputError, unknown

_CLASS = (
    "class",
    "label",
    "labels",
    "category",
    "target",
    "species",
    "breed",
    "diagnosis",
    "type",
    "y",
)
_PART = ("split", "set", "subset", "part", "partition", "usage")
_MOST = 0.5  # the share of names, or of images, that makes a column one of the images' names
Columns = Mapping[str, Sequence[str | None]]


@dataclass
class Naming:
    """A table that names images."""

    table: Path
    images: NamedImages
    columns: Columns
    named: str  # the column of names
    found: dict[str, Path]  # the image of each name that means one

    def rows(self, label: str) -> list[tuple[Path, str]]:
        """The images that have a class in a column, with it."""
        cells = zip(self.columns[self.named], self.columns[label], strict=True)
        return [(self.found[name], text) for name, text in cells if name in self.found and text]

    def label(self) -> str | None:
        """The column of classes, where its name says that it is one."""
        others = [name for name in self.columns if name != self.named]
        known = (name for word in _CLASS for name in others if name.lower() == word)
        return next(known, None)

    def parts(self, label: str) -> list[str]:
        """The part of each row; none where no column says it."""
        for name, cells in self.columns.items():
            if name.lower() in _PART and name not in (self.named, label):
                parts = [by_class.said_part(cell or "")[0] for cell in cells]
                if all(parts) and "train" in parts:
                    return parts
        return []


def table_of(root: Path, classes: Sequence[str] = ()) -> str | None:
    """The table in a folder of which a column names images under that folder, if there is one.

    ``classes`` are two folders or more that may be those of classes: the table then counts where it
    names most of the images, has a column called class, label, …, and divides them otherwise.
    """
    found = _naming(root, None)
    if found is None or (classes and not _divides_otherwise(found, root, classes)):
        return None
    return found.table.name


def _tables(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_file() and f.suffix.lower() in TABLES)


def _naming(root: Path, target: str | None) -> Naming | None:
    """The table in a folder that names images: of several one with the column of classes, then the
    one that names most of them."""
    tables = _tables(root)
    if not tables:
        return None
    images = NamedImages(root)
    best, most = None, (False, 0)
    for table in tables if images.files else ():
        try:
            found = _read(table, images)
        except InputError:  # something else lies beside the images
            continue
        if found is not None:
            label = target if target in found.columns else found.label()
            several = label is not None and len({text for _, text in found.rows(label)}) > 1
            score = (several and target in (None, label), len(set(found.found.values())))
            if best is None or score > most:
                best, most = found, score
    return best


def _read(table: Path, images: NamedImages) -> Naming | None:
    """A table with the column that names images; None where no column names most of them."""
    columns = _columns(table)
    best, most = None, (0.0, 0)
    for name, cells in columns.items():
        found = images.find(cells)
        share = sum(cell in found for cell in cells) / max(1, len(cells))
        files = len(set(found.values()))
        enough = share >= _MOST or files >= max(2, _MOST * len(images.files))
        # classes such as 0 and 1 may be called like images too: the names are those that differ most
        if enough and (share, files) > most:
            best, most = Naming(table, images, columns, name, found), (share, files)
    return best


def _columns(table: Path) -> dict[str, list[str | None]]:
    """The cells of each column as they are written; None where missing."""
    from ravine.data.tables.file import read  # pandas comes with it

    found = {}
    for name, cells in read(table, texts=True).columns.items():
        texts = [*cells.texts, None]
        found[name] = [texts[code] for code in cells.codes]  # -1: missing
    return found


# --- tables beside folders of classes --------------------------------------------------------------


def _of_folders(
    found: Naming, label: str, root: Path, classes: Sequence[str]
) -> list[tuple[str, str]]:
    """The folder and the class in the table of each image that has both."""
    known, pairs = set(classes), []
    for file, text in found.rows(label):
        above = file.relative_to(root).parts[:-1]
        pairs += [(folder, text) for folder in above if folder in known][-1:]
    return pairs


def _divides_otherwise(found: Naming, root: Path, classes: Sequence[str]) -> bool:
    """Whether a table's classes are others than the folders', or it has parts for the same ones."""
    label = found.label()
    if label is None or len(set(found.found.values())) < _MOST * len(found.images.files):
        return False
    pairs = _of_folders(found, label, root, classes)
    folders, texts = ({pair[side] for pair in pairs} for side in (0, 1))
    if len(set(pairs)) == len(folders) == len(texts):
        return bool(found.parts(label))
    return len(texts) > 1 and not texts <= set(classes)


def warn_unused(root: Path, classes: Sequence[str]) -> None:
    """One warning where classes are taken from folders, and a table says otherwise of their images, or
    seems to name images that are not there."""
    found = _naming(root, None)
    if found is None:
        text = _stray(root)
        if text:
            warnings.warn(f"{text}; the classes are the folders' names", stacklevel=2)
        return
    others = [name for name in found.columns if name != found.named]
    label = found.label() or others[0] if others else ""
    pairs = _of_folders(found, label, root, classes) if found.label() else []
    differ = sum(folder != text for folder, text in pairs)
    if differ and {text for _, text in pairs} <= set(classes):
        said = f"names another class than the folder for {differ} of {len(pairs)} images"
    elif len(others) == 1 and not found.label():
        said = "may be one of classes"
    else:
        return
    warnings.warn(
        f"{found.table}: column {label} {said}; the classes are the folders' names: "
        f"--target {label} takes those of the column",
        stacklevel=2,
    )


def _stray(root: Path) -> str:
    """What a table's file names look like that are no image's; empty where there are none."""
    for table in _tables(root):
        try:
            columns = _columns(table)
        except InputError:
            continue
        for name, cells in columns.items():
            said = [cell for cell in cells if cell and cell.lower().endswith(IMAGES)]
            if len(said) > _MOST * len(cells):
                return f"{table}: names in column {name} are no images here, such as {said[0]!r}"
    return ""


def check_names(root: Path) -> None:
    """Errors: tables beside images that lie in no folders of classes, and none of them names the images."""
    tables = _tables(root)
    if tables and _naming(root, None) is None:
        raise _no_names(tables[0], NamedImages(root))


def _no_names(table: Path, images: NamedImages) -> InputError:
    """The error that shows what the table's names look like beside the files' names."""
    columns = _columns(table)
    like = {
        name: (sum((cell or "").lower().endswith(IMAGES) for cell in cells), len(set(cells)))
        for name, cells in columns.items()
    }
    name = max(like, key=lambda name: like[name], default="")
    first = next(filter(None, columns.get(name, ())), None)
    shown = f"; column {name} reads {first}" if first else ""
    example = f", such as {images.places[0]!r}" if images.places else ""
    return InputError(
        str(table),
        got=f"no column that names the images{shown}",
        expected=f"file names under {table.parent}{example}",
    )


# --- reading ---------------------------------------------------------------------------------------


def listed(
    root: Path, table: str | None, target: str | None
) -> tuple[tuple[str, ...], by_class.Listed]:
    """The classes, and the images of each part, each with the number of its class.

    ``table`` is its name in the folder; None: the one that names images. ``target`` is the column of
    classes, unless its name says so or no other is left; a column such as ``split`` that holds train,
    val and test divides them. Images that the table does not name are left out, and so are rows without an
    image or a class, with a warning.

    Errors: no such table in the folder, no column of file names or of classes.
    """
    found = _naming_in(root, table, target)
    label = _class_column(found, target)
    classes = _in_order({text for text in found.columns[label] if text is not None})
    _check_classes(classes, found, label)
    cells = list(zip(found.columns[found.named], found.columns[label], strict=True))
    parts = found.parts(label) or ["train"] * len(cells)
    number = {text: i for i, text in enumerate(classes)}
    rows: by_class.Listed = {part: [] for part in dict.fromkeys(parts)}
    for (name, text), part in zip(cells, parts, strict=True):
        if name in found.found and text is not None:
            rows[part].append((found.found[name], number[text]))
    _warn_left_out(found, label)
    return classes, rows


def _naming_in(root: Path, table: str | None, target: str | None) -> Naming:
    if table is None:
        found = _naming(root, target)
        if found is not None:
            return found
        if target is not None:
            raise InputError(
                "target",
                got=target,
                expected=f"a table in {root} that names images and has this column",
                repair="there is none: without a target its folders are the classes",
            )
    if table is None or Path(table).name != table or not (root / table).is_file():
        expected = f"the name of a table in {root} that names images"
        raise InputError("labels", got=table or "no such table", expected=expected)
    images = NamedImages(root)
    found = _read(root / table, images)
    if found is None:
        raise _no_names(root / table, images)
    return found


def _class_column(found: Naming, target: str | None) -> str:
    others = [name for name in found.columns if name != found.named]
    if target is not None:
        if target not in others:
            raise unknown(f"{found.table}: target", target, others)
        return target
    label = found.label()
    if label or len(others) == 1:
        return label or others[0]
    raise InputError(
        str(found.table),
        got=f"columns {', '.join(others) or 'of file names alone'}",
        expected="one that is the class",
        repair=f"--target {others[0]}" if others else "add a column of classes",
    )


def _in_order(classes: Iterable[str]) -> tuple[str, ...]:
    """Names of classes sorted: by number where all are numbers (2 before 10), else as texts."""
    try:
        numbers = {name: float(name) for name in classes}
    except ValueError:
        return tuple(sorted(classes))
    if not all(map(math.isfinite, numbers.values())):
        return tuple(sorted(classes))
    return tuple(sorted(numbers, key=lambda name: (numbers[name], name)))


def _check_classes(classes: Sequence[str], found: Naming, label: str) -> None:
    count = len(found.columns[label])
    if not 2 <= len(classes) <= max(2, count // 2):
        raise InputError(
            f"{found.table}: {label}",
            got=f"{len(classes)} different values in {count} rows",
            expected="two classes or more, each of several images",
            repair="to predict numbers, store images as x and numbers as y: numpy.savez, ravine train FILE.npz",
        )


def _warn_left_out(found: Naming, label: str) -> None:
    """One warning that counts names without an image, rows without a class and images without a name."""
    names, images = found.columns[found.named], found.images
    lost = [name for name in names if name is not None and name not in found.found]
    bare = sum(text is None for text in found.columns[label])
    used = set(found.found.values())
    pairs = zip(images.files, images.places, strict=True)
    unnamed = [place for file, place in pairs if file not in used]
    said = []
    if lost:
        said.append(f"{len(lost)} of {len(names)} names have no image, such as {lost[0]!r}")
    if bare:
        said.append(f"{bare} of {len(names)} rows have no {label}")
    if unnamed:
        count = f"{len(unnamed)} of {len(images.files)}"
        said.append(f"{count} images are not named, such as {unnamed[0]!r}")
    if said:
        warnings.warn(f"{found.table}: {'; '.join(said)}; they are left out", stacklevel=2)
