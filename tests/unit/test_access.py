"""Access: what a visit shows, what it costs, and that estimates point where the gradient points."""

import pytest
import torch
from torch import Tensor, nn

from adamant.access import EOT, NES, SPSA, Cost, LabelsOnly, Look, ScoresOnly, Sight, View, WhiteBox
from adamant.batch import take
from adamant.errors import InputError, ModelError
from adamant.goals import Untargeted
from adamant.losses import CrossEntropy, Margin
from adamant.random import Rng

N, D, K = 3, 6, 4
ALL = [WhiteBox(), EOT(3), NES(n=8), SPSA(n=8), ScoresOnly(), LabelsOnly()]
names = [type(a).__name__ for a in ALL]


class Linear(nn.Module):
    """W x, counting its calls and keeping what it was asked."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(1)
        self.w = nn.Parameter(torch.randn(K, D, generator=g, dtype=torch.float64).to(dtype))
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return x.flatten(1) @ self.w.T


def points(dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.rand(N, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.9 + 0.05).to(
        dtype
    )


def view(model, loss=CrossEntropy(), *, seed: int = 0, rows: Tensor | int = N) -> View:
    labels = torch.zeros(N, dtype=torch.long)
    goal = Untargeted(labels if isinstance(rows, int) else labels[: len(rows)])
    return View(model, lambda z: loss(z, goal), lambda z: z.clamp(0, 1), lambda v: v, lambda: Rng.of(seed, rows))


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()])
def test_the_gradient_is_that_of_finite_differences(loss) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, K)).double()
    v, z = view(model, loss), points()
    seen = WhiteBox().look(v, z, grad=True)
    assert seen.grad is not None
    h = 1e-6
    for i in range(D):
        e = torch.zeros(D, dtype=torch.float64)
        e[i] = h
        with torch.no_grad():
            slope = (v.score(model(z + e.view(1, 2, 3))) - v.score(model(z - e.view(1, 2, 3)))) / (2 * h)
        assert torch.allclose(seen.grad.flatten(1)[:, i], slope, atol=1e-7)
    assert torch.equal(seen.logits, model(z).detach())
    assert torch.equal(seen.loss, v.score(seen.logits))


@pytest.mark.parametrize("access", ALL, ids=names)
@pytest.mark.parametrize("grad", [False, True])
def test_the_books_say_what_was_called(access, grad) -> None:
    model, backwards = Linear(), []
    z = points()

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda g: backwards.append(1))

    model.register_forward_hook(count)
    model.w.requires_grad_(False)
    access.look(view(model), z, grad=grad)
    assert Cost(len(model.asked), len(backwards)) == access.cost(grad=grad)
    assert all(len(a) == N for a in model.asked)


@pytest.mark.parametrize("access", ALL, ids=names)
def test_a_visit_leaves_model_and_input_alone(access) -> None:
    model, z = Linear(), points()
    kept = z.clone()
    before = torch.get_rng_state()
    seen = access.look(view(model), z, grad=True)
    assert model.w.grad is None
    assert model.w.requires_grad
    assert not z.requires_grad
    assert z.grad is None
    assert torch.equal(z, kept)
    assert torch.equal(torch.get_rng_state(), before)
    for shown in (seen.logits, seen.loss, seen.grad):
        assert shown is None or not shown.requires_grad
    with torch.no_grad():  # also where gradients are off outside
        again = access.look(view(model), z, grad=True)
    assert (seen.grad is None and again.grad is None) or torch.equal(seen.grad, again.grad)


@pytest.mark.parametrize("access", ALL, ids=names)
def test_without_a_wish_there_is_no_gradient(access) -> None:
    seen = access.look(view(Linear()), points(), grad=False)
    assert seen.grad is None
    shows = access.look(view(Linear()), points(), grad=True)
    assert (shows.grad is not None) == (access.gives == Sight.GRADIENT)


@pytest.mark.parametrize("access", [WhiteBox(), NES(n=8), SPSA(n=8)])
def test_a_row_sees_the_same_alone(access) -> None:
    z = points()
    whole = access.look(view(Linear()), z, grad=True)
    order = torch.tensor([2, 0])
    alone = access.look(view(Linear(), rows=order), z[order], grad=True)
    assert torch.allclose(take(whole, order).grad, alone.grad, atol=1e-12)
    assert torch.allclose(take(whole, order).logits, alone.logits)


def linear_score(model: Linear) -> View:
    """The first logit: its gradient is the first row of W, everywhere."""
    return View(model, lambda logits: logits[:, 0], lambda z: z.clamp(0, 1), lambda v: v, lambda: Rng.of(7, N))


@pytest.mark.parametrize("make", [NES, SPSA])
def test_estimates_point_where_the_gradient_points_and_converge(make) -> None:
    model = Linear()
    model.w.requires_grad_(False)
    truth = model.w[0].view(1, 2, 3)
    errors = []
    for n in (20, 2000):
        g = make(n=n, sigma=1e-4).look(linear_score(model), points(), grad=True).grad
        assert (torch.cosine_similarity(g.flatten(1), truth.flatten()[None], dim=1) > (0.5 if n == 20 else 0.97)).all()
        errors.append(float((g - truth).norm() / truth.norm()))
    assert errors[1] < 0.25 * errors[0]  # as one over the root of n: 0.1
    assert errors[1] < 0.2


def test_nes_draws_normals_and_spsa_signs() -> None:
    for access, ok in [
        (NES(n=2, sigma=0.01), lambda u: u.abs().unique().numel() > 3),
        (SPSA(n=2, sigma=0.01), lambda u: torch.allclose(u.abs(), torch.ones_like(u))),
    ]:
        model = Linear()
        access.look(linear_score(model), torch.full((N, 1, 2, 3), 0.5, dtype=torch.float64), grad=True)
        here, up, down = model.asked
        assert torch.allclose(up - here, here - down)
        assert ok((up - here) / 0.01)


def test_every_visit_of_a_pair_is_another_direction() -> None:
    model = Linear()
    NES(n=6, sigma=0.01).look(linear_score(model), torch.full((N, 1, 2, 3), 0.5, dtype=torch.float64), grad=True)
    steps = [(a - model.asked[0]).flatten() for a in model.asked[1::2]]
    assert all(abs(torch.corrcoef(torch.stack(steps))[i, j]) < 0.9 for i in range(3) for j in range(i))


@pytest.mark.parametrize("access", [NES(n=20, sigma=0.3), SPSA(n=20, sigma=0.3)])
def test_queries_stay_in_the_box(access) -> None:
    model, z = Linear(), torch.zeros(N, 1, 2, 3, dtype=torch.float64)
    z[:, 0, 0] = 1.0
    access.look(linear_score(model), z, grad=True)
    asked = torch.stack(model.asked)
    assert asked.min() >= 0
    assert asked.max() <= 1
    assert torch.equal(asked[0], z)
    assert (asked[1:] != z).any()


class Noisy(nn.Module):
    """A linear model whose weights are doubled, left out, doubled, ..."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = Linear(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x) * (2 * (self.calls % 2))


