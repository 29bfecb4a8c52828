"""Transfer from the same network with its odd parts made smooth, against the network itself: D19."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adamant.batch import per_row
from adamant.calling import unwrapped
from adamant.evaluation.doctor.finding import Finding, Verdict
from adamant.evaluation.doctor.gradients import begin
from adamant.evaluation.doctor.patient import Patient
from adamant.evaluation.doctor.walks import STEPS, Course, Slope, compared, walk
from adamant.goals import Untargeted
from adamant.losses import Margin
from adamant.models.wrap import BPDA, WRAPPERS, Normalised
from adamant.random import Rng, sealed

TRANSFER = 0.002  # as AutoAttack's flag for Square; Kang et al. (2021) fell from 71.28 % to 64.20 % by transfer
JUMP = 0.05  # of a small step, that is not explained by the gradient of a part: what jumps keeps it at any step
NUDGE = 0.01  # the small step, of the deviation of what goes into the part
COPIES = 2


def odd_parts(p: Patient) -> dict[str, tuple[nn.Module, float, bool]]:
    """Parts without weights whose gradient does not say what they do: name, module, jump, and if the shape stays."""
    seen: dict[nn.Module, Tensor] = {}
    named = {m: name for name, m in unwrapped(p.model).named_modules()}
    parts = [
        m for m in named
        if not type(m).__module__.startswith("torch.nn") and not isinstance(m, (*WRAPPERS, BPDA, Normalised))
        and not any(True for _ in m.parameters())
    ]  # fmt: skip

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor) and args[0].is_floating_point():
            seen[module] = args[0].detach().clone()

    handles = [m.register_forward_pre_hook(keep) for m in parts]
    try:
        p.ask(p.x[:16])
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, tuple[nn.Module, float, bool]] = {}
    for module, u in seen.items():
        measured = _jump(module, u)
        if measured is not None and measured[0] > JUMP:
            found[named[module] or type(module).__name__] = (module, *measured)
    return found


def _jump(module: nn.Module, u: Tensor) -> tuple[float, bool] | None:
    """How much of the answer to a small step the part's gradient leaves unexplained, and whether shapes stay."""
    spread, rng = float(u.double().std()), Rng.of(0, len(u)).to(u.device)
    if not spread > 0:
        return None
    shape = u.shape[1:]
    # Away from where many entries lie on a kink at once, as zeros do after a ReLU.
    at = u + 0.05 * spread * rng.fold("at").normal(*shape, dtype=u.dtype)
    step = NUDGE * spread * rng.fold("step").normal(*shape, dtype=u.dtype)
    try:
        with torch.enable_grad(), sealed(0):
            here = at.clone().requires_grad_(True)
            now = module(here)
        with torch.no_grad(), sealed(0):
            then = module(at + step)
        if not isinstance(now, Tensor) or not now.is_floating_point() or now.shape != then.shape:
            return None
        said = _along(now, here, step)
    except RuntimeError:
        return None
    does = then - now.detach()
    size = torch.maximum(does.abs().mean(), said.abs().mean())
    left = float((does - said).abs().mean() / size) if float(size) > 0 else 0.0
    return left, now.shape == u.shape


def _along(out: Tensor, here: Tensor, step: Tensor) -> Tensor:
    """J step, by two backward passes; zero where no gradient comes through."""
    if not out.requires_grad:
        return torch.zeros_like(out)
    v = torch.zeros_like(out, requires_grad=True)
    back = torch.autograd.grad(out, here, v, create_graph=True, allow_unused=True, materialize_grads=True)[0]
    if not back.requires_grad:
        return torch.zeros_like(out)
    return torch.autograd.grad(back, v, step, allow_unused=True, materialize_grads=True)[0]


@contextmanager
def replaced(parts: list[nn.Module], change: Callable[[Tensor, Tensor], Tensor]) -> Generator[None]:
    """Inside, each of the parts answers change(input, output)."""

    def act(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return change(args[0], out)

    handles = [m.register_forward_hook(act) for m in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def transferred(p: Patient, walked: Course | None) -> Finding:
    """D19: do gradients of a smoother model break rows that the model's own do not?"""
    odd = odd_parts(p)
    shaped = [m for m, _, same in odd.values() if same]
    start, fell = begin(p, "D19"), torch.zeros(len(p.x), dtype=torch.bool, device=p.x.device)
    own = walked.broken if walked is not None else fell
    by = list[str]()

    def through(change: Callable[[Tensor, Tensor], Tensor]) -> Slope:
        def slope(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with replaced(shaped, change):
                g = p.slope(z, y, Margin())[2]
            return (*_judged(p, z), g)

        return slope

    def smooth(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width, g = per_row(p.threat.budget(z), z), torch.zeros_like(z)
        if p.threat.width * 4 < float(p.threat.budget(z).max()):  # L2 and L1: of one entry, not of all of them
            width = width / z[0].numel()
        for i in range(COPIES):
            draw = p.rng.fold("D19").fold(i).normal(*z.shape[1:], dtype=z.dtype)
            g += p.slope(p.threat.clip(z + 0.25 * width * draw), y, Margin())[2]
        return (*_judged(p, z), g)

    plans = [("smoothed gradients", smooth)] if walked is not None else []
    if shaped:
        plans += [
            ("BPDA", through(lambda u, out: u + (out - u).detach())),
            ("the identity in their place", through(lambda u, out: u)),
        ]
    for name, slope in plans:
        try:
            now = walk(p, p.threat, start, STEPS // 2, slope).broken
        except RuntimeError:
            continue
        if bool((now & ~own & ~fell).any()):
            by.append(name)
        fell |= now
    only, lost = int((fell & ~own).sum()), int((own & ~fell).sum())
    verdict = compared(only, len(p.x), TRANSFER)
    if only <= lost + 2 * (only + lost) ** 0.5 and verdict > Verdict.PASS:
        verdict = Verdict.PASS  # as many the other way round: two attacks, no mask
    names = ", ".join(f"{k} (leaves {v:.0%} of a small step unexplained)" for k, (_, v, _) in odd.items())
    verdict = max(verdict, Verdict.WARN if odd else Verdict.PASS)
    said = f"gradients of smoother models break {only} of {len(p.x)} rows that the model's own do not"
    return Finding(
        id="D19", name="transfer", number=only / len(p.x), verdict=verdict,
        measured=f"{said}, by {', '.join(by) or 'none'}" + (f"; parts that jump: {names}" if odd else ""),
        advice="put adamant.models.BPDA around what jumps, and count the worst of both attacks"
        if verdict > Verdict.PASS else "",
    )  # fmt: skip


def _judged(p: Patient, z: Tensor) -> tuple[Tensor, Tensor]:
    logits = p.ask(z)
    return logits, Margin()(logits, Untargeted(p.y))
