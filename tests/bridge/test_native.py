"""Models of TensorFlow and JAX as torch modules: the same answers, the same gradients, weights there and back."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import adamant as am
from adamant.errors import InputError, ModelError
from adamant.models import as_logits, from_jax, from_tensorflow, load_model, save_model
from adamant.training import SGD, Plan
from tests.bridge import toys
from tests.bridge.toys import SHAPE, needs_jax, needs_tensorflow

TENSORFLOW = ("module", "plain", "function", "softmax", "saved", "tf_keras")
JAX = ("jax", "nnx", "linen", "bound", "equinox")


def kinds(*quick, among=(*TENSORFLOW, *JAX)):
    """Every kind of model; all but the quick ones are slow."""
    needs = {kind: needs_jax if kind in JAX else needs_tensorflow for kind in among}
    slow = (pytest.mark.slow,)
    return [pytest.param(k, marks=(needs[k],) if k in quick else (needs[k], *slow)) for k in among]


def build(kind, weights, tmp_path):
    """The twin's weights in a model of another framework, as torch sees it."""
    if kind in ("module", "plain", "softmax"):
        net = toys.tf_module(weights, softmax=kind == "softmax", decorated=kind != "plain")
        return load_model(net, shape=SHAPE)
    if kind == "function":
        import tensorflow as tf

        net = toys.tf_module(weights)
        return load_model(tf.function(lambda x: net(x)), shape=SHAPE)
    if kind == "saved":
        import tensorflow as tf

        net = toys.tf_module(weights, softmax=True)
        serving = net.__call__.get_concrete_function(tf.TensorSpec([None, *SHAPE]))
        tf.saved_model.save(net, str(tmp_path / "saved"), signatures=serving)
        return load_model(tmp_path / "saved")
    if kind == "tf_keras":
        keras = pytest.importorskip("tf_keras")
        layers = keras.layers
        net = keras.Sequential([
            layers.Input(SHAPE), layers.Conv2D(8, 3, padding="same", activation="relu"), layers.MaxPool2D(),
            layers.Flatten(), layers.Dense(10, activation="softmax"),
        ])  # fmt: skip
        net.set_weights(weights)
        return load_model(net)
    if kind == "jax":
        return from_jax(*toys.jax_function(weights), shape=SHAPE)
    if kind == "nnx":
        return load_model(toys.nnx_model(weights), shape=SHAPE)
    if kind in ("linen", "bound"):
        net, variables = toys.linen_model(weights)
        return from_jax(net, variables, shape=SHAPE) if kind == "linen" else load_model(
            net.bind(variables), shape=SHAPE)  # fmt: skip
    return load_model(toys.equinox_model(weights), shape=(1, 8, 8))


@pytest.mark.parametrize("kind", kinds("module", "softmax", "saved", "tf_keras", "jax", "nnx", "bound", "equinox"))
def test_the_same_answers_gradients_and_weights_as_the_torch_twin(kind, tmp_path):
    twin, data = toys.Twin(), toys.digits()
    ours = build(kind, twin.weights(), tmp_path)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in twin.parameters())
    slopes = []
    for net in (twin, ours):
        x = data.x.clone().requires_grad_()
        logits = net(x)
        F.cross_entropy(logits, data.y, reduction="sum").backward()
        slopes.append((logits.detach(), x.grad, sorted(float(p.grad.norm()) for p in net.parameters())))
    torch.testing.assert_close(slopes[1][0], slopes[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slopes[1][1], slopes[0][1], rtol=1e-5, atol=1e-5 * float(slopes[0][1].abs().max()))
    assert slopes[1][2] == pytest.approx(slopes[0][2], rel=1e-5)
    logits, notes = as_logits(ours, data.x)
    assert logits is ours
    assert bool(notes) == (kind in ("softmax", "saved", "tf_keras"))
    assert len(ours(data.x[:0])) == 0
    torch.testing.assert_close(ours(data.x.double()), ours(data.x).double())
    torch.testing.assert_close(ours((data.x * 0).to(torch.uint8)), ours(data.x * 0))


@pytest.mark.parametrize("kind", kinds("softmax", "tf_keras", "nnx"))
def test_an_attack_and_hardening_through_the_bridge(kind, tmp_path):
    twin, data = toys.Twin(), toys.digits(16)
    ours = build(kind, twin.weights(), tmp_path)
    found = [am.attack(am.PGD(steps=5), net, data.x, data.y, am.Linf(0.1)) for net in (twin, ours)]
    torch.testing.assert_close(found[0].x_adv, found[1].x_adv, atol=1e-4, rtol=0)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    plan = Plan(epochs=1, batch_size=32, select_rows=16, optimizer=SGD(rate=0.1))
    hard = [am.train(net, toys.digits(96, "train"), am.recipes.madry(attack=am.PGD(steps=2)), am.Linf(0.1), plan=plan)
            for net in (twin, ours)]  # fmt: skip
    with torch.no_grad():
        start, want, got = (net(data.x) for net in (twin, *hard))
    assert float((got - want).norm()) < 0.01 * float((want - start).norm())
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name]), "the model that was given is as it was"


