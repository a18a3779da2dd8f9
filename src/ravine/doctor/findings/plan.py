"""Findings about the plan: how many steps, and on how large batches."""

from __future__ import annotations

from collections.abc import Iterator

from ravine.doctor.declaration import HINT, Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Remedies
from ravine.doctor.finding import Finding
from ravine.doctor.measure.course import Course, early_end
from ravine.doctor.measure.untrained import Untrained
from ravine.doctor.remedies import longer_plan


class TooFewEpochs(Declaration):
    code = "too_few_epochs"
    shown_by = "step_loss"
    rank = 230
    title = "The training is too short."
    cause = "The loss is still falling fast when the training ends."
    leads_to = "The network does not learn what it could."
    consequences = ("behind_linear", "underfitting")
    seen_by = (
        "the loss is still falling when the plan ends, on training and on validation samples; four "
        "times the plan takes away half of what is left."
    )
    what_to_do = "Train longer."
    kinds = frozenset({Kind.PLAN, Kind.LEARNING})

    STRENGTH = 0.62
    FALLEN = 0.01  # of skill, in a plan of few steps

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        text = early_end(course)
        if text:
            yield Evidence("stop.after", text, cls.STRENGTH)

    @classmethod
    def of_short_plan(cls, course: Course) -> Finding | None:
        """The finding on a plan of a few steps in which the loss only fell."""
        gain = course.skill_at(1.0) - course.skill_at(0.0)
        if gain < cls.FALLEN or course.falling < 0.5 or len(course.finite) < len(course.curves):
            return None
        text = (
            f"the whole plan has {course.total} steps; in them the loss fell from "
            f"{course.loss_at(0.0):.4g} to {course.loss_at(1.0):.4g}"
        )
        return cls.finding(Evidence("stop.after", text, cls.STRENGTH), course.case)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from longer_plan(case)


class BatchTooLarge(Declaration):
    code = "batch_too_large"
    shown_by = "step_loss"
    rank = 210
    title = "The batches are too large for the number of epochs."
    cause = "So large a batch leaves only few steps."
    leads_to = "The training ends early in its descent."
    consequences = ("too_few_epochs", "behind_linear", "underfitting")
    seen_by = "the same epochs on smaller batches take away half of the loss that is left (or learn, where the plan does not)."
    what_to_do = "Batches of 16 to 64, or more epochs."
    kinds = frozenset({Kind.PLAN, Kind.LEARNING})
    opposite = "batch_too_small"

    STEPS = 400  # in the whole plan; with more the batch is not to blame
    LARGE = 256
    SMALLER = 32  # the batch that is proposed, at least

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        if course.case is None or not course.unfinished():
            return
        batch = course.recipe.data.batch
        if course.total < cls.STEPS and (batch == "full" or batch >= cls.LARGE):
            yield Evidence("data.batch", cls.text_of(course), 0.55)

    @classmethod
    def text_of(cls, course: Course) -> str:
        """The evidence: how few steps the batch leaves."""
        batch = course.recipe.data.batch
        size = "the whole training part" if batch == "full" else batch
        return f"batches of {size} leave {course.total} steps in the whole plan"

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        batch = case.recipe.data.batch
        if batch == "full" or batch > cls.SMALLER:
            smaller = cls.SMALLER if batch == "full" else max(16, batch // 8)
            yield {"data.batch": smaller}, "smaller batches: more steps in the same epochs"


class BatchTooSmall(Declaration):
    code = "batch_too_small"
    shown_by = "step_loss"
    rank = 220
    title = "The batches are too small."
    cause = "So small a batch gives gradients that are mostly noise."
    leads_to = "The loss jitters and does not settle."
    consequences = ("oscillating",)
    seen_by = "batches of at most 4 that do not learn, where batches of 32 do in the same steps."
    what_to_do = "Batches of 32."
    opposite = "batch_too_large"

    SMALL = 4
    LARGER = 32  # the batch that is proposed

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        batch = program.recipe.data.batch
        if batch != "full" and batch <= cls.SMALL < program.pipeline.size("train"):
            yield Evidence("data.batch", f"batches of {batch}", HINT)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        batch = case.recipe.data.batch
        if batch != "full" and batch < cls.LARGER:
            yield {"data.batch": cls.LARGER}, "batches of 32 average the noise of single samples"
