"""Real data: sets that come with scikit-learn, sets that are downloaded once, and users' own files.

Every function here is a technique: it receives ``root``, where data are looked for
(``RAVINE_DATA``, else the cache), and gives a ``Source``. Relative paths are looked for in the
working directory, under ``root``, and where a run that is opened was begun.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ravine.catalogue import Columns, Count, Flag, Pair, Text
from ravine.data.download import published
from ravine.data.objects.pairs import from_pairs
from ravine.data.read import formats
from ravine.data.read import texts as by_words
from ravine.data.read.formats import find
from ravine.data.source import Source
from ravine.errors import InputError


def digits(root: Path) -> Source:
    """Handwritten digits of scikit-learn: 1,797 images [1, 8, 8] with values 0 to 16, 10 classes;
    no download.

    >>> digits(Path()).parts["train"].x.shape
    torch.Size([1797, 1, 8, 8])

    Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998).
    """
    return from_pairs({"train": published.digits()})


def mnist(root: Path) -> Source:
    """MNIST: 60,000 + 10,000 images of handwritten digits, uint8 [1, 28, 28], 10 classes.

    Found under ``root`` (mnist/train-images-idx3-ubyte, plain or .gz), else downloaded. Source:
    LeCun, Cortes, Burges 1998.

    Errors: the files are not found and cannot be downloaded.

    >>> mnist(Path("data")).parts["test"].x.shape  # doctest: +SKIP
    torch.Size([10000, 1, 28, 28])
    """
    return from_pairs(published.mnist(root), classes=tuple("0123456789"))


def cifar10(root: Path) -> Source:
    """CIFAR-10: 50,000 + 10,000 photographs, uint8 [3, 32, 32], 10 classes.

    Found under ``root``: the original's binary files (cifar-10-binary.tar.gz or its folder), or
    cifar10-jpeg.npz, the same images as JPEG; else downloaded. Source: Krizhevsky 2009.

    Errors: the files are not found and cannot be downloaded.

    >>> cifar10(Path("data")).parts["test"].x.shape  # doctest: +SKIP
    torch.Size([10000, 3, 32, 32])
    """
    return from_pairs(published.cifar10(root), classes=published.CIFAR10_CLASSES)


def shakespeare(root: Path, *, length: Count = 64) -> Source:
    """Tiny Shakespeare: 1,115,394 characters, windows of ``length`` with the next character as
    target at each step.

    Found under ``root`` (tinyshakespeare.txt), else downloaded. Source: Karpathy 2015.

    Errors: the file is not found and cannot be downloaded.

    >>> shakespeare(Path("data"), length=100).task  # doctest: +SKIP
    'sequence'
    """
    return formats.from_text(published.shakespeare(root), length)


def text(root: Path, *, path: Text, length: Count = 64) -> Source:
    """A text file (UTF-8, UTF-16 or Latin-1): windows of ``length`` characters with the next
    character as target at each step.

    Training, validation and test are contiguous pieces, in this order. The vocabulary is that of
    the training piece; token 0 means a character that it does not have. In training the windows
    begin at another place each epoch.

    ``path`` is the file.

    Errors: the file is missing, or cannot be read as such (UTF-8); fewer characters than one
    window.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     _ = (Path(place) / "a.txt").write_text("to be or not to be")
    ...     text(Path(place), path="a.txt", length=4).task
    'sequence'
    """
    return formats.from_text(find(path, root, "a text file"), length)


def folder(
    root: Path,
    *,
    path: Text,
    size: Pair | None = None,
    mode: Literal["auto", "gray", "rgb"] = "auto",
    fit: Literal["pad", "crop", "stretch"] = "pad",
    labels: Text | None = None,
    target: Text | None = None,
) -> Source:
    """Images by class: PATH/CLASS/*.png (any format that Pillow reads), or PATH/train/CLASS/…, with
    val and test beside train or such folders within each class; or the images that a table names.

    ``labels`` is that table's name in PATH, and ``target`` its column of classes (default: what is
    called class, label, … or the only one beside the file names). A column ``split`` of train, val
    and test divides them.

    uint8 [C, height, width]. All are resized to ``size`` (default: the median of the training images, made
    smaller where a side is over 256 pixels). ``fit`` pad keeps the shape of what an image shows and
    fills the rest with the mean colour of its border; crop cuts off what does not fit; stretch
    changes the shape. ``mode``: auto is gray where all are gray, else RGB. Files
    that cannot be read are named in one warning and left out. Transparent parts become one colour, and
    numbers of more than 8 bits are scaled by one range, for all images of the set and new ones.

    ``mode`` decides the channels.

    Errors: no such folder, or no images in it by class; a table without a column of file names or
    of classes.

    >>> from PIL import Image
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     for name in ("cat", "dog"):
    ...         (Path(place) / name).mkdir()
    ...         Image.new("RGB", (6, 4)).save(Path(place) / name / "1.png")
    ...     folder(Path(), path=place).classes
    ('cat', 'dog')
    """
    from ravine.data.read import folders

    place = find(path, root, "a folder", folder=True)
    return folders.load(place, size, mode, fit, labels, target)


def shards(
    root: Path,
    *,
    path: Text,
    task: Literal["auto", "classification", "regression"] = "auto",
    size: Pair | None = None,
    fit: Literal["pad", "crop", "stretch"] = "pad",
) -> Source:
    """Tar files as WebDataset has them: neighbouring files of one name are a sample, such as
    0001.jpg and 0001.cls.

    The input is an image, resized as by ``folder``, or an array (.npy); the target stands in .cls
    (a number or a name), .txt, or the field label, class, cls, target or y of a .json. ``path`` is one
    file, or a folder: train-*.tar or train/*.tar, with val and test beside it, or all for training.
    What does not fit into memory is decoded once, to a file in the cache; the order and the bits
    are those of rows in memory.

    ``size`` and ``fit`` are those of ``folder``; ``task`` says what the targets are.

    Errors: no such file, a compressed tar file, an input without a target.

    >>> import io, tarfile
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> def add(tar, name, content):
    ...     info = tarfile.TarInfo(name)
    ...     info.size = len(content)
    ...     tar.addfile(info, io.BytesIO(content))
    >>> with TemporaryDirectory() as place:
    ...     with tarfile.open(Path(place) / "a.tar", "w") as tar:
    ...         for i in range(4):
    ...             held = io.BytesIO()
    ...             np.save(held, np.ones(3))
    ...             add(tar, f"{i}.npy", held.getvalue())
    ...             add(tar, f"{i}.cls", b"cat" if i % 2 else b"dog")
    ...     shards(Path(place), path="a.tar").classes
    ('cat', 'dog')

    Source: Aizman, Maltby and Breuel, "High performance I/O for large scale deep learning", 2019.
    """
    from ravine.data.read import shards as tars

    return tars.load(
        find(path, root, "a tar file or a folder of them", folder=None), task, size, fit
    )


def parquet(
    root: Path,
    *,
    path: Text,
    target: Text | None = None,
    drop: tuple[Text, ...] = (),
    task: Literal["auto", "classification", "regression"] = "auto",
    size: Pair | None = None,
    fit: Literal["pad", "crop", "stretch"] = "pad",
) -> Source:
    """Parquet and Arrow files (.parquet, .arrow, .feather): columns of numbers, or one column of lists of
    numbers or of images.

    ``path`` is one file, or a folder: train-*.parquet or train/*.parquet, with val and test beside it, or
    all for training. ``target`` is the column to predict (default: one called target, label, class
    or y, else the last); columns in ``drop`` are not used. Images are bytes, or a structure that holds
    bytes, as Hugging Face writes them; ``size`` and ``fit`` are those of ``folder``. Numbers of at most 32
    bits and whole numbers of at most 16 become float32, else all become float64. What does not fit
    into memory is decoded once, to a file in the cache; the order and the bits are those of rows in
    memory. It needs pyarrow: ``pip install 'ravine[parquet]'``.

    ``task`` says what the targets are.

    Errors: no such file, missing values, columns of text (``csv`` reads such files).

    >>> import pandas
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     table = pandas.DataFrame({"size": [1.0, 2.0], "price": [0.5, 1.5]})
    ...     table.to_parquet(Path(place) / "a.parquet")
    ...     parquet(Path(place), path="a.parquet").task
    'regression'
    """
    from ravine.data.read import parquet as tables

    found = find(path, root, "a Parquet file or a folder of them", folder=None)
    return tables.load(found, target, drop, task, size, fit)


def texts(
    root: Path,
    *,
    path: Text,
    length: Count | None = None,
    ngrams: Count | None = None,
    subwords: Flag = False,
    buckets: Count | None = None,
) -> Source:
    """Texts by class: PATH/CLASS/*.txt (.md, .text, or no ending), or PATH/train/CLASS/…, with val and
    test beside train or such folders within each class.

    A text becomes whole numbers [ngrams * length]: its first ``length`` words and marks in lower
    case (of scripts without spaces letters and pairs of them; default: what 95 % of the training
    texts have, at most 512), then the pairs of neighbours, and so on up to ``ngrams`` together
    (default: words alone, from 5,000 training texts on pairs too). With ``subwords`` the runs of 3 to 5
    letters within those words follow, their ends marked, by which misspelt and compound words are like
    others: as many as 95 % of the training texts have, at most 2,048. They are for models that ask for
    no order, such as ``word_bag``. Each is hashed (CRC-32) into ``buckets`` tokens (default: 16,384,
    with subwords 65,536), so that nothing is fitted and new words have a token too; 0 pads shorter
    texts.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     for name, words in (("calm", "a quiet day"), ("loud", "a shout!")):
    ...         (Path(place) / name).mkdir()
    ...         _ = (Path(place) / name / "1.txt").write_text(words)
    ...     texts(Path(), path=place, ngrams=1).classes
    ('calm', 'loud')

    Source: Joulin et al., "Bag of tricks for efficient text classification", 2017; subwords:
    Bojanowski et al., "Enriching word vectors with subword information", 2017; hashing: Weinberger
    et al., 2009.
    """
    folder = find(path, root, "a folder", folder=True)
    return by_words.load(folder, length, ngrams, subwords, buckets)


def csv(
    root: Path,
    *,
    path: Text,
    target: Text | tuple[Text, ...] | None = None,
    drop: tuple[Text, ...] = (),
    task: Literal["auto", "classification", "regression"] = "auto",
    categorical: Literal["one_hot", "index"] = "one_hot",
    columns: Columns | None = None,
) -> Source:
    """A table: one row a sample. Encoding, separator and header are found from the file.

    ``path`` is text (.csv, .tsv, also packed by gzip), a spreadsheet (.xlsx: the first visible sheet that
    has rows), JSON Lines (.jsonl: one object a line), or a Parquet or Arrow file of numbers, texts and
    dates (with ``ravine[parquet]``).

    ``target`` is the column to predict (default: one called target, label, class or y, else the
    last), or several for a regression; columns in ``drop`` are not used. ``task`` is classification
    where the target is text, a flag, or at most 20 different whole numbers, else regression.

    What each other column holds is decided by all its values, and ``ravine data`` shows it: a
    number (marks of thousands and decimals by the whole column; units, currency and per cent signs
    are taken off; rare words such as unknown are missing values), several numbers (120/80), a
    category, a date (year, month, weekday, days since 1970, and the hour where there are times), a
    flag (yes and no in any spelling), a text (hashed words and letters), an identifier or a constant (both left out).
    A copy of the target, in whatever units or names, is left out with a warning; a column that
    determines the target without being a copy is named and kept. ``columns`` decides otherwise:
    ``columns.price = "number 1.234,5"``, ``columns.day = "date d/m/Y"``. The rows of a column that is
    set as ``group`` (a patient, a customer) stay together in one part; of a column that is set as
    ``order`` (a day, a year) the last rows are the test part, those before them the validation part.
    Both are no inputs.

    A missing number (an empty cell, NA, NaN, null, none, ?) becomes the median of the training
    part; beside each column of which the training part misses some a flag says where. Categories
    are one-hot or an index (``categorical``). A category that the training part does not have
    gives zeros; in a column of more than 20 so does one that occurs fewer than five times. Raises InputError for files that are
    no table, for rows of unequal length, and for targets that are missing in more than a fifth of
    the rows; fewer are left out.

    ``task`` overrides the rule above; ``categorical`` is one_hot, or index: the category's
    number.

    Errors: the file is missing, or cannot be read as such; a column in ``target`` or ``drop``
    that the table does not have.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     _ = (Path(place) / "a.csv").write_text("size,colour,price\\n1,red,0.5\\n2,blue,2.5\\n")
    ...     csv(Path(place), path="a.csv").task
    'regression'
    """
    from ravine.data.tables.load import from_csv

    found = find(path, root, "a table")
    return from_csv(found, target, task, categorical, drop, columns or {})


def npz(
    root: Path,
    *,
    path: Text,
    task: Literal["auto", "classification", "regression", "multilabel", "sequence"] = "auto",
) -> Source:
    """NumPy arrays in one file: x and y, or x_train and y_train with x_val, y_val, x_test, y_test
    as there are.

    Bytes stay bytes; targets are read as for arrays given in Python.

    ``path`` is the file; ``task`` says what the targets are, auto goes by their type and shape.

    Errors: the file is missing, or cannot be read as such; it lacks x and y; ``task`` does not
    fit the targets.

    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> with TemporaryDirectory() as place:
    ...     np.savez(Path(place) / "a.npz", x=np.eye(4), y=[0, 1, 0, 1])
    ...     npz(Path(place), path="a.npz").classes
    ('0', '1')
    """
    return formats.from_npz(find(path, root, "an npz file"), task)


def idx(root: Path, *, path: Text, labels: Text | None = None) -> Source:
    """IDX files, plain or gzip: a folder with MNIST's four names, or an images file and its
    ``labels``.

    Without ``labels`` the name is made from that of the images: images-idx3 becomes labels-idx1.

    ``path`` is the file or folder.

    Errors: the file is missing, or cannot be read as such.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     _ = (Path(place) / "x-images-idx3").write_bytes(bytes([0, 0, 8, 3, *(0, 0, 0, 2) * 3, *range(8)]))
    ...     _ = (Path(place) / "x-labels-idx1").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]))
    ...     idx(Path(place), path="x-images-idx3").parts["train"].x.shape
    torch.Size([2, 1, 2, 2])
    """
    return formats.from_idx(
        find(path, root, "an IDX file or a folder of them", folder=None), labels, root
    )


def arrays(
    root: Path,
    *,
    task: Literal[
        "auto", "classification", "binary", "regression", "multilabel", "sequence"
    ] = "auto",
) -> Source:
    """What is given in Python: ``train(data=(x, y))``; a recipe alone cannot hold it.

    ``task`` says what the targets are; auto goes by their type and shape: whole numbers are
    classes, fractions a regression. binary, which a binary cross-entropy sets, reads one column of
    fractions that are all 0 or 1 as two classes too.

    Errors: always, in a recipe that is trained without ``data``.
    """
    raise InputError(
        "data.source",
        got="arrays",
        expected="data given in Python: train(..., data=(x, y))",
        repair="on the command line use npz:PATH, csv:PATH or folder:PATH",
    )
