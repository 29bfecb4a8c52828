"""Keras models and files that cannot be used: one sentence each. What it says depends on no backend."""

import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

import adamant as am

from .nets import BACKEND, SHAPE, L, cnn, k

FILES = Path(__file__).parents[1] / "files"
pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="one backend is enough")


def _pickle(path):
    path.write_bytes(pickle.dumps({"a": 1}))


def _archive(path):
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("weights", "1 2 3")


def _odd(path):
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", "[]")
        made.writestr("metadata.json", '{"keras_version": "3.0"}')


def _weights(path):
    cnn().save_weights(path.with_name("m.weights.h5"))
    path.with_name("m.weights.h5").replace(path)


def _cut(path):
    cnn().save(path)
    path.write_bytes(path.read_bytes()[:2000])


def _own_layer(path):
    class Twice(L.Layer):
        def call(self, x):
            return 2 * x

    k.Sequential([k.Input((4,)), Twice(), L.Dense(2)]).save(path)


BAD = {
    "text": ("m.keras", lambda p: p.write_text("no model"), "neither a .keras archive nor HDF5"),
    "a pickle": ("m.h5", _pickle, "is a pickle, which can run any code"),
    "another archive": ("m.keras", _archive, "cut short, or is no model of Keras"),
    "half a file": ("m.keras", _cut, "cut short"),
    "half a file of HDF5": ("m.h5", _cut, "cut short"),
    "no model inside": ("m.keras", _odd, "no model of Keras"),
    "weights alone": ("m.h5", _weights, r"weights alone.*package\.module:function"),
    "a lambda": ("m.h5", lambda p: shutil.copy(FILES / "lambda.h5", p), r"Lambda.*trust=True \(--trust\)"),
    "a lambda, zipped": ("m.keras", lambda p: shutil.copy(FILES / "lambda.keras", p), r"Lambda.*--trust"),
    "a layer of somebody's": ("m.h5", lambda p: shutil.copy(FILES / "custom.h5", p), "made of Twice, which Keras does"),
    "a layer of one's own": ("m.keras", _own_layer, "made of Twice, which.*register_keras_serializable"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used(name, tmp_path):
    file, make, why = BAD[name]
    make(tmp_path / file)
    with pytest.raises(am.AdamantError, match=why):
        am.load_model(tmp_path / file)


@pytest.mark.parametrize(("suffix", "claimed"), [(".keras", ".h5"), (".h5", ".keras")])
def test_a_file_is_what_it_holds_and_not_what_it_is_called(suffix, claimed, tmp_path):
    net = cnn()
    net.save(tmp_path / f"m{suffix}")
    (tmp_path / f"m{suffix}").rename(tmp_path / f"n{claimed}")
    x = torch.rand(3, *SHAPE)
    torch.testing.assert_close(am.load_model(tmp_path / f"n{claimed}")(x), am.load_model(net)(x))


def test_a_lambda_is_loaded_on_trust():
    model = am.load_model(FILES / "lambda.h5", trust=True)
    x = torch.rand(3, 1, 8, 8)
    kernel, bias = model.parameters()
    torch.testing.assert_close(model(x), 2 * x.flatten(1) @ kernel + bias, atol=1e-6, rtol=1e-5)


def test_a_registered_layer_is_found(tmp_path):
    @k.saving.register_keras_serializable(package="tests")
    class Thrice(L.Layer):
        def call(self, x):
            return 3 * x

    k.Sequential([k.Input((4,)), Thrice(), L.Dense(2)]).save(tmp_path / "m.keras")
    assert am.load_model(tmp_path / "m.keras")(torch.ones(2, 4)).shape == (2, 2)


def _two(ends):
    a, b = k.Input((4,), name="left"), k.Input((4,), name="right")
    if ends == "inputs":
        return k.Model([a, b], L.Dense(2)(L.concatenate([a, b])))
    return k.Model(a, {"age": L.Dense(2, name="age")(a), "name": L.Dense(2, name="name")(a)})


def _table(**how):
    return k.Sequential([k.Input((5,), **how), L.Embedding(10, 4), L.Flatten(), L.Dense(2)])


MODELS = {
    "two inputs": (lambda: _two("inputs"), r"2 inputs \(left, right\)"),
    "two outputs": (lambda: _two("outputs"), r"2 outputs \("),
    "whole numbers": (lambda: _table(dtype="int32"), "takes int32, which no small change"),
    "words by number": (_table, "for its Embedding, which no small change"),
    "no weights yet": (lambda: k.Sequential([L.Dense(3)]), "no weights yet: call it once"),
    "a layer": (lambda: L.Dense(3), "A Dense of Keras is no model"),
    "pictures out": (
        lambda: k.Sequential([k.Input(SHAPE), L.Conv2D(3, 3)]),
        r"returns \(16, 6, 6, 3\).*\(n, classes\)",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_used(name):
    make, why = MODELS[name]
    with pytest.raises(am.AdamantError, match=why):
        am.load_model(make())