@needs_jax
def test_state_and_random_keys_of_nnx_travel_and_the_mask_is_one(tmp_path):
    _train_mode(from_jax(toys.nnx_model(extras=True), shape=SHAPE), ("mean", "var"))


@needs_jax
def test_state_and_random_keys_of_linen_travel_and_the_mask_is_one():
    _train_mode(from_jax(*toys.linen_model(extras=True), shape=SHAPE), ("mean", "var"))


@needs_jax
def test_random_keys_of_equinox_travel_and_the_mask_is_one():
    _train_mode(from_jax(toys.equinox_model(extras=True), shape=(1, 8, 8)), ())


def _train_mode(net, statistics, seeded=True):
    """State moves once per step, another mask each time, and forward and backward see the same one."""
    x, y = toys.digits().x, toys.digits().y
    net.eval()
    assert torch.equal(net(x), net(x))
    net.train()
    state = {k: v.clone() for k, v in net.named_buffers()}
    first, moved = net(x).detach(), {k: v.clone() for k, v in net.named_buffers()}
    assert sum(not torch.equal(state[k], moved[k]) for k in moved) > len(statistics), "the key or its counter too"
    assert sum(any(s in k for s in statistics) for k in moved) == len(statistics)
    assert not torch.allclose(net(x), first, atol=1e-3)
    if seeded:
        net.load_state_dict({**net.state_dict(), **state})
        assert torch.equal(net(x), first), "the state says all"
        assert all(torch.equal(v, moved[k]) for k, v in net.named_buffers())

    def loss(z):
        with torch.no_grad():
            for k, v in net.named_buffers():
                v.copy_(state[k])
        return F.cross_entropy(net(z), y, reduction="sum")

    z = x.clone().requires_grad_()
    slope = torch.autograd.grad(loss(z), z)[0]
    if seeded:  # along its own direction; the slope of another mask would point elsewhere
        step = 0.01 * slope / slope.norm()
        with torch.no_grad():
            rise = float(loss(x + step) - loss(x - step)) / 0.02
        assert rise == pytest.approx(float(slope.norm()), rel=0.08)


@needs_jax
def test_a_function_with_a_state_of_its_own():
    import jax
    import jax.numpy as jnp

    def net(p, s, x, training):
        mean = x.mean(0) if training else s["mean"]
        z = (x - mean).reshape(len(x), -1) @ p
        if training:
            z = z * jax.random.bernoulli(jax.random.wrap_key_data(s["key"]), 0.5, z.shape)
        new = {"mean": 0.9 * s["mean"] + 0.1 * x.mean(0), "count": s["count"] + 1,
               "key": jax.random.key_data(jax.random.split(jax.random.wrap_key_data(s["key"]))[0])}  # fmt: skip
        return z, new

    params = jnp.asarray(np.random.default_rng(0).normal(size=(64, 10)), jnp.float32)
    state = {"mean": jnp.zeros(SHAPE), "count": jnp.zeros((), jnp.int32), "key": jax.random.key_data(jax.random.key(1))}
    ours = from_jax(net, params, state=state, shape=SHAPE)
    _train_mode(ours, ("mean",))
    assert ours.count.dtype == torch.int32
    assert int(ours.count) > 0
    got, after = ours.receive()
    assert got.shape == (64, 10)
    assert int(after["count"]) == int(ours.count)


