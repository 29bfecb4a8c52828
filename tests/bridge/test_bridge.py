"""The bridge itself: derivatives of every order, memory that nobody shares, every size of batch, state in and out."""

import gc
from contextlib import contextmanager, nullcontext

import numpy as np
import psutil
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import adamant as am
from adamant.calling import untouched
from adamant.models import from_jax, from_tensorflow
from adamant.models.foreign.bridge import call
from adamant.training import AWP, SGD, Job, Plan, fit
from tests.bridge import toys
from tests.bridge.toys import SHAPE, needs_jax, needs_tensorflow

BOTH = [pytest.param("tensorflow", marks=needs_tensorflow), pytest.param("jax", marks=needs_jax)]
every = pytest.mark.parametrize("framework", BOTH)


def library(framework):
    """What both have: (matmul, tanh, log of sum of exp), the class of functions, and a way to float64."""
    if framework == "jax":
        import jax
        import jax.numpy as jnp

        from adamant.models.foreign.jax import JaxFunction

        @contextmanager
        def double():
            jax.config.update("jax_enable_x64", True)
            try:
                yield
            finally:
                jax.config.update("jax_enable_x64", False)

        return jnp.matmul, jnp.tanh, lambda z: jax.scipy.special.logsumexp(z, 1), JaxFunction, double
    import tensorflow as tf

    from adamant.models.foreign.tensorflow import TensorFlowFunction

    return tf.matmul, tf.tanh, lambda z: tf.reduce_logsumexp(z, 1), TensorFlowFunction, nullcontext


def smooth_net(framework, *, state=False):
    """tanh layers, and with `state` an integer counter and a mean that go in and come out."""
    matmul, tanh, _, make, double = library(framework)

    def net(x, w, v, *held):
        out = matmul(tanh(matmul(x, w)), v)
        return (out, held[0] + 1, 0.5 * held[1] + out[0]) if state else (out,)

    return make(net), double


def drawn(*shape, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype) - 0.5


@every
def test_first_second_and_third_order_in_float64(framework):
    f, double = smooth_net(framework)
    given = [drawn(3, 4).requires_grad_(), drawn(4, 5).requires_grad_(), drawn(5, 2).requires_grad_()]

    def ours(*given):
        return call(f, *given)[0]

    with double():
        assert torch.autograd.gradcheck(ours, given)
        assert torch.autograd.gradgradcheck(ours, given)
        third = []
        for net in (ours, lambda x, w, v: (x @ w).tanh() @ v):
            value = net(*given).sum()
            for _ in range(3):
                value = torch.autograd.grad(value, given[0], create_graph=True)[0].pow(2).sum()
            third.append(value)
        torch.testing.assert_close(third[0], third[1], rtol=1e-9, atol=0)
        # Only what is asked for, and with state beside it.
        g, _ = smooth_net(framework, state=True)
        count, mean = torch.tensor(3, dtype=torch.int32), torch.zeros(2, dtype=torch.float64)
        out, counted, new = call(g, *given, count, mean)
        assert int(counted) == 4
        assert not new.requires_grad
        torch.testing.assert_close(new, out[0].detach())
        assert torch.autograd.gradcheck(lambda x: call(g, x, given[1].detach(), given[2], count, mean)[0], given[:1])


def convolutional(framework, weights):
    if framework == "jax":
        return from_jax(*toys.jax_function(weights), shape=SHAPE)
    return from_tensorflow(toys.tf_module(weights), shape=SHAPE)


@every
def test_the_slopes_are_the_frameworks_own(framework):
    twin, data = toys.Twin(), toys.digits()
    ours = convolutional(framework, twin.weights())
    z, y = data.x.permute(0, 2, 3, 1).numpy(), data.y.numpy()
    if framework == "jax":
        import jax

        net, params = toys.jax_function(twin.weights())
        losses = lambda x: -jax.nn.log_softmax(net(params, x))[np.arange(len(y)), y].sum()  # noqa: E731
        native = np.array(jax.jit(jax.grad(losses))(z))
    else:
        import tensorflow as tf

        net = toys.tf_module(twin.weights())
        x = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(y, net(x)))
        native = tape.gradient(loss, x).numpy()
    x = data.x.clone().requires_grad_()
    F.cross_entropy(ours(x), data.y, reduction="sum").backward()
    mine = x.grad.permute(0, 2, 3, 1).numpy()
    assert np.abs(mine - native).max() <= 1e-5 * np.abs(native).max()


