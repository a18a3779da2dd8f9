"""A program before its first step: its data, its network, and what one probe of both shows."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ravine.catalogue import PREFIX
from ravine.data.objects.fields import Fields
from ravine.data.pipeline import Batch, Pipeline
from ravine.data.source import Arrays
from ravine.data.tables.decisions import places_of, width_of
from ravine.doctor.edits import Case
from ravine.doctor.measure.probes import Layer, Seen, look
from ravine.doctor.measure.repeats import Repeats, keys_of, repeats_of
from ravine.errors import InputError
from ravine.nn.analysis.output_layer import output_layer
from ravine.nn.analysis.traits import Trait, traits
from ravine.nn.outputs import shown
from ravine.recipe import Recipe

ENTROPIES = ("cross_entropy", "binary_cross_entropy", "kl", "nll")
DISTANCES = ("squared", "absolute", "huber")
FIRST = 20_000  # training samples that are read for statistics
COMPARED = 2000  # samples that are compared
FEW = 8  # samples whose answers are compared with those that they get alone
PROBE = 1024  # samples on which losses are compared


@dataclass
class Untrained:
    """What the checks before the first step read."""

    recipe: Recipe
    pipeline: Pipeline
    model: nn.Module
    loss: nn.Module
    probe: Batch  # training samples, as training draws them
    seen: Seen | None  # None: the network or the loss refuses the data
    head: str  # what the output layer is, by how it behaves
    loss_kind: str  # ``auto`` resolved
    probabilities: bool  # whether the loss reads probabilities
    refused: str = ""
    # what simple learners find, by the rows' shift: several checks ask for it
    learned: dict[int, Any] = field(default_factory=dict, repr=False)

    @property
    def task(self) -> str:
        return self.pipeline.task

    @property
    def outputs(self) -> int:
        if self.seen is None or self.seen.outputs.dim() < 2:
            return 1
        return self.seen.outputs.shape[-1]

    @property
    def case(self) -> Case:
        return Case(self.recipe, self.task, self.pipeline.outputs, tuple(self.pipeline.input_shape))

    @property
    def weighted(self) -> list[Layer]:
        """The layers with weights, in the order in which they run, without embeddings."""
        if self.seen is None:
            return []
        return [layer for layer in self.seen.weighted if Trait.EMBEDS not in layer.traits]

    @property
    def targets(self) -> Tensor:
        """Targets of the training part, in its order."""
        return torch.cat(
            [batch.y for batch in self.pipeline.split("train", limit=FIRST, batch=4096)]
        )

    def held(self, part: str) -> Batch:
        """The first samples of the validation or the test part."""
        return next(iter(self.pipeline.split(part, limit=COMPARED, batch=COMPARED)))

    @property
    def inputs(self) -> Tensor:
        """Inputs of the training part, in its order, one row a sample [n, features]."""
        batches = self.pipeline.split("train", limit=FIRST, batch=4096)
        return torch.cat([batch.x.flatten(1) for batch in batches])

    @cached_property
    def few(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Outputs of a few samples in evaluation: together, together again, each alone. None of the
        package's own networks, and where these cannot be compared."""
        kind, x = self.recipe.model.kind, self.probe.x[:FEW]
        if (kind != "module" and not kind.startswith(PREFIX)) or len(x) < 2:
            return None
        model = copy.deepcopy(self.model).eval()
        if any(_uses_batch(module) for module in model.modules()):
            return None
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                alone = torch.cat([shown(model(one)) for one in x.split(1)])
                found = [shown(model(x)), shown(model(x)), alone]
        except Exception:  # a module may need whole batches
            return None
        together, again, alone = (each.detach().double() for each in found)
        same = together.shape == again.shape == alone.shape and len(together) == len(x)
        finite = same and bool(torch.isfinite(torch.stack([together, again, alone])).all())
        return (together, again, alone) if finite else None

    @cached_property
    def keys(self) -> Tensor:
        """``keys_of`` the inputs of the training part [n]."""
        return keys_of(self.inputs)

    @property
    def numbers(self) -> Tensor:
        """The probe's inputs; of several inputs those columns that are real numbers [n, D]."""
        facts, x = self.pipeline.preparation.facts, self.probe.x
        if "fields" not in facts:
            return x
        fields = Fields.from_dict(facts["fields"])
        sizes = [math.prod(shape) for shape in fields.shapes]
        parts = zip(x.split(sizes, 1), fields.dtypes, strict=True)
        return torch.cat([x[:, :0], *(part for part, dtype in parts if "float" in dtype)], 1)

    @property
    def varied(self) -> bool:
        """Whether inputs do not repeat by chance: images, or tables with a column of many values."""
        return self.probe.x.dim() == 4 or bool(self.telling)

    @property
    def independent(self) -> int:
        """In how many features samples can differ by themselves: a table's category is one."""
        groups = getattr(self.pipeline.input_shape, "groups", ())
        widths = [width if what == "text" else 1 for what, width in groups]
        return sum(widths) or self.probe.x[0].numel()

    @cached_property
    def telling(self) -> list[slice]:
        """The places of a table's columns whose values are mostly different; a text has several."""
        x = self.probe.x
        if x.dim() != 2 or not x.is_floating_point():
            return []
        groups = getattr(self.pipeline.input_shape, "groups", ())
        ends = [*accumulate(width for _, width in groups)]
        texts = [
            slice(end - width, end)
            for (kind, width), end in zip(groups, ends, strict=True)
            if kind == "text"
        ]
        columns = [slice(place, place + 1) for place in range(x.shape[1])]
        return [p for p in (*texts, *columns) if len(keys_of(x[:, p]).unique()) > 0.5 * len(x)]

    @cached_property
    def repeats(self) -> Repeats:
        """Which training samples are equal, and how many equal ones chance gives each."""
        return self.repeats_with("")

    def repeats_with(self, part: str) -> Repeats:
        """The same of the training samples, and behind them the first ones of another part."""
        x, y = self._rows("train", FIRST)
        if part:
            held = self._rows(part, COMPARED)
            x, y = torch.cat([x, held[0]]), torch.cat([y, held[1]])
        own = self.probe.x
        if own.dim() != 2 or not own.is_floating_point():  # images do not repeat by chance
            chance = 0.0 if own.dim() == 4 else math.inf
            keys = keys_of(x.flatten(1))
            return Repeats(
                keys, torch.full((len(x),), chance, dtype=torch.float64, device=x.device)
            )
        columns = self.pipeline.preparation.facts.get("columns") or ()
        named = list(places_of(columns))
        if sum(width_of(column) for column in columns) != x.shape[1]:
            named = [({}, slice(i, i + 1)) for i in range(x.shape[1])]
        texts = [i for i, (column, _) in enumerate(named) if column.get("kind") == "text"]
        return repeats_of(x, y, [places for _, places in named], texts)

    def _rows(self, part: str, most: int) -> tuple[Tensor, Tensor]:
        """The first inputs and targets of a part; of a table as they are in the file: what is made of
        rare categories, of empty cells or of far numbers may be equal where these are not."""
        if self.probe.x.dim() == 2 and isinstance(self.pipeline.part(part), Arrays):
            x, y = self.pipeline.raw(part, most)
            if x.dim() == 2:
                return x, y
        batches = list(self.pipeline.split(part, limit=most, batch=4096))
        return torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])

    def sample(self, shift: int = 0, most: int = COMPARED) -> tuple[Tensor, Tensor]:
        """Training samples without augmentation, drawn at random: inputs and targets.

        With a ``shift`` each has the target of the row that many places later.
        """
        parts = [(b.x, b.y) for b in self.pipeline.split("train", limit=FIRST, batch=4096)]
        x, y = (torch.cat(column) for column in zip(*parts, strict=True))
        if shift:
            x, y = (x[:-shift], y[shift:]) if shift > 0 else (x[-shift:], y[:shift])
        some = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:most]
        some = some.to(x.device)
        return x[some], y[some]


