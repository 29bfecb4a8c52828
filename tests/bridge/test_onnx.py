"""ONNX files of several exporters: the same answers and gradients as the original, and clear words for the rest."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.access import Sight
from adamant.errors import InputError, ModelError
from adamant.models import as_logits, build, load_model, save_model
from adamant.models.onnx import load_onnx

onnx: Any = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
# torch's exporters and the tests of onnx are full of warnings that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


class Convolutional(nn.Module):
    """What residual and mobile networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean, m.running_var = torch.randn(8) / 4, torch.rand(8) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.max_pool2d(x + self.deep(x) * self.gate(x), 3, 2, 1, ceil_mode=True)
        return self.head(F.gelu(self.norm(x.permute(0, 2, 3, 1))).mean((1, 2)))


class Attentive(nn.Module):
    """What a vision transformer is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.first = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu", norm_first=True)
        self.qkv, self.head = nn.Linear(16, 48), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(x).flatten(2).transpose(1, 2)
        x = self.block(torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1))
        q, k, v = self.qkv(x).reshape(x.shape[0], 5, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        return self.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, 0])


class Upward(nn.Module):
    """Resizing, transposed convolutions and uneven pools."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.t = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)
        self.norms = nn.Sequential(nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.norms(F.interpolate(y, scale_factor=2, mode="bilinear") + F.interpolate(y, scale_factor=2) + self.t(y))
        z = F.avg_pool2d(F.pad(z, (1, 1, 1, 1), mode="reflect"), 3, 2, 1, ceil_mode=True)
        return F.silu(z)[..., 1::3].mean(3)[:, :, 2:7].flatten(1)


MODELS = {
    "convolutional": Convolutional,
    "attentive": Attentive,
    "upward": Upward,
    "zoo:preact-resnet18": lambda: build("zoo:preact-resnet18", shape=(3, 16, 16), classes=5),
}


def export(
    model: nn.Module, path: Path, x: Tensor, *, dynamo: bool, opset: int, free: bool = True, **more: Any
) -> Path:
    with contextlib.redirect_stdout(io.StringIO()):
        if dynamo:
            dims = ({0: torch.export.Dim("n")},) if free else None
            torch.onnx.export(
                model, (x,), str(path), dynamo=True, opset_version=opset, dynamic_shapes=dims, verbose=False, **more
            )
        else:
            axes = {"x": {0: "n"}} if free else None
            torch.onnx.export(
                model, (x,), str(path), dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes=axes, **more
            )
    return path


def pictures(n: int = 3, side: int = 16) -> Tensor:
    return torch.rand(n, 3, side, side)


def slope(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    weights = torch.linspace(-1, 2, 5)[:, None].to(x)
    out = model(x)
    return torch.autograd.grad((out[:, :5] @ weights).sum(), x)[0]


def alike(ours: Tensor, theirs: Tensor, most: float = 1e-5) -> None:
    assert float((ours - theirs).abs().max()) <= most * float(theirs.abs().max())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dynamo", "opset"), [(False, 11), (False, 14), (False, 18), (True, 18), (True, 20)])
def test_exports_of_torch(tmp_path: Path, name: str, dynamo: bool, opset: int) -> None:
    if name == "attentive" and opset == 11:
        pytest.skip("torch itself cannot export attention in opset 11")
    model = MODELS[name]().eval()
    loaded = load_model(export(model, tmp_path / "m.onnx", pictures(2), dynamo=dynamo, opset=opset))
    x = pictures(5)
    assert isinstance(loaded.core, nn.Module)
    assert loaded.shows == Sight.GRADIENT
    assert "differs from onnxruntime by" in loaded.notes[-1]
    alike(loaded(x), model(x))
    alike(slope(loaded, x), slope(model, x))
    assert copy.deepcopy(loaded.core).to("meta")(x.to("meta")).shape == loaded(x).shape  # as on another device
    assert sum(p.numel() for p in loaded.parameters()) >= 0.9 * sum(
        p.numel() for n, p in model.named_parameters() if "bn" not in n
    )


def test_single_cases_of_the_standard() -> None:
    """The tests of the onnx project itself, one operator each; the known exceptions are named."""
    from onnx.backend.test.case.node import collect_testcases

    from adamant.models.graph import OPERATORS, UnsupportedError
    from adamant.models.graph.module import call
    from adamant.models.onnx_files import read_graph, read_proto

    known = (
        "uint", "bfloat16", "bf16", "FLOAT", "INT2", "INT4", "string", "training_dropout", "identity_sequence",
        "identity_opt", "empty_set", "scales_linear_align_corners", "scales_cubic_align_corners",  # as onnxruntime
    )  # fmt: skip
    passed, failed = set[str](), list[str]()
    for case in collect_testcases(None):
        if case.model is None or any(word in case.name for word in known):
            continue
        try:
            graph = read_graph(read_proto(case.model))
        except UnsupportedError:
            continue
        if not {n.op for n in graph.nodes} <= set(OPERATORS):
            continue
        try:
            for inputs, outputs in case.data_sets:
                values: dict[str, Any] = {**graph.weights, "": None}
                for port, value in zip(case.model.graph.input, inputs, strict=True):
                    values[port.name] = None if value is None else torch.from_numpy(np.array(value))
                for n in graph.nodes:
                    values.update(call(n, [values[name] for name in n.inputs]))
                for port, want in zip(case.model.graph.output, outputs, strict=True):
                    assert tuple(values[port.name].shape) == want.shape
                    near = {"rtol": 1e-2, "atol": 1e-2} if want.dtype == "float16" else {"rtol": 1e-3, "atol": 1e-5}
                    torch.testing.assert_close(
                        values[port.name], torch.from_numpy(np.array(want)), equal_nan=True, check_stride=False, **near
                    )
            passed |= {n.op for n in graph.nodes}
        except UnsupportedError:
            continue
        except Exception as error:
            failed.append(f"{case.name}: {str(error).splitlines()[0]}")
    assert not failed
    assert passed >= set(OPERATORS) - {"Dropout"}


# ---------------------------------------------------------------------------------------------------------------------
# Graphs by hand


def graph(nodes: list[Any], x: Any, outputs: list[Any], opset: int = 17, **weights: Tensor) -> Any:
    held = [numpy_helper.from_array(w.numpy(), name) for name, w in weights.items()]
    inputs = x if isinstance(x, list) else [x]
    made = helper.make_graph(nodes, "g", inputs, outputs, held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def port(name: str, *sizes: Any, kind: int = 1) -> Any:
    return helper.make_tensor_value_info(name, kind, sizes)


def dense(*, ends: str = "", batch: Any = "n", kind: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Any, Tensor]:
    """y = x w, and what follows it."""
    w = torch.randn(4, 3).to(dtype)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"])]
    nodes += [helper.make_node(ends, ["z"], ["p"]), helper.make_node("Identity", ["p"], ["y"])] if ends else []
    out = "y" if ends else "z"
    return graph(nodes, port("x", batch, 4, kind=kind), [port(out, batch, 3, kind=kind)], w=w), w


@pytest.mark.parametrize(("kind", "dtype"), [(10, torch.float16), (11, torch.float64)])
def test_other_precisions(kind: int, dtype: torch.dtype) -> None:
    proto, w = dense(kind=kind, dtype=dtype)
    x = torch.rand(3, 4)
    loaded = load_onnx(proto)
    assert loaded(x).dtype == dtype
    alike(loaded(x), x.to(dtype) @ w, 1e-2 if kind == 10 else 1e-12)
    alike(slope_of(loaded, x), w[:, 0].float().expand(3, 4), 1e-3)


def slope_of(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, 0].sum(), x)[0]


@pytest.mark.parametrize("ends", ["Softmax", "Sigmoid"])
def test_logits_before_a_softmax_or_sigmoid(ends: str) -> None:
    proto, w = dense(ends=ends)
    loaded = load_onnx(proto)
    x = torch.rand(3, 4) * 100
    alike(loaded(x), x @ w)
    assert f"ends in a {ends.lower()}" in loaded.notes[0]
    assert ends.lower() in as_logits(loaded, x)[1][0]


def test_weights_are_trained_and_written_back(tmp_path: Path) -> None:
    proto, w = dense(ends="Softmax")
    onnx.save(proto, tmp_path / "before.onnx")
    loaded = load_model(tmp_path / "before.onnx")
    (weight,) = loaded.parameters()
    x = torch.rand(8, 4)
    F.cross_entropy(loaded(x), torch.zeros(8).long()).backward()
    with torch.no_grad():
        weight -= weight.grad
    assert not torch.equal(weight, w)
    save_model(loaded, tmp_path / "after.onnx")
    again = load_model(tmp_path / "after.onnx")
    assert torch.equal(again(x), loaded(x))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "after.onnx"))
    answer = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    torch.testing.assert_close(answer, loaded(x).softmax(1).detach())
    with pytest.raises(InputError, match=r"saved as \.onnx"):
        save_model(loaded, tmp_path / "after.bin")
    with pytest.raises(InputError, match="holds no mean"):
        save_model(load_model(tmp_path / "after.onnx", mean=(0.5,), std=(1.0,)), tmp_path / "x.onnx")


