"""The loop around a game of two networks: resumed bit for bit, sent back, probed, judged and stopped."""

import itertools
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.errors import InputError, ModelError, RunError
from adamant.random import Rng
from adamant.runtime.average import EMA, update
from adamant.runtime.checkpoint import Progress, copied
from adamant.runtime.log import curves
from adamant.runtime.loop import Finding, Report, Upkeep, Verdict, drive
from adamant.runtime.optimizers import SGD, Adam

STEPS, EPOCHS = 4, 3


class Pair(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.maker = nn.Linear(2, 2)
        self.critic = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))
        with torch.no_grad():
            for name, p in self.named_parameters():
                p.copy_(Rng.of(seed, 1).fold(name).normal(*p.shape)[0] * 0.5)


@dataclass
class Game:
    """A maker that learns to fool a critic, which also sees what was made a step before."""

    model: Pair = field(default_factory=Pair)
    rates: tuple[float, float] = (0.05, 0.02)
    epochs: int = EPOCHS
    per_epoch: int = STEPS
    probe_every: int | None = None
    name: str = "game"
    scores: tuple[float, ...] = ()
    find: Callable[[Progress], Finding] = lambda progress: Finding(well=True)
    broken: Callable[[Progress], bool] = lambda progress: False
    judged: list[dict[str, Tensor]] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        first, second = self.rates
        self.optimizers = (
            Adam(first, (0.5, 0.9)).build(self.model.maker, 0.0),
            SGD(second).build(self.model.critic, 0.1),
        )

    def identity(self) -> str:
        return f"{self.name} | {self.rates}"

    def facts(self) -> dict[str, str]:
        return {"game": self.name}

    def begin_epoch(self, progress: Progress) -> None:
        self.begun.append(progress.step)
        progress.memory["turn"] = torch.tensor(progress.step)

    def step(self, progress: Progress) -> float:
        model, rng = self.model, Rng.of(0, 8).fold("step").fold(progress.step)
        if not progress.mean:
            progress.mean = {k: v for k, v in copied(model.state_dict()).items() if k.startswith("maker.")}
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * progress.rate
            optimizer.zero_grad()
        model.train()
        real, made = 1 + 0.3 * rng.fold("real").normal(2), model.maker(rng.fold("made").normal(2))
        seen = torch.cat([made.detach(), progress.memory.get("made", made.detach())])
        loss = F.softplus(model.critic(seen)).mean() + F.softplus(-model.critic(real)).mean()
        loss.backward()
        self.optimizers[1].step()
        self.optimizers[0].zero_grad()
        F.softplus(-model.critic(made)).mean().backward()
        self.optimizers[0].step()
        progress.memory["made"] = made.detach()
        update(EMA(0.8), progress.mean, model, progress.step, self.epochs * self.per_epoch)
        return torch.nan if self.broken(progress) else float(loss.detach())

    def probe(self, progress: Progress) -> Finding:
        return self.find(progress)

    def judge(self, progress: Progress) -> Verdict:
        self.judged.append(copied(self.model.state_dict()))
        z = Rng.of(1, 64).normal(2)
        with torch.no_grad():
            far = float((self.model.maker(z).mean(0) - 1).norm())
        score = self.scores[len(progress.epochs)] if self.scores else -far
        return Verdict(score=(score,), facts={"far": far}, words=f"{far:.2f} away")


def bits(state: dict[str, Tensor]) -> bytes:
    return b"".join(v.contiguous().numpy().tobytes() for v in state.values())


def end(game: Game, report: Report) -> tuple[bytes, object, object, object]:
    epochs = [{k: v for k, v in e.items() if k != "seconds"} for e in report.epochs]
    return bits(game.model.state_dict()), epochs, report.best_epoch, report.events


def killed(at: int) -> Callable[[int, int, str], None]:
    def watch(step: int, steps: int, words: str) -> None:
        if step == at:
            raise KeyboardInterrupt

    return watch


def once_at(step: int) -> Callable[[Progress], bool]:
    return lambda progress: progress.step == step and progress.rate == 1


# ---- resuming


