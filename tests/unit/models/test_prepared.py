"""Preparation inside the model: pictures, waveforms and embeddings, without any of the frameworks."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.errors import InputError
from adamant.models.prepared import Embedded, Pictures, Preparation, Waveforms, from_config

X = torch.linspace(0, 1, 2 * 3 * 8 * 6).view(2, 3, 8, 6)


def test_the_usual_image_processor() -> None:
    config = {
        "do_resize": True, "size": {"height": 8, "width": 6}, "resample": 2, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
    }  # fmt: skip
    way = from_config(config)
    assert way == eval(repr(way))
    want = (X - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(way(X), want)


def test_other_units() -> None:
    torch.testing.assert_close(from_config({"do_rescale": False})(X), X * 255)
    torch.testing.assert_close(from_config({"rescale_factor": 1 / 127.5, "rescale_offset": True})(X), X * 2 - 1)
    assert from_config({"image_mean": 0.5, "image_std": 0.5}).mean == (0.5,)
    assert from_config({"image_mean": 0.5, "image_std": 0.5, "do_normalize": False}).mean == ()


@pytest.mark.parametrize(("resample", "pil"), [(2, Image.Resampling.BILINEAR), (3, Image.Resampling.BICUBIC)])
@pytest.mark.parametrize("size", [(5, 9), (20, 21)])
def test_resizing_is_that_of_pil_and_has_a_gradient(resample: int, pil: Any, size: tuple[int, int]) -> None:
    shades = torch.randint(90, 160, (1, 3, 13, 11), dtype=torch.uint8)  # PIL clips in between
    way = from_config({"size": {"height": size[0], "width": size[1]}, "resample": resample})
    picture = Image.fromarray(shades[0].permute(1, 2, 0).numpy()).resize((size[1], size[0]), pil)
    want = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    x = (shades / 255).requires_grad_()
    assert float((way(x.detach())[0] * 255 - want).abs().max()) < 1.5  # and rounds, twice
    assert bool(torch.autograd.grad(way(x).sum(), x)[0].abs().sum() > 0)


def test_the_shorter_edge_and_the_middle() -> None:
    way = from_config({
        "size": {"shortest_edge": 6}, "resample": 2, "do_center_crop": True, "crop_size": {"height": 4, "width": 4}
    })  # fmt: skip
    assert way.size == (4, 4)
    x = torch.rand(1, 1, 12, 24)
    small = F.interpolate(x, (6, 12), mode="bilinear", antialias=True)
    torch.testing.assert_close(way(x), small[..., 1:5, 4:8])
    fits = torch.rand(1, 1, 4, 4)
    assert torch.equal(way(fits), fits)  # already what the network takes


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="method 5"):
        from_config({"resample": 5})
    with pytest.raises(InputError, match="longest_edge"):
        from_config({"size": {"shortest_edge": 6, "longest_edge": 9}})
    with pytest.raises(InputError, match=r"pictures of 9 x 9, and got 8 x 6"):
        Preparation(cut=(9, 9))(X)
    with pytest.raises(InputError, match="takes pictures"):
        Preparation()(X[0])


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 3)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, **given: Tensor) -> dict[str, Tensor]:
        if "attention_mask" in given:
            mask = given["attention_mask"][..., None]
            return {"logits": (given["inputs_embeds"] * mask).sum(1) / mask.sum(1)}
        return {"logits": next(iter(given.values())).flatten(1)[:, :4]}


def test_inputs_go_by_name_and_logits_come_out() -> None:
    torch.testing.assert_close(Pictures(Named(), Preparation(scale=2.0), keyword="v")(X), 2 * X.flatten(1)[:, :4])
    wave = torch.randn(3, 50) * 4 + 2
    out = Waveforms(Named(), normal=True, keyword="v")(wave)
    torch.testing.assert_close(out, ((wave - wave.mean(1, True)) / wave.std(1, correction=0, keepdim=True))[:, :4])
    assert torch.equal(Waveforms(Named(), normal=False, keyword="v")(wave), wave[:, :4])
    with pytest.raises(InputError, match="takes waveforms"):
        Waveforms(Named(), normal=False, keyword="v")(X)


def test_a_padding_stays_one() -> None:
    model = Embedded(Named())
    ids, mask = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    x = model.embed(ids, mask).detach().requires_grad_()
    assert x.shape == (2, 3, 4)
    torch.testing.assert_close(model(x)[1], model.net.table.weight[4])
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    assert not slope[1, 1:].any()
    assert not slope[..., -1].any()
    assert bool((slope[0, :, :3] > 0).all())
    moved = (x.detach() + 0.4).clone()
    moved[..., :3] = x.detach()[..., :3]
    assert torch.equal(model(moved), model(x))
