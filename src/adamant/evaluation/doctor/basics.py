"""What can be said of a model before anybody follows its gradient: D1, D2, D3, D8, D9, D23, D24."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from adamant.access import EOT, Access
from adamant.evaluation.doctor.finding import Finding, Verdict
from adamant.evaluation.doctor.patient import Patient
from adamant.goals import top_class
from adamant.losses import CrossEntropy
from adamant.models import as_logits
from adamant.models.wrap import unwrapped as logits_of
from adamant.random import sealed

COUPLED = 1e-3  # D2: of the spread of the logits; AutoAttack has no such check (its issue 74)
RANDOM = 1e-4  # D3: relative change of the logits; AutoAttack's flag `randomized`
SATURATED = 0.01  # D9: share of rows whose cross-entropy has no gradient left
WIDE, FLAT = 50.0, 0.05  # D9: spread of the logits beyond which raw thresholds and float32 fail
DRAWS, OFTEN = 5, 100  # D3: forwards to see that there is randomness, and to see how much


def training_mode(model: nn.Module) -> Finding:
    """D1: a module in training mode. It is judged in eval mode here, and was perhaps not so elsewhere."""
    found = [name or type(model).__name__ for name, m in model.named_modules() if m.training]
    return Finding(
        id="D1", name="mode", number=float(len(found)), verdict=Verdict.FAIL if found else Verdict.PASS,
        measured=f"{len(found)} modules are in training mode, {found[0]} first" if found else "all is in eval mode",
        advice="call model.eval(); figures taken in training mode are of another model" if found else "",
    )  # fmt: skip


def coupling(p: Patient) -> Finding:
    """D2: logits of a row that change with its companions in the batch."""
    probes, n = p.x[: min(64, len(p.x))], len(p.x)
    if n < 4:
        return _skip("D2", "batch", f"{n} rows are too few to change companions")
    answers: list[Tensor] = []
    for turn in range(3):
        parts: list[Tensor] = []
        for at in range(0, len(probes), 8):
            part = probes[at : at + 8]
            others = (torch.arange(24, device=p.x.device) * (3 - turn) + at + 8 + 7 * turn) % n
            if turn == 2:  # all the same: the farthest that the statistics of a batch can be moved
                others = others[:1].expand(24)
            parts.append(p.ask(torch.cat([part, p.x[others]]))[: len(part)])
        answers.append(torch.cat(parts))
    apart = max(float((a - answers[0]).abs().max()) for a in answers[1:]) / p.unit
    flips = float((torch.stack([a.argmax(1) for a in answers[1:]]) != answers[0].argmax(1)).any(0).double().mean())
    coupled = apart > COUPLED
    return Finding(
        id="D2", name="batch", number=apart,
        verdict=Verdict.PASS if not coupled else Verdict.FAIL if flips else Verdict.WARN,
        measured=f"with other companions in the batch logits move by {apart:.1e} of their spread, and {flips:.1%} of "
        "the decisions change",
        advice="a row's verdict depends on its neighbours: freeze the statistics (batch norm in eval mode)"
        if coupled else "",
    )  # fmt: skip


def randomness(p: Patient, access: Access | None) -> Finding:
    """D3: answers that change from one call to the next."""
    first = p.ask(p.x, seed=1)
    rest = [p.ask(p.x, seed=2 + i) for i in range(DRAWS - 1)]
    apart = max(float(((a - first).norm(dim=1) / first.norm(dim=1).clamp_min(1e-30)).max()) for a in rest)
    flips = any(bool((top_class(a) != top_class(first)).any()) for a in rest)
    if apart <= RANDOM and not flips:
        return Finding(
            id="D3", name="randomness", number=0.0, verdict=Verdict.PASS,
            measured=f"{DRAWS} calls agree to {apart:.0e}",
        )  # fmt: skip
    some = p.x[:64]
    tops = torch.stack([top_class(p.ask(some, seed=100 + i)) for i in range(OFTEN)])
    rate = float((tops != tops.mode(0).values).double().mean())
    averaged = isinstance(access, EOT)
    return Finding(
        id="D3", name="randomness", number=rate, verdict=Verdict.PASS if averaged else Verdict.WARN,
        measured=f"the model is random: logits move by {apart:.1e} from call to call, and {rate:.2%} of the decisions "
        f"are not the usual one",
        advice="" if averaged else "average the gradient, access=EOT(20), and count as broken only what most of 20 or "
        "more draws get wrong: one lucky draw is no success",
    )  # fmt: skip


def outputs(raw: nn.Module, attacked: nn.Module, x: Tensor) -> Finding:
    """D8: probabilities or their logarithms where logits were expected; of the model itself and of what is attacked."""
    with torch.no_grad(), sealed(0):
        out = logits_of(raw(x.clone()))[0].double()
    kind = _kind(out)
    if not kind:
        wrapper, notes = as_logits(raw, x[:16])
        kind = "outputs that are squashed into [0, 1]" if wrapper is raw and notes and out.amin() >= 0 else ""
        kind = "one probability" if type(wrapper).__name__ == "OneProbability" else kind
    there = "" if attacked is raw else f"; {type(attacked).__name__} takes its logits from it"
    advice = "return what goes into the softmax: where a probability rounds to 0 or 1 its gradient is lost"
    if kind.startswith("log"):
        advice = "log-probabilities are logits, and sound; DLR and scale checks read them as such. Better leave it out"
    return Finding(
        id="D8", name="logits", number=None, verdict=Verdict.WARN if kind else Verdict.PASS,
        measured=f"the model returns {kind}{there}" if kind else "the model returns logits", advice=advice * bool(kind),
    )  # fmt: skip


def _kind(out: Tensor) -> str:
    if out.shape[1] > 1 and bool((out >= -1e-5).all()) and bool(((out.sum(1) - 1).abs() < 1e-4).all()):
        return "probabilities"
    if out.shape[1] > 1 and bool((out <= 1e-4).all()) and bool((out.logsumexp(1).abs() < 1e-4).all()):
        return "log-probabilities"
    return ""


def scale(p: Patient, slope: Callable[..., Any] | None) -> Finding:
    """D9: logits so wide or so flat that float32 loses the gradient of the cross-entropy, or raw thresholds fail."""
    sure = float((p.clean.float().softmax(1).amax(1) == 1).double().mean())
    lost = 0.0
    if slope is not None and bool(p.right.any()):
        g = slope(p.x[p.right], p.y[p.right], CrossEntropy())[2]
        lost = float((g.flatten(1).abs().amax(1) == 0).double().mean())
    wide, flat, drowned = p.unit > WIDE, p.unit < FLAT, lost > SATURATED
    said = f"logits spread by {p.unit:.3g}; probabilities round to 1 on {sure:.1%}, gradients to 0 on {lost:.1%}"
    return Finding(
        id="D9", name="scale", number=p.unit, verdict=Verdict.WARN if wide or flat or drowned else Verdict.PASS,
        measured=said,
        advice="divide the logits by a temperature, or attack margins: Margin() or DLR(), never CrossEntropy()"
        if wide or flat or drowned else "",
    )  # fmt: skip


class _Watch(TorchDispatchMode):
    """Notes operations of a backward pass."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= "backward" in str(func)
        return func(*args, **(kwargs or {}))


