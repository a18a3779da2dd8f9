"""Ensembles: by seed, by bootstrap, by the cycles of one run; they save, load and predict as one
model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from ravine.catalogue import durations
from ravine.data.pipeline import Pipeline
from ravine.engine import snapshot
from ravine.engine.rows.population import Objective, view
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.nn.answers import Answers
from ravine.nn.build import layout
from ravine.nn.outputs import joined
from ravine.recipe import Recipe
from ravine.rundir import RunDir
from ravine.storage.files import write_text
from ravine.study import measuring
from ravine.study.declare import Conclusion, OfRecipe, study
from ravine.study.directory import Study
from ravine.study.ensemble.calibration import calibration
from ravine.study.ensemble.figures import page_of
from ravine.study.live import LiveTable
from ravine.study.signature import SeveralTrained


class EnsembleModel(nn.Module):
    """Members as one network, whose outputs have the form of a member's and are read like them.

    ``answers`` say what a member's outputs mean. ``mean``: outputs that mean the plain average of
    the members' probabilities (of logits, its logarithm or log-odds; of a network that ends in a
    softmax or sigmoid, or is fitted to 0 and 1, the average itself); for numbers the mean.
    ``vote``: likewise of the shares of votes, the mean probability counted as one more vote, so
    that it breaks ties and no class is impossible.
    """

    def __init__(self, members: Sequence[nn.Module], answers: Answers, combine: str = "mean"):
        super().__init__()
        self.members, self.combine = nn.ModuleList(members), combine
        self.answers = Answers.from_dict(answers.to_dict())  # without the data's units

    def forward(self, x: Tensor) -> Tensor:
        heads = self.answers.kind == "heads"
        given = [joined(member(x), heads=heads) for member in self.members]
        outputs = torch.stack(given)  # [M, B, ...]
        if self.combine == "mean" or self.answers.kind not in ("classes", "binary", "labels"):
            return self.answers.average(outputs)
        p = torch.stack([self.answers.probabilities(output) for output in outputs])
        votes = nn.functional.one_hot(p.argmax(-1), p.shape[-1])
        if self.answers.kind != "classes":
            votes = p > 0.5
        shares = (votes.to(p.dtype).sum(0) + p.mean(0)) / (len(p) + 1)
        return self.answers.outputs(shares).to(outputs.dtype)


class Ensemble(Run):
    """A saved ensemble: it predicts, evaluates and exports as a run does.

    >>> recipe = Recipe(data={"source": "blobs"}, model="softmax", stop={"after": "1ep"})
    >>> found = ensemble(recipe, members=2, quiet=True, out=tmp / "e")
    >>> Ensemble(tmp / "e").predict_proba(np.zeros((1, 2))).shape
    (1, 3)
    """

    def __init__(self, directory: str | Path, *, module: Any = None):
        self.directory, self.member, self._module = Path(directory), 0, module
        self._arrays, self._facts = snapshot.read(self.directory / "ensemble")
        self.recipe = Recipe(**self._facts["recipe"])
        self.combine: str = self._facts["combine"]

    def __len__(self) -> int:
        return len(self._arrays["theta"])

    def __repr__(self) -> str:
        return f"<Ensemble of {len(self)} in {self.directory}>"

    @cached_property
    def pipeline(self) -> Pipeline:
        return Pipeline.from_state(self.recipe.data, *self._pipeline_state)

    @property
    def _pipeline_state(self) -> Any:
        return snapshot.read(self.directory / "ensemble-data")

    @cached_property
    def members(self) -> list[nn.Module]:
        """The networks, in evaluation mode."""
        return [self._network(row) for row in range(len(self))]

    @cached_property
    def model(self) -> nn.Module:
        return EnsembleModel(self.members, self.answers, self.combine).eval()

    @cached_property
    def answers(self) -> Answers:
        """What a member's outputs mean, and so those of the whole."""
        stored = self._facts.get("answers")
        if stored is not None:
            return Answers.from_dict(stored, self.pipeline.target_units)
        return self._derived_answers(self.members[0])

    def _network(self, row: int) -> nn.Module:
        import copy

        model = copy.deepcopy(self._blank())
        named = dict(model.named_parameters())
        with torch.no_grad():
            for entry in layout(Objective(model, nn.Identity())).entries:
                named[entry.name.removeprefix("model.")].copy_(
                    view(self._arrays["theta"][row], entry)
                )
            for name, buffer in model.named_buffers():
                if f"buffer/model.{name}" in self._arrays:
                    buffer.copy_(self._arrays[f"buffer/model.{name}"][row])
        return model.eval()

    def evaluate(self, split: str = "test", *, data: Any = None) -> dict[str, float]:
        """Loss and metrics of the whole on a part of the data, or on ``data``, as a ``Run`` takes it."""
        pipeline = (
            None
            if data is None
            else Pipeline.of_test(self.recipe.data, data, *self._pipeline_state)
        )
        found = measuring.measure([self], "test" if data is not None else split, pipeline=pipeline)
        return {name: float(value[0]) for name, value in found.items()}


