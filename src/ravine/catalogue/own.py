"""What a Python object of a person's own is to a recipe: a name, fields, and the hash of its source.

A recipe is data and cannot hold a function. It holds ``own:NAME``, the numbers, and the hash; this
process holds the object, because a person has given it in Python or has named the file that brings
it on the command line. Nothing that is read from a file leads to an import.

``describe`` reads an object once. What it gives is called as the package's own technique of that
kind is called, so that no other code has to know who wrote it.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from ravine.errors import InputError

PREFIX = "own:"
_NUMBER = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_WHOLE = Annotated[int, Field(strict=True)] | _NUMBER
_FLAG = Annotated[bool, Field(strict=True)]
_IN_ORDER = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
FORMULA = ("w", "g", "state", "t", "layout")  # what an optimiser's formula over rows receives
# speed switches of torch's optimisers, and what a recipe has its own fields for
_NOT_FIELDS = {
    "optimizer": {"foreach", "fused", "capturable", "differentiable", "decay", "lookahead"},
}
# What a function of each kind receives: shown where something else is given.
RECEIVES = {
    "source": "a function of (root) that gives (x, y) or a Source",
    "preprocess": "a function of (x) that gives the inputs as the network shall see them",
    "augment": "a function of (x), of (x, y), or of (batch, draw)",
    "layer": "a module, or a function of (shape) that gives one",
    "initializer": "a function of (w, fans, generator) that fills w in place",
    "loss": "a function of (output, target) that gives [B] or one number, or an nn.Module",
    "metric": "a function of (output, target) that gives a number",
    "model": "a function of (shape, outputs) that gives a module",
    "optimizer": "a class of torch.optim, or a function of the parameters that gives an optimiser",
    "schedule": "a function of (epoch, lr), of (t, total, epoch), or of an optimiser",
    "constraint": "a function of (w, layout) that changes w in place",
    "step": "a function of (model, batch) that gives the loss, or a dictionary with it",
}
_FEWEST = {  # positional parameters, where a call with fewer or more could not be meant
    "metric": (2, 2),
    "step": (2, 2),
    "initializer": (3, 3),
    "constraint": (2, 2),
    "schedule": (3, 3),
    "augment": (1, 2),
    "preprocess": (1, 1),
    "source": (1, 1),
    "layer": (1, 1),
    "model": (2, 2),
}


@dataclass(frozen=True, eq=False)
class Own:
    """An object of a person's own, described."""

    kind: str
    name: str  # without the prefix
    doc: str
    code: str  # sha256 of its source and of what it has captured
    fields: dict[str, tuple[Any, Any]]  # name -> (annotation, default or ...)
    function: Callable[..., Any] = field(repr=False)  # called as a technique of its kind is
    target: Any = field(repr=False)  # the object as it was given
    takes: tuple[str, ...] = ()  # what it receives in its place
    marks: frozenset[str] = frozenset()
    contract: bool = False  # written as the package's own techniques are
    better: str | None = None  # of a metric: the direction in which it improves


def describe(
    kind: str,
    target: Any,
    *,
    name: str | None = None,
    contract: bool = False,
    better: str | None = None,
) -> Own:
    """Read a person's object: a function, a class, a module, or anything that can be called.

    ``contract``: it is written as the package's own techniques of that kind are, so that its
    annotations are in the vocabulary of ``ravine.catalogue``.

    >>> def tilted(output, target, slope=2.0):
    ...     "An absolute error."
    >>> own = describe("loss", tilted)
    >>> own.name, own.doc, own.fields["slope"][1]
    ('tilted', 'An absolute error.', 2.0)

    Raises `InputError` for what cannot be an object of that kind.
    """
    _check_sort(kind, target)
    given, fields = _parameters(kind, target, contract)
    _check(kind, target, given)
    function, marks = _as_technique(kind, target, given)
    return Own(
        kind,
        name or name_of(target),
        inspect.cleandoc(_doc(target)),
        code_of(target),
        fields,
        function,
        target,
        tuple(given),
        marks,
        contract,
        better or getattr(target, "better", None),
    )


