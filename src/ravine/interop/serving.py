"""A trained run over HTTP: ``GET /schema`` says what it takes, ``POST /predict`` answers, ``GET /`` is a
page to drop a picture or fill a row (extra: web).

It answers this machine alone. Bodies, rows and texts are limited; what is sent is data and nothing
else: no path, no pickle. One prediction runs at a time.
"""

from __future__ import annotations

import tempfile
import threading
import warnings
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ravine.data.objects.fields import Fields
from ravine.data.tables.given import rows_given
from ravine.doctor.new_data import unlike_training
from ravine.engine.run import Run
from ravine.errors import InputError, RavineError, first_line
from ravine.report.server import listening
from ravine.storage.bounded import parse_json
from ravine.storage.files import plain
from ravine.terminal import visible

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MOST_BYTES = 16 * 2**20  # of a body
MOST_ROWS = 1000
MOST_CHARACTERS = 1000  # of a text that is continued
_WEB = Path(__file__).parent / "web"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def serve(
    run: Run | str | Path, *, port: int = 8701, host: str = "127.0.0.1", open_: bool = False
) -> None:
    """Serve a run's predictions until interrupted; ``open_`` opens the page in a browser. A run whose
    module was given in Python is given as ``ravine.Run(directory, module=…)``."""
    opened = run if isinstance(run, Run) else Run(run)
    app = application(opened, [host, "localhost"])
    import uvicorn

    from ravine.report.connections import Connection, Server

    with listening(host, port) as listener:
        address = f"http://{host}:{listener.getsockname()[1]}"
        print(visible(f"{opened.recipe.name} predicts at {address}  (Ctrl-C ends)"), flush=True)
        if open_:
            webbrowser.open(address)
        config = uvicorn.Config(
            app,
            log_config=None,  # uvicorn's would close the handlers of whoever calls
            log_level="error",
            access_log=False,
            limit_concurrency=64,
            http=Connection,
            timeout_graceful_shutdown=1,  # who sends slowly must not hold the server when it is to end
        )
        Server(config).run(sockets=[listener])