@study
def ensemble(
    study: Study,
    recipe: Recipe,
    *,
    members: SeveralTrained = 10,
    method: Literal["seed", "bagging", "snapshot"] = "seed",
    combine: Literal["mean", "vote"] = "mean",
    **common: Unpack[OfRecipe],
) -> Conclusion:
    """Train an ensemble as one population; it saves, loads and predicts as one model.

    ``seed`` is a deep ensemble: other initialisation and dropout. In ``bagging`` each member weighs
    the samples as drawn with replacement. ``snapshot`` takes the ends of the cosine cycles of a
    single run. The summary compares the ensemble with its members. The study directory is the
    ensemble: ``Ensemble(out)``, or ``ravine predict OUT INPUT``.

    Args:
        members: How many networks.
        method: How members differ: by seed, by bootstrap weights, or as cycles of one run.
        combine: Mean of the probabilities, or vote.

    Source: Breiman, "Bagging predictors", 1996; Huang et al., "Snapshot ensembles", 2017;
    Lakshminarayanan et al., 2017.
    """
    with LiveTable(f"ensemble for {recipe.name}", "val_loss", 1, quiet=study.quiet) as live:
        _train(study, live)
    return _conclude(study)


def _train(study: Study, live: LiveTable) -> None:
    """Train what the ensemble is made of, and save it as one."""
    recipe, count, method = study.recipe, study.options["members"], study.options["method"]
    if method == "snapshot":
        amount, unit = durations.parse(recipe.stop.after)
        ends = [f"{float(amount * k / count):.6g}{unit}" for k in range(1, count + 1)]
        cyclic = recipe.edit(
            {
                "schedule": {"kind": "warm_restarts", "period": ends[0]},
                "stop.patience": None,
                "stop.best": False,
            }
        )
        runs = study.train(
            "cycles",
            [cyclic],
            trace=ends,
            report=live.stage("cycles", [cyclic], [{"cycles": count}]),
        )
        arrays = _on_the_way(RunDir.open(runs[0].directory), count)
    else:
        edits = {"data.bootstrap": True} if method == "bagging" else {}
        recipes = [recipe.edit({**edits, "seed": recipe.seed + i}) for i in range(count)]
        runs = study.train(
            "members",
            recipes,
            report=live.stage("members", recipes, [{"seed": r.seed} for r in recipes]),
        )
        lost = [run.member for run in runs if run.result["stopped"] == "diverged"]
        if len(lost) > len(runs) - 2:
            raise InputError(
                "ensemble",
                got=f"{len(lost)} members that diverged",
                expected="at least two that learn",
                repair="see ravine lr",
            )
        arrays = _finals([run for run in runs if run.member not in lost])
    facts = {
        "recipe": runs[0].recipe.to_dict(explicit=True),
        "combine": study.options["combine"],
        "method": method,
        "answers": runs[0].answers.to_dict(),
    }
    snapshot.write(study.path / "ensemble", arrays, facts)
    snapshot.write(study.path / "ensemble-data", *runs[0].pipeline.state())


def _on_the_way(rundir: RunDir, count: int) -> dict[str, Tensor]:
    found = [snapshot.read(path)[0] for path in rundir.trace_snapshots(0)][-count:]
    return {
        ("theta" if name == "theta" else f"buffer/{name}"): torch.cat([one[name] for one in found])
        for name in found[0]
    }


