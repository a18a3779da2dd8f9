"""The sections of a recipe: data, clip, stop, average, regularize, start. The recipe itself is in
``recipe.py``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import core_schema

from ravine.catalogue import (
    Augment,
    Count,
    Decay,
    Duration,
    Flag,
    Integer,
    NonNegative,
    PerMember,
    Positive,
    Preprocess,
    Probability,
    Real,
    Source,
    Text,
    durations,
)
from ravine.catalogue.part import Part
from ravine.errors import InputError


def _durations_only_ep_it(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        raise InputError(
            "",
            got=value,
            expected="epochs (ep) or iterations (it)",
            repair="there is no whole of which this could be a percentage",
        )
    return value


Length = Annotated[Duration, BeforeValidator(_durations_only_ep_it)]


def _durations_above_zero(value: object) -> object:
    if isinstance(value, str) and durations.parse(value)[0] == 0:
        raise InputError(
            "", got=value, expected="a duration longer than 0", repair='for example "10ep"'
        )
    return value


class Several:
    """A single part is read as a list of one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, list | tuple) else [value],
            handler(source),
        )

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        parts = handler(core)
        return {"anyOf": [parts["items"], parts]}


class Grow(Part):
    """A batch that grows instead of a learning rate that shrinks (Smith et al., 2018); without
    milestones it stays."""

    milestones: tuple[Duration, ...] = Field(
        (), description="epochs, or parts of the run, at which the batch grows"
    )
    factor: Annotated[Positive, Field(ge=1)] = Field(2.0, description="by which it grows at each")
    limit: Count | None = Field(None, description="the largest batch; none: the training part")


class Data(Part):
    """Where the examples come from and how they reach the network."""

    source: Source = "digits"
    validation: Annotated[NonNegative, Field(lt=1)] = Field(
        0.1, description="part of the training data"
    )
    test: Annotated[NonNegative, Field(lt=1)] = Field(
        0.2, description="where the source has no test part of its own"
    )
    batch: Count | Literal["full"] = 128
    grow: Grow = Field(default_factory=Grow)
    last_batch: Literal["keep", "drop"] = Field(
        "keep", description="the incomplete last batch of an epoch"
    )
    order: Literal["shuffle", "fixed", "replacement"] = Field(
        "shuffle", description="anew in each epoch; as they come; or drawn with replacement"
    )
    seed: Integer = Field(0, description="of the split, the order and the augmentation")
    # each step is fitted to what those before it make of the data
    preprocess: Annotated[tuple[Preprocess, ...], Field(max_length=32), Several()] = ()
    augment: Annotated[tuple[Augment, ...], Field(max_length=100), Several()] = ()
    bootstrap: PerMember[Flag] = Field(
        False, description="weigh samples as drawn with replacement by each seed"
    )


class Clip(Part):
    """Gradient clipping; zero is off."""

    norm: PerMember[NonNegative] = Field(0.0, description="limit of the norm of the whole gradient")
    tensor_norm: PerMember[NonNegative] = Field(
        0.0, description="limit of the norm of each tensor's gradient"
    )
    value: PerMember[NonNegative] = Field(0.0, description="limit of every entry's magnitude")


class Stop(Part):
    """When a run ends: at the first of these that is met."""

    after: PerMember[Annotated[Length, BeforeValidator(_durations_above_zero)]] = Field(
        "10ep", description="the length of the run"
    )
    patience: PerMember[Length] | None = Field(
        None,
        description="how long to go on without improvement of the monitored metric; "
        "0ep: end at the first check without one",
    )
    min_delta: PerMember[NonNegative] = Field(
        0.0, description="the least change that counts as improvement"
    )
    monitor: PerMember[Text] = Field(
        "val_loss", description="any metric: val_loss, val_accuracy, train_loss, …"
    )
    mode: PerMember[Literal["auto", "min", "max"]] = "auto"
    target: PerMember[Real] | None = Field(
        None, description="stop once the monitored metric has reached it"
    )
    minutes: PerMember[Positive] | None = Field(
        None, description="stop after so many minutes of training, within an epoch if need be"
    )
    gradient_norm: PerMember[NonNegative] = Field(
        0.0, description="stop once the gradient's norm is below it"
    )
    best: PerMember[Flag] | None = Field(
        None, description="end with the best weights seen; none: only with patience"
    )
    on_trouble: PerMember[Literal["stop", "rollback", "report"]] = Field(
        "stop",
        description="where the loss or gradient is not finite: stop; after the epoch, go back to the last good one with 0.2 lr "
        "(a mean loss 10 times the last good one's counts too); or report, skip the step and go on",
    )
    rollbacks: PerMember[Count] = Field(
        5, description="how often a member may go back; then it stops"
    )


class Ranks(Part):
    """How several processes train one run, started by ``--ranks`` or torchrun. Their number is no part
    of a recipe."""

    rows: Count | None = Field(
        None,
        description="groups of ranks among which the members of a population are divided, without "
        "traffic; the ranks of a group divide each batch; none: as many groups as there are members for",
    )
    sync_batch_norm: Flag = Field(
        True, description="statistics of batch norm over all ranks, not over each rank's part"
    )
    reduce: Literal["exact", "bfloat16"] = Field(
        "exact", description="in which precision gradients are added up between ranks"
    )
    shard: Flag = Field(
        False,
        description="divide parameters, gradients and optimiser slots of one member among the ranks "
        "(FSDP2): for a network too large for one device",
    )
    timeout: Positive = Field(
        600.0, description="seconds after which a rank that gives no answer ends the run"
    )

    @model_validator(mode="before")
    @classmethod
    def _no_number(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise InputError(
                "",
                got=value,
                expected="the fields of how ranks train: their number is no part of a recipe",
                repair=f"ravine train --ranks {value}; of a program in Python: "
                f"torchrun --standalone --nproc-per-node {value} PROGRAM.py",
            )
        return value


class Average(Part):
    """A running average of the weights, used for evaluation and kept as the run's model."""

    ema: PerMember[Decay] = Field(0.0, description="decay of the exponential average; 0 is off")
    swa: PerMember[Duration] | None = Field(
        None, description="average all epochs' ends from here on (SWA, 2018)"
    )


class Regularize(Part):
    """What perturbs training besides dropout, penalties and augmentation."""

    weight_noise: PerMember[NonNegative] = Field(
        0.0, description="standard deviation, where gradients are taken"
    )
    adversarial: PerMember[NonNegative] = Field(
        0.0, description="FGSM step (2015); half the loss is so perturbed"
    )
    hard_negatives: PerMember[Probability] = Field(
        1.0, description="fraction of each batch, hardest first"
    )


class Start(Part):
    """Fine-tuning: where the weights come from and which of them move."""

    weights: Text | None = Field(
        None,
        description="a run directory, a safetensors or PyTorch file, or hf:OWNER/NAME; none: from the initialisers",
    )
    head: Literal["keep", "replace"] = "keep"
    freeze: tuple[Text, ...] = Field(
        (), description="parameters by name or pattern, e.g. features.*"
    )
    unfreeze: Duration | None = Field(None, description="from here on everything moves")
    depth_decay: PerMember[Probability] = Field(
        1.0, description="lr factor per layer from the output backwards"
    )