def test_statistics_that_an_exporter_merged_with_weights() -> None:
    """A fresh network has weights of one and variances of one, and exporters keep equal tensors once."""
    ones, zeros = torch.ones(3), torch.zeros(3)
    nodes = [
        helper.make_node("Identity", ["one"], ["var"]),
        helper.make_node("BatchNormalization", ["x", "one", "zero", "zero", "var"], ["y"]),
    ]
    loaded = load_onnx(graph(nodes, port("x", "n", 3), [port("y", "n", 3)], one=ones, zero=zeros))
    x = torch.rand(4, 3)
    loaded(x).sum().backward()
    with torch.no_grad():
        for weight in loaded.parameters():
            weight += 1
    assert len(list(loaded.parameters())) == 2
    torch.testing.assert_close(loaded(x), 2 * x / (1 + 1e-5) ** 0.5 + 1)


def test_zeros_before_a_maximum_are_zeros() -> None:
    """onnxruntime's optimiser makes them part of the pool, where they are no values at all."""
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["b"], ["y"]),
    ]
    proto = graph(nodes, port("x", "n", 1, 2, 2), [port("y", "n", 4)], pads=torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]))
    loaded = load_onnx(proto)
    assert loaded.shows == Sight.GRADIENT
    assert not loaded(-torch.rand(3, 1, 2, 2)).any()