def is_needed(parameter: inspect.Parameter) -> bool:
    """Whether a call must give it, and may do so by its place."""
    return parameter.default is parameter.empty and parameter.kind in _IN_ORDER


def name_of(target: Any) -> str:
    """The name of a function or class, or of the class of anything else.

    >>> name_of(lambda output, target: 0.0), name_of(describe)
    ('lambda', 'describe')
    """
    target = target.func if isinstance(target, functools.partial) else target
    name = getattr(target, "__name__", None) or type(target).__name__
    return re.sub(r"\W+", "_", name).strip("_") or "own"


def _doc(target: Any) -> str:
    named = isinstance(target, type) or inspect.isroutine(target)
    return (target.__doc__ if named else type(target).__doc__) or ""


# --- signatures -----------------------------------------------------------------------------------


def _parameters(
    kind: str, target: Any, contract: bool
) -> tuple[list[str], dict[str, tuple[Any, Any]]]:
    """What an object must be given in its place, and what it may be given by name: its fields."""
    if not isinstance(target, type) and not inspect.isroutine(target) and _is_module(target):
        return ["output", "target"] if kind in ("loss", "metric") else ["x"], {}
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        return ["output", "target"], {}
    hints = _hints(target) if contract else {}
    needed, fields = [], {}
    for each in parameters:
        if is_needed(each):
            needed.append(each.name)
        elif each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            needed += ["*"] if each.kind is each.VAR_POSITIONAL else []
        elif each.name not in _NOT_FIELDS.get(kind, ()):
            annotation = hints.get(each.name, _annotation(each.default))
            if each.default is None and annotation is None:
                annotation = _optional(target, each.name)
            if annotation is not None:
                default = ... if each.default is each.empty else each.default
                fields[each.name] = (annotation, default)
    return needed, fields


def _hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise InputError(
            f"@ravine.technique {name_of(target)}",
            got=str(error),
            expected="annotations that can be read",
            repair="from ravine.catalogue import Positive, Probability, PerMember, …",
        ) from None


def _annotation(default: Any) -> Any:
    """What a field may be, by its default; None where it is not a number or text."""
    if isinstance(default, bool):
        return _FLAG
    if isinstance(default, int):
        return _WHOLE
    if isinstance(default, float):
        return _NUMBER
    if isinstance(default, str):
        return str
    if isinstance(default, tuple) and default:
        inner = [_annotation(item) for item in default]
        return None if None in inner else tuple[tuple(inner)]  # type: ignore[misc]
    return Any if default is inspect.Parameter.empty else None


def _optional(target: Any, name: str) -> Any:
    """What a field may be whose default is None, by its annotation: a number or text, or None."""
    try:
        made = getattr(target, "__init__") if isinstance(target, type) else target  # noqa: B009
        hints = typing.get_type_hints(made)
    except Exception:  # names that only type checkers know
        return None
    kinds = [kind for kind in typing.get_args(hints.get(name)) if kind is not type(None)]
    known: dict[Any, Any] = {bool: _FLAG, int: _WHOLE, float: _NUMBER, str: str}
    return known[kinds[0]] | None if len(kinds) == 1 and kinds[0] in known else None


def _check_sort(kind: str, target: Any) -> None:
    if kind == "optimizer" and hasattr(target, "param_groups"):
        own = f"torch.optim.{type(target).__name__}"
        raise InputError(
            "",
            got=f"an optimiser that holds parameters ({type(target).__name__})",
            expected=RECEIVES[kind],
            repair=f"each member gets its own: optimizer={own}, or "
            f"optimizer=lambda parameters: {own}(parameters, …)",
        )
    if holds_optimizer(kind, target):
        name = type(target).__name__
        raise InputError(
            "",
            got=f"a scheduler that holds an optimiser ({name})",
            expected=RECEIVES[kind],
            repair=f"schedule=lambda optimizer: torch.optim.lr_scheduler.{name}(optimizer, …)",
        )
    if not callable(target):
        raise InputError("", got=type(target).__name__, expected=RECEIVES[kind])
    if kind in ("metric", "step", "augment", "preprocess") and isinstance(target, type):
        got, repair = f"the class {target.__name__}", "give an instance of it"
        raise InputError("", got=got, expected=RECEIVES[kind], repair=repair)


