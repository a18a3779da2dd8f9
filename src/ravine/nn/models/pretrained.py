"""Networks of other libraries, transformers and timm: catalogue functions."""

from __future__ import annotations

import torch
from torch import nn

from ravine.catalogue import Pair, Real, Text
from ravine.errors import InputError, first_line
from ravine.nn.models.published import (
    Published,
    foreign,
    hf_settings,
    import_timm,
    pair,
    transformers,
)
from ravine.nn.stack import Shape, need_images
from ravine.randomness import key


@foreign
def hf(
    shape: Shape,
    outputs: int,
    *,
    name: Text,
    config: Text | None = None,
    size: Pair | None = None,
    mean: tuple[Real, ...] = (),
    std: tuple[Real, ...] = (),
) -> nn.Module:
    """An image classifier of the library transformers, with a head for this data.

    ``name`` is OWNER/NAME on the Hugging Face hub, or a directory with config.json and
    model.safetensors. Training takes from there what is left open: ``config`` (the content of
    config.json: the network is rebuilt from it and needs neither hub nor directory), ``size``
    (height and width to which images are resized), ``mean`` and ``std`` (of each channel; inputs
    between 0 and 1 become (x - mean) / std), and the weights (``start.weights``). Images of one
    channel are repeated for as many as the network has. Code from the hub is never run.

    Errors: no images; a configuration of no image classifier that this version of transformers has.

    >>> hf((3, 32, 32), 4, name="google/vit-base-patch16-224")
    Traceback (most recent call last):
    ...
    ravine.errors.InputError: model.config: got ''; expected the content of config.json...

    Source: Wolf et al., "Transformers: state-of-the-art natural language processing", 2020.
    """
    need_images(shape)
    if not config:
        expected = "the content of config.json, which training takes from the hub or the directory"
        raise InputError("model.config", got="", expected=expected)
    settings = hf_settings(config, outputs)
    classifiers = transformers().AutoModelForImageClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key("hf"))  # for what has no reset_parameters: the class token
        try:
            body = classifiers.from_config(settings, trust_remote_code=False)
        except (ValueError, OSError, ImportError) as error:
            got = f"{name} ({settings.model_type}): {first_line(error)}"
            expected = "an image classifier of transformers"
            raise InputError("model.name", got=got, expected=expected) from None
    channels = int(getattr(settings, "num_channels", 3))
    native = getattr(settings, "image_size", None)
    return Published(body, channels, pair(size or native), pair(native), mean, std)


@foreign
def timm(
    shape: Shape,
    outputs: int,
    *,
    name: Text,
    size: Pair | None = None,
    mean: tuple[Real, ...] = (),
    std: tuple[Real, ...] = (),
) -> nn.Module:
    """An image classifier of the library timm, with a head for this data.

    ``name`` as in ``timm.list_models()``, with or without a tag: resnet18, resnet18.a1_in1k.
    Training takes what is left open from timm's own table: ``size``, ``mean`` and ``std`` as for
    ``hf``, and the weights from the hub (``start.weights``).

    Errors: no images; timm cannot be imported; a name that it does not have.

    >>> timm((4,), 2, name="resnet18")
    Traceback (most recent call last):
    ...
    ravine.errors.InputError: ...images...

    Source: Wightman, "PyTorch image models", 2019.
    """
    need_images(shape)
    library = import_timm()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key("timm"))
        try:
            body = library.create_model(name, pretrained=False, num_classes=outputs)
        except RuntimeError as error:
            expected = "a name of timm.list_models()"
            got = f"{name}: {first_line(error)}"
            raise InputError("model.name", got=got, expected=expected) from None
    return Published(body, 3, pair(size), None, mean, std)
