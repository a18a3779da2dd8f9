"""A run that has been trained: its model, predictions, metrics, recipe and directory."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine import randomness
from ravine.data.pipeline import Pipeline
from ravine.data.read.text import UNKNOWN
from ravine.engine.augmented import augmented_copy
from ravine.engine.programs import class_counts, with_step, with_targets
from ravine.engine.rows.evaluate import evaluate, evaluation, metric_functions
from ravine.engine.rows.population import Objective
from ravine.engine.weights import finetune
from ravine.engine.weights.stored import Stored, how_to_resume
from ravine.errors import InputError, RavineError
from ravine.nn.answers import Answers
from ravine.nn.build import build_loss
from ravine.nn.decisions import Costs
from ravine.nn.outputs import joined
from ravine.nn.randomized import monte_carlo
from ravine.nn.stack import example
from ravine.registering import require
from ravine.report.overview import useful_name
from ravine.rundir.contents import sound
from ravine.terminal import browse

if TYPE_CHECKING:
    import pandas

    from ravine.report.notebook import Picture


class Run(Stored):
    """One member of a run directory.

    ``module`` is the module, or the function that makes one, of a run whose model was given in
    Python; ``own`` are functions and classes of your own that its recipe names.
    """

    given: Pipeline | None = None  # the data, where this process was given them in Python

    def __repr__(self) -> str:
        return f"<Run {useful_name(self.recipe)!r}, member {self.member}, in {self.directory}>"

    def _repr_html_(self) -> str:
        from ravine.report.notebook import run_html  # it brings the drawing library

        return run_html(self._rundir, self.member)

    def plot(self, metric: str = "loss") -> Picture:
        """The curves of a metric (``"loss"``, ``"accuracy"``, ``"lr"``, ``"step_loss"``), which a
        notebook shows; ``.save(path)`` writes them."""
        from ravine.report.notebook import Picture, curve

        figure = curve(self._rundir, metric)
        if figure is None:
            names = self._rundir.metrics
            raise InputError("plot", got=metric, expected=f"one of {', '.join(names)}")
        return Picture(figure)

    def confusion(self, split: str = "test", *, data: Any = None) -> pandas.DataFrame:
        """How often samples of each class (rows) were given each class (columns), on a part of the
        data or on ``data`` of your own, as ``evaluate`` takes it. InputError for a regression."""
        import pandas

        if self.pipeline.task != "classification":
            expected = "a run of a classification"
            raise InputError("confusion", got=self.pipeline.task, expected=expected)
        pipeline, split = self._pipeline_of("confusion", split, data)
        given, found = [], []
        with evaluation([self.model]):
            for batch in pipeline.split(split):
                given.append(batch.y.reshape(-1).long().cpu())
                found.append(self.answers.classes(self._one(self.model(batch.x))).reshape(-1).cpu())
        names = list(pipeline.classes)
        counts = torch.zeros(len(names), len(names), dtype=torch.long)
        places = (torch.cat(given), torch.cat(found).long())
        counts.index_put_(places, torch.ones_like(places[0]), accumulate=True)
        index, columns = (pandas.Index(names, name=name) for name in ("class", "answer"))
        return pandas.DataFrame(counts.numpy(), index=index, columns=columns)

    @property
    def result(self) -> dict[str, Any]:
        """The final metrics, steps, epochs, seconds, and why the run stopped."""
        found = self._rundir.result(self.member)
        if found is None:
            raise RavineError(
                f"{self.directory}: member {self.member} has not ended; {how_to_resume(self._rundir)} continues it"
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

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What the doctor found in this run, the worst first: code, where, evidence, cause,
        consequences, remedies."""
        found = self._rundir.events("finding")
        return [event["data"] for event in found if event["member"] in (None, self.member)]

    def report(self) -> Path:
        """Write the report anew and give its path."""
        from ravine.report.run_page import write_report  # it brings the drawing library

        return write_report(self._rundir)

    def open(self) -> Path:
        """Open the report in the browser and give its path."""
        path = self._rundir.report_path
        return browse(path if path.is_file() else self.report())

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind, the run directory's own included."""
        return self._rundir.events(kind)

    @cached_property
    def answers(self) -> Answers:
        """What the network's outputs mean, as decided when the run was begun."""
        stored = self._rundir.facts["programs"][self._program].get("answers")
        if stored is not None:
            with sound(self.directory):
                return Answers.from_dict(stored, self.pipeline.target_units)
        return self._derived_answers(self.model)

    def _derived_answers(self, model: nn.Module) -> Answers:
        """Of a run that was stored before answers were: from its network and its recipe."""
        pipeline = self.pipeline
        loss = build_loss(
            self.recipe.loss, pipeline.task, counts=class_counts(self.recipe, pipeline)
        )
        x = example(model, pipeline.input_shape, 4)
        return Answers.of(model, loss, pipeline.task, x, pipeline.target_units)

    # --- using it ---------------------------------------------------------------------------------

    def outputs(self, x: Any, batch: int = 512) -> Tensor:
        """The network's outputs for raw inputs, as they were given for training: what its last
        layer gives, in the target's units where targets were transformed."""
        return self.pipeline.target_units(self._outputs(x, batch))

    def _outputs(self, x: Any, batch: int = 512, augment: int = 0) -> Tensor:
        if augment < 0:
            raise InputError("augment", got=augment, expected="a whole number of at least 0")
        if augment and not self.pipeline.data.augment:
            expected = "a recipe with data.augment, which says how inputs may change"
            raise InputError("augment", got="a run that was trained without", expected=expected)
        inputs = self.pipeline.transform(x)
        if inputs.shape[1:] != tuple(self.pipeline.input_shape):
            raise InputError(
                "predict",
                got=f"inputs of shape {tuple(inputs.shape[1:])}",
                expected=f"{tuple(self.pipeline.input_shape)}",
            )
        found = [self._network_outputs(inputs, batch)]
        for copy_ in range(augment):
            changed = augmented_copy(self.pipeline, x, self.recipe.data.seed, copy_)
            found.append(self._network_outputs(changed, batch))
        return found[0] if len(found) == 1 else self.answers.average(torch.stack(found))

    def _network_outputs(self, inputs: Tensor, batch: int) -> Tensor:
        with evaluation([self.model]):
            return torch.cat([self._one(self.model(part)) for part in inputs.split(batch)])

    def _one(self, output: Any) -> Tensor:
        return joined(output, heads=self.answers.kind == "heads")

    def predict_proba(self, x: Any, *, augment: int = 0) -> np.ndarray:
        """Class probabilities [N, K], rows that sum to 1; of one output [N, 1], the probability of
        the second class; multilabel [N, K], of each label. ``answers`` says how they come from the
        outputs. InputError for a regression.

        ``augment``: the mean over the inputs as they are and so many copies of them, each changed
        as the recipe's ``data.augment`` changes training samples (test-time augmentation); what
        mixes samples is left out, and ranges that it needs are those of these inputs.
        """
        return self.answers.probabilities(self._outputs(x, augment=augment)).numpy()

    def monte_carlo(
        self, x: Any, samples: int = 100, *, seed: int = 0, batch: int = 512
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the answers over draws of dropout, which stays on (Gal and
        Ghahramani, 2016).

        Answers are class probabilities, or values in the target's units.
        """
        if samples < 1:
            raise InputError("samples", got=samples, expected="a whole number of at least 1")
        of_classes = self.answers.kind in ("classes", "binary", "labels")
        answer = self.answers.probabilities if of_classes else self.answers.values
        network = _Network(self.model, lambda output: answer(self._one(output)))
        parts = [
            monte_carlo(network, part, samples, seed)
            for part in self.pipeline.transform(x).split(batch)
        ]
        mean, deviation = (torch.cat(halves).numpy() for halves in zip(*parts, strict=True))
        return mean, deviation

    def predict(self, x: Any, *, augment: int = 0, costs: Costs | None = None) -> np.ndarray:
        """Classes (by name where they have names), labels [N, K] of 0 and 1, or values in the
        target's units; of several heads, columns as the targets have them. ``augment`` as in
        ``predict_proba``.

        ``x``: arrays as in training, a Dataset or DataLoader (answers are in the Dataset's order), the
        path of a file or folder, or a list of paths; of a table also a DataFrame, a row by name
        ({"size": 80}) or a list of them; of texts by class also texts; of a text a str to go on from.

        ``costs`` [K, K], a row for each true class and a column for each answer: the class of least
        expected cost under the probabilities in place of the most probable one. InputError where the
        network does not answer with one class.
        """
        outputs = self._outputs(x, augment=augment)
        if costs is not None:
            return self._named(self.answers.cheapest(outputs, costs).numpy())
        if self.answers.kind not in ("classes", "binary", "labels"):
            return self.answers.values(outputs).numpy()
        found = self.answers.classes(outputs).numpy()
        return found if self.answers.kind == "labels" else self._named(found)

    def _named(self, found: np.ndarray) -> np.ndarray:
        """Class numbers as names, where classes have names."""
        names = self.pipeline.classes
        return (
            found
            if not names or list(names) == [str(i) for i in range(len(names))]
            else np.array(names)[found]
        )

    def evaluate(self, split: str = "test", *, data: Any = None) -> dict[str, float]:
        """Loss and metrics on ``"train"``, ``"validation"`` or ``"test"``, or on ``data`` of your own:
        (x, y), a Dataset, a DataLoader, a DataFrame or a path, where a file or folder has the targets too."""
        parts = [self.recipe.loss, self.recipe.metrics, self.recipe.step]
        require(parts, f"ravine.Run({str(self.directory)!r}, own=[{{}}])")
        pipeline, split = self._pipeline_of("evaluate", split, data)
        loss = with_targets(
            build_loss(self.recipe.loss, pipeline.task, counts=class_counts(self.recipe, pipeline)),
            pipeline.preparation.facts,
        )
        metrics = metric_functions(
            self.answers, pipeline.task, self.recipe.metrics, self.recipe.loss
        )
        objective = Objective(self.model, loss).to(next(self.model.parameters()).dtype)
        with_step(objective, self.recipe, pipeline.preparation.facts)
        return {
            name: float(value[0])
            for name, value in evaluate([objective], pipeline, split, metrics).items()
        }

    def _pipeline_of(self, what: str, split: str, data: Any) -> tuple[Pipeline, str]:
        """The data of a part, or of one's own as a test part."""
        source = self.recipe.data
        if data is not None:
            pipeline = Pipeline.of_test(
                source,
                data,
                *self.preprocessing,
                dtype=self._dtype,
            )
            split = "test"
        elif self.given is not None:
            pipeline = self.given
        elif source.source.kind == "arrays":
            raise InputError(
                what,
                got="a run of arrays given in Python",
                expected="data = (x, y)",
                repair=f"run.{what}(data=(x, y))",
            )
        else:
            self._rundir.check_trust()
            tokens = self.pipeline.preparation.tokens
            pipeline = Pipeline(
                source, dtype=self._dtype, fitted=finetune.carried_over(self.recipe), tokens=tokens
            )
        if not pipeline.has(split):
            known = [name for name in ("train", "validation", "test") if pipeline.has(name)]
            raise InputError(
                what, got=split, expected=f"a part that the data has: {', '.join(known)}"
            )
        return pipeline, split

    def sample(
        self, length: int = 500, *, prompt: str = "", temperature: float = 0.8, seed: int = 0
    ) -> str:
        """The prompt (default: a line's end) and text drawn from a character model that follows it, one
        character after another from softmax(scores / temperature); at 0 the likeliest of them."""
        if self.pipeline.task != "sequence" or not self.pipeline.classes:
            raise InputError(
                "sample", got=f"a model for {self.pipeline.task}", expected="a model of characters"
            )
        if not 0 <= temperature < math.inf:
            raise InputError("temperature", got=temperature, expected="a number of at least 0")
        window, known = self.pipeline.input_shape[0], self.pipeline.classes
        prompt = prompt or next((one for one in ("\n", " ") if one in known), known[-1])
        if strange := sorted(set(prompt) - set(known)):
            listed = ", ".join(map(repr, strange[:8])) + (", …" if len(strange) > 8 else "")
            text = f"the text that was trained on does not have {listed}; the network reads each as unknown"
            warnings.warn(f"prompt: {text}", stacklevel=2)
        tokens = self.pipeline.transform(prompt).reshape(1, -1)
        drawn = []
        with evaluation([self.model]):
            for i in range(length):
                scores = self.answers.scores(self.model(tokens[:, -window:])[0, -1].double())
                if known[0] == UNKNOWN:
                    scores[0] = -math.inf
                chances = (scores / temperature if temperature else scores).softmax(-1)
                generator = randomness.generator(seed, "sample", i)
                likeliest = chances.argmax(0, keepdim=True)
                draw = (
                    torch.multinomial(chances, 1, generator=generator) if temperature else likeliest
                )
                drawn.append(known[int(draw)])
                tokens = torch.cat([tokens, draw[None]], dim=1)[:, -window:]
        return prompt + "".join(drawn)

    def copy_model(self) -> nn.Module:
        """A copy of the trained network, for changing."""
        return copy.deepcopy(self.model)


class _Network(nn.Module):
    """A network whose outputs are answers."""

    def __init__(self, model: nn.Module, answer: Callable[[Any], Tensor]):
        super().__init__()
        self.model = model
        # copied by name, with the run that it belongs to
        self.__dict__["answer"] = lambda outputs: answer(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.model(x))  # type: ignore[operator]