def _check(kind: str, target: Any, given: list[str]) -> None:
    """A function that could not be called as functions of its kind are."""
    repair = ""
    if kind == "schedule" and len(given) in (1, 2):
        repair = (
            "ravine.train(schedule=…) tabulates lambda epoch, lr: …, and "
            "lambda optimizer: …, whose argument is called so"
        )
    fewest, most = _FEWEST.get(kind, (0, 99))
    count = len([name for name in given if name != "*"])
    if "*" not in given and not fewest <= count <= most:
        raise InputError(
            "",
            got=f"{name_of(target)}, a function of ({', '.join(given)})",
            expected=RECEIVES[kind],
            repair=repair,
        )


def _as_technique(
    kind: str, target: Any, given: list[str]
) -> tuple[Callable[..., Any], frozenset[str]]:
    """The object as a function that is called as the techniques of its kind are; and its marks."""
    marks = frozenset(getattr(target, "marks", ()))
    if kind == "loss":
        if isinstance(target, type) or not given:
            return target, marks
        return lambda **fields: functools.partial(target, **fields) if fields else target, marks
    if kind == "metric" and all(hasattr(target, n) for n in ("update", "compute", "reset")):
        return functools.partial(_afresh, target), marks
    if kind == "optimizer" and tuple(given[:5]) != FORMULA:
        return target, marks | {"torch"}
    if kind == "preprocess" and (given[:1] == ["rows"] or "Transform" in _gives(target)):
        return target, marks | {"fits"}
    if kind == "layer" and _is_module(target):
        return lambda shape: target, marks | {"copied"}
    return target, marks


def _afresh(metric: Any, output: Any, target: Any) -> Any:
    """A metric that gathers from call to call, as torchmetrics' do, of one part of the data alone."""
    metric.reset()
    metric.update(output, target)
    found = metric.compute()
    metric.reset()
    return found


def _gives(target: Any) -> str:
    """What a function's annotation says that it gives."""
    return str(getattr(target, "__annotations__", {}).get("return", ""))


def _is_module(target: Any) -> bool:
    """Whether an object is an ``nn.Module``: its class says so, and torch need not be imported."""
    kinds = type(target).__mro__
    return any(c.__name__ == "Module" and c.__module__.startswith("torch.nn") for c in kinds)


def in_place_of(kind: str, value: Any) -> str:
    """What to write instead of something that is no part."""
    if isinstance(value, dict) and any(map(callable, value.values())):
        if kind == "optimizer":
            each = ", ".join(
                f"{name!r}: {_called(v)}(model.{name}.parameters())" for name, v in value.items()
            )
            return f"an optimiser for each part: optimizer=lambda model: {{{each}}}"
        return "a list of functions, each called by the name that def gives it: metrics=[f, g]"
    if kind == "loss" and isinstance(value, list | tuple):
        return 'several losses are one function, or loss={"kind": "multi_task", "losses": […]}'
    if kind == "preprocess" and hasattr(value, "transform"):
        return (
            'preprocess="standardize" and others are fitted to the training part by themselves; '
            "before RavineClassifier in a Pipeline scikit-learn fits its own"
        )
    return ""


def _called(value: Any) -> str:
    """How a class or function is written in Python."""
    torch_own = str(getattr(value, "__module__", "")).startswith("torch.optim")
    return ("torch.optim." if torch_own else "") + name_of(value)


def holds_optimizer(kind: str, value: Any) -> bool:
    """Whether an object is one of PyTorch's schedulers, which are not called."""
    return kind == "schedule" and hasattr(value, "optimizer") and hasattr(value, "step")


def missing(kind: str, name: str, call: str = "ravine.Run(run, own=[{}])") -> InputError:
    """The error for a recipe that names an object which this process does not hold."""
    bare = name.removeprefix(PREFIX)
    return InputError(
        kind,
        got=f"{name}, which is your own Python code and is stored in no file",
        expected=f"{bare} itself",
        repair=f"bring it: in Python {call.format(bare)}; on the command line --with FILE.py, "
        f'where @ravine.technique("{kind}") is written above it',
    )


