"""What is refused before the first step: plans, recipes, threats, rows and models that do not fit one another."""

from __future__ import annotations

from adamant.access import Sight, sight
from adamant.batch import PerRow
from adamant.errors import InputError, ModelError
from adamant.goals import Untargeted
from adamant.runtime.augment import Mixing
from adamant.shards import Shard
from adamant.threats import Parametric
from adamant.training.parts import Labelless, parts_of, threats_of
from adamant.training.step import Job, Labelled, classes_of
from adamant.training.still import dropout, frozen
from adamant.training.teacher import teachers_of
from adamant.training.views import Layered, leaves, slopes_of


def check(job: Job) -> None:
    """Raise InputError where the plan, the recipe, the threat model, the rows and the model do not fit one another."""
    if (shown := sight(job.model)) < Sight.GRADIENT:
        raise ModelError(
            f"This model shows {shown.name.lower()} only and its weights get no gradient: it can be attacked and "
            "audited, and not trained here. Train it where it was made, or train a network of the zoo on the same data."
        )
    job.plan.check(len(job.data.y))
    world = Shard.here().world
    if job.plan.batch_size % world:
        raise InputError(f"A batch of {job.plan.batch_size} rows cannot be shared evenly by {world} processes.")
    _threat(job)
    _rows(job)
    for teacher in teachers_of(job.recipe.inner, job.recipe.outer):
        teacher(job.data.x[:1])
    _compiles(job)
    with frozen(job.model, job.plan), dropout(job.model, job.plan.dropout):
        job.plan.optimizer.build(job.model, job.plan.l2)
    _labels(job)


def _sets(job: Job) -> tuple[Labelled, ...]:
    return (job.data, job.validation, *((job.extra,) if job.extra is not None else ()))


def _threat(job: Job) -> None:
    for threat in threats_of(job.recipe.inner, job.threat):
        if isinstance(threat, Parametric):
            raise InputError(
                f"{type(threat).__name__} changes parameters of the picture: it can be attacked and audited, and not "
                "trained with."
            )
    if any(isinstance(getattr(job.threat, name, None), PerRow) for name in ("eps", "mask")):
        raise InputError("Training draws its batches from all rows: give it one budget and one mask, not one per row.")


def _rows(job: Job) -> None:
    if job.extra is not None and not job.plan.extra:
        raise InputError("There are extra rows, and the plan takes none of them: set extra to their share of a batch.")
    if job.plan.extra and job.extra is None:
        raise InputError(f"The plan takes {job.plan.extra:.0%} of each batch from extra rows, and the job has none.")
    if not len(job.validation.y):
        raise InputError("There are no validation rows to choose the best epoch by: give some.")
    for rows in _sets(job):
        if len(rows.x) != len(rows.y) or rows.x.shape[1:] != job.data.x.shape[1:]:
            raise InputError(
                f"Rows to train, validate and add must be alike and labelled: got {tuple(rows.x.shape)} with "
                f"{len(rows.y)} labels beside {tuple(job.data.x.shape)}."
            )
        for threat in threats_of(job.recipe.inner, job.threat):
            threat.check(rows.x)


def _compiles(job: Job) -> None:
    if not job.plan.compile:
        return
    if slopes_of(job.recipe.outer):
        raise InputError(
            f"{job.recipe.name} differentiates twice, which compiled models cannot: train without compile."
        )
    if any(isinstance(leaf, Layered) for leaf in leaves(job.recipe.outer)):
        raise InputError(
            f"{job.recipe.name} bounds layer by layer, which a compiled model hides: set compile to False."
        )


def _labels(job: Job) -> None:
    """Rows without a label (-1) are extra ones, and every part of the recipe must do without their labels."""
    if int(job.data.y.min()) < 0:
        raise InputError(
            f"Label {int(job.data.y.min())} in the training set: rows without a label (-1) belong to the extra rows."
        )
    bare = job.extra is not None and bool((job.extra.y < 0).any())
    if job.extra is not None and bare and int(job.extra.y.min()) < -1:
        raise InputError(f"Label {int(job.extra.y.min())} in the extra rows: a row without a label has -1.")
    classes = classes_of(job)
    for rows in _sets(job):
        Untargeted(rows.y.where(rows.y != -1, 0) if rows is job.extra else rows.y).check(classes)
    if not bare:
        return
    parts = (*parts_of(job.recipe.inner), *leaves(job.recipe.outer))
    asking = [type(p).__name__ for p in parts if not isinstance(p, Labelless)]
    asking += ["mixing"] if any(isinstance(change, Mixing) for change in job.plan.augment) else []
    if asking:
        raise InputError(
            f"Some extra rows have no label (-1), and {asking[0]} in {job.recipe.name} needs one: "
            "train with vat() or trades(), or leave those rows out."
        )
