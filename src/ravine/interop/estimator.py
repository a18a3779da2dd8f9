"""scikit-learn estimators: recipes trained by ``fit``, with ``predict`` and ``score``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from ravine.data.pipeline import Pipeline
from ravine.engine.run import Run
from ravine.nn.answers import Answers
from ravine.nn.build import build
from ravine.recipe import Recipe
from ravine.training.folds import Trained, train_folds
from ravine.training.train import train


class _Estimator(BaseEstimator):
    """What classifier and regressor share."""

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        model: Any = None,
        loss: Any = None,
        optimizer: Any = None,
        lr: float | None = None,
        epochs: int | None = None,
        batch: int | str | None = None,
        validation: float = 0.0,
        preprocess: Any = "standardize",
        random_state: Any = 0,
        out: str | None = None,
        edits: dict[str, Any] | None = None,
    ):
        self.recipe, self.model, self.optimizer, self.lr, self.epochs, self.batch = (
            recipe,
            model,
            optimizer,
            lr,
            epochs,
            batch,
        )
        self.loss = loss
        self.validation, self.preprocess, self.random_state, self.out, self.edits = (
            validation,
            preprocess,
            random_state,
            out,
            edits,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Recipes travel as plain data, the network as its arrays."""
        state = {
            name: value for name, value in super().__getstate__().items() if name != "network_"
        }
        recipes = {
            name: {"recipe": value.to_dict(explicit=True)}
            for name, value in state.items()
            if isinstance(value, Recipe)
        }
        return state | recipes

    def __setstate__(self, state: dict[str, Any]) -> None:
        recipes = {
            name: Recipe(**value["recipe"])
            for name, value in state.items()
            if name in ("recipe", "recipe_") and isinstance(value, dict)
        }
        super().__setstate__(state | recipes)
        if "state_" in state:
            self.network_ = self._network()

    def _network(self) -> torch.nn.Module:
        """The trained network from its arrays, in evaluation mode."""
        if self._module() is None:
            pipeline = self._pipeline()
            network = build(
                self.recipe_.model,
                pipeline.input_shape,
                pipeline.outputs,
                vocabulary=pipeline.vocabulary,
            )
        else:
            network = (
                copy.deepcopy(self.model)
                if isinstance(self.model, torch.nn.Module)
                else self.model()
            )
        network.load_state_dict(
            {name: torch.from_numpy(value) for name, value in self.state_.items()}
        )
        return network.eval()

    def _pipeline(self) -> Pipeline:
        return Pipeline.from_state(self.recipe_.data, *_tensors(self.pipeline_state_))

    def _fit(self, x: np.ndarray, y: np.ndarray, outputs: int) -> Any:
        """Train on arrays [N, ...], in memory, or in the run directory ``out``."""
        recipe, module = self._recipe(len(x), outputs), self._module()
        if self.out is None:
            (trained,) = train_folds([recipe], [(x, y)], module)
            self._take(trained, trained.state)
        else:
            run = train(recipe, data=(x, y), model=module, out=self.out, quiet=True)
            self._take(run, run.model.state_dict())
        return self

    def _take(self, trained: Run | Trained, state: dict[str, torch.Tensor]) -> None:
        """Hold what a training gave."""
        self.state_ = {name: value.detach().cpu().numpy().copy() for name, value in state.items()}
        self.pipeline_state_ = _arrays(trained.pipeline.state())
        self.recipe_, self.result_ = trained.recipe, dict(trained.result)
        self.answers_ = trained.answers.to_dict()
        self.network_ = self._network()
        self.n_iter_ = max(1, round(trained.result["epochs"]))

    def _recipe(self, n: int, outputs: int) -> Recipe:
        seed = self.random_state
        seed = (
            int(check_random_state(seed).randint(2**31 - 1))
            if not isinstance(seed, int | np.integer)
            else int(seed)
        )
        changes: dict[str, Any] = {
            "seed": seed,
            "data.seed": seed,
            "data.validation": self.validation,
            "data.test": 0.0,
        }
        if self.preprocess is not None:
            changes["data.preprocess"] = self.preprocess
        given = {
            "loss": self.loss,
            "optimizer": self.optimizer,
            "optimizer.lr": self.lr,
            "data.batch": self.batch,
        }
        changes |= {path: value for path, value in given.items() if value is not None}
        if self.epochs is not None:
            changes["stop.after"] = f"{self.epochs}ep"
        if self.model is not None and not _is_module(self.model):
            changes["model"] = (
                {"kind": "layers", "layers": self.model}
                if isinstance(self.model, list)
                else self.model
            )
        recipe = (self.recipe or Recipe()).edit(changes)
        if self.edits:
            recipe = recipe.edit(self.edits)
        size = n - int(n * self.validation)
        if isinstance(recipe.data.batch, int) and recipe.data.batch > size:
            recipe = recipe.edit({"data.batch": "full"})
        return recipe

    def _module(self) -> Any:
        return self.model if _is_module(self.model) else None

    def _outputs(self, x: Any) -> torch.Tensor:
        check_is_fitted(self, "state_")
        x = validate_data(self, x, reset=False, allow_nd=True, dtype=np.float64)
        pipeline = self._pipeline()
        inputs = pipeline.transform(_float32(x))
        with torch.inference_mode():
            return torch.cat([self.network_(part) for part in inputs.split(512)])

    def _answers(self) -> Answers:
        """What the network's outputs mean, as its run says."""
        return Answers.from_dict(self.answers_, self._pipeline().target_units)


