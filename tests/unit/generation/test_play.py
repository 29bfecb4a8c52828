"""Playing a game: it can be killed and resumed bit for bit, keeps the best, and goes back where a loss is no number."""

import json
import os
import signal
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from adamant.data import load_data
from adamant.errors import InputError, ModelError, RunError
from adamant.generation.base import Material, Measured, Shape, Turn
from adamant.generation.files import Saved, load, save
from adamant.generation.fit import Match, Play, fit
from adamant.generation.gan import GAN
from adamant.generation.judge import train_judge
from adamant.generation.nets import Dense, Projection
from adamant.models.init import materialise
from adamant.runtime.average import EMA
from adamant.runtime.knobs import Ramp
from adamant.runtime.optimizers import SGD

TRAIN, VALID = (load_data("digits", split=part) for part in ("train", "val"))
GAME = GAN(nets=Dense(latent=4, wide=16))
PLAY = Play(steps=24, measures=3, batch_size=16, save_every=0.0)


@pytest.fixture(scope="module")
def material():
    return Material(data=TRAIN, validation=VALID, judge=train_judge(TRAIN, steps=60))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def without_clock(measured):
    return [{k: v for k, v in one.items() if k != "seconds"} for one in measured]


@pytest.mark.parametrize("at", [3, 8, 13])
def test_a_killed_run_goes_on_bit_for_bit(at, material, tmp_path):
    whole = fit(Match(game=GAME, material=material, play=PLAY))

    def stop(step: int, _steps: int, words: str) -> None:
        if step == at and words.startswith("loss"):
            os.kill(os.getpid(), signal.SIGTERM)

    match = Match(game=GAME, material=material, play=PLAY, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(replace(match, watch=stop))
    again = fit(replace(match, resume=True))
    assert same(again.saved.networks, whole.saved.networks)
    assert without_clock(again.measured) == without_clock(whole.measured)
    assert again.final == whole.final
    for (step, x), (other, z) in zip(again.shown, whole.shown, strict=True):
        assert step == other
        assert torch.equal(x, z)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["what"] == "start"
    assert sum(line["what"] == "epoch" for line in lines) == 3
    done = fit(replace(match, resume=True))  # nothing is left to do
    assert same(done.saved.networks, whole.saved.networks)
    assert len(done.shown) == 1


def test_how_often_it_is_saved_is_no_part_of_a_run(material, tmp_path):
    match = Match(game=GAME, material=material, play=PLAY, folder=tmp_path)
    first = fit(match)
    again = fit(replace(match, play=replace(PLAY, save_every=5.0), resume=True))
    assert same(again.saved.networks, first.saved.networks)


def test_another_run_is_not_continued(material, tmp_path):
    match = Match(game=GAME, material=material, play=PLAY, folder=tmp_path)
    fit(match)
    for other in (replace(match, game=replace(GAME, rate=1e-4)), replace(match, seed=1)):
        with pytest.raises(RunError, match="belongs to another run"):
            fit(replace(other, resume=True))


def test_the_seed_is_what_changes_a_run(material):
    runs = [fit(Match(game=GAME, material=material, play=PLAY, seed=seed)).saved.networks for seed in (0, 0, 1)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_nothing_global_moves(material):
    before = torch.get_rng_state()
    fit(Match(game=GAME, material=material, play=PLAY))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad or p.grad is not None for p in material.judge.parameters())


# ---- a game whose every move is known


@dataclass(frozen=True, kw_only=True)
class Race:
    """Two numbers: one follows 1 per step, the other follows the first; the score is given."""

    scores: tuple[float, ...] = (1.0, 3.0, 2.0)
    average: EMA | None = None
    bad: int | None = None  # the step at which the loss is no number
    always: bool = False
    averaged: tuple[str, ...] = ("one",)
    seen: list[int] = field(default_factory=lambda: [], compare=False, repr=False)
    judged: list[float] = field(default_factory=lambda: [], compare=False, repr=False)

    def check(self, material: Material) -> None: ...

    def build(self, shape: Shape, classes: int, seed: int) -> nn.Module:
        held = materialise(lambda: nn.ModuleDict({"one": nn.Linear(1, 1), "two": nn.Linear(1, 1)}), seed)
        for p in held.parameters():
            nn.init.zeros_(p)
        return held

    def players(self, networks: nn.Module) -> dict[str, torch.optim.Optimizer]:
        return {name: SGD(1.0, momentum=0.0).build(networks.get_submodule(name), 0.0) for name in ("one", "two")}

    def update(self, networks: nn.Module, turn: Turn) -> dict[str, Tensor]:
        self.seen.append(turn.step)
        broken = turn.step == self.bad and (self.always or self.seen.count(turn.step) == 1)
        one, two = networks["one"].bias, networks["two"].bias
        turn.descend("one", -one.sum())
        turn.descend("two", (two * one).sum() * (torch.nan if broken else 1.0))
        return {"one": -one.sum().detach(), "two": two.sum().detach()}

    def measure(self, networks: nn.Module, material: Material, seed: int) -> Measured:
        assert not networks.training
        assert not torch.is_grad_enabled() or not next(networks.parameters()).requires_grad
        self.judged.append(float(networks["one"].bias))
        return Measured(
            score=self.scores[min(len(self.judged), len(self.scores)) - 1], figures={"one": self.judged[-1]}
        )

    def show(self, networks: nn.Module, material: Material, seed: int) -> Tensor:
        return networks["one"].bias.detach().clone()


PLAIN = Material(data=TRAIN, validation=VALID)
SIX = Play(steps=6, measures=3, batch_size=4)


def test_a_player_moves_by_its_own_loss_alone():
    """One goes up by 1 each step; two goes down by where one stands after its move: 1 + 2 + 3 + 4 = 10 after four."""
    played = fit(Match(game=Race(), material=PLAIN, play=SIX))
    networks = played.saved.networks
    assert played.best_step == 4
    assert float(networks["one"].bias) == 4
    assert float(networks["two"].bias) == -10
    assert [float(x) for _, x in played.shown] == [2, 4, 6]
    assert [one["loss_one"] for one in played.measured] == [-1.5, -3.5, -5.5]  # the mean since the last time


def test_the_average_is_what_is_measured_and_kept():
    """EMA(0.5) with its warm start takes 1 - min(0.5, (1 + t) / (10 + t)) of the live value."""
    held = 0.0
    for t in range(4):
        held += (t + 1 - held) * (1 - min(0.5, (1 + t) / (10 + t)))
    played = fit(Match(game=Race(average=EMA(0.5)), material=PLAIN, play=SIX))
    assert float(played.saved.networks["one"].bias) == pytest.approx(held)
    assert float(played.saved.networks["two"].bias) == -10  # not among the averaged


def test_the_rate_follows_its_shape():
    played = fit(Match(game=Race(scores=(1, 2, 3)), material=PLAIN, play=replace(SIX, shape=Ramp(until=1.0))))
    assert float(played.saved.networks["one"].bias) == pytest.approx(sum(t / 6 for t in range(6)))


def test_a_loss_that_is_no_number_sends_all_back():
    """At step 2 of 6, in the middle of an epoch: back at once, with half the rate: 2 + 4 / 2."""
    game = Race(scores=(1, 2, 3), bad=2)
    played = fit(Match(game=game, material=PLAIN, play=SIX))
    assert game.seen == [0, 1, 2, 2, 3, 4, 5]
    assert float(played.saved.networks["one"].bias) == 4
    assert [e["back_to"] for e in played.events] == [2]


def test_a_loss_that_stays_no_number_ends_the_run():
    with pytest.raises(ModelError, match="no longer a number at step 3 of 6"):
        fit(Match(game=Race(bad=3, always=True), material=PLAIN, play=SIX))


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (Play(steps=0), "steps is 0"),
        (Play(batch_size=0), "batch_size is 0"),
        (Play(steps=2, measures=3), "cannot be measured 3 times"),
        (Play(batch_size=5000), "fewer than one batch of 5000"),
    ],
)
def test_plays_that_cannot_be_carried_out(play, words):
    with pytest.raises(InputError, match=words):
        fit(Match(game=Race(), material=PLAIN, play=play))


