"""GraphModule: an ONNX graph in plain records, computed by torch; no package onnx is needed for it."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.models.graph import Graph, GraphModule, Node, Port, UnsupportedError

X = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)


def node(op: str, inputs: str, output: str, opset: int = 18, **attributes: Any) -> Node:
    names = ["" if name == "-" else name for name in inputs.split()]
    return Node(op, tuple(names), tuple(output.split()), attributes, opset)


def module(nodes: list[Node], output: str = "y", **weights: Tensor) -> GraphModule:
    graph = Graph(tuple(nodes), weights, (Port("x", torch.float32, None),), (Port("y", None, None),))
    return GraphModule(graph, output)


def alone(op: str, x: Tensor, opset: int = 18, /, **attributes: Any) -> Tensor:
    return module([node(op, "x", "y", opset, **attributes)])(x)


def with_weights() -> tuple[GraphModule, dict[str, Tensor]]:
    w = {
        "c.weight": torch.randn(4, 3, 3, 3), "c.bias": torch.randn(4), "scale": torch.rand(4) + 0.5,
        "shift": torch.randn(4), "mean": torch.randn(4), "var": torch.rand(4) + 0.5, "head": torch.randn(4, 5),
        "half": torch.tensor(0.5), "shape": torch.tensor([0, -1]),
    }  # fmt: skip
    nodes = [
        node("Conv", "x c.weight c.bias", "a", pads=(1, 1, 1, 1)),
        node("BatchNormalization", "a scale shift mean var", "b", epsilon=1e-3),
        node("Relu", "b", "c"),
        node("GlobalAveragePool", "c", "d"),
        node("Reshape", "d shape", "e"),
        node("MatMul", "e head", "f"),
        node("Mul", "f half", "y"),
        node("Nonsense", "y", "z"),
    ]
    return module(nodes, **w), w


def by_hand(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    a = F.conv2d(x, w["c.weight"], w["c.bias"], padding=1)
    b = F.batch_norm(a, w["mean"], w["var"], w["scale"], w["shift"], eps=1e-3)
    return b.relu().mean((2, 3)) @ w["head"] * 0.5


def test_a_graph_gives_the_answers_and_gradients_of_the_same_calls_by_hand() -> None:
    net, w = with_weights()
    x, z = X.clone().requires_grad_(), X.clone().requires_grad_()
    torch.testing.assert_close(net(x), by_hand(z, w))
    (ours,), (theirs,) = torch.autograd.grad(net(x)[:, 1].sum(), x), torch.autograd.grad(by_hand(z, w)[:, 1].sum(), z)
    torch.testing.assert_close(ours, theirs)
    net.train()
    torch.testing.assert_close(net(X), by_hand(X, w))  # statistics stay as exported


def test_weights_and_numbers_follow_the_inputs_to_another_device() -> None:
    net, _ = with_weights()
    assert net.to("meta")(X.to("meta")).device.type == "meta"
    rows = module([node("Gather", "x places", "a", axis=3), node("Add", "a table", "y")],
                  places=torch.tensor([0, 2]), table=torch.tensor([1, 2]))  # fmt: skip
    assert rows.to("meta")(X.to("meta")).shape == (2, 3, 6, 2)
    scales = torch.tensor([1.0, 1.0, 1.5, 2.0])
    larger = module([node("Resize", "x - scales", "y", mode="linear")], scales=scales)
    assert larger.to("meta")(X.to("meta")).shape == (2, 3, 9, 12)


def test_what_was_learnt_is_a_parameter_and_what_was_not_is_none() -> None:
    net, w = with_weights()
    trainable = {name for name, value in net.weights().items() if isinstance(value, torch.nn.Parameter)}
    assert trainable == {"c.weight", "c.bias", "scale", "shift", "head"}
    assert dict(net.named_buffers()).keys() == {"held.mean", "held.var"}
    twin = copy.deepcopy(net)
    with torch.no_grad():
        next(net.parameters()).zero_()
    torch.testing.assert_close(twin(X), by_hand(X, w))


def test_a_weight_used_twice_is_one_parameter() -> None:
    w = torch.randn(6, 6)
    net = module([node("MatMul", "x w", "a"), node("Identity", "w", "v"), node("MatMul", "a v", "y")], w=w)
    assert len(list(net.parameters())) == 1
    torch.testing.assert_close(net(X), X @ w @ w)


def test_operators_without_code_are_all_named() -> None:
    with pytest.raises(UnsupportedError, match="operators Loop, Nonsense"):
        module([node("Nonsense", "x", "a"), node("Loop", "a", "y")])
    learning = module([node("BatchNormalization", "x s s s s", "y", training_mode=1)], s=torch.ones(3))
    with pytest.raises(UnsupportedError, match="BatchNormalization in training mode"):
        learning(X)
    with pytest.raises(UnsupportedError, match="coordinates 'tf_crop_and_resize'"):
        resize("tf_crop_and_resize", "linear", X)


def test_arithmetic_on_constants_is_done_once() -> None:
    nodes = [node("Add", "a a", "b"), node("Concat", "b c", "shape", axis=0), node("Reshape", "x shape", "y")]
    net = module(nodes, a=torch.tensor([1]), c=torch.tensor([-1]))
    assert [n.op for n in net.nodes] == ["Reshape"]
    assert net(X).shape == (2, 108)


def test_softmax_changed_its_meaning_with_opset_13() -> None:
    torch.testing.assert_close(alone("Softmax", X, 13), X.softmax(-1))
    torch.testing.assert_close(alone("Softmax", X, 11), X.flatten(1).softmax(1).view(X.shape))
    torch.testing.assert_close(alone("LogSoftmax", X, 11, axis=2), X.flatten(2).log_softmax(-1).view(X.shape))


def test_axes_of_a_reduction_come_as_attribute_or_input() -> None:
    want = X.mean((1, 3))
    torch.testing.assert_close(alone("ReduceMean", X, 13, axes=(1, -1), keepdims=0), want)
    net = module([node("ReduceMean", "x axes", "y", keepdims=0)], axes=torch.tensor([1, -1]))
    torch.testing.assert_close(net(X), want)
    torch.testing.assert_close(alone("ReduceSum", X, keepdims=0), X.sum())
    assert alone("ReduceSum", X, noop_with_empty_axes=1) is X


def test_padding_that_torch_does_not_know() -> None:
    w = torch.randn(2, 3, 3, 3)
    conv = module([node("Conv", "x w", "y", auto_pad="SAME_UPPER", strides=(2, 2))], w=w)
    torch.testing.assert_close(conv(X), F.conv2d(F.pad(X, (0, 1, 0, 1)), w, stride=2))
    conv = module([node("Conv", "x w", "y", auto_pad="SAME_LOWER", strides=(2, 2))], w=w)
    torch.testing.assert_close(conv(X), F.conv2d(F.pad(X, (1, 0, 1, 0)), w, stride=2))
    conv = module([node("Conv", "x w", "y", pads=(0, 1, 2, 3))], w=w)
    torch.testing.assert_close(conv(X), F.conv2d(F.pad(X, (1, 3, 0, 2)), w))
    for mode in ("reflect", "edge"):
        padded = module([node("Pad", "x pads", "y", mode=mode)], pads=torch.tensor([0, 0, 1, 2, 0, 0, 3, 0]))
        torch.testing.assert_close(padded(X), F.pad(X, (2, 0, 1, 3), mode={"edge": "replicate"}.get(mode, mode)))


@pytest.mark.parametrize("opset", [9, 18])
def test_transposed_convolution(opset: int) -> None:
    w, b = torch.randn(3, 4, 3, 3), torch.randn(4)
    given = {"strides": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)}
    net = module([node("ConvTranspose", "x w b", "y", opset, **given)], w=w, b=b)
    torch.testing.assert_close(net(X), F.conv_transpose2d(X, w, b, 2, 1, 1))
    net = module([node("ConvTranspose", "x w b", "y", opset, strides=(2, 2), auto_pad="SAME_UPPER")], w=w, b=b)
    torch.testing.assert_close(net(X), F.conv_transpose2d(X, w, b, 2)[..., :12, :12])


@pytest.mark.parametrize("counted", [0, 1])
def test_pools_of_uneven_sizes(counted: int) -> None:
    x = X[..., :5, :5]
    given: dict[str, Any] = {"kernel_shape": (2, 2), "strides": (2, 2), "ceil_mode": 1}
    torch.testing.assert_close(alone("MaxPool", x, **given), F.max_pool2d(x, 2, ceil_mode=True))
    given |= {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "count_include_pad": counted}
    want = F.avg_pool2d(x[..., :4], 3, 2, 1, ceil_mode=True, count_include_pad=bool(counted))
    torch.testing.assert_close(alone("AveragePool", x[..., :4], **given), want)


def resize(coordinates: str, mode: str, x: Tensor, **given: Any) -> Tensor:
    scales = torch.tensor([1.0, 1.0, 1.5, 2.0])
    attributes = {"coordinate_transformation_mode": coordinates, "mode": mode, **given}
    return module([node("Resize", "x - scales", "y", **attributes)], scales=scales)(x)


def test_a_window_that_would_begin_in_the_padding_is_left_out() -> None:
    x = X[..., :5, :5]
    given: dict[str, Any] = {"kernel_shape": (2, 2), "strides": (3, 3), "pads": (1, 1, 1, 1), "ceil_mode": 1}
    torch.testing.assert_close(alone("MaxPool", x, **given), F.max_pool2d(x, 2, 3, 1, ceil_mode=True))
    want = F.avg_pool2d(x, 2, 3, 1, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(alone("AveragePool", x, **given), want)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("aligned", [False, True])
def test_resize(mode: str, aligned: bool) -> None:
    got = resize("align_corners" if aligned else "half_pixel", mode, X)
    torch.testing.assert_close(got, F.interpolate(X, (9, 12), mode=f"bi{mode}", align_corners=aligned))


def test_resize_to_the_nearest() -> None:
    got = resize("asymmetric", "nearest", X, nearest_mode="floor")
    torch.testing.assert_close(got, F.interpolate(X, (9, 12), mode="nearest"))


def test_slices_backwards_and_past_the_end() -> None:
    setting = {"s": [5, 1], "e": [-(2**62), 2**62], "a": [3, 2], "t": [-2, 2]}
    net = module([node("Slice", "x s e a t", "y")], **{k: torch.tensor(v) for k, v in setting.items()})
    torch.testing.assert_close(net(X), X.flip(3)[:, :, 1::2, ::2])
    torch.testing.assert_close(alone("Slice", X, 9, starts=(1,), ends=(3,), axes=(2,)), X[:, :, 1:3])


def test_shapes_are_followed_through_the_graph() -> None:
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Unsqueeze", "n at", "n1"),
        node("Concat", "n1 rest", "shape", axis=0), node("Reshape", "x shape", "y"),
    ]  # fmt: skip
    held = {"zero": torch.tensor(0), "at": torch.tensor([0]), "rest": torch.tensor([-1])}
    net = module(nodes, **held)
    assert net(X[:1]).shape == (1, 108)
    assert net.to("meta")(X.to("meta")).shape == (2, 108)  # sizes stay numbers wherever the inputs are
    assert module([node("Reshape", "x s", "y", allowzero=1)], s=torch.tensor([3, 0]))(torch.ones(0, 2)).shape == (3, 0)


def test_second_derivatives() -> None:
    nodes = [node("LayerNormalization", "x s", "a"), node("Gelu", "a", "b"), node("Einsum", "b", "y", equation="nf->n")]
    net = module(nodes, s=torch.rand(4, dtype=torch.float64))
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(net, (x,))


def test_whole_numbers_are_divided_and_cast_toward_zero() -> None:
    net = module([node("Div", "a b", "y")], a=torch.tensor([-7, 7]), b=torch.tensor([2, 2]))
    assert net(X).tolist() == [-3, 3]
    cast = module([node("Cast", "x", "y", to=7)])
    assert cast(torch.tensor([-1.7, 1.7])).tolist() == [-1, 1]