class RavineClassifier(ClassifierMixin, _Estimator):
    """A classifier for scikit-learn: pipelines, cross-validation, grid search.

    ``recipe`` says everything; ``model``, ``loss``, ``optimizer``, ``lr``, ``epochs``, ``batch`` are its
    commonest fields, ``edits`` any other (``{"loss.l2": 1e-4}``). ``validation``: the part held
    back for early stopping and curves; ``random_state``: the seed.

    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> RavineClassifier(lr=0.01, epochs=30).fit(x, y).score(x, y) > 0.9
    True
    """

    def fit(self, X: Any, y: Any) -> RavineClassifier:
        """Train on X [N, ...] and class labels y [N]."""
        return self._fit(*self._samples(X, y))

    def _samples(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, int]:
        """Inputs and targets as they are trained on, and how many outputs the network has."""
        X, y = validate_data(self, X, y, allow_nd=True, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Classifier can't train when only one class is present: {self.classes_[0]!r}."
            )
        return _float32(X), codes.astype(np.int64), len(self.classes_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities [N, K] in the order of ``classes_``."""
        outputs = self._outputs(X)
        return self._answers().by_class(outputs).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each sample."""
        outputs = self._outputs(X)
        return self.classes_[self._answers().classes(outputs).numpy()]


class RavineRegressor(RegressorMixin, _Estimator):
    """A regressor for scikit-learn; parameters as those of ``RavineClassifier``. Targets may be [N]
    or [N, K].

    >>> from sklearn.datasets import load_diabetes
    >>> x, y = load_diabetes(return_X_y=True)
    >>> RavineRegressor(lr=0.01, epochs=30).fit(x, y).score(x, y) > 0.4
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = False
        return tags

    def fit(self, X: Any, y: Any) -> RavineRegressor:
        """Train on X [N, ...] and values y [N] or [N, K]; they are standardised inside, predictions
        are in their unit."""
        return self._fit(*self._samples(X, y))

    def _samples(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, int]:
        """Inputs and targets as they are trained on, and how many outputs the network has."""
        X, y = validate_data(
            self, X, y, allow_nd=True, multi_output=True, y_numeric=True, dtype=np.float64
        )
        if type_of_target(y) not in (
            "continuous",
            "continuous-multioutput",
            "binary",
            "multiclass",
            "multiclass-multioutput",
            "multilabel-indicator",
        ):
            raise ValueError(f"Unknown label type: {type_of_target(y)}")
        self._flat = y.ndim == 1
        values = np.asarray(y, np.float64).reshape(len(y), -1)
        self._center, self._scale = values.mean(0), values.std(0)
        self._scale = np.where(self._scale > 0, self._scale, 1.0)
        scaled = (values - self._center) / self._scale
        return _float32(X), _float32(scaled), values.shape[1]

    def predict(self, X: Any) -> np.ndarray:
        """Values [N] or [N, K]."""
        outputs = self._outputs(X)
        values = self._answers().values(outputs).double().numpy()
        found = values.reshape(-1, len(self._center)) * self._scale + self._center
        return found[:, 0] if self._flat else found


def fit_folds(estimators: Sequence[_Estimator], data: Sequence[tuple[Any, Any]]) -> list[int]:
    """Fit each estimator to its own (X, y): those that fit together as one population. Gives of each how
    many were trained together."""
    samples = [each._samples(*own) for each, own in zip(estimators, data, strict=True)]
    recipes = [
        each._recipe(len(x), outputs)
        for each, (x, _, outputs) in zip(estimators, samples, strict=True)
    ]
    arrays = [(x, y) for x, y, _ in samples]
    trained = train_folds(recipes, arrays, estimators[0]._module())
    for each, own in zip(estimators, trained, strict=True):
        each._take(own, own.state)
    return [own.beside for own in trained]


def _is_module(model: Any) -> bool:
    return isinstance(model, torch.nn.Module) or (callable(model) and not isinstance(model, str))


def _float32(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float32)


def _arrays(state: tuple[Any, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    tensors, facts = state
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}, dict(
        facts
    )


def _tensors(
    state: tuple[dict[str, np.ndarray], dict[str, Any]],
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    arrays, facts = state
    return {name: torch.from_numpy(value) for name, value in arrays.items()}, facts


__all__ = ["RavineClassifier", "RavineRegressor", "fit_folds"]