def _uses_batch(module: nn.Module) -> bool:
    """Whether a normalisation takes its statistics from the batch, in evaluation too."""
    batch = bool(traits(module) & Trait.BATCH_STATISTICS)
    return batch and not getattr(module, "track_running_stats", True)


def inspect_program(
    recipe: Recipe, pipeline: Pipeline, model: nn.Module, loss: nn.Module
) -> Untrained:
    """Run the network once on probe samples and find out what its output layer is."""
    probe = probe_batch(pipeline)
    few = slice(0, 256 if probe.x[0].numel() < 500 else 64)
    seen, refused, head = None, "", "other"
    try:
        seen = look(model, loss, probe.x[few], probe.y[few])
        head = output_layer(model, probe.x[:16])
        if head in ("softmax", "log_softmax") and seen.outputs.shape[-1] == 1:
            head = "constant"  # over one unit: its answer does not depend on anything
    except (InputError, RuntimeError, IndexError, ValueError) as error:
        refused = next(iter(str(error).splitlines()), type(error).__name__)
    kind = recipe.loss.kind
    if kind == "auto":
        own = {"regression": "squared", "multilabel": "binary_cross_entropy"}
        kind = own.get(pipeline.task, "cross_entropy")
    reads_probabilities = getattr(loss, "reads", "scores") == "probabilities"
    return Untrained(
        recipe, pipeline, model, loss, probe, seen, head, kind, reads_probabilities, refused
    )


def probe_batch(pipeline: Pipeline, samples: int = PROBE) -> Batch:
    """Training samples drawn as training draws them, at most ``samples``."""
    found: list[Batch] = []
    for step in range(pipeline.epoch_steps):
        found.append(pipeline.batch(step))
        if sum(len(b.y) for b in found) >= samples:
            break
    x, y, index = (
        torch.cat([getattr(b, name) for b in found])[:samples] for name in ("x", "y", "index")
    )
    return Batch(x, y, index)
