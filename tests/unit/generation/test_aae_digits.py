"""Small adversarial autoencoders on the embedded digits, in seconds: they rebuild, obey and classify."""

import math
import os
import signal
from dataclasses import replace

import pytest
import torch

from adamant.data import load_data
from adamant.generation.aae import AAE, Rates
from adamant.generation.aae_labels import Clustered, Guessed, Placed, Told, hide
from adamant.generation.aae_measures import agreement, encoded, latent, names, reconstruction
from adamant.generation.base import Material
from adamant.generation.fit import Match, Play, fit
from adamant.generation.judge import train_judge
from adamant.generation.nets import Dense
from adamant.generation.priors import Gaussian, Ring
from adamant.runtime.knobs import OneCycle

SMALL = {"nets": Dense(wide=128), "critic": 64, "rates": Rates(reconstruction=2e-3, critic=2e-3, encoder=1e-3)}


@pytest.fixture(scope="module")
def material():
    data = load_data("digits", split="train")
    return Material(data=data, validation=load_data("digits", split="val"), judge=train_judge(data))


def trained(game, material, steps):
    play = Play(steps=steps, batch_size=64, measures=1, shape=OneCycle(0.1, 0.1))
    return fit(Match(game=game, material=material, play=play))


def test_told_the_class_it_rebuilds_better_than_the_mean_and_draws_what_is_asked_for(material):
    game = AAE(prior=Gaussian(dim=2), labels=Told(), **SMALL)
    net, rows = trained(game, material, 400).saved.networks, material.validation
    error, variance = reconstruction(game, net, rows.x, rows.y)
    assert error < 0.5 * variance
    assert latent(game, net, rows.x, rows.y, 0).share < 0.02
    assert agreement(game, net, material.judge, torch.arange(500) % 10, 0) >= 450


def test_a_class_lies_in_its_own_petal(material):
    game = AAE(prior=Ring(), labels=Placed(), **SMALL)
    net, rows = trained(game, material, 400).saved.networks, material.validation
    where = encoded(game, net, rows.x)[0]
    petal = torch.atan2(where[:, 1], where[:, 0]).mul(10 / (2 * math.pi)).round().long() % 10
    assert int((petal == rows.y).sum()) >= 0.65 * len(petal)  # one in ten by chance
    assert agreement(game, net, material.judge, torch.arange(500) % 10, 0) >= 450


def test_few_labels_teach_it_all_classes(material):
    """Fifty labels; the decoder's use of the guess is seen in what is drawn of each class."""
    game = AAE(prior=Gaussian(dim=2), labels=Guessed(), **SMALL)
    done = trained(game, replace(material, data=hide(material.data, 50, 0)), 400)
    figures = done.final.figures
    assert figures["accuracy"] >= 0.78
    assert figures["as_asked"] >= 0.8
    assert figures["reconstruction_error"] < 0.5 * figures["mean_input_error"]


def test_it_finds_classes_that_nobody_named(material):
    game = AAE(prior=Gaussian(dim=2), labels=Clustered(16), **SMALL)
    unlabelled = replace(material.data, y=torch.full_like(material.data.y, -1))
    figures = trained(game, replace(material, data=unlabelled), 400).final.figures
    assert figures["cluster_accuracy"] >= 0.4  # one in ten by chance
    assert figures["reconstruction_error"] < 0.5 * figures["mean_input_error"]


def test_clusters_are_named_by_the_row_that_is_surest_of_them():
    guess = torch.tensor([[3.0, 0.0], [9.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    assert names(guess, torch.tensor([7, 4, 2, 7])).tolist() == [4, 2]


def test_a_killed_run_over_a_table_goes_on_bit_for_bit(material, tmp_path):
    """The units of the columns, which are learned in the first step, come back with the checkpoint."""
    flat = [replace(part, x=part.x.flatten(1) * 100) for part in (material.data, material.validation)]
    game = AAE(prior=Gaussian(dim=2), labels=Guessed(rows=50), nets=Dense(wide=16), critic=8)
    play = Play(steps=12, measures=2, batch_size=32, save_every=0.0)
    match = Match(game=game, material=Material(data=flat[0], validation=flat[1]), play=play)
    whole = fit(match)

    def stop(step, _steps, words):
        if step == 7 and words.startswith("loss"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        fit(replace(match, folder=tmp_path, watch=stop))
    again = fit(replace(match, folder=tmp_path, resume=True))
    assert again.final == whole.final
    for (name, a), b in zip(
        again.saved.networks.state_dict().items(), whole.saved.networks.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert float(again.saved.networks.units.centre.max()) > 10
