"""A learned attack from one command to the other: adamant generate trains it, adamant attack asks it."""

import json

import pytest
import safetensors.torch
import torch

import adamant as am

from .conftest import command

DIGITS = ("--data", "digits", "--quiet")


@pytest.mark.parametrize("game", ["advgan", "NAG(noise=4, diversity=1.0)"])
def test_from_training_to_attack(here, game):
    said = command(
        "generate", *DIGITS, "--model", game, "--target", "odd_models:Good", "--threat", "linf:0.15",
        "--steps", 40, "--measures", 2, "--out", "learned",
    )  # fmt: skip
    assert said.code == 0, said.err
    page = (here / "learned" / "report.html").read_text()
    assert "Test rows as they are changed" in page
    assert "Measured on 359 test rows" in page
    name = "AdvGAN" if game == "advgan" else "NAG"
    attack = f"{name}(generator='learned/game.safetensors')"
    said = command(
        "attack", "odd_models:Good", *DIGITS, "--threat", "linf:0.1", "--attack", attack, "--out", "attacked"
    )
    assert said.code == 0, said.err
    told = json.loads((here / "attacked" / "result.json").read_text())
    assert told["attack"] == attack
    assert told["backwards"] == 0
    held = safetensors.torch.load_file(here / "attacked" / "adversarial.safetensors")
    test = am.load_data("digits")
    assert am.Linf(0.1).contains(held["adversarial"], test.x).all()
    assert not torch.equal(held["adversarial"], test.x)


def test_what_is_missing_is_said(here):
    said = command("generate", *DIGITS, "--model", "advgan", "--target", "odd_models:Good", "--steps", 2, "--out", "a")
    assert "there is no threat model" in said.sentence
    said = command("generate", *DIGITS, "--model", "advgan", "--threat", "linf:0.1", "--steps", 2, "--out", "a")
    assert "there is no model: give both (--target and --threat" in said.sentence
    words = ("attack", "odd_models:Good", *DIGITS, "--threat", "linf:0.1")
    said = command(*words, "--attack", "AdvGAN(generator='none.safetensors')")
    assert "There is no generator at none.safetensors" in said.sentence
    said = command(*words, "--attack", "LatentSearch()")
    assert "works in the latent space" in said.sentence
