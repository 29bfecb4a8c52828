"""What a run will take: counted right, timed on a copy, and told in one sentence."""

import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from adamant.attacks import APGD, FGSM, PGD
from adamant.data import load_data
from adamant.errors import InputError
from adamant.runtime.average import EMA
from adamant.threats import L0, Linf
from adamant.training import recipes
from adamant.training.fit import fit
from adamant.training.forecast import Forecast, forecast
from adamant.training.plan import Plan
from adamant.training.step import Job

DIGITS = load_data("digits", split="train")
TRAIN, VALID = DIGITS.take(torch.arange(96)), DIGITS.take(torch.arange(96, 136))
PLAN = Plan(epochs=3, batch_size=16, select=FGSM(), select_rows=30)


class Slow(nn.Module):
    """Takes 2 ms, whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.002)
        self.calls += 1
        return self.net(x)


def job(recipe=recipes.madry(attack=PGD(steps=3), average=EMA(0.9)), **settings) -> Job:  # noqa: B008
    made = {"model": Slow(), "data": TRAIN, "validation": VALID, "threat": Linf(0.1), "plan": PLAN, **settings}
    return Job(recipe=recipe, **made)


@pytest.mark.parametrize("recipe", [recipes.madry(attack=PGD(steps=3)), recipes.augmented(), recipes.standard()])
def test_passes_are_counted(recipe) -> None:
    told = forecast(job(recipe))
    assert (told.cost, told.steps, told.rows) == (recipe.cost, 18, 16)
    assert told.forwards == 18 * 16 * recipe.cost + 3 * 30 * 4


def test_the_time_is_about_that_of_the_run() -> None:
    told = forecast(job())
    began = time.perf_counter()
    fit(job())
    assert 0.3 < told.seconds / (time.perf_counter() - began) < 3


def test_the_model_and_the_random_state_are_as_they_were() -> None:
    made = job()
    before, state = {k: v.clone() for k, v in made.model.state_dict().items()}, torch.get_rng_state()
    forecast(made)
    assert all(torch.equal(v, before[k]) for k, v in made.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert made.model.training
    assert all(p.requires_grad and p.grad is None for p in made.model.parameters())


def test_what_the_first_step_would_refuse_is_refused() -> None:
    with pytest.raises(InputError, match="APGD"):
        forecast(job(recipes.madry(attack=APGD(steps=2)), threat=L0(9.0), plan=replace(PLAN, select=PGD())))


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.3, "about 0.3 seconds"), (80.0, "about 80 seconds"), (100.0, "2 minutes")]
)
def test_in_words(seconds, said) -> None:
    told = Forecast(cost=9, steps=1200, rows=64, forwards=700_000, seconds=seconds)
    assert str(told).startswith("1,200 steps of 64 rows, 9 forwards per row and step, 700,000 with the validations")
    assert said in str(told)
