# ruff: noqa: E501
"""Files that somebody made to do harm, for every reader: ``files(folder)`` writes them and names, for
each, the reader that is to refuse it (or to read what is harmless in it) in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import os
import random
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

DEEP = 100_000
Case = tuple[str, str, Path]  # name, reader, file


def npy(header: str, body: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin1")
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


def described(shape: str, kind: str = "<f8") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


def zipped(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def shard(members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return out.getvalue()


def png(width: int, height: int, rows: bytes = b"", extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """So many zeros, packed by deflate, without holding them."""
    packer, out = zlib.compressobj(9), []
    for _ in range(size >> 20):
        out.append(packer.compress(bytes(1 << 20)))
    return b"".join([*out, packer.flush()])


def gzip_zeros(size: int, head: bytes = b"") -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as file:
        file.write(head)
        for _ in range(size >> 20):
            file.write(b"1" * (1 << 20))
    return out.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touched) print\n%%EOF\n"
SETTINGS = {  # texts of recipes, for TOML and for JSON
    "deep list": ("x = " + "[" * DEEP + "]" * DEEP, "[" * DEEP + "]" * DEEP),
    "deep table": ("x = " + "{a=" * 5000 + "1" + "}" * 5000, '{"a":' * DEEP + "1" + "}" * DEEP),
    "deep list of 500": (
        "name = " + "[" * 500 + "]" * 500,
        '{"name":' + "[" * 500 + "]" * 500 + "}",
    ),
    "deep model": (
        "model = " + "{layers=[" * 60 + "]}" * 60,
        '{"model":' + '{"layers":[' * 300 + "]}" * 300 + "}",
    ),
    "deep name": ("a." * DEEP + "b = 1", '{"name": {}}'),
    "deep heading": ("[" + "a." * DEEP + "b]", '["x"]'),
    "long integer": ("seed = " + "9" * 5000, '{"seed": ' + "9" * 5000 + "}"),
    "integer of 4000": ("seed = " + "9" * 4000, '{"seed": ' + "9" * 4000 + "}"),
    "integer of 200": ("seed = " + "9" * 200, '{"seed": ' + "9" * 200 + "}"),
    "long float": ("seed = 1e99999", '{"seed": 1e99999}'),
    "long rate": (
        "[optimizer]\nkind='sgd'\nlr = " + "9" * 250,
        '{"optimizer": {"kind": "sgd", "lr": ' + "9" * 250 + "}}",
    ),
    "not a number": ("seed = nan", '{"seed": NaN}'),
    "date": ("seed = 1979-05-27T07:32:00Z", '{"seed": "1979-05-27"}'),
    "date as name": ("name = 1979-05-27", '{"name": null}'),
    "text cut": ('name = "a', '{"name": "a'),
    "zero byte": ('name = "a\x00b"', '{"name": "a\\u0000b"}'),
    "half a surrogate": ('name = "\\uD800"', '{"name": "\\ud800"}'),
    "a list": ("[[x]]\n" * 10, "[1, 2]"),
    "a number": ("1", "1"),
    "nothing": ("\x01", ""),
    "name of 2 MB": ('name = "' + "a" * (2 << 20) + '"', '{"name": "' + "a" * (2 << 20) + '"}'),
    "name of 200 KB": ('name = "' + "a" * 200_000 + '"', '{"name": "' + "a" * 200_000 + '"}'),
    "unknown kind of 100 KB": (
        'model = "' + "a" * 100_000 + '"',
        '{"model": "' + "a" * 100_000 + '"}',
    ),
    "many keys": (
        "\n".join(f"k{i} = 1" for i in range(20_000)),
        "{" + '"a":1,' * 20_000 + '"b":2}',
    ),
    "list for a table": ("optimizer = [1, 2]", '{"optimizer": [1, 2]}'),
    "table for a number": ("seed = {a = 1}", '{"seed": {"a": 1}}'),
    "kind that is a list": ("model = {kind = [1]}", '{"model": {"kind": [1]}}'),
    "kind that is a table": ("model = {kind = {a = 1}}", '{"model": {"kind": {"a": 1}}}'),
    "duration of 5000 digits": (
        "[stop]\nafter = '" + "9" * 5000 + "ep'",
        '{"stop": {"after": "' + "9" * 5000 + 'ep"}}',
    ),
    "duration of 4000 digits": (
        "[stop]\nafter = '" + "9" * 4000 + "ep'",
        '{"stop": {"after": "' + "9" * 4000 + 'it"}}',
    ),
    "own of a path": ("model = 'own:../../x'", '{"loss": "own:/etc/passwd"}'),
    "source of a zero": (
        "[data]\nsource = 'csv:a\\u0000b'",
        '{"data": {"source": "csv:a\\u0000b"}}',
    ),
}
TABLES = {
    "cell of 200,000": b'a,b\n"' + b"x" * 200_000 + b'",1\n' + b"1,2\n" * 20,
    "first cell of 200,000": b"x" * 200_000 + b",b\n1,2\n2,3\n",
    "unclosed quote": b'a,b\n"1,2\n' + b"3,4\n" * 50_000,
    "unclosed quote in the header": b'"a,b\n' + b"3,4\n" * 100_000,
    "unclosed quote at the end": b"a,b\n" + b"3,4\n" * 100_000 + b'"5,6\n',
    "zero bytes": b"a,b\n1,\x002\n" * 10,
    "long line": b"1," * 100_000 + b"\n",
    "many quotes": b'"' * 100_000 + b"\n",
    "integers of 5000 digits": b"a,b\n" + (b"9" * 5000 + b",1\n") * 10,
    "numbers beyond floats": b"a,b\n" + b"1e999,1\n-1e999,2\n" * 10,
    "only separators": b",,,,\n" * 1000,
    "carriage returns": b"\r" * 100_000,
    "utf-16 cut": b"\xff\xfea\x00,",
    "utf-32 wrong": b"\xff\xfe\x00\x00" + b"\xff" * 40,
    "dates beyond the calendar": b"a,b\n" + b"99999-99-99,1\n0000-00-00,2\n" * 20,
    "gzip cut": gzip.compress(b"a,b\n1,2\n" * 1000)[:-20],
    "gzip of nothing": gzip.compress(b""),
    "gzip that lies": gzip.compress(b"a,b\n1,2\n" * 1000)[:-4] + b"\xff\xff\xff\xff",
    "names of 1e6": b"n" * 1_000_000 + b",b\n1,2\n2,3\n",
    "[/red] in names": b"[/red],[b]\n" + b"1,2\n2,3\n" * 10,
    "spaces": b" " * 100_000 + b"1 2 3\n" * 10,
}
IDX = {
    "rank 255": bytes([0, 0, 8, 255]) + b"\0\0\0\1" * 255 + b"\0",
    "rank 33": bytes([0, 0, 8, 33]) + b"\0\0\0\1" * 33 + b"\0",
    "shape of 2e19": bytes([0, 0, 14, 2]) + b"\xff" * 8,
    "no header": b"\0\0\x08",
    "zero size": bytes([0, 0, 8, 3]) + bytes(12),
    "type 0": bytes([0, 0, 0, 1, 0, 0, 0, 1, 0]),
}
ARRAYS = {
    "shape of 1e15": npy(described("(1000000000000000,)")),
    "shape of 1e30": npy(described("(1000000000000000, 1000000000000000)")),
    "shape of 100 axes": npy(described("(" + "1," * 100 + ")"), bytes(8)),
    "negative shape": npy(described("(-1, 4)"), bytes(32)),
    "shape of texts": npy(described("('a',)"), bytes(32)),
    "deep header": npy("(" * 4000 + ")" * 4000),
    "objects": npy(described("(1,)", "|O"), b"cos\nsystem\n(S'touch touched'\ntR."),
    "unknown kind": npy(described("(1,)", "<q9"), bytes(8)),
    "kind of fields": npy(
        "{'descr': [('a', '<f8'), ('b', 'O')], 'fortran_order': False, 'shape': (1,)}", bytes(16)
    ),
    "texts of 1e9": npy(described("(1,)", "<U1000000000"), bytes(8)),
    "empty texts": npy(described("(1000000000000,)", "<U0")),
    "code": npy("__import__('os').system('touch touched')"),
    "cut": npy(described("(4, 4)"), bytes(100)),
    "version 9": b"\x93NUMPY\x09\x00" + bytes(100),
    "long header": npy(described("(1,)") + " " * 3_000_000, bytes(8), version=2),
}
IMAGES = {
    "EPS": EPS,
    "EPS of DOS": b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS,
    "postscript": b"%!PS\n(touched) print\n",
    "PDF": b"%PDF-1.4\n",
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "GRIB": b"GRIB" + bytes(4) + b"\x01" + bytes(40),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "size of 4e9": png(65_000, 65_000, zlib.compress(b"")),
    "size of 1e18": png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
    "size of zero": png(0, 0),
    "PPM of 4e9": b"P6 65000 65000 255\n" + bytes(100),
    "PPM of a word": b"P6 " + b"9" * 10_000 + b" 1 255\n",
    "BMP of 4e9": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 154, 0, 0, 54, 40, 65000, 65000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100),
    "GIF of 4e9": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x00\x00\x00," + struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\x00\x02\x02\x44\x01\x00;",
    "TIFF of itself": b"II*\x00\x08\x00\x00\x00\x01\x00\x00\x01\x03\x00\x01\x00\x00\x00\xff\xff\x00\x00\x08\x00\x00\x00",
    "ICO of a PNG": struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 1, 1, 0, 0, 1, 32, 80, 22) + png(30_000, 30_000),
    "nothing": b"",
    "text of 1e8 in a chunk": png(4, 4, b"", struct.pack(">I", 20) + b"zTXtcomment\0\0" + zlib.compress(bytes(8))),
}  # fmt: skip
TEXTS = {
    "no UTF-8": b"\xff\xfe\xff" * 100,
    "half a surrogate": b"a" + b"\xed\xa0\x80" * 200,
    "zeros": bytes(10_000),
    "control characters": bytes(range(32)) * 100,
    "[/red]": b"[/red] [bold" * 100,
    "nothing": b"",
}


def bombs(folder: Path) -> Iterator[Case]:
    """Small files that would take gigabytes."""
    line = zeros(600 << 20)
    yield from _write(folder, "bomb", {
        ("image", "1.png"): png(14_000, 14_000, line),
        ("npz", "zeros.npz"): _zip_zeros(600 << 20),
        ("csv", "ones.csv.gz"): gzip_zeros(900 << 20, b"a,b\n"),
        ("idx", "idx3-ubyte.gz"): gzip_zeros(900 << 20, bytes([0, 0, 8, 1, 0xA2, 0x80, 0, 0])),
        ("weights", "zeros.pt"): _zip_zeros(600 << 20, "archive/data.pkl"),
    })  # fmt: skip


def _zip_zeros(size: int, name: str = "x.npy") -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as file,
    ):
        file.write(npy(described(f"({size},)", "|u1")))
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return out.getvalue()


def _write(folder: Path, group: str, contents: dict[tuple[str, str], bytes]) -> Iterator[Case]:
    for number, ((reader, name), content) in enumerate(contents.items()):
        place = folder / group / str(number) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        yield f"{group}: {name} {number}", reader, place


def files(folder: Path) -> Iterator[Case]:
    """The closed list of harm by hand."""
    groups: dict[str, dict[tuple[str, str], bytes]] = {
        "toml": {("recipe", f"{n}.toml"): t.encode() for n, (t, _) in _safe(SETTINGS)},
        "json": {("recipe", f"{n}.json"): t.encode() for n, (_, t) in _safe(SETTINGS)},
        "table": {("csv", f"{n}.csv"): t for n, t in _safe(TABLES)},
        "idx": {("idx", f"{n}-idx3"): t for n, t in _safe(IDX)},
        "npy": {("npz", f"{n}.npy"): t for n, t in _safe(ARRAYS)},
        "npz": {("npz", f"{n}.npz"): zipped({"x.npy": t, "y.npy": t}) for n, t in _safe(ARRAYS)},
        "image": {("image", f"{n}.png"): t for n, t in _safe(IMAGES)},
        "text": {("text", f"{n}.txt"): t for n, t in _safe(TEXTS)},
        "weights": {
            ("weights", "code.pt"): zipped({"archive/data.pkl": b"cos\nsystem\n(S'touch touched'\ntR."}),
            ("weights", "legacy.pt"): b"\x80\x02cos\nsystem\nq\x00X\x05\x00\x00\x00touchq\x01\x85q\x02R.",
            ("weights", "empty.safetensors"): b"",
            ("weights", "header.safetensors"): struct.pack("<Q", 1 << 60) + b"{}",
            ("weights", "deep.safetensors"): struct.pack("<Q", 20_000) + b"[" * 20_000,
            ("weights", "lies.safetensors"): _safetensors('{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,8]}}', 8),
            ("weights", "cut.pt"): zipped({"archive/data.pkl": b""})[:-10],
        },
        "zip": {
            ("npz", "cut.npz"): zipped({"x.npy": npy(described("(1,)"), bytes(8))})[:-9],
            ("npz", "names.npz"): zipped({"../../x.npy": npy(described("(1,)"), bytes(8))}),
            ("npz", "text.npz"): zipped({"x": b"no array"}),
            ("npz", "none.npz"): zipped({}),
            ("npz", "password.npz"): _locked(zipped({"x.npy": npy(described("(1,)"), bytes(8))})),
            ("npz", "packing.npz"): _packing(zipped({"x.npy": npy(described("(1,)"), bytes(8))})),
        },
    }  # fmt: skip
    for group, contents in groups.items():
        yield from _write(folder, group, contents)
    yield from places(folder)


def places(folder: Path) -> Iterator[Case]:
    """Names behind which no regular file lies."""
    ends = {"recipe": ".toml", "csv": ".csv", "npz": ".npz", "text": ".txt", "idx": "-idx3", "weights": ".pt", "image": ".png"}  # fmt: skip
    root = folder / "places"
    root.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)  # the name of a socket is short
        listener.bind("s")
        os.chdir(here)
    for reader, end in ends.items():
        os.mkfifo(root / f"fifo{end}")
        yield f"fifo for {reader}", reader, root / f"fifo{end}"
        (root / f"zero{end}").symlink_to("/dev/zero")
        yield f"/dev/zero for {reader}", reader, root / f"zero{end}"
        (root / f"loop{end}").symlink_to(root / f"loop{end}")
        yield f"a link to itself for {reader}", reader, root / f"loop{end}"
        (root / f"socket{end}").symlink_to(root / "s")
        yield f"a socket for {reader}", reader, root / f"socket{end}"
        (root / f"folder{end}").mkdir()
        yield f"a folder for {reader}", reader, root / f"folder{end}"
        yield f"a name of 300 letters for {reader}", reader, root / ("n" * 300 + end)
        yield f"a path of 5000 letters for {reader}", reader, root / ("n/" * 2500 + end)
        yield f"a zero in the name for {reader}", reader, root / f"a\0b{end}"
        yield f"[/red] for {reader}", reader, root / f"[/red]{end}"


def _safe(table: dict) -> list:
    return [(name.replace("/", "-"), content) for name, content in table.items()]


def _safetensors(header: str, size: int) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + bytes(size)


def _locked(data: bytes) -> bytes:
    """The mark of a password, in the local header and in the directory."""
    out = bytearray(data)
    out[6] |= 1
    out[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(out)


def _packing(data: bytes) -> bytes:
    out = bytearray(data)
    out[8] = out[data.index(b"PK\x01\x02") + 10] = 97
    return bytes(out)


def mutated(seeds: list[Case], folder: Path, count: int, seed: int = 0) -> Iterator[Case]:
    """Sound files with bytes changed, removed, doubled."""
    draw = random.Random(seed)
    for number in range(count):
        name, reader, path = seeds[number % len(seeds)]
        data = bytearray(path.read_bytes())
        for _ in range(draw.choice((1, 2, 8, 40))):
            if not data:
                break
            at, kind = draw.randrange(len(data)), draw.randrange(5)
            if kind == 0:
                data[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                data[at] = draw.choice((0, 255, 127, 0x5B, 0x7B, 0x22))
            elif kind == 2:
                del data[at : at + draw.choice((1, 4, 100))]
            elif kind == 3:
                data[at:at] = data[at : at + draw.choice((1, 4, 100))]
            else:
                data[at : at + 4] = struct.pack(
                    "<I", draw.choice((0, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 16))
                )
        place = folder / f"m{number}" / path.name
        place.parent.mkdir(parents=True)
        place.write_bytes(bytes(data))
        yield f"{name}, changed {number}", reader, place


def sound(folder: Path) -> list[Case]:
    """One small sound file for each reader, to be changed."""
    import pandas
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 3)), np.arange(40) % 2
    found: dict[str, tuple[str, Callable[[Path], object]]] = {
        "r.toml": ("recipe", lambda p: p.write_text('name = "a"\nseed = 3\n[optimizer]\nkind = "adam"\nlr = 0.01\n[model]\nlayers = ["flatten", {kind = "dense", units = 10}]\n')),
        "r.json": ("recipe", lambda p: p.write_text('{"name": "a", "optimizer": {"kind": "sgd", "lr": 0.1}, "model": {"kind": "mlp", "hidden": [8, 8]}}')),
        "t.csv": ("csv", lambda p: p.write_text("a,b,day,y\n" + "".join(f'{i * 0.5},"x{i % 3}",2024-01-{i % 28 + 1:02},{i % 2}\n' for i in range(60)))),
        "g.csv.gz": ("csv", lambda p: p.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n2,3\n3,4\n" * 20))),
        "t.xlsx": ("csv", lambda p: pandas.DataFrame({"a": x[:, 0], "b": [f"x{i % 3}" for i in range(40)], "y": y}).to_excel(p, index=False)),
        "u.parquet": ("csv", lambda p: pandas.DataFrame({"a": x[:, 0], "b": [f"x{i % 3}" for i in range(40)], "y": y}).to_parquet(p)),
        "a.npz": ("npz", lambda p: np.savez(p, x=x, y=y)),
        "c.npz": ("npz", lambda p: np.savez_compressed(p, x=x, y=y)),
        "x.npy": ("npz", lambda p: np.save(p, x)),
        "i-idx3": ("idx", lambda p: p.write_bytes(bytes([0, 0, 8, 3, *(0, 0, 0, 4) * 3, *range(64)]))),
        "p.png": ("image", lambda p: Image.fromarray(draw.integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(p)),
        "p.jpg": ("image", lambda p: Image.fromarray(draw.integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(p)),
        "p.gif": ("image", lambda p: Image.fromarray(draw.integers(0, 255, (9, 7), dtype=np.uint8)).save(p)),
        "p.tif": ("image", lambda p: Image.fromarray(draw.integers(0, 255, (9, 7), dtype=np.uint8)).save(p)),
        "p.bmp": ("image", lambda p: Image.fromarray(draw.integers(0, 255, (9, 7), dtype=np.uint8)).save(p)),
        "p.webp": ("image", lambda p: Image.fromarray(draw.integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(p)),
        "t.txt": ("text", lambda p: p.write_text("to be or not to be " * 20)),
        "t.parquet": ("parquet", lambda p: pandas.DataFrame({"a": x[:, 0], "b": x[:, 1], "target": y}).to_parquet(p)),
        "t.tar": ("shards", lambda p: p.write_bytes(shard({f"{i}{end}": content for i in range(4) for end, content in ((".npy", npy(described("(3,)"), bytes(24))), (".cls", b"ab"[i % 2 : i % 2 + 1]))}))),
        "t.arrow": ("parquet", lambda p: pandas.DataFrame({"a": x[:, 0], "b": x[:, 1], "target": y}).to_feather(p, compression="uncompressed")),
        "w.safetensors": ("weights", lambda p: save_file({"a": torch.ones(3, 4)}, p)),
        "w.pt": ("weights", lambda p: torch.save({"a": torch.ones(3, 4)}, p)),
    }  # fmt: skip
    cases = []
    for name, (reader, write) in found.items():
        write(folder / name)
        cases.append((name, reader, folder / name))
    return cases
