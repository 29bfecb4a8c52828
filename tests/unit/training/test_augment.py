"""Changes to the training rows: each is what it says, keyed by row and step, and blind to its neighbours."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.attacks import FGSM
from adamant.data import load_data
from adamant.errors import InputError
from adamant.random import Rng
from adamant.runtime.augment import Crop, CutMix, Cutout, Flip, Mixing, Noise, Own, Rotate, Shift
from adamant.shards import Shard
from adamant.threats import Linf
from adamant.training import catalogue, recipes
from adamant.training.augmix import AugMix
from adamant.training.fit import fit
from adamant.training.plan import Plan
from adamant.training.step import Forge, Job

N = 40
X = torch.rand(N, 3, 10, 12, generator=torch.Generator().manual_seed(0))
RNG = Rng.of(0, N).fold("step").fold(3)


def own(x: Tensor) -> Tensor:
    return (x + 0.1 * torch.rand(())).clamp(0, 1)


EACH = [m() for m in catalogue.AUGMENTS if not isinstance(m(), Mixing)] + [Own(own)]


@pytest.mark.parametrize("change", EACH, ids=repr)
def test_a_row_has_the_same_luck_beside_any_others(change) -> None:
    whole, state = change(X, RNG), torch.get_rng_state()
    assert whole.shape == X.shape
    assert whole.dtype == X.dtype
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    some = torch.tensor([7, 3, 21])
    assert torch.equal(change(X[some], Rng(RNG.key[some])), whole[some])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(change(X, RNG.fold("another step")), whole)
    assert (whole != X).flatten(1).any(1).float().mean() > 0.4


@pytest.mark.parametrize("make", [m for m in catalogue.AUGMENTS if m is not Noise])
def test_what_is_no_picture_is_refused(make) -> None:
    change, x = make(), X.flatten(1)[:, :5]
    apply = (lambda: change.mix(x, x, RNG)) if isinstance(change, Mixing) else (lambda: change(x, RNG))
    with pytest.raises(InputError, match=r"changes pictures \(rows, channels, height, width\), got \(40, 5\)"):
        apply()


def test_flip() -> None:
    made = Flip()(X, RNG)
    turned = [torch.equal(a, b.flip(2)) for a, b in zip(made, X, strict=True)]
    assert [torch.equal(a, b) for a, b in zip(made, X, strict=True)] == [not t for t in turned]
    assert 8 < sum(turned) < 32


@pytest.mark.parametrize(("change", "high", "wide"), [(Crop(2), 2, 2), (Shift(0.25), 2, 3)], ids=repr)
def test_crop_and_shift_move_by_whole_pixels(change, high, wide) -> None:
    made, moves = change(X, RNG), set()
    padded = F.pad(X, (wide, wide, high, high))
    for row in range(N):
        fits = [
            (i, j)
            for i in range(2 * high + 1)
            for j in range(2 * wide + 1)
            if torch.equal(padded[row, :, i : i + 10, j : j + 12], made[row])
        ]
        assert len(fits) == 1
        moves |= set(fits)
    assert {i for i, _ in moves} == set(range(2 * high + 1))
    assert {j for _, j in moves} == set(range(2 * wide + 1))


def test_rotate_turns_about_the_centre(monkeypatch) -> None:
    """A blob right of the centre lands where its angle says, on a picture that is not square."""
    h, w = 41, 61
    ys, xs = torch.meshgrid(torch.arange(h) - 20.0, torch.arange(w) - 30.0, indexing="ij")
    blob = (-((xs - 15) ** 2 + ys**2) / 8).exp().expand(N, 1, h, w).contiguous()
    made = Rotate(40.0)(blob, RNG)[:, 0]
    mass = made.sum((1, 2))
    y, x = (made * ys).sum((1, 2)) / mass, (made * xs).sum((1, 2)) / mass
    assert torch.allclose((x**2 + y**2).sqrt(), torch.full((N,), 15.0), atol=0.1)
    angle = torch.rad2deg(torch.atan2(y, x))
    drawn = (2 * RNG.fold("angle").uniform() - 1) * 40
    assert torch.allclose(angle.abs(), drawn.abs(), atol=0.5)
    assert int((angle.sign() == angle[0].sign() * drawn[0].sign() * drawn.sign()).sum()) == N
    assert float(angle.abs().max()) > 30
    assert torch.allclose(Rotate(0.0)(X, RNG), X, atol=1e-5)


def test_noise_is_normal_and_stays_in_the_box() -> None:
    x = torch.full((200, 1, 20, 20), 0.5)
    made = Noise(0.1)(x, Rng.of(0, 200)) - 0.5
    assert float(made.mean()) == pytest.approx(0, abs=2e-3)
    assert float(made.std()) == pytest.approx(0.1, rel=0.02)
    assert float(Noise(9.0, box=(0.25, 0.75))(x, Rng.of(0, 200)).max()) == 0.75


def test_cutout_blanks_one_square_cut_by_the_edges() -> None:
    side = 4
    blank = (Cutout(side)(X + 0.01, RNG) == 0).all(1)
    assert torch.equal(torch.where(blank[:, None], 0.0, X + 0.01), Cutout(side)(X + 0.01, RNG))
    rows, columns = blank.any(2).sum(1), blank.any(1).sum(1)
    assert torch.equal(blank.flatten(1).sum(1), rows * columns)  # a rectangle
    assert int(rows.max()) == int(columns.max()) == side
    assert int(rows.min()) >= side // 2
    assert bool((rows < side).any())
    everywhere = Cutout(1)(torch.ones(3000, 1, 10, 12), Rng.of(0, 3000)).sum(0)
    assert float(everywhere.min()) > 3000 - 60
    assert float(everywhere.max()) < 3000 - 5


def test_cutmix_takes_a_patch_and_its_share_of_the_label() -> None:
    label = F.one_hot(torch.arange(N) % 5, 5).float()
    x, soft = CutMix(share=0.5).mix(X, label, RNG)
    assert torch.allclose(soft.sum(1), torch.ones(N))
    partners = set()
    for row in range(N):
        foreign = (x[row] != X[row]).any(0)
        share = float(foreign.float().mean())
        if not share:
            assert torch.equal(soft[row], label[row])
            continue
        assert int(foreign.sum()) == int(foreign.any(0).sum()) * int(foreign.any(1).sum())
        (other,) = [i for i in range(N) if i != row and torch.equal(X[i][:, foreign], x[row][:, foreign])]
        partners.add(other)
        order = RNG.fold("order").key.argsort().tolist()
        assert other == order[order.index(row) - 1]
        assert torch.allclose(soft[row], (1 - share) * label[row] + share * label[other], atol=1e-6)
    assert 10 < len(partners) < 30
    _, soft = CutMix(share=1.0).mix(torch.zeros(4000, 1, 20, 20), torch.eye(4000), Rng.of(1, 4000))
    taken = 1 - soft.diagonal()
    # Uniform areas with centres anywhere, cut by the edges: a patch of share t keeps (1 - sqrt(t) / 4)^2 of itself.
    expected = sum((s := math.sqrt(t / 1000)) ** 2 * (1 - s / 4) ** 2 for t in range(1000)) / 1000
    assert float(taken.mean()) == pytest.approx(expected, abs=0.02)


def test_augmix_is_a_mixture_of_chains_and_the_picture() -> None:
    made = AugMix()(X, RNG)
    assert not torch.allclose(made, X, atol=0.01)
    alone = AugMix(width=1, depth=1, severity=1)(X, RNG)
    assert float((alone - X).abs().mean()) < float((AugMix(severity=10)(X, RNG) - X).abs().mean())
    share = RNG.fold("share").uniform()
    flat = AugMix()(torch.full((N, 1, 10, 10), 0.5), RNG)
    assert float((flat - 0.5).abs().flatten(1).amax(1)[share > 0.9].max()) < 0.1 + 1e-6
    short = RNG.fold("chain").fold(0).fold("long").integers(3) == 0
    same = (AugMix(width=1, depth=3)(X, RNG) == AugMix(width=1, depth=1)(X, RNG)).flatten(1).all(1)
    assert bool(same[short].all())
    assert float(same[~short].float().mean()) < 0.5
    mixed = [AugMix(width=w, depth=1)(X, RNG) for w in (1, 3)]
    assert not torch.equal(*mixed)


def test_own_is_sealed_and_checked() -> None:
    torch.manual_seed(1)
    first = Own(own)(X, RNG)
    torch.manual_seed(2)
    assert torch.equal(Own(own)(X, RNG), first)
    assert len({round(float(v), 6) for v in (first - X).flatten(1).median(1).values}) > 20
    together = Own(own, each=False)(X[:4] * 0, RNG)
    assert len(together.unique()) == 1
    with pytest.raises(InputError, match="must keep the shape"):
        Own(lambda x: x[:, :4])(X, RNG)
    with pytest.raises(InputError, match="return numbers"):
        Own(lambda x: x * torch.nan)(X, RNG)
    assert repr(Own(own)) == f"Own({__name__}.own, True)"


def test_own_takes_transforms_of_torchvision() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2", reason="needs the extra torchvision")
    change = Own(v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(10, padding=2, pad_if_needed=True)]))
    x = X[..., :10]
    assert torch.equal(change(x, RNG), change(x, RNG))


# ---- in the step

DIGITS = load_data("digits", split="train")
TRAIN, VALID = DIGITS.take(torch.arange(96)), DIGITS.take(torch.arange(96, 128))


def job(*augment, **settings) -> Job:
    torch.default_generator.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    plan = Plan(epochs=1, batch_size=16, select=FGSM(), augment=augment)
    return Job(
        model=model, data=TRAIN, validation=VALID, threat=Linf(0.1), recipe=recipes.madry(attack=FGSM()), plan=plan,
        **settings,
    )  # fmt: skip


def test_augmentations_follow_one_another_with_luck_of_their_own() -> None:
    forge = Forge.of(job(Crop(1), Crop(1)), Shard())
    batch, soft = forge.draw(2)
    plain, _ = Forge.of(job(), Shard()).draw(2)
    assert soft is None
    assert torch.equal(batch.places, plain.places)
    rng = plain.rng.fold("augment")
    assert torch.equal(batch.x, Crop(1)(Crop(1)(plain.x, rng.fold(0)), rng.fold(1)))
    again, _ = forge.draw(8 - 2)
    assert not torch.equal(again.x, batch.x)


def test_mixed_labels_reach_the_loss_and_the_attack() -> None:
    forge = Forge.of(job(CutMix(1.0)), Shard())
    batch, soft = forge.draw(0)
    assert soft is not None
    assert soft.shape == (16, 10)
    assert torch.equal(batch.y, soft.argmax(1))
    assert (soft.amax(1) < 1).any()
    fit(job(Flip(), CutMix()))


def test_processes_mix_across_the_whole_batch() -> None:
    made = job(Crop(1), CutMix(1.0))
    whole, soft = Forge.of(made, Shard()).draw(1)
    forge = Forge.of(made, Shard())
    for rank in (0, 1):
        part, half = replace(forge, shard=Shard(rank, 2)).draw(1)
        assert torch.equal(part.x, whole.x[rank::2])
        assert torch.equal(half, soft[rank::2])
        assert torch.equal(part.places, whole.places[rank::2])
        assert torch.equal(part.rng.key, whole.rng.key[rank::2])
