"""One picture: what is claimed of the file that was written is true of the file that was written."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import adamant as am

from .conftest import command

MODELS = '''
import torch
from torch import nn


class Edge(nn.Module):
    """Two classes by the mean of the picture, with the border a hair above 100 grey levels of 255."""

    def __init__(self, margin=0.1):
        super().__init__()
        self.margin = margin

    def forward(self, x):
        z = (x.flatten(1).mean(1) * 255 - 100 - self.margin) * 20
        return torch.stack([-z, z], 1)


class Colour(nn.Module):
    """Three classes: the colour that the picture has most of."""

    def forward(self, x):
        return x.mean((2, 3)) * 10
'''


@pytest.fixture
def pictures(here, monkeypatch):
    (here / "picture_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(here))
    return here


def pixels(path):
    with Image.open(path) as image:
        held = torch.from_numpy(np.array(image)).float().div(255)
    return held[None, None] if held.ndim == 2 else held.permute(2, 0, 1)[None]


def digit(path):
    """The first digit of the test rows that the network has right, as a PNG; its label."""
    test = am.load_data("digits", limit=1)
    Image.fromarray((test.x[0, 0] * 255).round().byte().numpy()).save(path)
    return int(test.y[0])


def test_a_digit(trained, here):
    label = digit(here / "pic.png")
    model = am.load_model(trained / "model.safetensors")
    with torch.no_grad():
        seen = int(model(pixels(here / "pic.png")).argmax())
    words = ("--input", "pic.png", "--label", label, "--threat", "linf:0.2", "--out", here / "out")
    said = command("attack", trained / "model.safetensors", *words, "--json")
    assert said.code == 0, said.err
    result = json.loads((here / "out" / "result.json").read_text())
    assert json.loads(said.out) == result
    after = pixels(here / "out" / "adversarial.png")
    with torch.no_grad():
        logits = model(after)
    assert result["before"]["class"] == seen == label
    assert result["after"]["class"] == int(logits.argmax())
    assert result["after"]["confidence"] == pytest.approx(float(logits.softmax(1).max()), abs=1e-5)
    assert result["saved_fools"] is (int(logits.argmax()) != label)
    assert result["saved_fools"]
    assert result["statuses"]["broken"] == 1
    assert result["size"] == pytest.approx(float((after - pixels(here / "pic.png")).abs().max()), abs=1e-6)
    assert result["saved_inside"]
    change = pixels(here / "out" / "perturbation.png")
    wanted = 0.5 + (after - pixels(here / "pic.png")) * result["amplified"]
    assert float((change - wanted).abs().max()) <= 0.5 / 255 + 1e-6


def test_rounding_that_undoes_the_attack_is_told(pictures):
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(pictures / "grey.png")
    words = ("--input", "grey.png", "--label", 0, "--classes", 2, "--threat", "linf:0.3/255")
    said = command("attack", "picture_models:Edge", *words, "--out", pictures / "out", "--quiet")
    assert said.code == 0, said.err
    result = json.loads((pictures / "out" / "result.json").read_text())
    assert result["statuses"]["broken"] == 1
    assert result["after_exact"]["class"] == 1
    assert result["after"]["class"] == result["before"]["class"] == 0
    assert result["saved_fools"] is False
    assert "UNDID" in result["verdict"]
    assert "UNDID" in said.out
    assert torch.equal(pixels(pictures / "out" / "adversarial.png"), pixels(pictures / "grey.png"))


def test_rounding_that_leaves_the_threat_model_is_told(pictures):
    """0.7 of a grey level becomes a whole one, which is more than was allowed."""
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(pictures / "grey.png")
    words = ("--input", "grey.png", "--label", 0, "--classes", 2, "--threat", "linf:0.7/255")
    said = command("attack", "picture_models:Edge", *words, "--out", pictures / "out", "--quiet")
    result = json.loads((pictures / "out" / "result.json").read_text())
    assert said.code == 0, said.err
    assert result["saved_fools"] is True
    assert result["saved_inside"] is False
    assert "out of the threat model" in result["verdict"]
    assert "multiple of 1/255" in said.out.replace("\n", " ")


def test_whole_grey_levels_stay_inside(pictures):
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(pictures / "grey.png")
    words = ("--input", "grey.png", "--label", 0, "--classes", 2, "--threat", "linf:1/255", "--attack", "FGSM()")
    command("attack", "picture_models:Edge", *words, "--out", pictures / "out", "--quiet")
    result = json.loads((pictures / "out" / "result.json").read_text())
    assert result["saved_fools"] is True
    assert result["saved_inside"] is True


def test_attack_that_fails_says_so(pictures):
    Image.fromarray(np.full((8, 8), 60, np.uint8)).save(pictures / "dark.png")
    words = ("--input", "dark.png", "--label", 0, "--classes", 2, "--threat", "linf:2/255")
    said = command("attack", "picture_models:Edge", *words, "--out", pictures / "out", "--quiet")
    assert said.code == 0, said.err
    assert "did not succeed" in said.out
    assert json.loads((pictures / "out" / "result.json").read_text())["statuses"]["robust"] == 1


def test_picture_that_the_model_has_wrong(pictures):
    """There is nothing to break; nobody is told that an attack succeeded."""
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(pictures / "light.png")
    words = ("--input", "light.png", "--label", 0, "--classes", 2, "--threat", "linf:1/255")
    said = command("attack", "picture_models:Edge", *words, "--out", pictures / "out", "--quiet")
    assert said.code == 0, said.err
    result = json.loads((pictures / "out" / "result.json").read_text())
    assert result["statuses"]["wrong_already"] == 1
    assert "before any attack" in result["verdict"]
    assert "fools the model" not in said.out
    assert torch.equal(pixels(pictures / "out" / "adversarial.png"), pixels(pictures / "light.png"))


@pytest.mark.parametrize("target", [None, 2])
def test_colour(target, pictures):
    held = np.zeros((8, 8, 3), np.uint8)
    held[..., 0], held[..., 1], held[..., 2] = 120, 110, 100
    Image.fromarray(held).save(pictures / "red.png")
    words = ["--input", "red.png", "--label", 0, "--classes", 3, "--threat", "linf:16/255"]
    words += [] if target is None else ["--target", target]
    said = command("attack", "picture_models:Colour", *words, "--out", pictures / "out", "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    after = pixels(pictures / "out" / "adversarial.png")
    assert after.shape == (1, 3, 8, 8)
    assert pixels(pictures / "out" / "perturbation.png").shape == (1, 3, 8, 8)
    claimed = result["after"]["class"]
    assert claimed == int(after.mean((2, 3)).argmax())
    assert claimed == 2 if target else claimed != 0
    assert result["saved_inside"]


def test_data_set_instead_of_a_picture(trained, here):
    words = ("--data", "digits", "--limit", 12, "--attack", "PGD(steps=5)", "--threat", "l2:0.5", "--out", here / "out")
    said = command("attack", trained / "model.safetensors", *words, "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result == json.loads((here / "out" / "result.json").read_text())
    assert result["rows"] == 12 == sum(result["statuses"].values())
    kept = safetensors.torch.load_file(here / "out" / "adversarial.safetensors")
    data, model = am.load_data("digits", limit=12), am.load_model(trained / "model.safetensors")
    assert torch.equal(kept["row"], data.rows)
    broken = kept["status"] == int(am.Status.BROKEN)
    assert broken.any()
    for z, x, y in zip(kept["adversarial"][broken], data.x[broken], data.y[broken], strict=True):
        with torch.no_grad():
            assert int(model(z[None]).argmax()) != int(y)
        assert float((z.double() - x.double()).norm()) <= 0.5
