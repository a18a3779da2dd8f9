"""A run that has been trained: its model, predictions, metrics, recipe and directory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine import randomness
from ravine.data.pipeline import Pipeline
from ravine.engine import finetune, snapshot
from ravine.engine.programs import class_counts
from ravine.engine.rows.evaluate import evaluate, evaluation, metric_functions
from ravine.engine.rows.population import Objective, joined
from ravine.engine.stored import Stored
from ravine.errors import InputError, RavineError
from ravine.nn.build import build_loss
from ravine.nn.randomized import monte_carlo

if TYPE_CHECKING:
    import pandas


class Run(Stored):
    """One member of a run directory.

    ``module`` is the module, or the function that makes one, of a run whose model was given in
    Python.
    """

    def __repr__(self) -> str:
        return f"<Run {self.recipe.name} member {self.member} in {self.directory}>"

    @property
    def result(self) -> dict[str, Any]:
        """The final metrics, steps, epochs, seconds, and why the run stopped."""
        found = self._rundir.result(self.member)
        if found is None:
            raise RavineError(
                f"{self.directory}: member {self.member} has not ended; ravine resume {self.directory} continues it"
            )
        return found

    @property
    def metrics(self) -> pandas.DataFrame:
        """One row an epoch: epoch, step, lr, grad_norm, train_loss, val_loss and the task's
        metrics."""
        import pandas

        return pandas.DataFrame(self._rundir.epochs(self.member))

    @property
    def losses(self) -> np.ndarray:
        """The data loss of every step [steps]."""
        return self._rundir.steps(self.member)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened: the execution record, frozen members, findings, roll-backs."""
        return [event for event in self._rundir.events() if event["member"] in (None, self.member)]

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind, the run directory's own included."""
        return self._rundir.events(kind)

    # --- using it ---------------------------------------------------------------------------------

    def outputs(self, x: Any, batch: int = 512) -> Tensor:
        """The network's outputs for raw inputs, as they were given for training: logits, or values
        in the target's units."""
        inputs = self.pipeline.transform(x)
        if inputs.shape[1:] != tuple(self.pipeline.input_shape):
            raise InputError(
                "predict",
                got=f"inputs of shape {tuple(inputs.shape[1:])}",
                expected=f"{tuple(self.pipeline.input_shape)}",
            )
        with evaluation([self.model]):
            found = torch.cat([joined(self.model(part)) for part in inputs.split(batch)])
        return self.pipeline.target_units(found)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Class probabilities [N, K] (multilabel: of each label)."""
        return self._probabilities(self.outputs(x)).numpy()

    def _probabilities(self, outputs: Tensor) -> Tensor:
        if self.recipe.loss.arguments.get("input") == "probabilities":
            return outputs
        return (
            outputs.sigmoid()
            if self.pipeline.task == "multilabel" or outputs.shape[-1] == 1
            else outputs.softmax(-1)
        )

    def monte_carlo(
        self, x: Any, samples: int = 100, *, seed: int = 0, batch: int = 512
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the answers over draws of dropout, which stays on (Gal and
        Ghahramani, 2016).

        Answers are class probabilities, or values in the target's units.
        """
        if samples < 1:
            raise InputError("samples", got=samples, expected="a whole number of at least 1")
        regression = self.pipeline.task == "regression"
        answers = _Answers(
            self.model, self.pipeline.target_units if regression else self._probabilities
        )
        parts = [
            monte_carlo(answers, part, samples, seed)
            for part in self.pipeline.transform(x).split(batch)
        ]
        mean, deviation = (torch.cat(halves).numpy() for halves in zip(*parts, strict=True))
        return mean, deviation

    def predict(self, x: Any) -> np.ndarray:
        """Classes (by name where they have names), labels [N, K] of 0 and 1, or values in the
        target's units."""
        if self.pipeline.task == "regression":
            return self.outputs(x).numpy()
        probabilities = self.predict_proba(x)
        if self.pipeline.task == "multilabel":
            return (probabilities > 0.5).astype(np.int64)
        single = probabilities.shape[-1] == 1
        found = (
            (probabilities[..., 0] > 0.5).astype(np.int64) if single else probabilities.argmax(-1)
        )
        names = self.pipeline.classes
        return (
            found
            if not names or list(names) == [str(i) for i in range(len(names))]
            else np.array(names)[found]
        )

    def evaluate(self, split: str = "test", *, data: Any = None) -> dict[str, float]:
        """Loss and metrics on ``"train"``, ``"validation"`` or ``"test"``, or on ``data`` = (x, y)
        of your own."""
        source = self.recipe.data
        if data is not None:
            pipeline = Pipeline.of_test(
                source,
                data,
                *snapshot.read(self._rundir.data_path(self._program)),
                dtype=self._dtype,
            )
            split = "test"
        elif source.source.kind == "arrays":
            raise InputError(
                "evaluate",
                got="a run of arrays given in Python",
                expected="data = (x, y)",
                repair="run.evaluate(data=(x, y))",
            )
        else:
            tokens = self.pipeline.preparation.tokens
            pipeline = Pipeline(
                source, dtype=self._dtype, fitted=finetune.carried_over(self.recipe), tokens=tokens
            )
        if not pipeline.has(split):
            known = [name for name in ("train", "validation", "test") if pipeline.has(name)]
            raise InputError(
                "evaluate", got=split, expected=f"a part that the data has: {', '.join(known)}"
            )
        loss = build_loss(
            self.recipe.loss, pipeline.task, counts=class_counts(self.recipe, pipeline)
        )
        metrics = metric_functions(pipeline.task, self.recipe.metrics, self.recipe.loss)
        objective = Objective(self.model, loss).to(next(self.model.parameters()).dtype)
        return {
            name: float(value[0])
            for name, value in evaluate([objective], pipeline, split, metrics).items()
        }

    def sample(
        self, length: int = 500, *, prompt: str = "\n", temperature: float = 0.8, seed: int = 0
    ) -> str:
        """Text drawn from a character model, one character after another from softmax(logits /
        temperature)."""
        if self.pipeline.task != "sequence":
            raise InputError(
                "sample", got=f"a model for {self.pipeline.task}", expected="a model of characters"
            )
        window = self.pipeline.input_shape[0]
        tokens = self.pipeline.transform(prompt).reshape(1, -1)
        with evaluation([self.model]):
            for i in range(length):
                logits = self.model(tokens[:, -window:])[0, -1].double() / temperature
                draw = torch.multinomial(
                    logits.softmax(-1), 1, generator=randomness.generator(seed, "sample", i)
                )
                tokens = torch.cat([tokens, draw[None]], dim=1)
        return "".join(self.pipeline.classes[i] for i in tokens[0].tolist())

    def copy_model(self) -> nn.Module:
        """A copy of the trained network, for changing."""
        return copy.deepcopy(self.model)


class _Answers(nn.Module):
    """A network and what its outputs mean."""

    def __init__(self, model: nn.Module, answer: Callable[[Tensor], Tensor]):
        super().__init__()
        self.model = model
        self.__dict__["answer"] = lambda outputs: answer(
            outputs
        )  # copied by name, with the run that it belongs to

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(joined(self.model(x)))  # type: ignore[operator]