def _finals(runs: Sequence[Run]) -> dict[str, Tensor]:
    slots = [run.slots for run in runs]
    arrays = {"theta": torch.stack([slot["final"] for slot in slots])}
    buffers = [name for name in slots[0] if name.startswith("final_buffer/")]
    return arrays | {
        name.replace("final_", "", 1): torch.stack([slot[name] for slot in slots])
        for name in buffers
    }


# --- against its members --------------------------------------------------------------------------


def _conclude(study: Study) -> Conclusion:
    saved = Ensemble(study.path, module=study.model)
    pipeline = measuring.pipeline_of(saved.recipe, study.data)
    split = "test" if pipeline.has("test") else "validation"
    outputs = _member_outputs(saved, pipeline, split)
    whole = measuring.outputs_on([saved], split, pipeline=pipeline)
    found = study.once("measured", lambda: compared(outputs, whole, saved.combine))
    summary = {
        "split": split,
        "method": study.options["method"],
        "combine": saved.combine,
        "members": len(saved),
        **found,
        "ensemble": str(study.path),
        "seconds": study.seconds,
    }
    kept = {"members": len(saved), "combine": saved.combine}
    write_text(study.path / "ensemble.json", json.dumps(kept))
    return summary, page_of(study, summary)


def _member_outputs(saved: Ensemble, pipeline: Pipeline, split: str) -> measuring.Outputs:
    batches, heads = list(pipeline.split(split)), saved.answers.kind == "heads"
    with torch.inference_mode():
        outputs = [
            torch.cat([joined(member(batch.x), heads=heads) for batch in batches])
            for member in saved.members
        ]
    targets = pipeline.target_units(torch.cat([batch.y for batch in batches]))
    return measuring.Outputs(torch.stack(outputs).clone(), targets.clone(), pipeline, saved.answers)


def combined(p: np.ndarray, combine: str) -> np.ndarray:
    """What members of probabilities [P, N, K] say together [N, K], as ``EnsembleModel`` does."""
    mean = p.mean(0)
    votes = np.eye(p.shape[-1])[p.argmax(-1)].sum(0)
    return mean if combine == "mean" else (votes + mean) / (len(p) + 1)


def compared(members: measuring.Outputs, whole: measuring.Outputs, combine: str) -> dict[str, Any]:
    """The ensemble's and its members' metrics, and for classes their calibration and how often
    members disagree."""
    if members.pipeline.task == "regression":
        target = members.targets.double().numpy()

        def rmse(values: np.ndarray) -> float:
            return float(np.sqrt(((values - target) ** 2).mean()))

        own = [rmse(row) for row in members.values.double().numpy()]
        return {
            "table": [
                {"who": "ensemble", "rmse": rmse(whole.values[0].double().numpy())},
                {"who": "mean member", "rmse": float(np.mean(own))},
                {"who": "best member", "rmse": float(min(own))},
            ]
        }
    if members.pipeline.task != "classification":
        raise InputError(
            "ensemble",
            got=f"a {members.pipeline.task} task",
            expected="classification or regression",
        )
    y = members.targets.long().numpy().ravel()
    p, together = members.probabilities, whole.probabilities[0]
    singles = [calibration(row, y) for row in p]
    joint = calibration(together, y)
    names = ("accuracy", "log_loss", "brier", "ece")
    mean = {name: float(np.mean([one[name] for one in singles])) for name in names}
    best = min(singles, key=lambda one: one["log_loss"])
    classes = p.argmax(-1)
    apart = [float((classes[i] != classes[j]).mean()) for i in range(len(p)) for j in range(i)]
    grown = [calibration(combined(p[:k], combine), y) for k in range(1, len(p) + 1)]
    return {
        "table": [
            {"who": "ensemble", **{n: joint[n] for n in names}},
            {"who": "mean member", **mean},
            {"who": "best member by log-loss", **{n: best[n] for n in names}},
        ],
        "disagreement": float(np.mean(apart)),
        "reliability": {
            "ensemble": joint["bins"],
            "members": calibration(p.reshape(-1, p.shape[-1]), np.tile(y, len(p)))["bins"],
        },
        "grown": [{n: one[n] for n in names} for one in grown],
        "single": [{n: one[n] for n in names} for one in singles],
    }


def opened(path: Path, member: int) -> Run:
    """A member of a run directory, or the ensemble of a study directory, which is used alike."""
    return Ensemble(path) if (path / "ensemble").is_dir() else Run(path, member)