@pytest.mark.parametrize("broken", [lambda progress: False, once_at(6)], ids=["plain", "after a return"])
@pytest.mark.parametrize("stop", [2, 3, 4, 6, 7, 8, 11])
def test_a_game_goes_on_bit_for_bit_from_any_step(stop, broken, tmp_path) -> None:
    whole = Game(broken=broken)
    expected = end(whole, drive(whole, Upkeep()))
    with pytest.raises(KeyboardInterrupt):
        drive(Game(broken=broken), Upkeep(folder=tmp_path, save_every=0.0, watch=killed(stop)))
    game = Game(Pair(7), broken=broken)
    assert end(game, drive(game, Upkeep(folder=tmp_path, resume=True))) == expected


def test_the_checkpoint_holds_both_optimisers_and_the_mean_of_one_network(tmp_path) -> None:
    drive(Game(), Upkeep(folder=tmp_path))
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        names = set(file.keys())
        assert file.metadata()["format"] == "adamant.checkpoint/3"
    assert {"optimizer/0.0.exp_avg", "optimizer/1.0.momentum_buffer", "good/optimizer/1.0.momentum_buffer"} <= names
    assert {n for n in names if n.startswith("mean/")} == {"mean/maker.weight", "mean/maker.bias"}
    assert {n for n in names if n.startswith("memory/")} == {"memory/made", "memory/turn"}


def test_another_game_is_not_continued(tmp_path) -> None:
    drive(Game(epochs=1), Upkeep(folder=tmp_path))
    with pytest.raises(RunError, match=r"it was  .*0.02\)\n  this is .*0.3\)\nGive the same settings"):
        drive(Game(rates=(0.05, 0.3)), Upkeep(folder=tmp_path, resume=True))


def test_checkpoints_come_by_the_clock_and_by_the_epoch(tmp_path) -> None:
    path, seen = tmp_path / "checkpoint.safetensors", []

    def watch(step: int, steps: int, words: str) -> None:
        if words.startswith("loss"):
            seen.append(path.read_bytes() if path.exists() else b"")

    drive(Game(), Upkeep(folder=tmp_path, save_every=1e9, watch=watch))
    assert [a != b for a, b in itertools.pairwise(seen)] == [i % STEPS == 0 for i in range(1, 12)]
    seen.clear()
    drive(Game(), Upkeep(folder=tmp_path, save_every=0.0, watch=watch))
    assert all(a != b for a, b in itertools.pairwise(seen))


# ---- going back


def test_a_loss_that_is_no_number_undoes_both_networks_and_halves_both_rates() -> None:
    game, other = Game(broken=once_at(2)), Game(rates=(0.025, 0.01))
    report = drive(game, Upkeep())
    drive(other, Upkeep())
    assert [(e["step"], e["back_to"]) for e in report.events] == [(2, 0)]
    assert bits(game.model.state_dict()) == bits(other.model.state_dict())
    assert game.begun == [0, 0, 4, 8]
    assert report.epochs[0]["rate"] == 0.025


def test_weights_that_are_no_numbers_are_not_judged() -> None:
    def broken(progress: Progress) -> bool:
        if once_at(7)(progress):
            game.model.critic[1].running_var.fill_(torch.inf)
        return False

    game = Game(broken=broken)
    report = drive(game, Upkeep())
    assert [(e["step"], e["back_to"]) for e in report.events] == [(7, 4)]
    assert all(v.isfinite().all() for state in game.judged for v in state.values())


def test_a_game_that_never_comes_well_names_its_rates() -> None:
    with pytest.raises(ModelError, match=r"at step 4 of 12, for the 6th time: .* \(now 0.0015625 and 0.000625\)"):
        drive(Game(broken=lambda progress: progress.step == 4), Upkeep())


def test_a_probe_sends_back_to_where_all_was_well_and_that_is_not_the_end_of_an_epoch() -> None:
    def find(progress: Progress) -> Finding:
        probes.append((progress.step, progress.strength))
        if progress.step == 6 and progress.strength < 2:
            return Finding(well=False, back="it copies", facts={"now": "more noise"})
        return Finding(well=progress.step != 9)

    probes: list[tuple[int, int]] = []
    game, plain = Game(probe_every=3, find=find), Game()
    report = drive(game, Upkeep())
    drive(plain, Upkeep())
    assert probes == [(3, 0), (6, 0), (6, 1), (6, 2), (9, 2), (12, 2)]
    assert [(e["step"], e["back_to"], e["why"], e["now"]) for e in report.events] == [
        (6, 3, "it copies", "more noise")
    ] * 2
    assert bits(game.model.state_dict()) == bits(plain.model.state_dict())  # this game makes nothing of its strength
    late = Game(probe_every=3, find=find, broken=once_at(10))
    assert drive(late, Upkeep()).events[-1]["back_to"] == 6  # at 9 not all was well