def test_eot_averages_logits_losses_and_gradients() -> None:
    model, z = Noisy(), points()
    v = view(model, Margin())
    twice, never = WhiteBox().look(v, z, grad=True), WhiteBox().look(v, z, grad=True)
    mean = EOT(4).look(v, z, grad=True)
    assert torch.allclose(mean.grad, (twice.grad + never.grad) / 2)
    assert torch.allclose(mean.logits, twice.logits / 2)
    assert torch.allclose(mean.loss, (twice.loss + never.loss) / 2)
    assert model.calls == 6
    assert EOT(4).look(v, z, grad=False).grad is None


def test_labels_only_shows_the_label_and_nothing_else() -> None:
    z = points()
    out = torch.tensor([[5.0, 1, 0, 0], [0, torch.nan, 1, 0], [-9.0, -8, -7, -7.5]])
    seen = LabelsOnly().look(view(lambda x: out), z, grad=True)
    assert seen.logits[0].tolist() == [1, 0, 0, 0]
    assert seen.logits[1].isnan().all()
    assert seen.logits[2].tolist() == [0, 0, 1, 0]
    assert seen.loss.isnan().all()
    assert seen.grad is None
    assert LabelsOnly.gives == Sight.LABELS


def test_scores_only_shows_scores() -> None:
    model = Linear()
    seen = ScoresOnly().look(view(model), points(), grad=True)
    assert torch.equal(seen.logits, model(points()).detach())
    assert seen.loss.isfinite().all()
    assert seen.grad is None