def test_fixed_batches() -> None:
    w = torch.randn(4, 3)
    rows = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    loaded = load_onnx(graph(rows, port("x", 2, 4), [port("y", 2, 3)], w=w))
    assert loaded.free  # nothing in the graph holds it to its size
    baked = [helper.make_node("Reshape", ["x", "s"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    for size in (1, 2):
        proto = graph(baked, port("x", size, 2, 2), [port("y", size, 3)], w=w, s=torch.tensor([size, 4]))
        loaded = load_onnx(proto)
        assert not loaded.free
        for n in (0, 1, 2, 5):
            x = torch.rand(n, 2, 2)
            torch.testing.assert_close(loaded(x), x.flatten(1) @ w)
    x = torch.rand(5, 2, 2)
    alike(slope_of(loaded, x).flatten(1), w[:, 0].expand(5, 4))


def test_a_batch_that_is_free_by_name_only() -> None:
    """As when a model was traced with len(x) inside."""
    w = torch.randn(4, 3)
    baked = [helper.make_node("Reshape", ["x", "s"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    loaded = load_onnx(graph(baked, port("x", "n", 2, 2), [port("y", "n", 3)], w=w, s=torch.tensor([2, 4])))
    x = torch.rand(5, 2, 2)
    alike(loaded(x), x.flatten(1) @ w)
    assert "takes 2 rows at once" in loaded.notes[-1]
    with pytest.raises(ModelError, match=r"raises on an input \(3, 2, 3\)"):
        load_onnx(graph(baked, port("x", "n", 2, 3), [port("y", "n", 3)], w=w, s=torch.tensor([2, 5])))


def test_inputs_without_a_batch() -> None:
    w = torch.randn(4, 3)
    plain = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], port("x", 4), [port("y", 3)], w=w)
    mixed = [helper.make_node("Softmax", ["x"], ["a"], axis=0), helper.make_node("MatMul", ["a", "w"], ["y"])]
    x = torch.rand(5, 4)
    assert load_onnx(plain).free
    alike(load_onnx(plain)(x), x @ w)
    loaded = load_onnx(graph(mixed, port("x", 4), [port("y", 3)], w=w))
    assert not loaded.free  # a softmax over axis 0 of a batch would mix the rows
    alike(loaded(x), x.softmax(1) @ w)


def test_channels_last() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]), helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]), helper.make_node("Flatten", ["c"], ["y"]),
    ]  # fmt: skip
    w = torch.randn(3, 1, 3, 3)
    loaded = load_onnx(graph(nodes, port("x", "n", 6, 5, 1), [port("y", "n", 3)], w=w))
    x = torch.rand(2, 1, 6, 5)
    alike(loaded(x), F.conv2d(x, w).mean((2, 3)))
    torch.testing.assert_close(loaded(x), loaded(x.permute(0, 2, 3, 1)))
    with pytest.raises(ModelError, match=r"shape \(6, 5, 1\).*have \(3, 6, 5\)"):
        loaded(torch.rand(2, 3, 6, 5))


def test_grey_pictures_without_their_channel() -> None:
    w = torch.randn(3, 5, 2)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("ReduceMax", ["a"], ["y"], axes=[2], keepdims=0),
    ]
    loaded = load_onnx(graph(nodes, port("x", "n", 5, 6), [port("y", "n", 3)], w=w))
    x = torch.rand(4, 1, 5, 6)
    alike(loaded(x), F.conv1d(x[:, 0], w).amax(2))
    flat = load_onnx(graph([helper.make_node("MatMul", ["x", "w"], ["y"])], port("x", "n", 30), [port("y", "n", 3)],
                           w=w.new_ones(30, 3)))  # fmt: skip
    alike(flat(x), x.flatten(1).sum(1, keepdim=True).expand(4, 3))


