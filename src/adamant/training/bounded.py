"""Terms for certified training: the loss at the worst logits that bounds allow, and what it is weighed against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional as F

from adamant._types import Inputs, Labels, Mask, Scores
from adamant.bounds import Bound, Bounded, Intervals, Lines, Region
from adamant.bounds.margins import bounded, margins, surest
from adamant.runtime.knobs import Constant, Knob
from adamant.threats import Projectable
from adamant.training.views import Outer, Views, wide


@final
@dataclass(frozen=True)
class Guarantee:
    """Cross-entropy of the label on the worst logits that a bound allows within the budget.

    With a `share` below 1 the set is smaller, a share of the budget around the view `around`, moved so that it lies
    within the whole (Mueller et al., 2023, arXiv:2210.04871): no guarantee any more, and less regularisation.
    Batch normalisation takes its statistics from the view `point`, whose logits come along, at no cost to other terms.
    `toward` is a second bound; its part of the margins is `by`.
    """

    bound: Bound = Intervals()
    around: str = "clean"
    share: float = 1.0
    point: str = "clean"
    toward: Bound | None = None
    by: Knob = Constant(0.0)
    layered: ClassVar[bool] = True

    @property
    def views(self) -> tuple[str, ...]:
        return (self.point,)

    @property
    def passes(self) -> int:
        """Two forwards with their backwards, middle and reach; by lines a pass back for each class, as if of 10."""
        return 3 * (2 + 10 * any(isinstance(b, Lines) for b in (self.bound, self.toward)))

    def __call__(self, views: Views) -> Scores:
        node = Bounded(views.inputs[self.point].detach(), self._region(views))
        out = bounded(views.model, node)
        views.know(self.point, out.point)
        part = self.by(views.done) if self.toward else 0.0
        parts = [(1 - part, self.bound), (part, self.toward)]
        least = sum(share * bound(out, views.label) for share, bound in parts if bound and share)
        assert isinstance(least, Tensor)
        return F.cross_entropy(wide(-least), views.label, reduction="none")

    def holds(self, model: nn.Module, x: Inputs, label: Labels, threat: Projectable) -> Mask:
        """The rows whose margins are above zero by more than rounding could make of it."""
        return surest(margins(model, x, label, threat, bound=self.bound), label) > 1e-5

    def _region(self, views: Views) -> Region:
        middle, threat = views.inputs[self.around].detach(), views.threat
        if self.share == 1:
            return Region.around(middle, threat)
        eps = threat.budget(middle).max().item()
        if self.around != "clean":
            middle = threat.at(eps * (1 - self.share)).project(middle, views.inputs["clean"].detach())
        return Region.around(middle, threat.at(eps * self.share))

    def __str__(self) -> str:
        how = " and ".join(type(b).__name__.lower() for b in (self.bound, self.toward) if b is not None)
        size = "" if self.share == 1 else f", {self.share:g} eps"
        return f"CE(worst by {how} around {self.around}{size})"


@final
@dataclass(frozen=True)
class Blend:
    """`share` times the first term plus the rest times the second; the share follows a knob."""

    first: Outer
    second: Outer
    share: Knob = Constant(0.5)

    @property
    def terms(self) -> tuple[Outer, ...]:
        return (self.first, self.second)

    def __call__(self, views: Views) -> Scores:
        share = self.share(views.done)
        second = self.second(views)  # before the first, whose logits a bound brings along
        return share * self.first(views) + (1 - share) * second

    def __str__(self) -> str:
        held = f"{self.share(0.0):g}" if isinstance(self.share, Constant) else "k(t)"
        return f"{held} {self.first} + (1 - {held}) {self.second}"


CATALOGUE: tuple[type, ...] = (Guarantee, Blend)
