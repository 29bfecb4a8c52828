"""The zoo: the networks that adamant can build by name, and the one tuple that lists them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from adamant.errors import InputError
from adamant.models.init import materialise
from adamant.models.zoo.cnn import cnn
from adamant.models.zoo.conv5 import conv5
from adamant.models.zoo.lenet import LeNet5, lenet
from adamant.models.zoo.mlp import mlp
from adamant.models.zoo.preact_resnet import PreActResNet18
from adamant.models.zoo.small_cnn import small_cnn
from adamant.models.zoo.wide_resnet import WideResNet

__all__ = ["ZOO", "ZooEntry", "build"]


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One network of the zoo: its name, where it comes from, and when to use it.

    `least` is the smallest side of an image it takes; 0 means that it takes inputs of any shape.
    """

    name: str
    source: str
    use: str
    least: int
    make: Callable[[tuple[int, ...], int], nn.Module] = field(repr=False)


ZOO: tuple[ZooEntry, ...] = (
    ZooEntry(
        name="small-cnn",
        source="TensorFlow tutorials: conv32-pool-flatten-dense10",
        use="the quickest net that sees an image as an image: first steps, demonstrations, tests",
        least=4,
        make=small_cnn,
    ),
    ZooEntry(
        name="lenet",
        source="LeCun et al. 1998, doi:10.1109/5.726791, as in the CIFAR-10 tutorial of PyTorch",
        use="small colour images on a laptop",
        least=4,
        make=lenet,
    ),
    ZooEntry(
        name="cnn",
        source="Wong et al. 2020, arXiv:2001.03994",
        use="robust MNIST: strides instead of pooling, so it is quick to train and easy to certify",
        least=4,
        make=cnn,
    ),
    ZooEntry(
        name="wide-cnn",
        source="as cnn, twice as wide",
        use="as cnn, where there are some minutes more: width is what adversarial training asks for",
        least=4,
        make=partial(cnn, wide=32, dense=200),
    ),
    ZooEntry(
        name="threshold-cnn",
        source="as cnn; the thresholds after Madry et al. 2018, arXiv:1706.06083, appendix C",
        use="ink on paper (MNIST): pixels pass a soft threshold first, which a robust net would have to learn",
        least=4,
        make=partial(cnn, wide=32, dense=200, threshold=True),
    ),
    ZooEntry(
        name="conv5",
        source="this project; five convolutions after the usual pattern of batch norm and SiLU",
        use="small colour images, hardened without a GPU: 0.3 million weights",
        least=4,
        make=conv5,
    ),
    ZooEntry(
        name="lenet5",
        source="AdverTorch: Ding et al. 2019, arXiv:1902.07623",
        use="MNIST, for comparison with figures published for AdverTorch's models",
        least=4,
        make=LeNet5,
    ),
    ZooEntry(
        name="preact-resnet18",
        source="He et al. 2016, arXiv:1603.05027; Rice et al. 2020, arXiv:2002.11569",
        use="adversarial training on CIFAR-size images: the usual first choice on a GPU",
        least=8,
        make=PreActResNet18,
    ),
    ZooEntry(
        name="wrn-28-10",
        source="Zagoruyko & Komodakis 2016, arXiv:1605.07146",
        use="the best robust accuracy on CIFAR-size images, at about nine times the arithmetic of preact-resnet18",
        least=8,
        make=partial(WideResNet, depth=28, widen=10),
    ),
    ZooEntry(
        name="wrn-16-4",
        source="Zagoruyko & Komodakis 2016, arXiv:1605.07146",
        use="a residual net a quarter of the size of preact-resnet18, for trying a recipe out",
        least=8,
        make=partial(WideResNet, depth=16, widen=4),
    ),
    ZooEntry(
        name="mlp",
        source="Rumelhart et al. 1986, doi:10.1038/323533a0",
        use="vectors and tables; a baseline on flattened images",
        least=0,
        make=mlp,
    ),
)


def find(name: str) -> ZooEntry:
    """The entry of that name, with or without `zoo:` before it; raises `InputError` with near names."""
    plain = name.removeprefix("zoo:")
    names = [entry.name for entry in ZOO]
    if plain not in names:
        near = difflib.get_close_matches(plain, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it holds {', '.join(names)}."
        raise InputError(f"The zoo has no network {plain!r}; {hint}")
    return ZOO[names.index(plain)]


def _check(entry: ZooEntry, shape: tuple[int, ...], classes: int) -> None:
    if classes < 2:
        raise InputError(f"classes is {classes}; a classifier needs at least 2.")
    if not shape or min(shape) < 1:
        raise InputError(f"shape is {shape}; give the shape of one input without the batch, such as (1, 28, 28).")
    if entry.least and (len(shape) != 3 or min(shape[1:]) < entry.least):
        raise InputError(
            f"{entry.name} takes images (channels, height, width) with sides of at least {entry.least}, not {shape}; "
            "take zoo:mlp for vectors and for smaller images."
        )


def outline(name: str, *, shape: tuple[int, ...], classes: int) -> Callable[[], nn.Module]:
    """What builds that network, checked but not yet called; raises `InputError` as `build` does."""
    entry = find(name)
    _check(entry, shape, classes)
    return partial(entry.make, shape, classes)


def build(name: str, *, shape: tuple[int, ...], classes: int, seed: int = 0) -> nn.Module:
    """Build an untrained network of the zoo, in train mode, with weights that depend on the seed alone.

    `shape` is that of one input, without the batch. Every weight is drawn from a stream keyed by the seed and the
    parameter's name (see `adamant.models.init`), and torch's own generator is neither read nor moved.
    Raises `InputError` for an unknown name, fewer than two classes, or a shape that the network does not take.
    """
    return materialise(outline(name, shape=shape, classes=classes), seed)