class _Listen(TorchFunctionMode):
    """Notes calls that ask for a backward pass."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= getattr(func, "__name__", "") in ("grad", "backward") and callable(func)
        return func(*args, **(kwargs or {}))


def state(raw: nn.Module, x: Tensor, call: Callable[[Tensor], Any]) -> tuple[Finding, Finding]:
    """D23 and D24: what one call in eval mode leaves behind, and whether it optimises on the way."""
    modes = [(m, m.training) for m in raw.modules()]
    held = {f"weight {k}": v for k, v in raw.named_parameters()} | {f"buffer {k}": v for k, v in raw.named_buffers()}
    before = {k: v.detach().clone() for k, v in held.items()}
    grads = [(k, v, None if v.grad is None else v.grad.clone()) for k, v in raw.named_parameters()]
    watch, listen, ends = _Watch(), _Listen(), list[Tensor]()
    try:
        for module, _ in modes:
            module.training = False
        for seed in (1, 2):
            with sealed(seed), torch.no_grad():
                began = torch.get_rng_state()
                if seed == 1:
                    with watch, listen:
                        call(x)
                else:
                    call(x)
                ends.append(torch.get_rng_state())
                moved = not torch.equal(began, ends[-1])
        changed = [k for k, v in held.items() if not _same(v, before[k])]
        changed += [f"the gradient of {k}" for k, v, g in grads if not _same(v.grad, g)]
        if moved and torch.equal(ends[0], ends[1]):
            changed.append("the global generator, which it seeds")
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for k, v in held.items():
                if not _same(v, before[k]):
                    v.copy_(before[k])
        for _, v, g in grads:
            v.grad = g if not _same(v.grad, g) else v.grad
    return _mutation(changed), _optimises(watch.seen or listen.seen)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _mutation(changed: list[str]) -> Finding:
    return Finding(
        id="D23", name="state", number=float(len(changed)), verdict=Verdict.FAIL if changed else Verdict.PASS,
        measured=f"one forward in eval mode changes {', '.join(changed[:3])}" if changed else "forward changes nothing",
        advice="a model that changes while it is asked answers each question as another model: make forward pure"
        if changed else "",
    )  # fmt: skip


def _optimises(seen: bool) -> Finding:
    return Finding(
        id="D24", name="optimisation", number=float(seen), verdict=Verdict.WARN if seen else Verdict.PASS,
        measured="forward runs a backward pass of its own" if seen else "forward runs no backward pass",
        advice="gradients through a test-time optimisation are costly and often wrong: attack also by transfer from "
        "the model without it, and by search" if seen else "",
    )  # fmt: skip


def _skip(name: str, what: str, why: str) -> Finding:
    return Finding(id=name, name=what, verdict=Verdict.SKIPPED, number=None, measured=why)
