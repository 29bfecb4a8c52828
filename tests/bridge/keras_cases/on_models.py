"""Keras models as torch modules: answers, gradients, modes, logits, copies, files."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.func import functional_call

import adamant as am
from adamant.calling import untouched
from adamant.models import as_logits
from adamant.models.foreign.keras_logits import AsItIs, Logarithm, Remembered, Silenced

from .nets import BACKEND, DIGITS, SHAPE, L, Twin, answers, cnn, fitted, k, lively

FILES = Path(__file__).parents[1] / "files"
X = DIGITS.x[:16]


# ---- what a model says

OLD = json.loads((FILES / "answers.json").read_text())


@pytest.mark.parametrize("name", sorted(OLD["answers"]))
def test_a_file_of_keras_2_answers_as_it_did_there(name):
    model = am.load_model(FILES / name)
    x = torch.tensor(OLD["x"]).permute(0, 3, 1, 2)
    torch.testing.assert_close(model(x).softmax(1), torch.tensor(OLD["answers"][name]), atol=1e-6, rtol=1e-4)


def _older(node):
    """The words of TensorFlow 2.12 to 2.15 where the file has those of a later one."""
    if isinstance(node, list):
        return [_older(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    node = {key: _older(value) for key, value in node.items()}
    if node.get("dtype") == "float32" and "name" in node:
        node["dtype"] = {"class_name": "Policy", "config": {"name": "float32"}}
    return node


@pytest.mark.skipif(BACKEND != "torch", reason="one backend is enough")
def test_a_file_of_an_older_keras_2_is_put_into_new_words(tmp_path):
    with zipfile.ZipFile(FILES / "mobile.keras") as new, zipfile.ZipFile(tmp_path / "m.keras", "w") as old:
        weights = Path(new.extract("model.weights.h5", tmp_path))
        with h5py.File(weights, "r+") as held:
            held.move("layers/sequential/layers", "layers/sequential/_layer_checkpoint_dependencies")
            held.move("layers", "_layer_checkpoint_dependencies")
        old.write(weights, "model.weights.h5")
        old.writestr("metadata.json", '{"keras_version": "2.12.0"}')
        old.writestr("config.json", json.dumps(_older(json.loads(new.read("config.json")))))
    before = (tmp_path / "m.keras").read_bytes()
    said = am.load_model(tmp_path / "m.keras")(torch.tensor(OLD["x"]).permute(0, 3, 1, 2))
    torch.testing.assert_close(said.softmax(1), torch.tensor(OLD["answers"]["mobile.keras"]), atol=1e-6, rtol=1e-4)
    assert (tmp_path / "m.keras").read_bytes() == before


@pytest.fixture(scope="module")
def plain():
    """One model, for tests that leave it as it is, with the same in torch."""
    model = cnn()
    held = fitted(model)
    return model, held, Twin(held)


def test_logits_and_gradients_are_those_of_the_same_network_in_torch(plain):
    model, held, twin = plain
    torch.testing.assert_close(held(X).softmax(1), answers(model, X), atol=1e-6, rtol=1e-5)

    def slopes(net):
        x = X.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(x), DIGITS.y[:16])
        return torch.autograd.grad(loss, [x, *net.parameters()])

    for ours, theirs in zip(slopes(held), slopes(twin), strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_an_attack_finds_what_it_finds_in_torch(plain):
    _, held, twin = plain
    rows = 64
    ours, theirs = (
        am.attack(am.PGD(steps=8), net, DIGITS.x[:rows], DIGITS.y[:rows], am.Linf(0.1)) for net in (held, twin)
    )
    assert 0.05 < theirs.robust_accuracy < 0.9
    assert abs(ours.robust_accuracy - theirs.robust_accuracy) <= 1 / rows


def test_single_rows_empty_batches_other_layouts_and_double_precision(plain):
    _, held, _ = plain
    whole = held(X)
    torch.testing.assert_close(held(X[3:4]), whole[3:4], atol=1e-5, rtol=1e-4)
    assert held(X[:0]).shape == (0, 10)
    torch.testing.assert_close(held(X.permute(0, 2, 3, 1)), whole, atol=1e-5, rtol=1e-4)  # as Keras has it
    double = held(X.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), whole, atol=1e-5, rtol=1e-4)
    with pytest.raises(am.AdamantError, match=r"takes inputs of shape \(8, 8, 1\) and the data have \(1, 9, 9\)"):
        held(torch.zeros(2, 1, 9, 9))


# ---- logits


@pytest.mark.parametrize("scale", [20.0, 100.0])
def test_a_saturated_model_looks_no_more_robust_than_it_is(plain, scale):
    """Its probabilities round to 0 and 1 and have no gradient; its logits have one."""
    model, held, _ = plain
    loud = cnn()
    loud.set_weights(model.get_weights())
    loud.get_layer("last").set_weights([w * scale for w in loud.get_layer("last").get_weights()])
    told, notes = as_logits(am.load_model(loud), X)
    assert (answers(loud, DIGITS.x[:64]).max(1).values == 1).double().mean() > 0.5
    assert ["without it, checked" in note for note in notes] == [True]
    attack, rows = am.PGD(steps=8, loss=am.Margin()), 64
    found = [
        am.attack(attack, net, DIGITS.x[:rows], DIGITS.y[:rows], am.Linf(0.1)).robust_accuracy for net in (told, held)
    ]
    assert abs(found[0] - found[1]) <= 1 / rows


class Sub(k.Model):
    def __init__(self, way):
        super().__init__()
        self.way, self.flat, self.drop = way, L.Flatten(), L.Dropout(0.5)
        self.gate = L.Dense(8, activation="softmax")  # a softmax that is not the last
        self.last = L.Dense(3, activation="softmax" if way == "layer" else None)

    def call(self, x):
        z = self.last(self.drop(self.gate(self.flat(x))))
        squash = {"activation": k.activations.softmax, "operation": k.ops.softmax}
        return squash[self.way](z) if self.way in squash else z


def _sub(way):
    model = Sub(way)
    model(np.zeros((2, *SHAPE), np.float32))
    return model


def _chain(*layers):
    return k.Sequential([k.Input(SHAPE), L.Flatten(), *layers])


def _graph():
    given = k.Input(SHAPE)
    return k.Model(given, k.ops.softmax(L.Dense(3)(L.Flatten()(given))))


REMEMBERED = Logarithm if BACKEND == "jax" else Remembered  # under JAX nothing can be left at an output
ENDS = {
    "a dense layer": (lambda: _chain(L.Dense(3, activation="softmax")), Silenced),
    "a layer of its own": (lambda: _chain(L.Dense(3), L.Softmax()), Silenced),
    "an activation in a model within": (lambda: _chain(k.Sequential([L.Dense(3), L.Activation("softmax")])), Silenced),
    "an operation of the graph": (_graph, Silenced),
    "a class of the user's": (lambda: _sub("layer"), Silenced),
    "a function of Keras in a class": (lambda: _sub("activation"), REMEMBERED),
    "an operation in a class": (lambda: _sub("operation"), Remembered if BACKEND == "tensorflow" else Logarithm),
    "no softmax": (lambda: _sub("none"), AsItIs),
    "attention and then none": (lambda: _chain(L.Reshape((8, 8)), _attention(), L.Flatten(), L.Dense(3)), AsItIs),
}


def _attention():
    given = k.Input((8, 8))
    return k.Model(given, L.MultiHeadAttention(2, 4)(given, given))


# JAX compiles each of them anew, for seconds.
SOME = ("a dense layer", "an operation of the graph", "a function of Keras in a class", "no softmax")


@pytest.mark.parametrize("end", SOME if BACKEND == "jax" else ENDS)
def test_the_softmax_at_the_end_is_found_and_left_out(end):
    make, way = ENDS[end]
    model = make()
    held = am.load_model(model)
    assert type(held.host.read) is way
    z, said = held(X), answers(model, X)
    torch.testing.assert_close(z if way is AsItIs else z.softmax(1), said, atol=1e-5, rtol=1e-4)
    assert any("can look more robust" in note for note in held.notes) == (way is Logarithm)
    torch.testing.assert_close(answers(model, X), said)  # and the model is as it was
    if end == "no softmax":  # a class whose call knows nothing of training, and drops units all the same
        held.train()
        assert not torch.equal(held(X), held(X))


def test_logarithms_tell_small_probabilities_apart():
    """Keras's own losses cut at 1e-7, below which a saturated model would look robust."""
    p = k.ops.convert_to_tensor(np.array([[1e-30, 1e-20], [0.0, 1.0]], np.float32))
    said = k.ops.convert_to_numpy(Logarithm()(k, lambda x, training: x, p, False))
    assert said[0] == pytest.approx([-69.08, -46.05], abs=0.01)
    assert said[1] == pytest.approx([-87.34, 0], abs=0.01)


