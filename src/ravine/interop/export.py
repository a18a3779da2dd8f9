"""Taking a trained network elsewhere: safetensors weights with the recipe, a ``torch.export``
program, or ONNX.

What is exported maps network inputs (already preprocessed) to outputs. ``preprocess.safetensors``
beside it holds the fitted statistics, ``export.json`` the shapes, the classes and the measured
metrics.
"""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ravine.engine.run import Run
from ravine.errors import InputError, first_line, unknown
from ravine.files import new_directory, to_json, write_text
from ravine.nn.stack import example
from ravine.study.ensemble.study import Ensemble
from ravine.study.ensemble.study import opened as open_model

FORMS = ("safetensors", "torch", "onnx")


def export(
    run: str | Path | Run,
    *,
    member: int = 0,
    form: str = "safetensors",
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Write a trained network into a new directory; gives its path and files.

    Always ``model.safetensors`` (the ``state_dict``; pruned weights are zeros), ``recipe.toml`` and
    what predicting needs. ``torch`` adds ``model.pt2`` (read by ``torch.export.load``), ``onnx``
    adds ``model.onnx``; both take any batch size.

    >>> import ravine
    >>> run = ravine.train(data="blobs", model="softmax", epochs=1, quiet=True, out=tmp / "run")
    >>> sorted(export(run, out=tmp / "there")["files"])
    ['export.json', 'model.safetensors', 'preprocess.safetensors', 'recipe.toml']
    """
    if form not in FORMS:
        raise unknown("--format", form, FORMS)
    opened = run if isinstance(run, Run) else open_model(Path(run), member)
    folder = Path(out) if out is not None else opened.directory / "export"
    new_directory(folder).mkdir(parents=True, exist_ok=True)
    model = opened.copy_model().eval().cpu()
    save_file(
        {name: value.contiguous().clone() for name, value in model.state_dict().items()},
        folder / "model.safetensors",
    )
    write_text(folder / "recipe.toml", opened.recipe.to_toml())
    tensors, facts = opened.pipeline.state()
    save_file(
        {name: value.contiguous().cpu().clone() for name, value in tensors.items()},
        folder / "preprocess.safetensors",
    )
    shape = tuple(opened.pipeline.input_shape)
    inputs = example(model, shape, 2)
    inputs = inputs.to(next(model.parameters()).dtype) if inputs.is_floating_point() else inputs
    if form == "torch":
        _torch_program(model, inputs, folder / "model.pt2")
    if form == "onnx":
        _onnx(model, inputs, folder / "model.onnx")
    description = {
        "form": form,
        "input_shape": shape,
        "outputs": opened.pipeline.outputs,
        "task": opened.pipeline.task,
        "answers": opened.answers.to_dict() | {"threshold": opened.answers.threshold},
        "classes": list(opened.pipeline.classes),
        "preprocess": facts,
        "torch": torch.__version__,
        "result": None if isinstance(opened, Ensemble) else opened.result,
    }
    write_text(folder / "export.json", to_json(description, indent=1))
    return {
        "path": str(folder),
        "form": form,
        "files": sorted(path.name for path in folder.iterdir()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "zeros": sum(int((p == 0).sum()) for p in model.parameters()),
    }


def _torch_program(model: nn.Module, inputs: Tensor, path: Path) -> None:
    try:
        program = torch.export.export(
            model, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    except Exception as error:  # whatever torch.export refuses in a person's module
        raise InputError(
            "--format",
            got="torch",
            expected="a network that torch.export can trace",
            repair=first_line(error),
        ) from None
    draft = path.with_suffix(".draft.pt2")
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
    draft.unlink()


def _onnx(model: nn.Module, inputs: Tensor, path: Path) -> None:
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
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"], "dynamo": modern}
    if modern:
        names["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    else:
        names["dynamic_axes"] = {"input": {0: "batch"}, "output": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(model, (inputs,), str(path), **names)
        except Exception as error:  # an operator that ONNX does not have
            raise InputError(
                "--format",
                got="onnx",
                expected="a network that ONNX can express",
                repair=first_line(error),
            ) from None
    onnx.checker.check_model(onnx.load(str(path)))