@every
def test_nobody_shares_memory(framework):
    ours = convolutional(framework, toys.Twin().weights())
    x = toys.digits().x
    first = ours(x).detach()
    kept = first.clone()
    first += 100
    assert torch.equal(ours(x), kept)
    weights = ours.receive()
    with torch.no_grad():
        lent = x.clone()
        ours(lent)
        lent += 1
        before = ours(x)
        for p in ours.parameters():
            p += 1
    del weights
    assert torch.equal(before, kept)
    z = x.clone().requires_grad_()
    h = z * 1
    out = ours(h)
    with torch.no_grad():
        h += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@every
def test_outputs_are_torchs_own(framework):
    """Whatever is done to them changes neither the inputs nor what the way back reads."""
    matmul, tanh, _, make, _ = library(framework)
    x, w = drawn(4, 8, dtype=torch.float32), drawn(8, 16, dtype=torch.float32)
    kept = x.clone()
    (same,) = call(make(lambda x: (x,)), x)
    same += 1
    assert torch.equal(x, kept)
    slopes = []
    for change in (0, 100):
        z = x.clone().requires_grad_()
        (out,) = call(make(lambda x, w: (tanh(matmul(x, w)),)), z, w)
        out.data += change
        slopes.append(torch.autograd.grad(out.sum(), z)[0])
    assert torch.equal(*slopes)


