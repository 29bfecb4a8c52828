"""Networks of changes: what they make is inside the set, belongs to its row alone, and comes back from its file."""

import json

import pytest
import safetensors.torch
import torch
from tests.unit.models.changes import inputs, kept, wild

import adamant as am
from adamant.batch import PerRow, Shared
from adamant.errors import InputError, ModelError
from adamant.files import sha256
from adamant.models.generators import Outline, build_changes, changed, described, draw, in_lanes, load_changes
from adamant.random import Rng

SHAPES = ((12,), (1, 8, 8), (3, 12, 16), (1, 28, 28))


@pytest.mark.parametrize("noise", [0, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_has_the_shape_of_the_input_and_ends_at_one(shape, noise):
    net = wild(shape, noise=noise)
    source = Rng.of(0, 20).uniform(noise) if noise else inputs(shape)
    made = net(source)
    assert made.shape == (20, *shape)
    assert made.abs().max() <= 1
    assert made.abs().max() > 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_no_row_and_no_mode_changes_what_another_gets(shape):
    net, x = wild(shape), inputs(shape)
    with torch.no_grad():
        whole, alone = in_lanes(net.train(), x), torch.cat([in_lanes(net.eval(), x[i : i + 1]) for i in range(20)])
    assert torch.equal(whole, alone)


def test_weights_depend_on_the_seed_alone():
    a, b, c = (build_changes(Outline(shape=(1, 12, 12)), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


THREATS = (
    am.Linf(0.3), am.Linf(2.0), am.L2(0.7), am.L1(2.0), am.L0(3), am.Linf(0.3, box=(-1.0, 2.0)),
    am.Linf(PerRow(torch.linspace(0.01, 0.5, 20))), am.L2(0.5, mask=Shared(torch.arange(64).view(1, 8, 8) < 20)),
)  # fmt: skip


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_what_comes_out_is_in_the_set_and_uses_it(threat):
    x, net = inputs((1, 8, 8)), wild((1, 8, 8))
    with torch.no_grad():
        z = changed(net, x, threat)
    assert threat.contains(z, x).all()
    assert (threat.size(z, x) > 0.5 * threat.budget(x).clamp(max=1.0)).all()


def test_what_is_not_projected_would_be_outside():
    x, net = inputs((1, 8, 8)), wild((1, 8, 8))
    raw = x + 0.3 * net(x)
    assert not am.Linf(0.3).contains(raw, x).any()
    assert torch.allclose(changed(net, x, am.Linf(0.3)), raw.clamp(0, 1), atol=1e-5)


def test_the_same_in_other_units():
    x, net = inputs((1, 8, 8)), wild((1, 8, 8))
    wide = changed(net, x * 256 - 128, am.Linf(64.0, box=(-128.0, 128.0)))
    assert torch.allclose((wide + 128) / 256, changed(net, x, am.Linf(0.25)), atol=1e-5)


@pytest.mark.parametrize("threat", [am.Linf(0.2), am.L2(0.5), am.L1(1.0)])
def test_a_gradient_comes_through_the_projection(threat):
    x, net = 0.25 + inputs((1, 8, 8)) / 2, wild((1, 8, 8))
    changed(net, x, threat).square().sum().backward()
    assert sum(float(p.grad.abs().sum()) for p in net.parameters()) > 0.1


def test_one_change_for_all_rows():
    x, net = torch.full((4, 1, 8, 8), 0.5), wild((1, 8, 8), noise=5)
    with torch.no_grad():
        z = changed(net, x, am.Linf(0.2), draw(net, 3))
    assert torch.equal(z[0], z[3])
    assert not torch.equal(draw(net, 3), draw(net, 4))
    assert torch.equal(draw(net, 3), draw(net, 3))


def test_a_change_from_noise_keeps_a_slope():
    """However large the weights grow, tanh is never at its flat ends in all places."""
    net = wild((1, 8, 8), noise=5)
    with torch.no_grad():
        net.net[-1].weight.mul_(1e3)
    made, weights = net(Rng.of(0, 8).uniform(5)), list(net.parameters())
    slopes = torch.autograd.grad(made.square().mean(), weights)
    assert (made.abs() < 0.9).double().mean() > 0.1
    assert sum(float((g * p).detach().abs().sum()) for g, p in zip(slopes, weights, strict=True)) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_file_gives_the_network_back(tmp_path, dtype):
    net, like = wild((1, 12, 12), blocks=1, wide=8), torch.zeros(1, dtype=dtype)
    again = load_changes(kept(tmp_path / "g.safetensors", net), like)
    assert again.outline == net.outline
    x = inputs((1, 12, 12)).to(dtype)
    assert torch.allclose(again(x), net.to(dtype)(x), atol=1e-6)
    assert not any(p.requires_grad for p in again.parameters())


def test_a_file_that_is_written_again_is_read_again(tmp_path):
    path, like = tmp_path / "g.safetensors", torch.zeros(1)
    before = load_changes(kept(path, wild((12,))), like)
    after = load_changes(kept(path, build_changes(Outline(shape=(12,), blocks=1), 5)), like)
    assert before.outline.blocks == 3
    assert after.outline.blocks == 1


def test_a_pinned_file(tmp_path):
    path, like = kept(tmp_path / "g.safetensors", wild((12,))), torch.zeros(1)
    assert load_changes(path, like, wanted=sha256(path)[:12].upper()).outline.shape == (12,)
    with pytest.raises(InputError, match="it is another file"):
        load_changes(path, like, wanted="0123456789")


def test_files_that_are_none(tmp_path):
    like, path = torch.zeros(1), tmp_path / "m.safetensors"
    with pytest.raises(InputError, match="There is no generator at"):
        load_changes(str(tmp_path / "none.safetensors"), like)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_changes(str(path), like)
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(2)}))
    with pytest.raises(InputError, match="holds no generator of changes"):
        load_changes(str(path), like)
    odd = wild((12,))
    kept(path, odd)
    said = {"adamant.game": json.dumps({"generator": {**described(odd), "wide": 8}})}
    tensors = {f"generator.{k}": v for k, v in odd.state_dict().items()}
    path.write_bytes(safetensors.torch.save(tensors, metadata=said))
    with pytest.raises(ModelError, match="does not fit"):
        load_changes(str(path), like)


@pytest.mark.parametrize("odd", [{"wide": 6}, {"wide": 0}, {"blocks": -1}, {"noise": -2}])
def test_a_size_that_none_has(odd):
    with pytest.raises(InputError, match="multiples of four"):
        build_changes(Outline(shape=(12,), **odd), 0)
