"""A model given in Python: what cannot be trained is refused with what to do instead, before it is
copied."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ravine.errors import InputError

_PLAIN = "an ordinary nn.Module"
_OF_EACH = set(vars(nn.Module()))  # what every module holds


def check_model(module: Any) -> nn.Module:
    """The module itself, if it can be trained.

    >>> check_model(nn.Linear(2, 1))
    Linear(in_features=2, out_features=1, bias=True)
    >>> check_model(lambda x: x)
    Traceback (most recent call last):
    ravine.errors.InputError: model: got 'a function that gives a function'; expected ...
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            "model",
            got=f"a function that gives a {type(module).__name__}",
            expected="a module, or a function without arguments that makes one",
            repair="put the computation into the forward of a class of nn.Module",
        )
    for name, parameter in module.named_parameters():
        _check_parameter(name, parameter)
    for place, part in module.named_modules():
        _check_part(place, part)
    if out_of_sight := unregistered(module):
        warnings.warn(
            f"model: {', '.join(out_of_sight[:3])}{', …' if len(out_of_sight) > 3 else ''} in a Python list or "
            "dictionary: PyTorch does not see these layers, so they are neither trained nor stored; "
            "nn.ModuleList([…]), nn.ModuleDict({…}), or requires_grad_(False) where that is meant",
            stacklevel=2,
        )
    return module


def unregistered(module: nn.Module) -> list[str]:
    """Layers and parameters that could be trained, but stand in a plain list, tuple or dictionary.

    >>> net = nn.Linear(2, 1)
    >>> net.others = [nn.Linear(1, 1), net.bias]
    >>> unregistered(net)
    ['others[0]']
    """
    known, found = {id(p) for p in module.parameters()}, []
    for place, part in module.named_modules():
        for name, held in vars(part).items():
            if name in _OF_EACH or not isinstance(held, list | tuple | dict):
                continue
            for key, each in held.items() if isinstance(held, dict) else enumerate(held):
                own = each.parameters() if isinstance(each, nn.Module) else [each]
                trainable = [p for p in own if isinstance(p, nn.Parameter) and p.requires_grad]
                if any(id(p) not in known for p in trainable):
                    found.append(f"{place}.{name}[{key!r}]".lstrip("."))
    return found


def unwrapped(model: Any) -> Any:
    """A compiled module as the module that was compiled: Ravine decides itself how a network runs."""
    inner = getattr(model, "_orig_mod", None)
    if not isinstance(model, nn.Module) or not isinstance(inner, nn.Module):
        return model
    warnings.warn(
        "model: torch.compile is left out; Ravine chooses how the network runs", stacklevel=4
    )
    return inner


def warn_of_steps(model: Any, step: Any) -> None:
    """What a LightningModule says of its training is not looked at."""
    kind = model if isinstance(model, type) else type(model)
    lightning = any(c.__name__ == "LightningModule" for c in kind.__mro__)
    if lightning and step is None:
        warnings.warn(
            f"model: training_step and configure_optimizers of {kind.__name__} are not used; give "
            "step= a function of (model, batch), and optimizer=: docs/from-lightning.md",
            stacklevel=4,
        )


def _check_parameter(name: str, parameter: nn.Parameter) -> None:
    if parameter.is_meta:
        raise InputError(
            "model",
            got=f"{name} on the meta device, without values",
            expected="a module with weights",
            repair="model=a function that makes it, or module.to_empty(device='cpu') and its "
            "initialisation",
        )
    if parameter.is_complex():
        raise InputError(
            "model",
            got=f"{name}, a complex parameter",
            expected="real parameters",
            repair="hold torch.view_as_real of it, and take torch.view_as_complex in forward",
        )
    if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
        raise InputError(
            "model",
            got=f"a hook on the parameter {name}",
            expected="hooks on modules: the gradients of all members are taken together",
            repair="clip= limits gradients, optimizer= a function of (w, g, state, t, layout) "
            "changes them",
        )


def _check_part(place: str, part: nn.Module) -> None:
    where = place or type(part).__name__
    if type(part).__module__.startswith("torch.ao.nn.quantized"):
        raise InputError(
            "model",
            got=f"{where}, a quantised layer",
            expected="a network of floating-point weights",
            repair="train it so, and quantise run.model",
        )
    held = [n for n, v in vars(part).items() if isinstance(v, Tensor) and v.grad_fn is not None]
    if held:
        raise InputError(
            "model",
            got=f"{where} with {held[0]} computed from its parameters beforehand",
            expected="parameters that are used in forward: a module of this kind cannot be copied",
            repair="torch.nn.utils.parametrizations.weight_norm in place of "
            "torch.nn.utils.weight_norm; torch.nn.utils.prune.remove after pruning",
        )


def check_gradient(objective: Any, x: Tensor, y: Tensor) -> None:
    """The loss of a few samples has a gradient, which is dense; buffers stay as they are."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    modes = [(part, part.training) for part in objective.modules()]
    objective.eval()
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            found = torch.autograd.grad(objective(x, y), parameters, allow_unused=True)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            expected = "a model and a loss through which PyTorch can go backwards"
            raise InputError(
                "model",
                got="a backward pass that fails",
                expected=expected,
                repair=str(error)[:200],
            ) from None
        raise InputError(
            "loss",
            got="a loss that does not depend on the parameters",
            expected="a tensor computed from the model's output",
            repair="leave out .detach(), .item(), .data and torch.no_grad() in model and loss",
        ) from None
    finally:
        for part, mode in modes:
            part.training = mode
    if any(each is not None and each.is_sparse for each in found):
        raise InputError(
            "model",
            got="a layer with sparse gradients",
            expected="dense gradients: those of all members are one matrix",
            repair="nn.Embedding(…, sparse=False)",
        )


def copied(module: nn.Module) -> nn.Module:
    """A copy of a person's module."""
    try:
        return copy.deepcopy(module)
    except Exception as error:  # whatever it holds
        raise InputError(
            "model",
            got=f"a {type(module).__name__} that cannot be copied ({type(error).__name__}: {error})",
            expected=_PLAIN,
            repair="give the class, or a function without arguments that makes the module",
        ) from None
