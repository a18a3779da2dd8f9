"""Every error says what it got, what it expected and how to repair it; none shows a traceback on
the command line."""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable
from pathlib import Path


class RavineError(Exception):
    """The run failed: diverged everywhere, interrupted, or a run directory is damaged (exit code
    1)."""

    exit_code = 1


class InputError(RavineError, ValueError):
    """The input was wrong (exit code 2).

    >>> print(InputError("optimizer.lr", got=-1, expected="a number > 0", repair="try 0.001"))
    optimizer.lr: got -1; expected a number > 0; try 0.001
    """

    exit_code = 2

    def __init__(self, where: str, *, got: object = None, expected: str = "", repair: str = ""):
        self.where, self.got, self.expected, self.repair = where, got, expected, repair
        super().__init__(where, got, expected, repair)

    def __str__(self) -> str:
        shown = f"got {_short(self.got)}" if self.got is not None else ""
        wanted = f"expected {_cut(self.expected, 1500)}" if self.expected else ""
        text = "; ".join(part for part in (shown, wanted, _cut(self.repair, 1500)) if part)
        return f"{_cut(self.where, 300)}: {text}" if self.where else text

    def under(self, prefix: str) -> InputError:
        """The same error, its place named from further out: ``lr`` under ``optimizer`` is
        ``optimizer.lr``."""
        where = ".".join(part for part in (prefix, self.where) if part)
        return InputError(where, got=self.got, expected=self.expected, repair=self.repair)


# Names in PyTorch, Keras, scikit-learn, Lightning and skorch -> Ravine's
_ELSEWHERE = {
    theirs: ours
    for ours, names in {
        ("lr",): "learning_rate learning_rate_init eta0 step_size",
        ("batch",): "batch_size minibatch_size train_batch_size",
        ("epochs", "after"): "n_epochs max_epochs num_epochs nb_epoch num_train_epochs max_iter",
        ("steps", "after"): "max_steps n_steps num_steps",
        ("loss",): "criterion objective loss_fn loss_function",
        ("optimizer",): "optim solver optimiser",
        ("schedule",): "scheduler lr_scheduler learning_rate_schedule",
        ("seed",): "random_state random_seed manual_seed",
        ("validation",): "validation_split val_split validation_fraction validation_size",
        ("test",): "test_size test_split",
        ("patience",): "early_stopping n_iter_no_change early_stopping_patience",
        ("hidden", "units"): "hidden_layer_sizes hidden_sizes hidden_units hidden_size",
        ("channels",): "filters out_channels",
        ("kernel",): "kernel_size",
        ("model",): "net network module architecture estimator",
        ("augment",): "transforms transform augmentation",
        ("preprocess",): "preprocessing scaler",
        ("norm",): "max_grad_norm clipnorm gradient_clip_val grad_clip",
        ("momentum",): "beta mu",
        ("beta1", "beta2"): "betas",
        ("eps",): "epsilon",
        ("rate",): "p drop_rate",
        ("precision",): "dtype amp mixed_precision",
        ("threads",): "n_jobs num_workers num_threads",
        ("best",): "restore_best_weights load_best_model_at_end save_best",
        ("on_epoch", "on_step"): "callbacks callback",
        # classes of PyTorch, and Keras's names, whose spelling is another
        ("cross_entropy",): "CrossEntropyLoss categorical_crossentropy "
        "sparse_categorical_crossentropy",
        ("binary_cross_entropy",): "BCEWithLogitsLoss BCELoss binary_crossentropy",
        ("squared",): "MSELoss mse mean_squared_error l2",
        ("absolute",): "L1Loss mae mean_absolute_error",
        ("huber",): "SmoothL1Loss HuberLoss smooth_l1",
        ("nll",): "NLLLoss GaussianNLLLoss",
        ("kl",): "KLDivLoss",
        ("cosine",): "CosineAnnealingLR cosine_annealing",
        ("step",): "StepLR",
        ("multistep",): "MultiStepLR",
        ("exponential",): "ExponentialLR",
        ("one_cycle",): "OneCycleLR",
        ("on_plateau",): "ReduceLROnPlateau",
        ("warm_restarts",): "CosineAnnealingWarmRestarts",
    }.items()
    for theirs in names.split()
}


def unknown(where: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a closed list, with the nearest right ones."""
    known = sorted(known)
    listed = ", ".join(known) if len(known) <= 40 else ", ".join(known[:40]) + ", …"
    return InputError(
        where, got=name, expected=f"one of {listed}" if known else "", repair=nearest(name, known)
    )


def unnamed_file(name: str) -> InputError | None:
    """The error for a file or folder given as a source without saying what it is."""
    kinds = {".csv": "csv", ".tsv": "csv", ".txt": "text", ".npz": "npz", ".gz": "idx"}
    kind = kinds.get(Path(name).suffix.lower()) or ("folder" if "/" in name else None)
    if kind is None:
        return None
    return InputError(
        "kind", got=name, expected="the kind of data before it", repair=f"write {kind}:{name}"
    )


def ours_of(name: object) -> tuple[str, ...]:
    """The names that Ravine has for what another library calls so."""
    return _ELSEWHERE.get(str(name), ())


def nearest(name: object, known: Iterable[str]) -> str:
    """The question that names the nearest of the known names, by its spelling or because another
    library calls it so; empty where none is near.

    >>> nearest("adma", ["sgd", "adam", "adamw"]), nearest("learning_rate", ["lr", "beta1"])
    ("did you mean 'adam' or 'adamw'?", "did you mean 'lr'?")
    """
    known = list(known)
    last = str(name).rpartition(".")[2]  # of torch.optim.AdamW
    close = [ours for each in (name, last) for ours in ours_of(each) if ours in known][:1]
    close = close or [ours for ours in known if ours == last.lower()]
    close = close or difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's text; where it has none, what kind of error it is.

    >>> first_line(ValueError("shapes differ\\nin many words")), first_line(AssertionError())
    ('shapes differ', 'AssertionError')
    """
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__


def place_of(error: BaseException) -> str:
    """Where in a person's own code an error arose, ``" (own.py, line 3)"``: the last line that is neither of
    Ravine nor of an installed package; else nothing."""
    here = str(Path(__file__).parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = frame.filename
        if not file.startswith((here, "<frozen")) and f"{os.sep}site-packages{os.sep}" not in file:
            return f" ({Path(file).name}, line {frame.lineno})"
    return ""


def _cut(text: str, limit: int) -> str:
    """A long text without its middle."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
