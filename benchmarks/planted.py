"""Networks with one planted defect each, for the doctor to find; around any healthy classifier of images in [0, 1]."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Quantise(nn.Module):
    """The input rounded to a few levels; with `through`, its gradient is that of the identity."""

    def __init__(self, levels: int, through: bool = False) -> None:
        super().__init__()
        self.levels, self.through = levels, through

    def forward(self, x: Tensor) -> Tensor:
        q = (x * (self.levels - 1)).round() / (self.levels - 1)
        return x + (q - x).detach() if self.through else q


class Jpeg(nn.Module):
    """Blocks of 4x4 as cosines, rounded: what makes JPEG lossy, and its gradient zero."""

    def __init__(self, step: float = 0.25) -> None:
        super().__init__()
        k = torch.arange(4.0)
        basis = torch.cos(torch.pi / 4 * (k[None] + 0.5) * k[:, None]) * 0.5**0.5
        basis[0] *= 0.5**0.5
        self.step = step
        self.register_buffer("basis", basis)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.view(n, c, h // 4, 4, w // 4, 4).transpose(3, 4)
        waves = self.basis @ blocks @ self.basis.T
        back = self.basis.T @ ((waves / self.step).round() * self.step) @ self.basis
        return back.transpose(3, 4).reshape(n, c, h, w)


class Winners(nn.Module):
    """k winners take all (Xiao et al., 2020, arXiv:1905.10510)."""

    def forward(self, u: Tensor) -> Tensor:
        k = max(1, round(0.1 * u.shape[1]))
        return u * (u >= u.topk(k, 1).values[:, -1:])


class Sparse(nn.Module):
    """What is near the mean becomes the mean (MeanSparse, 2024, arXiv:2406.05927)."""

    def __init__(self, mean: Tensor, width: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("width", width)

    def forward(self, u: Tensor) -> Tensor:
        return torch.where((u - self.mean).abs() < self.width, self.mean, u)


class After(nn.Module):
    """The network, and something done to its logits; or something done to the input before."""

    def __init__(self, net: nn.Module, after: Callable[[Tensor], Tensor] = lambda z: z, before=lambda x: x) -> None:
        super().__init__()
        self.net, self.after, self.before = net, after, before

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


class Inner(nn.Module):
    """The network with a layer in front of its last linear one."""

    def __init__(self, net: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.net, self.layer = net, layer
        self._last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1:]

    def forward(self, x: Tensor) -> Tensor:
        handle = self._last[0].register_forward_pre_hook(lambda _, args: (self.layer(args[0]),))
        try:
            return self.net(x)
        finally:
            handle.remove()


class Batched(nn.Module):
    """Inputs normalised by the statistics of their batch, in eval mode too."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z - z.mean(0)


class Ages(nn.Module):
    """A running mean that goes on in eval mode."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.mean())
        return self.net(x) + self.mean


class Adapts(nn.Module):
    """A step of entropy minimisation in forward; `keep` leaves the gradients of the weights behind."""

    def __init__(self, net: nn.Module, keep: bool) -> None:
        super().__init__()
        self.net, self.keep = net, keep

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            net = copy.deepcopy(self.net)
            for p in net.parameters():
                p.requires_grad_(True)
            weight = next(net.parameters())
            loss = -(net(x.detach()).log_softmax(1).exp() * net(x.detach()).log_softmax(1)).sum()
            g = torch.autograd.grad(loss, weight)[0]
        if self.keep:
            next(self.net.parameters()).grad = g
        return self.net(x)


class Snaps(nn.Module):
    """Each input becomes the nearest of a few known ones, and its gradient passes: no budget has an effect."""

    def __init__(self, net: nn.Module, known: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("known", known)

    def forward(self, x: Tensor) -> Tensor:
        near = self.known[torch.cdist(x.flatten(1), self.known.flatten(1)).argmin(1)]
        return self.net(near + 1e-3 * (x - near))


def penultimate(net: nn.Module, x: Tensor) -> Tensor:
    """What goes into the last linear layer."""
    seen: list[Tensor] = []
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    handle = last.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        net(x)
    handle.remove()
    return seen[0]


def planted(net: nn.Module, x: Tensor) -> dict[str, tuple[nn.Module, tuple[str, ...]]]:
    """Every defect around the network, by name, with the findings that must name it (one of them suffices)."""
    u = penultimate(net, x)
    train = nn.Sequential(copy.deepcopy(net), nn.BatchNorm1d(10)).train()
    made = {
        "quantiser, 8 levels": (nn.Sequential(Quantise(8), net), ("D5",)),
        "the same, straight through": (nn.Sequential(Quantise(8, True), net), ("D6",)),
        "64 levels, straight through": (nn.Sequential(Quantise(64, True), net), ("D19",)),
        "rounding in blocks, as JPEG": (nn.Sequential(Jpeg(), net), ("D5",)),
        "k winners take all": (Inner(net, Winners()), ("D6", "D19")),
        "MeanSparse, 0.5": (Inner(net, Sparse(u.mean(0), 0.5 * u.std(0))), ("D6", "D19")),
        "MeanSparse, 1.0": (Inner(net, Sparse(u.mean(0), u.std(0))), ("D6", "D19")),
        "noise on the input": (After(net, before=lambda v: v + 0.2 * torch.empty_like(v).normal_()), ("D3",)),
        "logits x 1e4": (After(net, lambda z: z * 1e4), ("D9",)),
        "logits / 1e3": (After(net, lambda z: z * 1e-3), ("D9",)),
        "softmax": (After(net, lambda z: z.softmax(1)), ("D8",)),
        "log-softmax": (After(net, lambda z: F.log_softmax(z, 1)), ("D8",)),
        "training mode": (train, ("D1",)),
        "mean of the batch": (Batched(net), ("D2",)),
        "detached": (After(net, before=lambda v: v.detach()), ("D4",)),
        "a running mean": (Ages(net), ("D23",)),
        "optimises in forward": (Adapts(net, keep=False), ("D24",)),
        "leaves gradients": (Adapts(net, keep=True), ("D23",)),
        "snaps to known inputs": (Snaps(net, x[:128]), ("D6", "D14")),
        "reversed gradient": (After(net, before=lambda v: 2 * v.detach() - v), ("D18",)),
        "an output more": (After(net, lambda z: torch.cat([z, z[:, :1] * 0], 1)), ("D30",)),
    }
    for name, (model, _) in made.items():
        if name != "training mode":
            model.eval()
    return made