# ---- files


def test_a_file_builds_its_game_again(material, tmp_path):
    game = replace(GAME, labels=Projection(), spectral=True)
    played = fit(Match(game=game, material=material, play=replace(PLAY, autocast=True), folder=tmp_path))
    held = load(tmp_path / "game.safetensors")
    assert held.game == game
    assert held.shape == (1, 8, 8)
    assert held.classes == TRAIN.classes
    assert not held.networks.training
    assert same(held.networks, played.saved.networks)
    assert torch.equal(game.show(held.networks, material, 0), game.show(played.saved.networks, material, 0))
    save(tmp_path / "again.safetensors", held)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "game.safetensors").read_bytes()


def test_files_that_are_no_game(tmp_path):
    from safetensors.torch import save_file

    from adamant.generation.files import KEY

    saved = Saved(game=GAME, networks=GAME.build((1, 8, 8), 10, 0), shape=(1, 8, 8), classes=TRAIN.classes)
    with pytest.raises(InputError, match="end the path in"):
        save(tmp_path / "game.pt", saved)
    with pytest.raises(InputError, match="There is no file"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="is not a readable safetensors file"):
        load(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match="holds no game"):
        load(tmp_path / "plain.safetensors")
    for text, words in (
        ("{", "cannot be read"),
        ('{"format": 9}', "is of format 9"),
        ('{"format": 1, "game": "__import__(\'os\')", "shape": [2], "classes": ["a"]}', "no game named '__import__'"),
        ('{"format": 1, "game": "Dense()", "shape": [2], "classes": ["a"]}', "which is no game"),
    ):
        save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={KEY: text})
        with pytest.raises(InputError, match=words):
            load(tmp_path / "odd.safetensors")
    wrong = {"format": 1, "game": "GAN()", "shape": [3], "classes": ["a", "b"]}
    save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={KEY: json.dumps(wrong)})
    with pytest.raises(ModelError, match="do not fit"):
        load(tmp_path / "odd.safetensors")