@pytest.mark.parametrize("access", [NES(n=3), SPSA(n=7), NES(n=0), SPSA(n=-2), SPSA(n=1)])
def test_queries_come_in_pairs(access) -> None:
    with pytest.raises(InputError, match=f"even and at least 2.*got n={access.n}"):
        access.look(view(Linear()), points(), grad=True)
    with pytest.raises(InputError, match="even and at least 2"):
        access.cost(grad=True)


@pytest.mark.parametrize("access", [NES(sigma=0.0), SPSA(sigma=-1.0), NES(sigma=torch.nan)])
def test_queries_are_somewhere_else(access) -> None:
    with pytest.raises(InputError, match="sigma is how far"):
        access.look(view(Linear()), points(), grad=True)


def test_eot_needs_a_visit() -> None:
    with pytest.raises(InputError, match="EOT needs at least one visit, got n=0"):
        EOT(0).look(view(Linear()), points(), grad=True)


def test_a_model_that_detaches_is_told_so() -> None:
    model = Linear()
    model.w.requires_grad_(False)
    with pytest.raises(ModelError, match=r"No gradient reaches the input.*access=NES"):
        WhiteBox().look(view(lambda x: model(x.detach())), points(), grad=True)
    with pytest.raises(ModelError, match="No gradient reaches the input"):
        WhiteBox().look(view(lambda x: torch.from_numpy(x.detach().numpy()).flatten(1)), points(), grad=True)


def test_where_there_is_no_number_there_is_no_direction() -> None:
    """sqrt has an infinite slope at 0, and 0 times it is no number; one row must not spoil another."""
    z = torch.tensor([[0.0, 0.25], [0.25, 0.25]])
    odd = View(
        lambda x: torch.stack([x[:, 0].sqrt() * 0 + x[:, 1], x[:, 0].sqrt()], 1),
        lambda v: v.sum(1),
        lambda v: v,
        lambda v: v,
        lambda: Rng.of(0, 2),
    )
    g = WhiteBox().look(odd, z, grad=True).grad
    assert g.tolist() == [[0.0, 1.0], [1.0, 1.0]]
    nan = View(lambda x: x * torch.nan, lambda v: v.sum(1), lambda v: v, lambda v: v, lambda: Rng.of(0, 2))
    for access in (WhiteBox(), NES(n=2), SPSA(n=2)):
        assert (access.look(nan, z, grad=True).grad == 0).all()


def test_a_gradient_that_is_one_number_seen_many_times() -> None:
    """Sum pooling gives such a gradient: a tensor with stride 0, which cannot be written to."""
    z = torch.rand(N, K, 3, 3, generator=torch.Generator().manual_seed(0))
    seen = WhiteBox().look(view(lambda x: x.sum((2, 3))), z, grad=True)
    assert seen.grad is not None
    assert torch.equal(seen.grad, seen.grad[:, :, :1, :1].expand_as(z))


@pytest.mark.parametrize("access", ALL, ids=names)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(access, dtype) -> None:
    seen: Look = access.look(view(Linear(dtype)), points(dtype), grad=True)
    assert seen.logits.dtype == dtype
    assert seen.loss.dtype == dtype
    assert seen.grad is None or (seen.grad.dtype == dtype and seen.grad.shape == (N, 1, 2, 3))


@pytest.mark.parametrize("access", [WhiteBox(), EOT(n=2), NES(n=4), SPSA(n=4)])
@pytest.mark.parametrize("several", [False, True])
def test_an_entry_that_may_not_change_is_neither_moved_nor_in_the_gradient(access, several) -> None:
    weight = torch.arange(1.0, 13.0).view(3, 4)
    asked = []

    def model(z):
        asked.append(z.detach().clone())
        return z @ weight.T

    fixed = torch.tensor([True, False, True, False])
    view = View(
        model, (lambda v: v) if several else (lambda v: v[:, 0]), lambda z: z.clamp(0, 1), lambda v: v * ~fixed,
        lambda: Rng.of(0, 5),
    )  # fmt: skip
    z = torch.full((5, 4), 0.5)
    look = access.look(view, z, grad=True)
    assert look.slope.shape == ((5, 3, 4) if several else (5, 4))
    assert (look.slope[..., fixed] == 0).all()
    assert (look.slope[..., ~fixed] != 0).all()
    assert all((q[:, fixed] == 0.5).all() for q in asked)
    if isinstance(access, (WhiteBox, EOT)):
        want = (weight if several else weight[0]) * ~fixed
        assert torch.equal(look.slope, want.expand_as(look.slope))
