"""The same small network in every framework that has one: conv 3x3, batch norm where asked, relu, pool, linear."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adamant.data import load_data

needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX")
needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs TensorFlow")
SHAPE = (8, 8, 1)


class Twin(nn.Module):
    """The torch network that the others are twins of."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.out = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 16, 10)

    def forward(self, x):
        h = F.max_pool2d(self.conv(x).relu(), 2)
        return self.out(h.permute(0, 2, 3, 1).flatten(1))  # as frameworks with channels last flatten

    def weights(self):
        """As those frameworks keep them: (h, w, in, out) and (in, out)."""
        held = (self.conv.weight.permute(2, 3, 1, 0), self.conv.bias, self.out.weight.T, self.out.bias)
        return [np.ascontiguousarray(w.detach().numpy()) for w in held]


def digits(rows=32, split="test"):
    return load_data("digits", split=split, limit=rows)


def trained(seed=0, epochs=15):
    """A twin that knows its digits."""
    net, data = Twin(seed), load_data("digits", split="train")
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(data), generator=generator).split(64):
            loss = F.cross_entropy(net(data.x[rows]), data.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def tf_module(weights, *, softmax=False, decorated=True):
    """A tf.Module of the same weights."""
    import tensorflow as tf

    class Net(tf.Module):
        def __init__(self):
            super().__init__()
            names = ("kernel", "bias", "matrix", "offset")
            self.held = [tf.Variable(w, name=n) for w, n in zip(weights, names, strict=True)]

        def __call__(self, x):
            k, b, m, o = self.held
            h = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, k, 1, "SAME") + b), 2, 2, "VALID")
            z = tf.reshape(h, [-1, 128]) @ m + o
            return tf.nn.softmax(z) if softmax else z

    if decorated:
        Net.__call__ = tf.function(Net.__call__)
    return Net()


def jax_function(weights):
    """A function of JAX and its tree of parameters."""
    import jax
    import jax.numpy as jnp

    def net(p, x):
        dims = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(x, p["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=dims)
        h = jax.nn.relu(h + p["conv"]["bias"])
        h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return h.reshape(len(x), -1) @ p["out"]["kernel"] + p["out"]["bias"]

    k, b, m, o = map(jnp.asarray, weights)
    return net, {"conv": {"kernel": k, "bias": b}, "out": {"kernel": m, "bias": o}}


def nnx_model(weights=None, *, extras=False):
    """A Flax NNX module; with extras it has batch norm and dropout."""
    import jax.numpy as jnp
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs) if extras else None
            self.drop = nnx.Dropout(0.3, rngs=rngs) if extras else None
            self.out = nnx.Linear(128, 10, rngs=rngs)

        def __call__(self, x):
            h = self.conv(x)
            h = nnx.relu(self.norm(h) if extras else h)
            h = nnx.max_pool(h, (2, 2), (2, 2)).reshape(len(x), -1)
            return self.out(self.drop(h) if extras else h)

    net = Net(nnx.Rngs(0))
    if weights is not None:
        k, b, m, o = map(jnp.asarray, weights)
        net.conv.kernel[...], net.conv.bias[...], net.out.kernel[...], net.out.bias[...] = k, b, m, o
    return net


def linen_model(weights=None, *, extras=False):
    """A Flax Linen module and its variables."""
    import jax
    import jax.numpy as jnp
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train=False):
            h = linen.Conv(8, (3, 3), name="conv")(x)
            if extras:
                h = linen.BatchNorm(use_running_average=not train, name="norm")(h)
            h = linen.max_pool(linen.relu(h), (2, 2), (2, 2)).reshape(len(x), -1)
            if extras:
                h = linen.Dropout(0.3, deterministic=not train)(h)
            return linen.Dense(10, name="out")(h)

    net = Net()
    variables = net.init(jax.random.key(0), jnp.ones((1, *SHAPE)))
    if weights is not None:
        k, b, m, o = map(jnp.asarray, weights)
        variables = {**variables, "params": {**variables["params"], "conv": {"kernel": k, "bias": b},
                                             "out": {"kernel": m, "bias": o}}}  # fmt: skip
    return net, variables


def equinox_model(weights=None, *, extras=False):
    """An Equinox module, of one input at a time and channels first; with extras it has dropout."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        pool: eqx.nn.MaxPool2d
        drop: eqx.nn.Dropout
        out: eqx.nn.Linear

        def __init__(self):
            a, b = jax.random.split(jax.random.key(0))
            self.conv = eqx.nn.Conv2d(1, 8, 3, padding=1, key=a)
            self.pool, self.drop = eqx.nn.MaxPool2d(2, 2), eqx.nn.Dropout(0.3 if extras else 0.0)
            self.out = eqx.nn.Linear(128, 10, key=b)

        def __call__(self, x, key=None):
            h = self.pool(jax.nn.relu(self.conv(x))).transpose(1, 2, 0).reshape(-1)
            return self.out(self.drop(h, key=key))

    net = Net()
    if weights is not None:
        k, b, m, o = map(jnp.asarray, weights)
        new = (k.transpose(3, 2, 0, 1), b[:, None, None], m.T, o)
        net = eqx.tree_at(lambda n: (n.conv.weight, n.conv.bias, n.out.weight, n.out.bias), net, new)
    return net