def test_a_sigmoid_of_one_unit_becomes_two_logits():
    model = _chain(L.Dense(1, activation="sigmoid"))
    held = am.load_model(model)
    torch.testing.assert_close(held(X).softmax(1)[:, 1:], answers(model, X), atol=1e-6, rtol=1e-5)
    assert held(X[:0]).shape == (0, 2)
    assert "[0, z]" in held.notes[0]
    out = am.attack(am.FGSM(), model, X, torch.zeros(16, dtype=torch.long), am.Linf(0.1))
    assert len(out.x_adv) == 16


def test_channels_may_come_first():
    model = k.Sequential([k.Input((1, 8, 8)), L.Conv2D(2, 3, data_format="channels_first"), L.Flatten(), L.Dense(3)])
    said = k.ops.convert_to_numpy(model(X.numpy(), training=False))
    torch.testing.assert_close(am.load_model(model)(X), torch.from_numpy(said.copy()), atol=1e-5, rtol=1e-4)


# ---- modes, copies, state


def test_train_and_eval_are_passed_on_and_the_state_is_torchs():
    model = lively()
    before = [w.copy() for w in model.get_weights()]
    held = am.load_model(model)
    assert not held.training
    assert {name for name, _ in held.named_parameters()} == {
        "first_kernel", "first_bias", "norm_gamma", "norm_beta", "last_kernel", "last_bias",
    }  # fmt: skip
    assert {name for name, _ in held.named_buffers()} == {"norm_moving_mean", "norm_moving_variance", "seed"}
    assert torch.equal(held(X), held(X))
    mean, seed = held.norm_moving_mean.clone(), held.seed.clone()
    held.train()
    first = held(X)
    assert not torch.equal(first, held(X))  # other seeds drop other units
    assert not torch.equal(held.norm_moving_mean, mean)
    assert not torch.equal(held.seed, seed)
    with torch.no_grad():
        held.seed.copy_(seed)
    torch.testing.assert_close(held(X), first, atol=1e-5, rtol=1e-4)  # the seed is all its luck
    mean = held.norm_moving_mean.clone()
    with untouched(held, training=True):
        held(X)
    assert torch.equal(held.norm_moving_mean, mean)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    held.eval()
    torch.testing.assert_close(answers(held.receive(), X), held(X).softmax(1), atol=1e-6, rtol=1e-5)
    assert not all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_copies_and_functional_calls_have_weights_of_their_own(plain):
    import copy

    _, held, twin = plain
    other = copy.deepcopy(held)
    with torch.no_grad():
        other.last_bias += 1
    torch.testing.assert_close(other(X), held(X) + 1, atol=1e-5, rtol=1e-4)
    assert torch.equal(held.last_bias, twin.last_bias)
    moved = functional_call(held, {"last_bias": held.last_bias + 2}, (X,))
    torch.testing.assert_close(moved, held(X) + 2, atol=1e-5, rtol=1e-4)