@every
def test_views_of_every_kind_and_no_gradient_at_all(framework):
    ours = convolutional(framework, toys.Twin().weights())
    x = toys.digits(8).x
    want = ours(x)
    odd = torch.empty(x.numel() + 1)[1:].view_as(x).copy_(x)
    assert odd.data_ptr() % 64
    last = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    wide = torch.stack([x, x], -1)[..., 0]
    for view in (odd, last, wide, x.flip(0).flip(0)):
        z = view.detach().requires_grad_()
        torch.testing.assert_close(ours(z), want, rtol=1e-6, atol=1e-6)
        (slope,) = torch.autograd.grad(ours(z).sum(), z)
        assert slope.shape == x.shape
    torch.testing.assert_close(ours(x[3:5]), want[3:5], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert not ours(x).requires_grad
    assert ours(x[:0]).shape == (0, 10)
    assert ours(x[:0].requires_grad_()).sum() == 0


@every
def test_sizes_of_batches_and_compilations(framework, monkeypatch):
    ours = convolutional(framework, toys.Twin().weights()).requires_grad_(False)
    x = toys.digits(128).x
    whole, f, drawn = ours(x), ours.host.function(training=False), []
    raw = f.raw
    monkeypatch.setattr(f, "raw", lambda *given: drawn.append(len(given)) or raw(*given))
    for n in (0, 1, 127, 128, *range(120, 127), *range(5, 9)):
        z = x[:n].clone().requires_grad_()
        torch.testing.assert_close(ours(z), whole[:n], rtol=1e-5, atol=1e-5)
        ours(z).sum().backward()
    # JAX once for 1, 8 and 128; TensorFlow once for its shape and once whole, for any number of rows
    assert len(drawn) == (3 if framework == "jax" else 2)


@every
def test_graphs_that_are_kept_and_attacks_that_ask_for_every_class(framework):
    twin = toys.trained()
    ours, data = convolutional(framework, twin.weights()), toys.digits(8)
    x = data.x.clone().requires_grad_()
    out = ours(x)
    one_by_one = [torch.autograd.grad(out[:, k].sum(), x, retain_graph=True)[0] for k in range(3)]
    torch.testing.assert_close(torch.autograd.grad(out[:, 1].sum(), x)[0], one_by_one[1])
    for attack, threat in ((am.DeepFool(), am.L2()), (am.JSMA(), am.L0(12))):
        found = [am.attack(attack, net, data.x, data.y, threat) for net in (twin, ours)]
        assert torch.equal(found[0].status, found[1].status)
        assert int(found[0].broken.sum()) >= 4
        torch.testing.assert_close(found[0].size, found[1].size, rtol=1e-2, atol=1e-2)


@every
def test_slopes_of_frozen_weights_are_not_computed(framework):
    ours = convolutional(framework, toys.Twin().weights())
    x = toys.digits().x
    wanted = []
    f = ours.host.function(training=False)
    ahead = f.ahead
    f.ahead = lambda asked, *given: wanted.append(asked) or ahead(asked, *given)
    found = am.attack(am.PGD(steps=2), ours, x, toys.digits().y, am.Linf(0.1))
    assert len(found.status) == 32
    assert set(wanted) == {(0,)}
    assert all(p.requires_grad and p.grad is None for p in ours.parameters())
    wanted.clear()
    ours(x.clone().requires_grad_()).sum().backward()
    assert wanted == [(0, 1, 2, 3, 4)]
    ours.conv_kernel.requires_grad_(False) if framework == "jax" else ours.kernel.requires_grad_(False)
    ours(x).sum().backward()
    assert len(wanted[-1]) == 3


@every
def test_threads_are_as_they_were(framework):
    ours = nn.Sequential(convolutional(framework, toys.Twin().weights()))
    seen = []
    ours.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with untouched(ours):
            ours(toys.digits().x)
        assert torch.get_num_threads() == 2
        job = Job(model=ours, data=toys.digits(64, "train"), validation=toys.digits(), threat=am.Linf(0.1),
                  recipe=am.recipes.standard(), plan=Plan(epochs=1, batch_size=32, select_rows=16))  # fmt: skip
        fit(job)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen
    assert set(seen) == {1}


@every
def test_memory_stays_flat(framework):
    ours = convolutional(framework, toys.Twin().weights())
    x = toys.digits(64).x.repeat(2, 1, 1, 1)

    def steps(n):  # of the bridge
        for _ in range(n):
            z = x.clone().requires_grad_()
            out = ours(z)
            (slope,) = torch.autograd.grad(out.sum(), z, create_graph=True)
            (slope.sum() + out.sum()).backward()
        gc.collect()
        return psutil.Process().memory_info().rss

    first = steps(20)
    grown = steps(100) - first
    assert grown < 100 * x.numel() * 4, "less than one batch of pictures for each step"


# ---------------------------------------------------------------------------------------------------------------------
# Every recipe trains them, and a run that was stopped goes on bit for bit


NAMES = ("madry", "trades", "free", "awp", "smooth")
RECIPES = [
    *(pytest.param("tensorflow", name, marks=needs_tensorflow) for name in NAMES),
    pytest.param("jax", "smooth", marks=needs_jax),
    *(pytest.param("jax", name, marks=(needs_jax, pytest.mark.slow)) for name in NAMES[:-1]),
]


@pytest.mark.parametrize(("framework", "name"), RECIPES)
def test_recipes_harden_as_they_do_the_torch_twin(framework, name):
    quick = am.PGD(steps=2)
    recipe = {
        "madry": am.recipes.madry(attack=quick),
        "trades": am.recipes.trades(attack=quick),
        "free": am.recipes.free(),
        "awp": am.recipes.madry(attack=quick, weights=AWP()),
        "smooth": am.recipes.gradient_penalty(),
    }[name]
    twin = toys.Twin()
    ours = convolutional(framework, twin.weights())
    plan = Plan(epochs=1, batch_size=32, select_rows=16, optimizer=SGD(rate=0.05))
    data, held = toys.digits(128, "train"), toys.digits()
    hard = [am.train(net, data, recipe, am.Linf(0.05), plan=plan, validation=held) for net in (twin, ours)]
    with torch.no_grad():
        before, want, got = (net(held.x) for net in (twin, *hard))
    assert float((got - want).norm()) < 0.02 * float((want - before).norm())


def normed(framework):
    """A layer behind a running mean, which is state."""
    weights = np.random.default_rng(0).normal(size=(64, 10)).astype("float32")
    if framework == "jax":
        import jax.numpy as jnp

        def net(p, s, x, training):
            x = x.reshape(-1, 64)
            return (x - s) @ p, 0.9 * s + 0.1 * x.mean(0) if training else s

        return from_jax(net, jnp.asarray(weights), state=jnp.zeros(64), shape=SHAPE)
    import tensorflow as tf

    class Net(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(weights, name="w")
            self.mean = tf.Variable(tf.zeros([64]), trainable=False, name="mean")

        def __call__(self, x, training=False):
            x = tf.reshape(x, [-1, 64])
            if training:
                self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(x, 0))
            return (x - self.mean) @ self.w

    return from_tensorflow(Net(), shape=SHAPE)


@every
def test_a_stopped_run_goes_on_bit_for_bit(framework, tmp_path):
    data, held = toys.digits(96, "train"), toys.digits()

    def job(net, folder, epochs=2, **more):
        plan = Plan(epochs=epochs, batch_size=32, select_rows=16)
        recipe = am.recipes.madry(attack=am.PGD(steps=1))
        return Job(model=net, data=data, validation=held, threat=am.Linf(0.05), recipe=recipe, plan=plan,
                   folder=folder, **more)  # fmt: skip

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, cut = normed(framework), normed(framework)
    fit(job(whole, tmp_path / "a"))

    def stop(step, steps, words):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(job(cut, tmp_path / "b", watch=stop))
    fresh = normed(framework)
    fit(job(fresh, tmp_path / "b", resume=True))
    for (name, a), b in zip(whole.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
