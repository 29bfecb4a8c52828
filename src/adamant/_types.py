"""Every shape string of the house, so that signatures read as words."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Inputs = Float[Tensor, "n *d"]
Logits = Float[Tensor, "n k"]
Labels = Int[Tensor, "n"]
Scores = Float[Tensor, "n"]
Mask = Bool[Tensor, "n"]

__all__ = ["Inputs", "Labels", "Logits", "Mask", "Scores"]