def test_what_was_frozen_in_keras_does_not_learn(plain):
    model = k.models.clone_model(plain[0])
    model.get_layer("first").trainable = False
    if BACKEND == "torch":  # what is counted while Keras judges is no state of the model
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.evaluate(X.permute(0, 2, 3, 1).numpy(), DIGITS.y[:16].numpy(), verbose=0)
    held = am.load_model(model)
    assert {name for name, _ in held.named_parameters()} == {"last_kernel", "last_bias"}
    assert {name for name, _ in held.named_buffers()} == {"first_kernel", "first_bias"}


# ---- files

READ = """
import sys, numpy as np, keras
data = np.load(sys.argv[2])
said = keras.ops.convert_to_numpy(keras.models.load_model(sys.argv[1])(data["x"], training=False))
assert "adamant" not in sys.modules
print(keras.config.backend(), np.abs(said - data["p"]).max())
"""
NEXT = {"torch": "tensorflow", "tensorflow": "jax", "jax": "torch"}


def test_a_saved_model_loads_in_plain_keras_and_leaves_the_users_own_alone(tmp_path):
    """In a fresh process, without adamant, on another backend."""
    model = lively()
    before = [w.copy() for w in model.get_weights()]
    held = am.load_model(model).train()
    optimizer = torch.optim.SGD(held.parameters(), 0.1)
    held(X).square().mean().backward()
    optimizer.step()
    held.eval()
    am.save_model(held, tmp_path / "hard.keras")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["hard.keras"]
    again = am.load_model(tmp_path / "hard.keras")
    assert again.state_dict().keys() == held.state_dict().keys()
    torch.testing.assert_close(again(X), held(X), atol=1e-6, rtol=1e-5)

    with torch.no_grad():
        np.savez(tmp_path / "data.npz", x=X.permute(0, 2, 3, 1).numpy(), p=held(X).softmax(1).numpy())
    env = {**os.environ, "KERAS_BACKEND": NEXT[BACKEND]}
    words = [sys.executable, "-c", READ, tmp_path / "hard.keras", tmp_path / "data.npz"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    backend, gap = done.stdout.split()
    assert backend == NEXT[BACKEND]
    assert float(gap) < 1e-6


def test_it_is_saved_as_keras_alone(plain, tmp_path):
    for name in ("m.safetensors", "m.h5"):
        with pytest.raises(am.AdamantError, match=r"saved as \.keras"):
            am.save_model(plain[1], tmp_path / name)