def test_what_torch_does_not_know_is_asked_for_scores() -> None:
    proto, w = dense()
    proto.graph.node.append(helper.make_node("QuantizeLinear", ["z", "scale"], ["q"]))
    proto.graph.node.append(helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]))
    proto.graph.initializer.append(numpy_helper.from_array(torch.tensor(0.05).numpy(), "scale"))
    proto.graph.output[0].name = "y"
    loaded = load_onnx(proto)
    x = torch.rand(3, 4)
    assert loaded.shows == Sight.SCORES
    assert "DequantizeLinear, QuantizeLinear" in loaded.notes[-1]
    assert float((loaded(x) - (x @ w).clamp(0)).abs().max()) < 0.06
    (digest,) = loaded.state_dict().values()
    proto.graph.initializer[0].raw_data = (w * 2).numpy().tobytes()
    assert not torch.equal(load_onnx(proto).state_dict()["digest"], digest)  # an audit resumes on the same model only
    proto.graph.node[1].op_type = "Nonsense"
    with pytest.raises(ModelError, match=r"Nonsense.*onnxruntime refuses"):
        load_onnx(proto)


def test_answers_that_differ_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from adamant.models.graph import module

    monkeypatch.setattr(module, "OPERATORS", {**module.OPERATORS, "MatMul": lambda n, a, b: a @ b * 1.001})
    loaded = load_onnx(dense()[0])
    assert loaded.shows == Sight.SCORES
    assert "torch and onnxruntime differ by 1.0e-03" in loaded.notes[-1]


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "differs from the reference evaluator" in load_onnx(dense()[0]).notes[-1]
    proto, _ = dense()
    proto.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ModelError, match=r"Nonsense.*onnxruntime is not installed"):
        load_onnx(proto)


def test_several_inputs_and_outputs() -> None:
    node = helper.make_node("Add", ["x", "u"], ["y"])
    two = graph([node], [port("x", "n", 3), port("u", "n", 3)], [port("y", "n", 3)])
    with pytest.raises(InputError, match=r"2 inputs \(x \(\?, 3\), u \(\?, 3\)\)"):
        load_onnx(two)
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])]
    x = torch.linspace(-1, 1, 6).view(2, 3)
    outputs = [port("a", "n", 3), port("b", "n", 3)]
    with pytest.raises(InputError, match=r"2 outputs \(a \(\?, 3\), b \(\?, 3\)\), and it is not clear"):
        load_onnx(graph(nodes, port("x", "n", 3), outputs))
    assert torch.equal(load_onnx(graph(nodes, port("x", "n", 3), outputs), output="b")(x), -x)
    top = [*nodes, helper.make_node("ArgMax", ["a"], ["label"], axis=1, keepdims=0)]
    proto = graph(top, port("x", "n", 3), [port("label", "n", kind=7), port("a", "n", 3)])
    assert torch.equal(load_onnx(proto)(x), x.relu())
    nodes[1].output[0] = "logits"
    assert torch.equal(load_onnx(graph(nodes, port("x", "n", 3), [outputs[0], port("logits", "n", 3)]))(x), -x)
    with pytest.raises(InputError, match="real numbers"):
        load_onnx(graph(nodes, port("x", "n", 3, kind=7), outputs[:1]))


def test_files_that_are_no_models(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.mkdir, (ran,)  # type: ignore[return-value]

    (tmp_path / "pickle.onnx").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "empty.onnx").write_bytes(b"")
    onnx.save(dense()[0], tmp_path / "whole.onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "whole.onnx").read_bytes()[:-40])
    for name in ("pickle", "empty", "cut"):
        with pytest.raises(InputError, match=f"{name}.onnx is not an ONNX model"):
            load_model(tmp_path / f"{name}.onnx")
    assert not ran.exists()
    with pytest.raises(InputError, match=r"no file .*whle.onnx; did you mean whole.onnx"):
        load_model(tmp_path / "whle.onnx")


def test_weights_in_other_files(tmp_path: Path) -> None:
    proto, w = dense()
    inside = tmp_path / "inside"
    inside.mkdir()
    onnx.save(proto, inside / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    x = torch.rand(2, 4)
    alike(load_model(inside / "m.onnx")(x), x @ w)
    held = onnx.load(inside / "m.onnx", load_external_data=False)
    (inside / "w.bin").rename(tmp_path / "w.bin")
    with pytest.raises(InputError, match=r"'w' in 'w.bin', and that file is not beside it"):
        load_model(inside / "m.onnx")
    for place in ("../w.bin", str(tmp_path / "w.bin")):
        held.graph.initializer[0].external_data[0].value = place
        (inside / "out.onnx").write_bytes(held.SerializeToString())
        with pytest.raises(ModelError, match="outside of its own folder"):
            load_model(inside / "out.onnx")
    (inside / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="outside of its own folder"):
        load_model(inside / "m.onnx")
