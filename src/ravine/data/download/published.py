"""Published data sets: found under the root, else fetched into the cache; the sha256 is that of
what is used."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ravine.data.download.cache import cache_root
from ravine.data.read import idx, npz
from ravine.errors import InputError
from ravine.storage import bounded
from ravine.storage.files import atomic

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_MIB = 1 << 20
_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_MNIST = {  # name: (sha256 of the uncompressed bytes, sha256 of the published .gz)
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
_CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_CIFAR10_RECORD = 1 + 3 * 32 * 32  # bytes
_CIFAR10_RECORDS = 10_000  # in each of the six files
_SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def _fetch(url: str, to: Path, *, sha256: str, limit: int) -> Path:
    from ravine.data.download.download import (
        fetch,
    )  # it brings a progress bar, which most runs do not need

    return fetch(url, to, sha256=sha256, limit=limit)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Read from scikit-learn's own file, as importing scikit-learn takes longer than training on
    them."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise InputError(
            "data.source",
            got="digits",
            expected="scikit-learn, which brings them",
            repair="install scikit-learn",
        )
    packed = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.array(
        [line.split(",") for line in gzip.decompress(packed.read_bytes()).decode().split()],
        dtype=np.float32,
    )
    return rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64)


def mnist(root: Path) -> dict[str, tuple[Any, Any]]:
    arrays = [_mnist_file(root, name) for name in _MNIST]
    return {"train": (arrays[0][:, None], arrays[1]), "test": (arrays[2][:, None], arrays[3])}


def _mnist_file(root: Path, name: str) -> np.ndarray:
    plain, packed = _MNIST[name]
    found = _first(
        root / folder / f"{name}{end}"
        for folder in ("mnist", "MNIST/raw", ".")
        for end in ("", ".gz")
    )
    path = found or _fetch(
        f"{_MNIST_URL}{name}.gz",
        cache_root() / "mnist" / f"{name}.gz",
        sha256=packed,
        limit=16 * _MIB,
    )
    data = idx.read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != plain:
        raise InputError(
            str(path),
            got=f"sha256 {digest}",
            expected=plain,
            repair="the file is not MNIST's or is damaged: remove it, and it is fetched again",
        )
    return idx.parse(data, path.name)


def cifar10(root: Path) -> dict[str, tuple[Any, Any]]:
    jpeg = _first([root / "cifar10-jpeg.npz"])
    if jpeg:
        return _cifar10_jpeg(jpeg)
    binary = _first([root / "cifar-10-batches-bin", root / "cifar10" / "cifar-10-batches-bin"])
    if binary:
        return _cifar10_parts(
            {f"{name}.bin": bounded.read_bytes(binary / f"{name}.bin") for name in _cifar10_names()}
        )
    packed = _first([root / "cifar-10-binary.tar.gz"])
    packed = packed or _fetch(
        _CIFAR10_URL,
        cache_root() / "cifar-10-binary.tar.gz",
        sha256=_CIFAR10_SHA256,
        limit=200 * _MIB,
    )
    with bounded.open_file(packed) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != _CIFAR10_SHA256:  # before any of it is unpacked
            repair = "remove it, and it is fetched again"
            raise InputError(
                str(packed), got=f"sha256 {digest}", expected=_CIFAR10_SHA256, repair=repair
            )
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            return _cifar10_parts({f"{n}.bin": _member(archive, n) for n in _cifar10_names()})


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """The content of a member; nothing is extracted to disk."""
    file = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
    assert file is not None, "the archive of that sha256 holds it"
    return file.read()


def _cifar10_names() -> list[str]:
    return [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def _cifar10_parts(blobs: dict[str, bytes]) -> dict[str, tuple[Any, Any]]:
    """Records of one label byte and 3072 pixel bytes, by channel and row."""
    for name, blob in blobs.items():
        if len(blob) != _CIFAR10_RECORDS * _CIFAR10_RECORD:
            raise InputError(
                name,
                got=f"{len(blob):,} bytes",
                expected=f"{_CIFAR10_RECORDS * _CIFAR10_RECORD:,}: {_CIFAR10_RECORDS:,} records",
                repair="the file is damaged",
            )
    records = np.concatenate(
        [np.frombuffer(blob, np.uint8).reshape(-1, _CIFAR10_RECORD) for blob in blobs.values()]
    )
    x, y = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)
    train = 5 * _CIFAR10_RECORDS
    return {"train": (x[:train], y[:train]), "test": (x[train:], y[train:])}


def _cifar10_jpeg(path: Path) -> dict[str, tuple[Any, Any]]:
    """The JPEG form: ``{train,test}_bytes`` joined, ``_ends``, ``_labels``; its pixels are kept in
    the cache."""
    stat = path.stat()
    mark = hashlib.sha256(
        f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()
    ).hexdigest()[:16]
    stored, pairs = npz.read(path), {}
    for part in ("train", "test"):
        names = [f"{part}_{what}" for what in ("bytes", "ends", "labels")]
        fits = all(name in stored and stored[name].ndim == 1 for name in names)
        if not fits or len(stored[names[1]]) != len(stored[names[2]]):
            expected = f"arrays {', '.join(names)}, an end and a label for each image"
            raise InputError(str(path), expected=expected)
        kept = cache_root() / f"cifar10-jpeg-{mark}-{part}.npy"
        labels = stored[names[2]].astype(np.int64)
        pixels = _decoded(kept, len(labels))
        pairs[part] = (_decode(stored, part, kept) if pixels is None else pixels, labels)
    return pairs


def _decoded(kept: Path, count: int) -> np.ndarray | None:
    """The pixels of so many images, if they were kept and are whole."""
    with suppress(OSError, ValueError):
        found = np.load(kept, mmap_mode="r", allow_pickle=False)
        return found if found.shape == (count, 3, 32, 32) else None
    return None


def _decode(stored: Any, part: str, kept: Path) -> np.ndarray:
    from rich.progress import track

    from ravine.data.read.images import load
    from ravine.terminal import console

    joined, ends = stored[f"{part}_bytes"], stored[f"{part}_ends"]
    files = [joined[start:end].tobytes() for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    pixels = np.empty((len(files), 3, 32, 32), np.uint8)
    shown: dict[str, Any] = {
        "description": f"decoding CIFAR-10 ({part}), once",
        "console": console(),
        "transient": True,
    }
    for start in track(range(0, len(files), 1000), **shown):
        some, broken = load(files[start : start + 1000], "RGB", (32, 32))
        if broken:
            raise InputError(
                "cifar10-jpeg.npz",
                got=f"image {start + broken[0]}, which cannot be read",
                expected="JPEG",
            )
        pixels[start : start + 1000] = some.numpy()
    with suppress(OSError), atomic(kept) as partial, partial.open("wb") as file:
        np.save(
            file, pixels, allow_pickle=False
        )  # a cache that cannot be written costs time, nothing else
    return pixels


def shakespeare(root: Path) -> Path:
    found = _first([root / "tinyshakespeare.txt"])
    return found or _fetch(
        _SHAKESPEARE_URL,
        cache_root() / "tinyshakespeare.txt",
        sha256=_SHAKESPEARE_SHA256,
        limit=4 * _MIB,
    )


def _first(candidates: Any) -> Path | None:
    """The first candidate that is there; where the root is not the cache, the cache is looked at by
    ``fetch``."""
    return next((path for path in candidates if path.exists()), None)
