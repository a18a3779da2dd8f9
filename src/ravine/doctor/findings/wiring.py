"""Findings about how a person's own program is put together: which samples an answer depends on, what an
evaluation draws, whether gradients are set to zero."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ravine.doctor.declaration import Declaration, Evidence
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.untrained import Untrained

SURE, SUSPECT = 0.95, 0.6
DIFFERENT = 1e-3  # of the answers' spread


class GradientsKept(Declaration):
    code = "gradients_kept"
    shown_by = "gradient_norm"
    rank = 18
    title = "Gradients are never set to zero."
    cause = "Each backward pass adds its gradient to those of all steps before it."
    leads_to = "The steps grow, and follow batches that are long past."
    consequences = (
        "lr_too_high",
        "exploding_gradient",
        "oscillating",
        "dead_units",
        "non_finite",
        "stuck",
        "underfitting",
    )
    seen_by = (
        "`ravine.watch` compares, in the first steps of a loop, what each backward pass adds to a gradient with what "
        "is there afterwards; where gradients are accumulated on purpose, some pass begins from zero."
    )
    what_to_do = "`optimizer.zero_grad()` before each `loss.backward()`."

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        if course.stepping is not None and course.stepping.kept:
            text = f"each of {course.stepping.kept} backward passes added to the gradient of the one before it"
            yield Evidence("loop", text, SURE)

    @classmethod
    def while_learning(cls, course: Course) -> Iterator[Evidence]:
        yield from cls.during(course)


class SamplesMixed(Declaration):
    code = "samples_mixed"
    rank = 32
    title = "The answer to a sample depends on the others of its batch."
    cause = "An operation goes along the axis of the samples: a softmax over dim=0, a recurrent layer without batch_first."
    leads_to = "What is learned is about the batch, and a sample alone is answered otherwise."
    consequences = ("stuck", "underfitting", "split_mismatch")
    seen_by = (
        "a module of one's own answers a few samples together and each alone, in evaluation: the answers differ. An "
        "alarm where the outputs of a batch sum to 1 over its samples; else a suspicion, for there are networks that "
        "compare samples on purpose."
    )
    what_to_do = "Give the axis of the classes or the features (dim=1, -1), batch_first=True, or keep axis 0 in view()."

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        found = program.few
        if found is None:
            return
        together, again, alone = found
        spread = float(together.std()) or 1.0
        if float((together - again).abs().max()) > 1e-6 * spread:
            return
        apart = float((together - alone).abs().max()) / spread
        if apart <= DIFFERENT:
            return
        if any(_sums_to_one(form, 0) and not _sums_to_one(form, -1) for form in _forms(together)):
            text = f"the outputs of {len(together)} samples sum to 1 over the samples (dim=0), not over the classes"
            yield Evidence("output layer", text, SURE)
        else:
            text = (
                f"alone, {len(together)} samples get answers that differ from those in a batch by up to "
                f"{apart:.2g} times the answers' spread"
            )
            yield Evidence("model", text, SUSPECT)


class RandomInEvaluation(Declaration):
    code = "random_in_evaluation"
    rank = 34
    title = "The network draws random numbers in evaluation."
    cause = "F.dropout drops units unless it is told training=self.training; only nn.Dropout knows by itself."
    leads_to = "The same sample is answered differently each time, and worse than it could be."
    seen_by = (
        "a module of one's own answers the same samples twice, in evaluation: the answers differ. Never an alarm: "
        "networks may sample on purpose."
    )
    what_to_do = "nn.Dropout, or F.dropout(x, p, training=self.training)."
    surer_by = 0.0

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        found = program.few
        if found is None:
            return
        together, again, _ = found
        apart = float((together - again).abs().mean()) / (float(together.std()) or 1.0)
        if apart > DIFFERENT:
            text = f"two evaluations of the same {len(together)} samples differ by {apart:.2g} times the answers' spread"
            yield Evidence("model", text, 0.3)


def _forms(outputs: Tensor) -> list[Tensor]:
    return [outputs, outputs.exp()]


def _sums_to_one(outputs: Tensor, axis: int) -> bool:
    total = outputs.sum(axis)
    return outputs.dim() > 1 and bool(((total - 1).abs() < 1e-3).all())