@needs_jax
def test_batch_norm_of_equinox():
    import equinox as eqx
    import jax

    class Net(eqx.Module):
        norm: eqx.nn.BatchNorm
        out: eqx.nn.Linear

        def __init__(self):
            self.norm = eqx.nn.BatchNorm(1, "batch", mode="batch")
            self.out = eqx.nn.Linear(64, 10, key=jax.random.key(0))

        def __call__(self, x, state):
            h, state = self.norm(x, state)
            return self.out(h.reshape(-1)), state

    net, state = eqx.nn.make_with_state(Net)()
    ours = from_jax(net, state=state, shape=(1, 8, 8))
    x = toys.digits().x
    ours.train()
    before = {k: v.clone() for k, v in ours.named_buffers()}
    ours(x)
    assert any(not torch.equal(v, before[k]) for k, v in ours.named_buffers())
    back, new = ours.receive()
    z = jax.vmap(eqx.nn.inference_mode(back), in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x.numpy(), new)
    torch.testing.assert_close(torch.from_numpy(np.array(z[0])), ours.eval()(x), rtol=1e-5, atol=1e-5)


@needs_tensorflow
def test_state_of_a_tf_module_moves_once_per_step():
    import tensorflow as tf

    class Net(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(np.random.default_rng(0).normal(size=(64, 10)).astype("float32"), name="w")
            self.mean = tf.Variable(tf.zeros([64]), trainable=False, name="mean")
            self.seed = tf.Variable([0, 0], trainable=False, name="seed", dtype=tf.int32)

        @tf.function
        def __call__(self, x, training=False):
            x = tf.reshape(x, [-1, 64])
            if training:
                mean = tf.reduce_mean(x, 0)
                self.mean.assign(0.9 * self.mean + 0.1 * mean)
                self.seed.assign_add([1, 0])
                mask = tf.random.stateless_uniform(tf.shape(x), self.seed) < 0.7
                return tf.nn.softmax(((x - mean) * tf.cast(mask, tf.float32)) @ self.w)
            return tf.nn.softmax((x - self.mean) @ self.w)

    ours = from_tensorflow(Net(), shape=SHAPE)
    assert sorted(k for k, _ in ours.named_parameters()) == ["w"]
    _train_mode(ours, ("mean",))
    assert ours.seed.dtype == torch.int32
    ours.eval()
    logits, _ = as_logits(ours, toys.digits().x)
    assert logits is ours


@needs_tensorflow
def test_batch_norm_and_dropout_of_tf_keras():
    keras = pytest.importorskip("tf_keras")
    layers = keras.layers
    net = keras.Sequential([
        layers.Input(SHAPE), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten(),
        layers.Dropout(0.3), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    ours = load_model(net)
    x = toys.digits().x
    ours.train()
    start = {k: v.clone() for k, v in ours.named_buffers()}
    first = ours(x)
    assert not torch.allclose(ours(x), first, atol=1e-3), "dropout"
    ours.load_state_dict({**ours.state_dict(), **start})
    ours(x)
    once = {k: v.clone() for k, v in ours.named_buffers() if "moving" in k}
    assert len(once) == 2
    assert all(not torch.equal(v, start[k]) for k, v in once.items())
    again = load_model(net)
    again.train()
    z = x.clone().requires_grad_()
    again(z).square().sum().backward()  # a way back moves nothing once more
    for k, v in again.named_buffers():
        if "moving" in k:
            torch.testing.assert_close(v, once[k])
    received = ours.receive()
    want = received(x.permute(0, 2, 3, 1).numpy(), training=False).numpy()
    torch.testing.assert_close(ours.eval()(x).softmax(1), torch.from_numpy(want), atol=1e-6, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Weights go back, in files that their own framework reads without us


@pytest.mark.parametrize("kind", kinds("saved", among=("module", "plain", "function", "saved")))
def test_a_saved_model_loads_without_adamant(kind, tmp_path):
    ours = build(kind, toys.Twin().weights(), tmp_path)
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(0.01)
    x = toys.digits().x
    ours.save(tmp_path / "out")
    np.save(tmp_path / "x.npy", x.permute(0, 2, 3, 1).numpy())
    code = (
        "import tensorflow as tf, numpy as np, sys; serve = tf.saved_model.load('out').signatures['serving_default'];"
        "[name] = serve.structured_input_signature[1]; [y] = serve(**{name: tf.constant(np.load('x.npy'))}).values();"
        "np.save('y.npy', y); assert 'adamant' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    want = ours(x).softmax(1) if kind == "saved" else ours(x)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "y.npy")), want.detach(), atol=1e-5, rtol=1e-4)
    again = load_model(tmp_path / "out")
    torch.testing.assert_close(again(x), ours(x), atol=1e-5, rtol=1e-4)


@needs_jax
def test_leaves_of_jax_are_saved_by_name_and_as_orbax(tmp_path):
    import safetensors.numpy
    from flax import nnx, traverse_util

    twin = toys.Twin()
    net, params = toys.jax_function(twin.weights())
    ours, x = from_jax(net, params, shape=SHAPE), toys.digits().x
    with torch.no_grad():
        ours.conv_kernel.mul_(2)
    ours.save(tmp_path / "net.safetensors")
    read = traverse_util.unflatten_dict(safetensors.numpy.load_file(tmp_path / "net.safetensors"), sep="/")
    z = x.permute(0, 2, 3, 1).numpy()
    torch.testing.assert_close(torch.from_numpy(np.array(net(read, z))), ours(x).detach(), atol=1e-5, rtol=1e-4)
    got = ours.receive()
    assert np.array_equal(got["conv"]["kernel"], 2 * np.asarray(params["conv"]["kernel"]))
    assert not np.array_equal(params["conv"]["kernel"], got["conv"]["kernel"]), "the user's own tree stays"
    orbax = pytest.importorskip("orbax.checkpoint")
    ours.save(tmp_path / "folder")
    held = orbax.StandardCheckpointer().restore((tmp_path / "folder").absolute())
    assert np.array_equal(held["params"]["conv"]["kernel"], got["conv"]["kernel"])
    module = from_jax(toys.nnx_model(twin.weights()), shape=SHAPE)
    back = module.receive()
    assert isinstance(back, nnx.Module)
    torch.testing.assert_close(torch.from_numpy(np.array(back(z))), module(x).detach(), atol=1e-5, rtol=1e-4)


@needs_jax
def test_saved_leaves_of_jax_are_loaded_into_the_model_that_arch_names(tmp_path, monkeypatch):
    source = "from tests.bridge import toys\n\n\ndef net():\n    return toys.nnx_model(toys.Twin().weights())\n"
    (tmp_path / "my_flax.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2]), *sys.path])
    ours, x = load_model("my_flax:net", shape=(1, 8, 8)), toys.digits().x
    with torch.no_grad():
        for weight in ours.parameters():
            weight.mul_(1.5)
    save_model(ours, "net.safetensors")
    again = load_model("net.safetensors", arch="my_flax:net", shape=(1, 8, 8))
    assert torch.equal(again(x), ours(x))
    assert not torch.equal(load_model("my_flax:net", shape=(1, 8, 8))(x), ours(x))


EXAMPLES = {
    "jax_harden": r"standard +\d+\.\d%(.|\n)*madry +\d+\.\d%(.|\n)*agrees on 100%(.|\n)*first, norm, out",
    "tensorflow_attack": r"standard +\d+\.\d%(.|\n)*madry +(\d+\.\d%)(.|\n)*saved and loaded: \2",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run(name, tmp_path):
    if find_spec(name.partition("_")[0]) is None:
        pytest.skip("needs the framework")
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(EXAMPLES[name], done.stdout), done.stdout


def test_every_example_is_run():
    root = Path(__file__).parents[2] / "examples"
    assert {p.stem for kind in ("jax", "tensorflow") for p in root.glob(f"{kind}_*.py")} == set(EXAMPLES)


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be used is said in a sentence


@pytest.mark.parametrize("kind", kinds("saved", "plain", "nnx", among=("saved", "plain", "nnx")))
def test_the_shape_of_the_data_finds_the_layout_of_the_model(kind, tmp_path):
    twin, x = toys.Twin(), toys.digits().x[:4]
    build(kind, twin.weights(), tmp_path)
    held = {
        "saved": lambda: tmp_path / "saved", "plain": lambda: toys.tf_module(twin.weights(), decorated=False),
        "nnx": lambda: toys.nnx_model(twin.weights()),
    }[kind]()  # fmt: skip
    found = load_model(held, shape=(1, 8, 8), classes=10)
    assert found.host.shape == SHAPE
    torch.testing.assert_close(found(x), twin(x), rtol=1e-4, atol=1e-5)


@needs_tensorflow
def test_a_convolution_of_tensorflow_is_not_given_its_channels_as_groups():
    import tensorflow as tf

    filters = np.random.default_rng(0).normal(size=(3, 3, 1, 16)).astype("float32")
    found = load_model(lambda_of(tf, filters), shape=(1, 8, 8))
    assert found.host.shape == SHAPE
    with pytest.raises(ModelError, match="shape"):
        load_model(lambda_of(tf, filters[..., :10]), shape=(1, 7, 9, 9))


def lambda_of(tf, filters):
    held = tf.constant(filters)
    return tf.function(lambda x: tf.reduce_mean(tf.nn.conv2d(x, held, 1, "SAME"), [1, 2]))


@needs_tensorflow
def test_what_tensorflow_cannot_give(tmp_path):
    import tensorflow as tf

    net = toys.tf_module(toys.Twin().weights())
    with pytest.raises(InputError, match=r"shape=\(28, 28, 1\)"):
        load_model(net)
    with pytest.raises(ModelError, match="int64: labels are no logits"):
        from_tensorflow(tf.function(lambda x: tf.argmax(net(x), 1)), shape=SHAPE)
    with pytest.raises(ModelError, match="2 outputs"):
        from_tensorflow(lambda x: (net(x), net(x)), shape=SHAPE)
    with pytest.raises(ModelError, match="2 outputs, a, b"):
        from_tensorflow(lambda x: {"a": net(x), "b": net(x)}, shape=SHAPE)
    assert from_tensorflow(lambda x: {"a": x, "logits": net(x)}, shape=SHAPE).host.classes == 10
    whole = tf.Module()
    whole.f = tf.function(lambda t: tf.cast(t, tf.float32) @ tf.ones([4, 3]), [tf.TensorSpec([None, 4], tf.int32)])
    tf.saved_model.save(whole, str(tmp_path / "whole"), signatures=whole.f)
    with pytest.raises(ModelError, match="int32, and whole numbers have no gradient"):
        load_model(tmp_path / "whole")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot read the SavedModel"):
        load_model(tmp_path / "broken")
    ours = from_tensorflow(net, shape=SHAPE)
    with pytest.raises(ModelError, match="takes inputs of shape"):
        ours(torch.rand(2, 1, 9, 9))


@needs_jax
def test_what_jax_cannot_give():
    net, params = toys.jax_function(toys.Twin().weights())
    with pytest.raises(InputError, match="do not know the shape"):
        from_jax(net, params)
    with pytest.raises(ModelError, match="int32: labels are no logits"):
        from_jax(lambda p, x: net(p, x).argmax(1), params, shape=SHAPE)
    with pytest.raises(ModelError, match="tuple of 2"):
        from_jax(lambda p, x: (net(p, x), x), params, shape=SHAPE)
    with pytest.raises(ModelError, match=r"inputs of shape \(2, 1, 8, 8\)"):
        from_jax(net, params, shape=(1, 8, 8))
    with pytest.raises(InputError, match=r"module\.bind"):
        load_model(toys.linen_model()[0], shape=SHAPE)


@pytest.mark.parametrize(("name", "extra"), [("tensorflow", "tensorflow"), ("jax", "jax")])
def test_a_framework_that_is_not_installed_is_one_sentence(name, extra, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(am.AdamantError, match=rf"pip install adamant\[{extra}\]"):
        load_model(tmp_path) if name == "tensorflow" else from_jax(lambda p, x: x, {}, shape=SHAPE)