def test_a_probe_sends_back_so_often_and_no_more() -> None:
    game = Game(probe_every=4, find=lambda progress: Finding(well=True, back="never well"))
    report = drive(game, Upkeep())
    assert len(report.events) == 5
    assert report.steps == 12


# ---- what is kept


def test_the_best_epoch_is_kept_with_the_mean_of_one_network_and_the_other_as_it_was() -> None:
    live: dict[int, dict[str, Tensor]] = {}
    game = Game(scores=(0.1, 0.7, 0.7))

    def watch(step: int, steps: int, words: str) -> None:
        if words.startswith("loss"):
            live[step] = copied(game.model.state_dict())

    report = drive(game, Upkeep(watch=watch))
    assert report.best_epoch == 2  # of two that are the same, the earlier
    assert bits(game.model.state_dict()) == bits(game.judged[1])
    for name, value in game.judged[1].items():
        assert torch.equal(value, live[8][name]) == name.startswith("critic."), name
    assert not game.model.training
    assert bits(game.judged[0]) != bits(game.judged[1]) != bits(game.judged[2])


def test_judging_leaves_the_course_as_it_is() -> None:
    class Careless(Game):
        def judge(self, progress: Progress) -> Verdict:
            verdict = super().judge(progress)
            with torch.no_grad():
                self.model.critic[0].weight.zero_()
            return verdict

    game, plain = Careless(), Game()
    assert drive(game, Upkeep()).epochs[-1]["loss"] == drive(plain, Upkeep()).epochs[-1]["loss"]


@pytest.mark.parametrize(("patience", "epochs"), [(None, 3), (1, 2), (2, 3)])
def test_patience_counts_epochs_since_the_best(patience, epochs) -> None:
    assert len(drive(Game(scores=(0.5, 0.1, 0.2)), Upkeep(), patience=patience).epochs) == epochs


def test_a_run_of_no_step_is_refused() -> None:
    for game in (Game(epochs=0), Game(per_epoch=0)):
        with pytest.raises(InputError, match="at least one step"):
            drive(game, Upkeep())


# ---- signals and the log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_writes_a_checkpoint(number, tmp_path) -> None:
    before = signal.getsignal(number)

    def watch(step: int, steps: int, words: str) -> None:
        if step == 6:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        drive(Game(), Upkeep(folder=tmp_path, save_every=1e9, watch=watch))
    assert signal.getsignal(number) is before
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (lines[-1]["what"], lines[-1]["step"]) == ("stopped", 6)
    steps: list[int] = []
    game, whole = Game(Pair(7)), Game()
    upkeep = Upkeep(folder=tmp_path, resume=True, watch=lambda step, *_: steps.append(step))
    assert end(game, drive(game, upkeep)) == end(whole, drive(whole, Upkeep()))
    assert steps[0] == 7


def test_a_second_signal_cuts(tmp_path: Path) -> None:
    def watch(step: int, *_: object) -> None:
        steps.append(step)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        drive(Game(), Upkeep(folder=tmp_path, watch=watch))
    assert steps == [1]
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_log_says_what_the_game_says(tmp_path) -> None:
    read, words = [], []
    upkeep = Upkeep(folder=tmp_path, readers=(read.append,), watch=lambda step, steps, text: words.append(text))
    report = drive(Game(epochs=2), upkeep)
    assert read == [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e["what"] for e in read] == ["start", "epoch", "epoch", "end"]
    assert (read[0]["steps"], read[0]["game"], read[0]["processes"]) == (8, "game", 1)
    assert [e["far"] for e in read[1:3]] == [e["far"] for e in report.epochs]
    assert curves(read[1]) == {k: read[1][k] for k in ("loss", "rate", "far")}
    assert words[STEPS] == f"epoch 1: {report.epochs[0]['far']:.2f} away"
