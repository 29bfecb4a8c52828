"""Networks of a GAN: what they make, what they look at, and how they take labels."""

import pytest
import torch
from torch import nn

from adamant.errors import InputError
from adamant.generation.nets import DCGAN, Auxiliary, Dense, Own, PixelNorm, Projection, fitting, pair

PICTURES = [(1, 28, 28), (3, 32, 32), (3, 28, 28), (1, 32, 32)]


def made(nets, shape, labels=None, spectral=False, seed=0):
    return pair(nets, shape, labels=labels, classes=4, spectral=spectral, seed=seed)


@pytest.mark.parametrize("shape", PICTURES)
def test_convolutions_make_pictures_of_the_size_of_the_data(shape):
    make, look = made(DCGAN(latent=6, wide=4), shape)
    x = make(torch.randn(3, 6))
    assert x.shape == (3, *shape)
    assert ((x >= 0) & (x <= 1)).all()
    assert look(x).shape == (3,)


@pytest.mark.parametrize(("shape", "inside"), [((1, 8, 8), True), ((5,), False)])
def test_dense_layers_make_pictures_and_vectors(shape, inside):
    make, look = made(Dense(latent=3, wide=16), shape)
    x = 1 + 50 * make(torch.randn(64, 3)) if not inside else make(torch.randn(64, 3))
    assert x.shape == (64, *shape)
    assert bool(((x >= 0) & (x <= 1)).all()) is inside  # of vectors nobody knows the range
    assert look(x).shape == (64,)


def test_the_pair_is_chosen_by_the_shape():
    assert fitting((1, 28, 28)) == fitting((3, 32, 32)) == DCGAN()
    assert fitting((1, 8, 8)) == fitting((7,)) == fitting((1, 27, 28)) == Dense()


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 30, 28), (784,)])
def test_another_size_than_the_convolutions_make(shape):
    with pytest.raises(InputError, match="DCGAN makes pictures with sides that 4 divides"):
        made(DCGAN(), shape)


@pytest.mark.parametrize("nets", [Dense(latent=4, wide=8), DCGAN(latent=4, wide=4)])
def test_weights_are_the_seeds_alone(nets):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = made(nets, (1, 12, 12), spectral=True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = made(nets, (1, 12, 12), spectral=True), made(nets, (1, 12, 12), spectral=True, seed=1)
    for one, same, different in zip(first, again, other, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True)
        )
        assert any(
            not torch.equal(a, b)
            for a, b in zip(one.state_dict().values(), different.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize("nets", [Dense(latent=4, wide=8), DCGAN(latent=4, wide=4)])
@pytest.mark.parametrize("training", [True, False])
def test_no_layer_looks_at_its_neighbours(nets, training):
    """Batch norm in either network fails this, in training or with samples."""
    make, look = made(nets, (1, 12, 12))
    z = torch.randn(5, 4)
    make.train(training), look.train(training)
    torch.testing.assert_close(make(z)[:1], make(z[:1]), rtol=1e-4, atol=1e-6)
    x = torch.rand(5, 1, 12, 12)
    torch.testing.assert_close(look(x)[:1], look(x[:1]), rtol=1e-4, atol=1e-6)


def test_signals_keep_their_size_at_the_start():
    make, look = made(DCGAN(latent=16, wide=16), (1, 28, 28))
    assert 0.1 < make(torch.randn(64, 16)).std() < 0.4
    assert 0.05 < look(torch.rand(64, 1, 28, 28)).std() < 3


def test_pixel_norm_is_of_each_place():
    x = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(PixelNorm()(x).square().mean(1), torch.ones(2, 3, 3))
    torch.testing.assert_close(PixelNorm()(7 * x), PixelNorm()(x), rtol=1e-4, atol=1e-5)


def test_spectral_norm_bounds_every_layer_of_the_discriminator():
    make, look = made(Dense(latent=4, wide=8), (6,), labels=Projection(), spectral=True)
    for _ in range(200):
        look(torch.randn(3, 6), torch.tensor([0, 1, 2]))
    layers = [m for m in look.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 4  # two of the body, the head, and that of the labels
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.detach(), 2) == pytest.approx(1, abs=1e-3)
    assert not any("parametrizations" in name for name in make.state_dict())


def test_the_generator_hears_the_label():
    make, _ = made(Dense(latent=4, wide=8), (6,), labels=Projection())
    z = torch.randn(1, 4).expand(4, 4)
    assert not torch.allclose(make(z, torch.tensor([0, 0, 1, 2]))[1], make(z, torch.tensor([0, 0, 1, 2]))[2])
    torch.testing.assert_close(*make(z, torch.tensor([3, 3, 0, 0])).chunk(2)[0])


def test_projection_is_a_product_of_label_and_features():
    _, look = made(Dense(latent=4, wide=8), (6,), labels=Projection())
    x, y = torch.randn(3, 6), torch.tensor([2, 0, 3])
    assert look.label.bias is None  # a bias of the class would say how often it is real, whatever the row
    features = look.requires_grad_(False).body(x)
    by_hand = [
        sum(float(look.head.weight[0, j] + look.label.weight[y[i], j]) * float(features[i, j]) for j in range(8))
        for i in range(3)
    ]
    torch.testing.assert_close(look(x, y), torch.tensor(by_hand) + look.head.bias, rtol=1e-4, atol=1e-5)


def test_the_auxiliary_classifier_names_classes():
    _, look = made(Dense(latent=4, wide=8), (6,), labels=Auxiliary())
    logit, named = look.both(torch.randn(3, 6), torch.tensor([2, 0, 3]))
    assert logit.shape == (3,)
    assert named.shape == (3, 4)
    torch.testing.assert_close(look(torch.ones(2, 6), torch.tensor([0, 1]))[0], look(torch.ones(1, 6))[0])


OWN = """
from torch import nn
def make(): return nn.Sequential(nn.Linear(5, 12), nn.Sigmoid(), nn.Unflatten(1, (1, 3, 4)))
def look(): return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU())
def flat(): return nn.Conv2d(1, 1, 3)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    name = f"own_networks_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


def test_networks_of_ones_own(own):
    nets = Own(f"{own}:make", f"{own}:look", latent=5)
    make, look = made(nets, (1, 3, 4))
    assert look(make(torch.randn(2, 5))).shape == (2,)
    assert eval(repr(nets)) == nets


def test_networks_of_ones_own_that_do_not_fit(own):
    with pytest.raises(InputError, match=r"makes \(1, 3, 4\), and the data have shape \(1, 4, 4\)"):
        made(Own(f"{own}:make", f"{own}:look", latent=5), (1, 4, 4))
    with pytest.raises(InputError, match="does not take inputs of shape"):
        made(Own(f"{own}:make", f"{own}:look", latent=6), (1, 3, 4))
    with pytest.raises(InputError, match="return features"):
        made(Own(f"{own}:make", f"{own}:flat", latent=5), (1, 3, 4))
