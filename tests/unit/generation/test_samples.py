"""Samples as data: drawn, written, read back, and mixed into training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import adamant as am
from adamant.data import DataSet, Mix, load_data
from adamant.errors import InputError
from adamant.generation.files import Saved
from adamant.generation.gan import GAN
from adamant.generation.judge import train_judge
from adamant.generation.nets import Dense, Projection
from adamant.generation.samples import draw, write_samples
from adamant.models import build
from adamant.training import Plan
from adamant.training import step as the_step

TRAIN, VALID = (load_data("digits", split=part) for part in ("train", "val"))


def saved(game: GAN) -> Saved:
    networks = game.build((1, 8, 8), 10, 0).eval().requires_grad_(False)
    return Saved(game=game, networks=networks, shape=(1, 8, 8), classes=TRAIN.classes)


CONDITIONAL = saved(GAN(nets=Dense(latent=4, wide=8), labels=Projection()))
PLAIN = saved(GAN(nets=Dense(latent=4, wide=8)))


def test_every_class_as_often():
    made = draw(CONDITIONAL, 30)
    assert torch.bincount(made.y).tolist() == [3] * 10
    assert torch.equal(draw(CONDITIONAL, 12).x, made.x[:12])
    assert not torch.equal(draw(CONDITIONAL, 12, seed=1).x, made.x[:12])


def test_a_judge_names_the_labels_that_nobody_asked_for():
    judge = train_judge(TRAIN, steps=30)
    made = draw(PLAIN, 20, judge=judge)
    assert torch.equal(made.y, judge.look(made.x)[1])
    assert (draw(PLAIN, 20).y == -1).all()


def test_a_file_of_samples_is_data(tmp_path):
    made = draw(CONDITIONAL, 40)
    write_samples(tmp_path / "samples.npz", made)
    with np.load(tmp_path / "samples.npz") as held:
        assert held["x_train"].shape == (40, 1, 8, 8)
    read = load_data(tmp_path / "samples.npz", split="train")
    other = load_data(tmp_path / "samples.npz", split="val")
    assert read.classes == TRAIN.classes
    assert len(read) + len(other) == 40
    torch.testing.assert_close(read.x, made.x[read.rows], rtol=0, atol=0.5 / 255 + 1e-6)
    assert torch.equal(read.y, made.y[read.rows])


def test_vectors_stay_as_they_are(tmp_path):
    game = GAN(nets=Dense(latent=4, wide=8), labels=Projection())
    held = Saved(game=game, networks=game.build((5,), 3, 0).eval(), shape=(5,), classes=("a", "b", "c"))
    made = draw(held, 30)
    write_samples(tmp_path / "v.npz", made)
    read = load_data(tmp_path / "v.npz", split="train")
    assert torch.equal(read.x, made.x[read.rows])


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match="0 samples cannot be drawn"):
        draw(PLAIN, 0)
    with pytest.raises(InputError, match="no labels, which the file needs"):
        write_samples(tmp_path / "x.npz", draw(PLAIN, 3))


def test_a_mix_is_a_share_of_every_batch(monkeypatch):
    """The rows of a step: two thirds real, one third made, by the numbers of the rows."""
    made, seen = draw(CONDITIONAL, 50), []
    real = TRAIN.take(torch.arange(64))
    step = the_step.Forge.step

    def spy(self, progress):
        seen.append((the_step.rows_of(self.job, progress.step) >= 64).double().mean().item())
        return step(self, progress)

    monkeypatch.setattr(the_step.Forge, "step", spy)
    model = build("small-cnn", shape=(1, 8, 8), classes=10)
    plan = Plan(epochs=1, batch_size=12, select_rows=8)
    am.train(
        model, Mix(real=real, generated=made, share=1 / 3), am.recipes.standard(), am.Linf(0.1), validation=VALID,
        plan=plan,
    )  # fmt: skip
    assert len(seen) == 8
    assert seen == [pytest.approx(1 / 3)] * len(seen)


def rows(x: torch.Tensor, y: torch.Tensor) -> DataSet:
    return replace(TRAIN, x=x, y=y, rows=torch.arange(len(y)))


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (Mix(real=TRAIN, generated=TRAIN, share=1.0), "between 0 and 1, got 1.0"),
        (Mix(real=TRAIN, generated=rows(torch.zeros(3, 1, 9, 8), torch.zeros(3).long())), r"shape \(1, 9, 8\)"),
        (Mix(real=TRAIN, generated=rows(TRAIN.x[:3], torch.tensor([0, 1, 11]))), "have label 11"),
    ],
)
def test_mixes_that_do_not_fit(mix, words):
    with pytest.raises(InputError, match=words):
        am.train(build("small-cnn", shape=(1, 8, 8), classes=10), mix, am.recipes.standard(), am.Linf(0.1))
