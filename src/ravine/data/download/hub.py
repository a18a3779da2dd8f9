"""Published weights from the Hugging Face hub: a safetensors file and its configuration, fetched
once, their sha256 kept beside them."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from pathlib import Path

from ravine.data.download.cache import cache_root
from ravine.data.download.download import fetch
from ravine.errors import InputError, RavineError
from ravine.storage.bounded import open_file, read_text
from ravine.storage.files import write_text

PREFIX = "hf:"
LIMIT = 8 << 30  # bytes of weights
SMALL = 1 << 20  # bytes of a configuration
# a name begins with no point and is not empty, so that no path leads out of the cache
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"
_FORM = re.compile(
    rf"hf:({_NAME})/({_NAME})(?:@({_NAME}))?(?:/((?:{_NAME}/){{0,8}}{_NAME}\.safetensors))?"
)
_FILE = "model.safetensors"


def is_hub(name: str | None) -> bool:
    """Whether a name means weights on the hub.

    >>> is_hub("hf:timm/resnet18.a1_in1k"), is_hub("runs/photos")
    (True, False)
    """
    return name is not None and name.startswith(PREFIX)


def weights(name: str, context: ssl.SSLContext | None = None) -> Path:
    """The local file of ``hf:OWNER/NAME``, ``hf:OWNER/NAME@REVISION`` or ``…/FILE.safetensors``
    (default: model.safetensors of revision main).

    Fetched over https at most once, at most LIMIT bytes; its sha256 is written beside it and held
    against the file at each later use. ``HF_ENDPOINT`` names another server, as for the hub's own
    tools.

    Errors: another form of name, no network, a file that is too large or was changed since.
    """
    return _fetched(name, None, LIMIT, context)


def beside(name: str, file: str, context: ssl.SSLContext | None = None) -> Path:
    """A small file of the same repository and revision: config.json, preprocessor_config.json.
    Fetched and checked as the weights are.

    Errors: as ``weights``; the repository has no such file.
    """
    return _fetched(name, file, SMALL, context)


def _fetched(name: str, other: str | None, limit: int, context: ssl.SSLContext | None) -> Path:
    matched = _FORM.fullmatch(name)
    if matched is None:
        raise InputError(
            "weights",
            got=name,
            expected="hf:OWNER/NAME",
            repair="for example hf:timm/resnet18.a1_in1k",
        )
    owner, model, revision, file = matched.groups()
    revision, file = revision or "main", other or file or _FILE
    server = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    to = cache_root().parent / "weights" / owner / model / revision / file
    digest = to.with_name(to.name + ".sha256")
    if not to.exists():
        digest.unlink(missing_ok=True)
    url = f"{server}/{owner}/{model}/resolve/{revision}/{file}"
    fetch(url, to, sha256=None, limit=limit, context=context)
    found = _sha256(to)
    if not digest.exists():
        write_text(digest, found + "\n")
    elif read_text(digest, 1024).strip() != found:
        raise RavineError(
            f"{to}: the file is not the one that was fetched (its sha256 is {found}); "
            f"delete it, and it is fetched again"
        )
    return to


def _sha256(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