# --- the hash of the source -----------------------------------------------------------------------


def code_of(target: Any) -> str:
    """sha256 of the source of an object and of the plain values that it has captured.

    Functions that it calls are not part of it. Where the source is not available (an interactive session),
    the compiled code counts.

    >>> def scaled(k):
    ...     return lambda x: k * x
    >>> code_of(scaled(2)) == code_of(scaled(2)), code_of(scaled(2)) == code_of(scaled(3))
    (True, False)
    """
    return hashlib.sha256("\n".join(_digested(target, 0)).encode()).hexdigest()


def model_code(model: Any) -> str:
    """The hash of a module's class, whatever weights it has; or of a function that makes one."""
    return code_of(type(model) if _is_module(model) else model)


def _digested(target: Any, depth: int) -> list[str]:
    if isinstance(target, functools.partial):
        arguments = [_value(v, depth) for v in (*target.args, *target.keywords.values())]
        return [*_digested(target.func, depth), *target.keywords, *arguments]
    if isinstance(target, type) or inspect.isroutine(target):
        return [_source(target), *_captured(target, depth)]
    return [_source(type(target)), _value(target, depth)]


def _source(target: Any) -> str:
    target = getattr(target, "__func__", target)
    if (getattr(target, "__module__", None) or "").split(".")[0] in ("torch", "ravine"):
        return (
            f"{target.__module__}.{target.__qualname__}"  # versions are stored beside the recipes
        )
    try:
        text = textwrap.dedent(inspect.getsource(target)).strip()
    except (OSError, TypeError):
        text = getattr(target, "__qualname__", repr(target))
        compiled = getattr(target, "__code__", None)
        return text if compiled is None else text + _compiled(compiled)
    # one line may hold two lambdas
    anonymous = getattr(target, "__name__", "") == "<lambda>"
    return text + _compiled(target.__code__) if anonymous else text


def _compiled(code: Any) -> str:
    constants = [c for c in code.co_consts if not hasattr(c, "co_code")]
    return f"{code.co_code.hex()} {constants!r} {code.co_names!r}"


def _captured(target: Any, depth: int) -> list[str]:
    """The values that a function holds besides its source: of enclosing functions, and defaults."""
    target = getattr(target, "__func__", target)
    cells = getattr(target, "__closure__", None) or ()
    held = []
    for cell in cells:
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not bound yet
            continue
    held += getattr(target, "__defaults__", None) or ()
    held += (getattr(target, "__kwdefaults__", None) or {}).values()
    return [_value(value, depth + 1) for value in held]


def _value(value: Any, depth: int) -> str:
    """A captured value: numbers, text and arrays by what they are, functions by their source."""
    if isinstance(value, bool | int | float | str | bytes | None | type(...)):
        return repr(value)
    if inspect.ismodule(value):
        return value.__name__
    if isinstance(value, Mapping):
        return str([(str(k), _value(v, depth)) for k, v in value.items()])
    if isinstance(value, list | tuple | set | frozenset):
        return str([_value(item, depth) for item in value])
    if hasattr(value, "state_dict") and not isinstance(value, type):
        parts = value.modules() if hasattr(value, "modules") else [value]
        settings = "".join(_settings(part, depth) for part in parts)
        return _ADDRESS.sub("", repr(value)) + _value(dict(value.state_dict()), depth) + settings
    if hasattr(value, "detach") and not isinstance(value, type):  # a tensor
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if hasattr(value, "tobytes") and not isinstance(value, type):
        return f"{value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if depth < 3 and (isinstance(value, type) or inspect.isroutine(value)):
        return str(_digested(value, depth + 1))
    shown = _ADDRESS.sub("", repr(value))
    return shown + _settings(value, depth) if depth < 3 else shown


def _settings(value: Any, depth: int) -> str:
    """What an object says of itself besides its source: ``label_smoothing`` of a loss, say, which its
    ``repr`` does not show."""
    named = vars(value) if hasattr(value, "__dict__") else {}
    kept = {n: v for n, v in named.items() if not n.startswith("_") and n != "training"}
    return str([(name, _value(kept[name], depth + 1)) for name in sorted(kept)]) if kept else ""