def application(run: Run, hosts: Sequence[str]) -> Starlette:
    """The server as an ASGI application; ``hosts`` are the names it answers to."""
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import FileResponse, JSONResponse
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles
    except ImportError:
        repair = "pip install 'ravine[web]'"
        raise InputError(
            "serve", expected="the packages starlette and uvicorn", repair=repair
        ) from None
    predictor = Predictor(run)

    def page(request: Request) -> Response:
        return FileResponse(_WEB / "predict.html", headers=_HEADERS)

    def schema(request: Request) -> Response:
        return JSONResponse(plain(predictor.schema()), headers=_HEADERS)

    async def predict(request: Request) -> Response:
        _check_origin(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _body(request)
        found = await run_in_threadpool(predictor.answer, kind, body)
        return JSONResponse(plain(found), headers=_HEADERS)

    def refused(request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, Refused) else 400
        return JSONResponse({"error": str(error)}, status_code=status, headers=_HEADERS)

    def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "the prediction failed"}, status_code=500, headers=_HEADERS)

    routes = [
        Route("/", page),
        Route("/schema", schema),
        Route("/predict", predict, methods=["POST"]),
        Mount("/web", StaticFiles(directory=_WEB)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={RavineError: refused, Exception: failed},
    )


class Refused(InputError):
    """A request that is not looked at: too large, of another site, of no known type."""

    def __init__(self, status: int, **words: Any):
        super().__init__("request", **words)
        self.status = status


def _check_origin(request: Request) -> None:
    """Pages of other sites may not ask in a person's name."""
    origin = request.headers.get("origin")
    # the host has been checked; a page of another port is another program's
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise Refused(403, got=f"a page of {origin[:80]}", expected="the page of this server")


async def _body(request: Request) -> bytes:
    """The body, which is not read past the limit."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            expected = f"at most {MOST_BYTES // 2**20} MiB"
            raise Refused(413, got="a larger body", expected=expected)
        parts.append(part)
    return b"".join(parts)


@dataclass
class Predictor:
    """What a run takes, and its answers."""

    run: Run
    lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def form(self) -> str:
        """``table``, ``image``, ``characters``, ``texts``, ``inputs`` (several) or ``array``."""
        pipeline = self.run.pipeline
        facts, shape = pipeline.preparation.facts, pipeline.raw_shape
        if "columns" in facts:
            return "table"
        if pipeline.data.source.kind in ("text", "shakespeare"):
            return "characters"
        if "texts" in facts:
            return "texts"
        if "fields" in facts:
            return "inputs"
        pictures = len(shape) == 3 and shape[0] in (1, 3, 4) and min(shape[1:]) > 1
        return "image" if pictures else "array"

    def schema(self) -> dict[str, Any]:
        """What is asked and answered: the JSON schema of a request, and what the answer holds."""
        run, form = self.run, self.form
        answer: dict[str, Any] = {"task": run.pipeline.task}
        if run.answers.kind in ("classes", "binary", "labels"):
            answer["classes"] = list(run.pipeline.classes)
        else:
            answer["targets"] = list(run.pipeline.preparation.facts.get("targets", ()))
        return {
            "name": run.recipe.name if run.recipe.name != "untitled" else run.directory.name,
            "form": form,
            "request": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "additionalProperties": False,
                **self._request(form),
            },
            "image": form == "image",
            "answer": answer,
            "limits": {"bytes": MOST_BYTES, "rows": MOST_ROWS},
        }

    def _request(self, form: str) -> dict[str, Any]:
        if form == "table":
            columns = self.run.pipeline.preparation.facts["columns"]
            row = {
                "type": "object",
                "additionalProperties": False,
                "properties": {column["name"]: _cell(column) for column in columns},
            }
            rows = {"type": "array", "minItems": 1, "maxItems": MOST_ROWS, "items": row}
            return {"properties": {"rows": rows}, "required": ["rows"]}
        if form in ("characters", "texts"):
            text: dict[str, Any] = {"type": "string", "minLength": 1}
            text |= {"maxLength": MOST_CHARACTERS} if form == "characters" else {}
            return {"properties": {"text": text}, "required": ["text"]}
        if form == "inputs":
            return {"properties": {"x": _of_inputs(self._fields)}, "required": ["x"]}
        tokens = self.run.pipeline.preparation.tokens
        return {
            "properties": {"x": _nested(self.run.pipeline.raw_shape, tokens)},
            "required": ["x"],
        }

    def answer(self, kind: str, body: bytes) -> dict[str, Any]:
        """The predictions for a body of this content type, with warnings.

        Errors: ``InputError`` where it is not what the schema says.
        """
        with self.lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if kind.startswith("image/") or kind == "application/octet-stream":
                if self.form != "image":
                    raise Refused(415, got="a picture", expected="JSON, as /schema says")
                inputs = self._picture(body)
            elif kind == "application/json":
                asked = _json(body, self.schema()["request"])
                if "text" in asked and self.form == "characters":
                    return {"continuation": self.run.sample(500, prompt=asked["text"])}
                inputs = self._inputs(asked)
            else:
                raise Refused(415, got=kind[:80] or "no content type", expected="application/json")
            found = self._predicted(inputs)
        said = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
        return found | {"warnings": said + unlike_training(self.run.pipeline, inputs)}

    def _inputs(self, asked: Mapping[str, Any]) -> Any:
        if self.form == "table":
            return rows_given(asked["rows"], self.run.pipeline.preparation.facts)
        if self.form == "texts":
            return self._read(asked["text"].encode(), "input.txt")
        x = asked["x"]
        if self.form == "inputs":
            return _several(x, self._fields)
        array = _array(x)
        if len(array) > MOST_ROWS:
            raise InputError("x", got=f"{len(array)} samples", expected=f"at most {MOST_ROWS}")
        return array

    @property
    def _fields(self) -> Fields:
        return Fields.from_dict(self.run.pipeline.preparation.facts["fields"])

    def _picture(self, body: bytes) -> Any:
        return self._read(body, "input.png")  # what it is, is read from its bytes

    def _read(self, content: bytes, name: str) -> Any:
        """Inputs from a file's content, by the readers that read files for ``ravine predict``."""
        with tempfile.TemporaryDirectory(prefix="ravine-") as folder:
            (Path(folder) / name).write_bytes(content)
            try:
                return self.run.pipeline.read(Path(folder) / name)[0]
            except InputError as error:
                raise InputError("input", got=error.got, expected=error.expected) from None

    def _predicted(self, inputs: Any) -> dict[str, Any]:
        values = self.run.predict(inputs)
        one = values.ndim == 2 and values.shape[1] == 1
        found: dict[str, Any] = {"predictions": (values[:, 0] if one else values).tolist()}
        names = self.run.pipeline.classes
        if self.run.answers.kind in ("classes", "binary", "labels"):
            each = np.round(self.run.predict_proba(inputs).astype(float), 4)
            if self.run.answers.kind == "binary" and each.shape[1:] == (1,):
                each = np.round(np.concatenate([1 - each, each], 1), 4)  # one output, two classes
            if each.ndim == 2 and each.shape[1] == len(names):
                found["probabilities"] = [
                    dict(zip(names, row, strict=True)) for row in each.tolist()
                ]
            else:
                found["probabilities"] = each.tolist()
        return found


def _cell(column: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of one cell of a table; another category than those of training is allowed."""
    kind, why = column["kind"], str(column.get("why", ""))
    said = {"description": f"{kind}: {why}" if why else kind}
    if kind == "number":
        return said | {"type": ["number", "string", "null"]}
    if kind == "flag":
        words = [*column.get("true", ()), *column.get("false", ())]
        return said | {"type": ["boolean", "string", "number", "null"], "examples": words}
    if kind == "category":
        known = [str(name) for name in column.get("categories", ())][:200]
        return said | {"type": ["string", "number", "null"], "examples": known}
    return said | {"type": ["string", "number", "null"]}


def _nested(shape: Sequence[int], tokens: bool) -> dict[str, Any]:
    """The schema of arrays [N, *shape]; sequences may have another number of steps."""
    inner: dict[str, Any] = {"type": "integer" if tokens else "number"}
    steps = len(shape) == 2 or tokens
    for place, size in reversed(list(enumerate(shape))):
        limits = {} if steps and place == 0 else {"minItems": size, "maxItems": size}
        inner = {"type": "array", "items": inner, **limits}
    return {"type": "array", "minItems": 1, "maxItems": MOST_ROWS, "items": inner}


def _of_inputs(fields: Fields) -> dict[str, Any]:
    """The schema of several inputs, each [N, ...]: by name, or in order."""
    each = [
        _nested(shape, "int" in dtype)
        for shape, dtype in zip(fields.shapes, fields.dtypes, strict=True)
    ]
    if fields.names:
        named = dict(zip(fields.names, each, strict=True))
        return {
            "type": "object",
            "properties": named,
            "required": [*fields.names],
            "additionalProperties": False,
        }
    return {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}


def _several(x: Any, fields: Fields) -> Any:
    """Several inputs as arrays of as many samples each: a dictionary, or a tuple in order."""
    shapes = [f"[{', '.join(('N', *map(str, shape)))}]" for shape in fields.shapes]
    names = fields.names or tuple(f"x{place + 1}" for place in range(len(shapes)))
    expected = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
    given = x if isinstance(x, Mapping) else dict(zip(names, x, strict=False))
    if set(given) != set(names) or len(x) != len(names):
        raise InputError("x", got=f"{len(x)} inputs", expected=f"{expected}, N samples of each")
    try:
        arrays = {name: _array(given[name]) for name in names}
    except InputError as error:
        raise InputError("x", got=error.got, expected=f"{expected}, N samples of each") from None
    sizes = {len(array) for array in arrays.values()}
    right = all(
        array.shape[1:] == shape
        for array, shape in zip(arrays.values(), fields.shapes, strict=True)
    )
    if len(sizes) > 1 or not right or max(sizes) > MOST_ROWS:
        got = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        expected = f"{expected}, at most {MOST_ROWS} samples of each"
        raise InputError("x", got=got, expected=expected)
    return arrays if fields.names else tuple(arrays.values())


def _json(body: bytes, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A body as JSON with the keys that the schema names."""
    try:
        asked = parse_json(body.decode("utf-8"), "request")
    except ValueError as error:
        raise InputError(
            "request", got="no JSON", expected="JSON", repair=first_line(error)
        ) from None
    wanted = list(schema["properties"])
    if not isinstance(asked, dict) or set(asked) != set(wanted):
        got = ", ".join(map(str, asked))[:80] if isinstance(asked, dict) else type(asked).__name__
        raise InputError("request", got=got, expected=f"an object with {', '.join(wanted)}")
    ((name, value),) = asked.items()
    limits = schema["properties"][name]
    kinds = {"array": list, "string": str, "object": dict}
    allowed = limits["type"] if isinstance(limits["type"], list) else [limits["type"]]
    if not isinstance(value, list | str | dict) or type(value) not in [kinds[k] for k in allowed]:
        raise InputError(name, got=type(value).__name__, expected=" or ".join(allowed))
    size = limits.get("maxItems", limits.get("maxLength"))
    size = None if "prefixItems" in limits else size  # of the inputs, not of samples
    if size is not None and len(value) > size:
        raise InputError(name, got=f"{len(value)} of them", expected=f"at most {size}")
    if not len(value):
        raise InputError(name, got="nothing", expected="at least one")
    return asked


def _array(x: Any) -> np.ndarray:
    try:
        array = np.asarray(x)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise InputError(
            "x", got="rows of different shapes, or no numbers", expected="arrays of numbers"
        )
    return array.astype(np.float32) if array.dtype.kind == "f" else array
