"""Taking a trained network elsewhere: safetensors weights with the recipe, a ``torch.export``
program, or ONNX.

What is exported maps network inputs (already preprocessed, unless ``preprocess`` says that it does
that itself) to outputs. In a directory ``preprocess.safetensors`` beside it holds the fitted
statistics, ``export.json`` the shapes, the classes and the measured metrics.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ravine.data.objects.fields import Fields
from ravine.engine.run import Run
from ravine.engine.weights.heads import SeveralInputs
from ravine.errors import InputError, first_line, unknown
from ravine.nn.outputs import joined
from ravine.nn.stack import example
from ravine.rundir.rundir import draft_of
from ravine.storage.files import (
    atomic_with_others,
    new_directory,
    new_file,
    to_json,
    trouble,
    write_text,
)
from ravine.study.ensemble.study import Ensemble
from ravine.study.ensemble.study import opened as open_model

FORMS = ("safetensors", "torch", "onnx")
_INSTEAD = "--out x.safetensors writes the weights; packed sequences are written as masks where "
_INSTEAD += "torch.compiler.is_exporting()"
ONNX_FILE = 1 << 30  # bytes of weights that one file takes: ONNX allows 2 GiB with all else
ENDINGS = {".safetensors": "safetensors", ".pt2": "torch", ".onnx": "onnx"}


def export(
    run: str | Path | Run,
    *,
    member: int = 0,
    form: str | None = None,
    out: str | Path | None = None,
    preprocess: bool = False,
) -> dict[str, Any]:
    """Write a trained network into a new directory, or into one file whose ending says its form
    (``x.onnx``, ``x.pt2``, ``x.safetensors``); gives its path and files.

    Always ``model.safetensors`` (the ``state_dict``; pruned weights are zeros), ``recipe.toml`` and
    what predicting needs. ``torch`` adds ``model.pt2`` (read by ``torch.export.load``), ``onnx``
    adds ``model.onnx``; both take any batch size. ``preprocess``: these two take raw inputs, as they
    were given for training (as floats), and prepare them.

    >>> import ravine
    >>> run = ravine.train(data="blobs", model="softmax", epochs=1, quiet=True, out=tmp / "run")
    >>> sorted(export(run, out=tmp / "there")["files"])
    ['export.json', 'model.safetensors', 'preprocess.safetensors', 'recipe.toml']
    """
    alone = None if out is None else ENDINGS.get(Path(out).suffix)
    if form is not None and form not in FORMS:
        raise unknown("--format", form, FORMS)
    if alone is not None and form not in (None, alone):
        raise InputError("--format", got=form, expected=f"{alone}, as --out {out} ends")
    form = form or alone or "safetensors"
    opened = run if isinstance(run, Run) else open_model(Path(run), member)
    if alone is not None:
        return _file(opened, form, Path(str(out)), preprocess)
    folder = Path(out) if out is not None else opened.directory / "export"
    return _folder(opened, form, folder, preprocess)


def _folder(opened: Any, form: str, folder: Path, preprocess: bool) -> dict[str, Any]:
    """The network, its recipe and what predicting needs, in a new directory."""
    model = opened.copy_model().eval().cpu()
    with draft_of(new_directory(folder), "--out") as draft:
        _fill(draft, opened, model, form, preprocess)
        files = sorted(path.name for path in draft.iterdir())
    return _facts(model, form, folder, files)


def _fill(folder: Path, opened: Any, model: nn.Module, form: str, preprocess: bool) -> None:
    _weights(model, folder / "model.safetensors")
    write_text(folder / "recipe.toml", opened.recipe.to_toml())
    tensors, facts = opened.pipeline.state()
    save_file(
        {name: value.contiguous().cpu().clone() for name, value in tensors.items()},
        folder / "preprocess.safetensors",
    )
    whole, inputs = _with_inputs(opened, model, preprocess)
    if form in _PROGRAMS:
        _PROGRAMS[form](whole, inputs, folder / f"model{_ending(form)}")
    description = {
        "form": form,
        "input_shape": tuple(inputs[0].shape[1:]),
        "inputs": {
            name: tuple(each.shape[1:])
            for name, each in zip(_input_names(whole, inputs), inputs, strict=True)
        },
        "preprocesses": preprocess,
        "outputs": opened.pipeline.outputs,
        "task": opened.pipeline.task,
        "answers": opened.answers.to_dict() | {"threshold": opened.answers.threshold},
        "classes": list(opened.pipeline.classes),
        "preprocess": facts,
        "torch": torch.__version__,
        "result": None if isinstance(opened, Ensemble) else opened.result,
    }
    write_text(folder / "export.json", to_json(description, indent=1))


def _file(opened: Any, form: str, path: Path, preprocess: bool) -> dict[str, Any]:
    """The network alone, in a new file."""
    new_file(path, parents=True)
    model = opened.copy_model().eval().cpu()
    whole, inputs = _with_inputs(opened, model, preprocess)
    with atomic_with_others(path) as draft:
        if form in _PROGRAMS:
            _PROGRAMS[form](whole, inputs, draft)
        else:
            _weights(model, draft)
    return _facts(model, form, path, [path.name])


def _weights(model: nn.Module, path: Path) -> None:
    state = model.state_dict().items()
    save_file({name: value.contiguous().clone() for name, value in state}, path)


def _facts(model: nn.Module, form: str, path: Path, files: list[str]) -> dict[str, Any]:
    return {
        "path": str(path),
        "form": form,
        "files": files,
        "parameters": sum(p.numel() for p in model.parameters()),
        "zeros": sum(int((p == 0).sum()) for p in model.parameters()),
    }


class Prepared(nn.Module):
    """A network that preprocesses its inputs first."""

    def __init__(self, preparation: nn.Module, model: nn.Module):
        super().__init__()
        self.preparation, self.model = preparation, model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.preparation(x))


class InOrder(nn.Module):
    """A network of several inputs, or one that gives a dictionary: inputs in order, the answer alone."""

    def __init__(self, model: nn.Module, names: Sequence[str], heads: bool):
        super().__init__()
        self.model, self.names, self.heads = model, tuple(names), heads

    def forward(self, *inputs: Tensor) -> Tensor:
        named = dict(zip(self.names, inputs, strict=True)) if self.names else {}
        ordered = () if named else inputs
        for given in self.model._forward_pre_hooks.values():
            if isinstance(given, SeveralInputs):
                ordered, named = given.arguments(ordered, named)
        return joined(self.model(*ordered, **named), heads=self.heads)


def _with_inputs(
    opened: Any, model: nn.Module, preprocess: bool
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """What is exported, and what it takes for two samples."""
    pipeline = opened.pipeline
    inputs = example(model, tuple(pipeline.input_shape), 2)
    dtype = next(model.parameters()).dtype
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    facts, heads = pipeline.preparation.facts, opened.answers.kind == "heads"
    if "fields" in facts:
        fields = Fields.from_dict(facts["fields"])
        ordered, named = fields.unpack(inputs)
        return InOrder(model, fields.names, heads).eval(), tuple(named.values()) or ordered
    with torch.no_grad():
        given = model(inputs)
    model = model if isinstance(given, Tensor) else InOrder(model, (), heads).eval()
    chain = pipeline.preparation.inputs
    if not preprocess or not len(chain):
        return model, (inputs,)
    whole = Prepared(copy.deepcopy(chain).to(dtype), model).eval()
    return whole, (torch.rand(2, *pipeline.raw_shape, dtype=dtype),)


def _input_names(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """What the inputs are called in an ONNX file."""
    if isinstance(model, InOrder) and model.names:
        return list(model.names)
    return ["input"] if len(inputs) == 1 else [f"input_{i + 1}" for i in range(len(inputs))]


def _batched(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """The first axis of every input may have any size."""
    axes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    return (axes,) if isinstance(model, InOrder) else axes


def _torch_program(model: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    try:
        with warnings.catch_warnings():  # of recurrent layers, that their weights are lists too
            warnings.filterwarnings("ignore", message=".*assigned during export")
            program = torch.export.export(model, inputs, dynamic_shapes=_batched(model, inputs))
    except Exception as error:  # whatever torch.export refuses in a person's module
        raise InputError(
            "--format",
            got="torch",
            expected="a network that torch.export can trace: nothing in it branches on its inputs",
            repair=f"{_INSTEAD}; {first_line(error)}",
        ) from None
    draft = io.BytesIO()  # on a disk that is full PyTorch's writer ends the process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, draft)
    # the sample inputs, a pickle, are left empty
    with (
        zipfile.ZipFile(draft) as whole,
        zipfile.ZipFile(path, "w") as kept,
    ):
        for name in whole.namelist():
            kept.writestr(name, b"" if "/sample_inputs/" in name else whole.read(name))


def _onnx(model: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    try:
        import onnx
    except ImportError:
        raise InputError(
            "--format", got="onnx", expected="ONNX", repair="pip install ravine[onnx]"
        ) from None
    try:
        import onnxscript  # noqa: F401

        modern = True
    except ImportError:
        modern = False
    called = _input_names(model, inputs)
    names: dict[str, Any] = {"input_names": called, "output_names": ["output"], "dynamo": modern}
    if modern:
        size = sum(each.nbytes for each in model.state_dict().values())
        names |= {
            "dynamic_shapes": _batched(model, inputs),
            "verbose": False,
            "external_data": size > ONNX_FILE,  # else the weights lie in the file itself
        }
    else:
        names["dynamic_axes"] = {name: {0: "batch"} for name in (*called, "output")}
    # which operators of torchvision it does not know, a line each
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(model, inputs, str(path), **names)
        except Exception as error:  # an operator that ONNX does not have
            if trouble(error.__cause__ or error):
                raise
            raise InputError(
                "--format",
                got="onnx",
                expected="a network that ONNX can express",
                repair=f"{_INSTEAD}; {first_line(error)}",
            ) from None
    onnx.checker.check_model(onnx.load(str(path)))


_PROGRAMS = {"torch": _torch_program, "onnx": _onnx}


def _ending(form: str) -> str:
    return next(ending for ending, named in ENDINGS.items() if named == form)
