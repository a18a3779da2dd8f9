"""Networks of transformers and timm as modules between images and logits: what ``hf`` and ``timm`` of
the catalogue give."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.errors import InputError, first_line
from ravine.nn.randomized import seeded

_F = TypeVar("_F", bound=Callable[..., Any])
BODY = "body."  # before the name of each parameter of the other library's network


def foreign(technique: _F) -> _F:
    """Mark a model of another library, whose layers may draw from PyTorch's own generator."""
    return technique


class Published(nn.Module):
    """A network of another library between 0-to-1 images [B, C, H, W] and logits [B, K]: channels
    repeated, resized, normalised."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        channels: int,
        size: tuple[int, int] | None,
        native: tuple[int, int] | None,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__()
        self.body = seeded(body)
        self.channels, self.size, self.normalises = channels, size, bool(mean)
        self.register_buffer("mean", torch.tensor(mean or (0.0,)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or (1.0,)).view(-1, 1, 1), persistent=False)
        fitting = "interpolate_pos_encoding"  # position embeddings for another size
        fits = fitting in inspect.signature(body.forward).parameters
        self.options = {fitting: True} if fits and native and size != native else {}

    def forward(self, x: Tensor) -> Tensor:
        if self.size and tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        if x.shape[1] == 1:
            x = x.expand(-1, self.channels, -1, -1)
        if self.normalises:
            x = (x - self.mean) / self.std
        output = self.body(x, **self.options)
        return getattr(output, "logits", output)


def hf_settings(config: str, outputs: int) -> Any:
    """transformers' configuration from the content of config.json, for so many outputs."""
    try:
        plain = json.loads(config)
        kind = plain.pop("model_type")
    except (ValueError, KeyError, TypeError, AttributeError):
        expected = "the content of a config.json with model_type"
        raise InputError("model.config", got=config[:80], expected=expected) from None
    try:
        return transformers().AutoConfig.for_model(kind, **plain, num_labels=outputs)
    except (ValueError, KeyError, TypeError) as error:
        expected = "a network that this version of transformers has (code from the hub is not run)"
        raise InputError(
            "model.config", got=kind, expected=expected, repair=first_line(error)
        ) from None


def hf_tensors(config: str, directory: str, outputs: int) -> dict[str, Tensor]:
    """The tensors of model.safetensors in a directory under the names that ``hf`` gives them: this
    version of transformers knows how older ones called them. Those that the file lacks, or has in
    another shape, are left out."""
    library = transformers()
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    try:
        network, found = library.AutoModelForImageClassification.from_pretrained(
            directory,
            config=hf_settings(config, outputs),
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError) as error:
        expected = "a directory with model.safetensors for this config.json"
        raise InputError(
            "start.weights", got=directory, expected=expected, repair=first_line(error)
        ) from None
    lacking = {name if isinstance(name, str) else name[0] for name in found["missing_keys"]}
    lacking |= {entry[0] for entry in found["mismatched_keys"]}
    return {BODY + n: t for n, t in network.state_dict().items() if n not in lacking}


def classifies_images(kind: Any) -> bool | None:
    """Whether transformers has an image classifier of this type of model; None where it does not
    know the type."""
    transformers()
    from transformers.models.auto import configuration_auto, modeling_auto

    if kind not in configuration_auto.CONFIG_MAPPING_NAMES:
        return None
    return kind in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES


def import_timm() -> Any:
    """The library, or one message that says why it cannot be had."""
    try:
        import timm as library
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        expected = "timm, with a torchvision that was built for this torch"
        repair = (
            "take torchvision for a CPU build of torch from https://download.pytorch.org/whl/cpu, or a model "
            'that needs no timm: resnet50 with start.weights = "hf:timm/resnet50.a1_in1k"'
        )
        raise InputError("model", got=first_line(error), expected=expected, repair=repair) from None
    return library


def transformers() -> Any:
    """The library, or one message that says how it is had."""
    try:
        import transformers as library
    except (ImportError, RuntimeError) as error:
        repair = "pip install 'ravine[hf]' brings it"
        got = first_line(error)
        raise InputError("model", got=got, expected="transformers", repair=repair) from None
    return library


def pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of one number for both, or of two."""
    if size is None:
        return None
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
