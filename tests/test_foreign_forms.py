"""Forms of other opsets, and what exporters leave: the normalised graph computes what the source does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from foreign_models import model, runnable, save, session, weight
from onnx import TensorProto, helper, numpy_helper

from cnnc.errors import ModelError
from cnnc.foreign.reading import read

pytestmark = pytest.mark.usefixtures("in_process")


def _node(
    op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, f"{op}_{outputs[0]}", **attributes)


def _tensor(name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def _run(proto: bytes, image: np.ndarray) -> np.ndarray:
    return session(proto).run(None, {"x": image})[0]


def _image(shape: Sequence[int | str]) -> np.ndarray:
    dims = [2 if isinstance(d, str) else d for d in shape]
    return np.random.default_rng(0).standard_normal(dims).astype(np.float32)


OLD = {
    "Clip 6": (7, [_node("Clip", ["x"], min=-0.5, max=0.7)]),
    "Clip one bound": (10, [_node("Clip", ["x"], min=0.1)]),
    "Slice 1": (9, [_node("Slice", ["x"], starts=[1, 0], ends=[5, -2], axes=[2, 3])]),
    "Pad 2": (10, [_node("Pad", ["x"], pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)]),
    "Pad reflect": (8, [_node("Pad", ["x"], pads=[0, 0, 1, 2, 0, 0, 0, 1], mode="reflect")]),
    "Squeeze 1": (11, [_node("GlobalAveragePool", ["x"], ["g"]), _node("Squeeze", ["g"], axes=[2, 3])]),
    **{
        f"RoiAlign {opset}": (
            opset,
            [
                _node("Constant", [], ["rois"], value=_tensor("r", [[0, 1, 4, 5], [1, 0, 5, 4]], np.float32)),
                _node("Constant", [], ["places"], value=_tensor("p", [0, 1])),
                _node("RoiAlign", ["x", "rois", "places"], output_height=2, output_width=3),
            ],
        )
        for opset in (10, 16)
    },
    **{
        f"DFT 20 along {axis}": (
            20,
            [
                _node("Constant", [], ["behind"], value_ints=[-1]),
                _node("Constant", [], ["axis"], value_int=axis),
                _node("Unsqueeze", ["x", "behind"], ["u"]),
                _node("DFT", ["u", "", "axis"] if axis != -2 else ["u"], onesided=int(axis == 2)),
            ],
        )
        for axis in (-2, -3, 1, 2)
    },
    "Squeeze 1 without axes": (9, [_node("GlobalMaxPool", ["x"], ["g"]), _node("Squeeze", ["g"])]),
    "Squeeze 13 without axes": (13, [_node("GlobalMaxPool", ["x"], ["g"]), _node("Squeeze", ["g"])]),
    "Squeeze of nothing": (13, [_node("Squeeze", ["x"], ["s"]), _node("Neg", ["s"])]),
    "GroupNormalization 18": (
        18,
        [
            _node("Constant", [], ["s"], value=weight("s", 3)),
            _node("Constant", [], ["b"], value=weight("bb", 3)),
            _node("Concat", ["x", "x"], ["c"], axis=1),
            _node("GroupNormalization", ["c", "s", "b"], num_groups=3, epsilon=0.1),
        ],
    ),
    "Unsqueeze 1": (12, [_node("Unsqueeze", ["x"], axes=[1])]),
    "ReduceSum 1": (11, [_node("ReduceSum", ["x"], axes=[2, 3], keepdims=0)]),
    "ReduceMean 13": (13, [_node("ReduceMean", ["x"], axes=[1])]),
    "Split 2": (
        11,
        [_node("Split", ["x"], ["a", "b"], axis=2, split=[2, 6]), _node("Concat", ["b", "a"], axis=2)],
    ),
    "Split even": (
        13,
        [_node("Split", ["x"], ["a", "b"], axis=2), _node("Sub", ["b", "a"])],
    ),
    "Softmax 1": (11, [_node("Softmax", ["x"])]),
    "Softmax 11, last": (11, [_node("Softmax", ["x"], axis=3)]),
    "LogSoftmax 1": (9, [_node("LogSoftmax", ["x"], axis=2)]),
    "TopK 1": (9, [_node("TopK", ["x"], ["y", "i"], axis=1, k=2)]),
    "Dropout 10": (10, [_node("Dropout", ["x"], ["d", "mask"], ratio=0.3), _node("Neg", ["d"])]),
    "Upsample 7": (7, [_node("Upsample", ["x"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])]),
    "Upsample 9": (
        9,
        [
            _node("Constant", [], ["s"], value=_tensor("v", [1, 1, 2, 2], np.float32)),
            _node("Upsample", ["x", "s"], mode="linear"),
        ],
    ),
    "Resize 10": (
        10,
        [
            _node("Constant", [], ["s"], value=_tensor("v", [1, 1, 2, 2], np.float32)),
            _node("Resize", ["x", "s"], mode="linear"),
        ],
    ),
    "Resize 11 with sizes": (
        11,
        [
            _node("Constant", [], ["none"], value=_tensor("v", [], np.float32)),
            _node("Constant", [], ["s"], value=_tensor("v", [2, 3, 16, 12])),
            _node("Resize", ["x", "none", "none", "s"], mode="nearest"),
        ],
    ),
    "GroupNormalization 21": (
        21,
        [
            _node("Constant", [], ["s"], value=weight("s", 4)),
            _node("Constant", [], ["b"], value=weight("bb", 4)),
            _node("Concat", ["x", "x"], ["c"], axis=1),
            _node("Slice", ["c", "from", "to", "one"], ["d"]),
            _node("GroupNormalization", ["d", "s", "b"], num_groups=2, epsilon=0.1),
        ],
    ),
    "Celu": (12, [_node("Celu", ["x"])]),
    "Celu alpha": (18, [_node("Celu", ["x"], alpha=0.5)]),
    "Gelu": (20, [_node("Gelu", ["x"])]),
    "Gelu tanh": (20, [_node("Gelu", ["x"], approximate="tanh")]),
    **{
        f"GridSample {size} {mode} {padding} {corners}": (
            20,
            [
                *([_node("Reshape", ["x", "cube"], ["v"])] if size == "volume" else []),
                _node(
                    "GridSample",
                    ["v" if size == "volume" else "x", size],
                    mode=mode,
                    padding_mode=padding,
                    align_corners=corners,
                ),
            ],
        )
        for size, mode, padding, corners in [
            ("image", "linear", "border", 1),
            ("image", "cubic", "zeros", 0),
            *product(["volume"], ["linear", "nearest"], ["zeros", "border", "reflection"], [0, 1]),
        ]
    },
    "SpaceToDepth DCR": (28, [_node("SpaceToDepth", ["x"], blocksize=2, mode="DCR")]),
    "SpaceToDepth CRD": (28, [_node("SpaceToDepth", ["x"], blocksize=2, mode="CRD")]),
    "Resize half pixels of TensorFlow": (
        11,
        [
            _node("Constant", [], ["none"], value=_tensor("v", [], np.float32)),
            _node("Constant", [], ["s"], value=_tensor("v", [1, 1, 2.5, 0.5], np.float32)),
            _node(
                "Resize",
                ["x", "none", "s"],
                coordinate_transformation_mode="tf_half_pixel_for_nn",
                nearest_mode="floor",
            ),
        ],
    ),
    "Resize not larger": (
        18,
        [
            _node("Constant", [], ["s"], value_ints=[20, 9]),
            _node(
                *("Resize", ["x", "", "", "s"]),
                axes=[-2, 3], mode="linear", keep_aspect_ratio_policy="not_larger",
            ),
        ],
    ),
    "Swish": (24, [_node("Swish", ["x"], alpha=0.5)]),
    "RMSNormalization": (
        23,
        [
            _node("Constant", [], ["s"], value=weight("scale", 8, 6)),
            _node("RMSNormalization", ["x", "s"], axis=2, epsilon=0.1),
        ],
    ),
    "MeanVarianceNormalization": (13, [_node("MeanVarianceNormalization", ["x"], axes=[1, 3])]),
    "Scatter": (
        9,
        [
            _node("Constant", [], ["i"], value=_tensor("v", np.ones((2, 3, 8, 1)))),
            _node("Constant", [], ["u"], value=_tensor("v", np.ones((2, 3, 8, 1)), np.float32)),
            _node("Scatter", ["x", "i", "u"], axis=3),
        ],
    ),
    **{
        f"{op} 13": (13, [_node("Abs", ["x"], ["a"]), _node(op, ["a"], axes=[-1, 2], keepdims=0)])
        for op in (
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin"),
            *("ReduceProd", "ReduceSumSquare"),
        )
    },
    "AveragePool 19, dilated": (
        19,
        [_node("AveragePool", ["x"], kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 0, 1, 1])],
    ),
    "AveragePool 19": (19, [_node("AveragePool", ["x"], kernel_shape=[2, 2], dilations=[1, 1])]),
    **{
        f"Pad wrap {name}": (
            opset,
            [
                _node("Constant", [], ["p"], value_ints=pads),
                *([_node("Constant", [], ["a"], value_ints=axes)] if axes else []),
                _node("Pad", ["x", "p", *(["", "a"] if axes else [])], mode="wrap"),
            ],
        )
        for name, opset, pads, axes in [
            ("all axes", 19, [0, 1, 2, 0, 0, 0, 1, 3], []),
            ("early, as PyTorch writes it", 18, [0, 0, 2, 0, 0, 0, 1, 3], []),
            ("some axes", 21, [1, 2, 3, 0], [-1, 2]),
            ("cut", 22, [-2, 1, 3, -1], [2, 3]),
            ("whole axis", 19, [8, 6, 8, 5], [2, 3]),
        ]
    },
    "Cast": (19, [_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE, saturate=1),
                  _node("Cast", ["d"], to=TensorProto.FLOAT, saturate=1)]),
    "CastLike 19": (19, [_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
                         _node("CastLike", ["d", "x"], saturate=1)]),
    "Cast to the same type": (18, [_node("Cast", ["x"], ["d"], to=TensorProto.FLOAT), _node("Neg", ["d"])]),
    "CastLike": (18, [_node("CastLike", ["one", "x"], ["k"]), _node("Unsqueeze", ["x", "k64"], ["u"]),
                      _node("Mul", ["u", "k"])]),
    "Identity chain": (18, [_node("Identity", ["x"], ["a"]), _node("Identity", ["a"], ["b"]),
                            _node("Neg", ["b"])]),
    "Transposes": (
        18,
        [
            _node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
            _node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
            _node("Neg", ["b"]),
        ],
    ),
}  # fmt: skip
GRIDS = np.random.default_rng(1)
CONSTANTS = [
    _tensor("from", [0]), _tensor("to", [4]), _tensor("one", [1]), _tensor("k64", [0]),
    _tensor("cube", [0, 1, 4, 6, 6]), _tensor("image", GRIDS.uniform(-1.8, 1.8, (2, 3, 2, 2)), np.float32),
    _tensor("volume", GRIDS.uniform(-1.8, 1.8, (2, 3, 2, 1, 3)), np.float32),
]  # fmt: skip


def _source(name: str, shape: Sequence[int | str] = ("N", 3, 8, 6)) -> onnx.ModelProto:
    opset, nodes = OLD[name]
    used = {read for node in nodes for read in node.input}
    return model(nodes, [t for t in CONSTANTS if t.name in used], opset=opset, shape=shape)


@pytest.mark.parametrize("name", OLD)
def test_forms_of_other_opsets(name: str, tmp_path: Path) -> None:
    fixed = any(word in name for word in ("sizes", "GridSample", "Scatter"))
    shape: Sequence[int | str] = (2, 3, 8, 6) if fixed else ("N", 3, 8, 6)
    proto = _source(name, shape)
    foreign = read(save(proto, tmp_path / "old.onnx"))
    assert not foreign.problems, foreign.problems
    image = _image(shape)
    expected = _run(proto.SerializeToString(), image)
    np.testing.assert_allclose(_run(runnable(foreign), image), expected, rtol=1e-5, atol=1e-6)


def test_what_only_renames_is_gone(tmp_path: Path) -> None:
    for name in ("Identity chain", "Transposes"):
        graph = read(save(_source(name), tmp_path / "model.onnx")).graph
        assert [node.op_type for node in graph.node] == ["Neg"]


@pytest.mark.parametrize(
    ("opset", "node", "word"),
    [
        (19, _node("Pad", ["x", "p"], mode="wrap"), "wrap"),
        (8, _node("BatchNormalization", ["x", "s", "s", "s", "s"], spatial=0), "spatial"),
        (12, _node("Celu", ["x"], alpha=-1.0), "alpha=-1"),
        (10, _node("Dropout", ["x"], ["d", "y"]), "mask"),
        (10, _node("Dropout", ["x"], ratio=1.0), "a share of 1"),
        (13, _node("Dropout", ["x", "s"]), "in one number"),
        (24, _node("Attention", ["x", "x", "x"]), "Attention"),
    ],
)
def test_what_our_opset_can_not_say_is_told(
    opset: int, node: onnx.NodeProto, word: str, tmp_path: Path
) -> None:
    constants = [_tensor("p", [1, 0, 0, 0, 0, 0, 0, 0]), weight("s", 3)]
    foreign = read(save(model([node], constants, opset=opset), tmp_path / "model.onnx"))
    assert any(word in why for _, _, why in foreign.problems), foreign.problems


def test_a_squeeze_never_takes_the_batch(tmp_path: Path) -> None:
    """A last batch may be one example: ONNX's Squeeze without axes would take its axis, too."""
    foreign = read(save(_source("Squeeze 13 without axes"), tmp_path / "model.onnx"))
    image = _image((2, 3, 8, 6))
    both = _run(runnable(foreign), image)
    np.testing.assert_array_equal(_run(runnable(foreign), image[:1]), both[:1])


GROWING = {
    "a tensor of zeros": [
        _node("Shape", ["x"], ["s"]),
        _node("ConstantOfShape", ["s"], ["k"], value=_tensor("v", [0.5], np.float32)),
        _node("Add", ["x", "k"]),
    ],
    "a row for each example": [
        _node("Shape", ["x"], ["s"], end=1),
        _node("ConstantOfShape", ["s"], ["i"], value=_tensor("v", [2])),
        _node("Gather", ["rows", "i"], ["k"]),
        _node("ReduceMax", ["x", "pixels"], ["top"], keepdims=0),
        _node("Add", ["top", "k"]),
    ],
    "how many there are": [
        _node("Size", ["x"], ["n"]),
        _node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        _node("Div", ["x", "f"]),
    ],
    "half of them": [
        _node("Shape", ["x"], ["s"], end=1),
        _node("Div", ["s", "two"], ["n"]),
        _node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        _node("Add", ["x", "f"]),
    ],
    "five of them or more": [
        _node("Shape", ["x"], ["s"], end=1),
        _node("Max", ["s", "five"], ["n"]),
        _node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        _node("Add", ["x", "f"]),
    ],
    "the first half": [
        _node("Shape", ["x"], ["s"], end=1),
        _node("Div", ["s", "two"], ["n"]),
        _node("Slice", ["x", "nought", "n"], ["half"]),
        _node("ReduceSum", ["half", "nought"], ["sum"]),
        _node("Add", ["x", "sum"]),
    ],
    "the first ones in a row": [
        _node("Shape", ["x"], ["s"]),
        _node("Min", ["s", "two"], ["n"]),
        _node("Concat", ["one", "n"], ["t"], axis=0),
        _node("Expand", ["five", "t"], ["fives"]),
        _node("Cast", ["fives"], ["f"], to=TensorProto.FLOAT),
        _node("ReduceSum", ["f"], ["sum"], keepdims=0),
        _node("Add", ["x", "sum"]),
    ],
    "squares": [
        _node("Shape", ["x"], ["s"], end=1),
        _node("Mul", ["s", "s"], ["n"]),
        _node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        _node("Div", ["x", "f"]),
    ],
}


@pytest.mark.parametrize("name", GROWING)
def test_constants_that_depend_on_the_batch(name: str, tmp_path: Path) -> None:
    constants = [
        weight("rows", 4, 3), _tensor("pixels", [2, 3]), _tensor("two", [2]), _tensor("five", [5]),
        _tensor("nought", [0]), _tensor("one", [1]),
    ]  # fmt: skip
    used = {read for node in GROWING[name] for read in node.input}
    proto = model(GROWING[name], [t for t in constants if t.name in used])
    foreign = read(save(proto, tmp_path / "growing.onnx"))
    for batch in (1, 2, 5):
        image = _image((batch, 3, 8, 8))
        expected = _run(proto.SerializeToString(), image)
        np.testing.assert_allclose(_run(runnable(foreign), image), expected, rtol=1e-6)


FIXED = {
    "flatten": ([1, -1], None),
    "flatten to sizes": ([1, 144], None),
    "inferred batch": ([-1, 144], None),
    "shuffle": ([1, 3, 4, 2, 6], None),
    "rows": ([-1, 6], None),
    "zero": ([0, 3, -1], None),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_batch_becomes_symbolic(name: str, tmp_path: Path) -> None:
    """For any batch the result is what the source gives for each example alone."""
    target, _ = FIXED[name]
    proto = model([_node("Reshape", ["x", "t"])], [_tensor("t", target)], shape=(1, 3, 8, 6))
    foreign = read(save(proto, tmp_path / "one.onnx"))
    if name == "rows":
        assert "the batch stays at 1" in foreign.notes[0]
        return
    assert foreign.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    image = _image((4, 3, 8, 6))
    alone = [_run(proto.SerializeToString(), image[i : i + 1]) for i in range(4)]
    np.testing.assert_array_equal(_run(runnable(foreign), image), np.concatenate(alone))


DEPENDENT = {
    "squeezed": [
        _node("GlobalMaxPool", ["x"], ["g"]),
        _node("Squeeze", ["g"], ["s"]),
        _node("Transpose", ["s"], ["t"], perm=[0]),
        _node("Softmax", ["t"], axis=0),
    ],
    "softmax over the batch": [_node("Softmax", ["x"], axis=0)],
    "mean over the batch": [_node("ReduceMean", ["x", "first"])],
    "first example": [_node("Gather", ["x", "zero"], axis=0)],
    "examples side by side": [_node("Concat", ["x", "x"], axis=0)],
    "batch as channels": [
        _node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]),
        _node("Conv", ["t", "w"]),
    ],
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_graph_that_mixes_examples_keeps_its_batch(name: str, tmp_path: Path) -> None:
    constants = [_tensor("first", [0]), _tensor("zero", 0), weight("w", 2, 1, 3, 3)]
    used = {read for node in DEPENDENT[name] for read in node.input}
    proto = model(DEPENDENT[name], [t for t in constants if t.name in used], shape=(1, 3, 8, 6))
    foreign = read(save(proto, tmp_path / "one.onnx"))
    assert "the batch stays at 1" in foreign.notes[0]
    image = _image((1, 3, 8, 6))
    expected = _run(proto.SerializeToString(), image)
    np.testing.assert_allclose(_run(runnable(foreign), image), expected, rtol=1e-6)


def _dynamic() -> onnx.ModelProto:
    """What PyTorch writes for ``x.view(x.shape[0], -1)``, and an Expand to the batch."""
    nodes = [
        _node("Shape", ["x"], ["shape"]),
        _node("Gather", ["shape", "zero"], ["batch"], axis=0),
        _node("Unsqueeze", ["batch", "first"], ["batch1"]),
        _node("Concat", ["batch1", "rest"], ["target"], axis=0),
        _node("Reshape", ["x", "target"], ["flat"]),
        _node("Concat", ["batch1", "width"], ["wide"], axis=0),
        _node("Expand", ["token", "wide"], ["tokens"]),
        _node("Concat", ["flat", "tokens"], axis=1),
    ]
    constants = [_tensor("zero", 0), _tensor("first", [0]), _tensor("rest", [-1]), _tensor("width", [5])]
    return model(nodes, [*constants, weight("token", 1, 5)])


def test_shape_computations_fold(tmp_path: Path) -> None:
    proto = _dynamic()
    foreign = read(save(proto, tmp_path / "dynamic.onnx"))
    kept = [node.op_type for node in foreign.graph.node]
    assert kept.count("Shape") == 1, kept  # for the Expand, whose result grows with the batch
    assert [d.dim_param or d.dim_value for d in foreign.graph.output[0].type.tensor_type.shape.dim] == [
        "N",
        197,
    ]
    image = _image((4, 3, 8, 8))
    np.testing.assert_array_equal(_run(runnable(foreign), image), _run(proto.SerializeToString(), image))


def test_functions_are_inlined(tmp_path: Path) -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["square"]), helper.make_node("Neg", ["square"], ["b"])]
    function = helper.make_function("local", "Twist", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    proto = model(
        [helper.make_node("Twist", ["x"], ["y"], domain="local")], functions=[function], domains=["local"]
    )
    foreign = read(save(proto, tmp_path / "function.onnx"))
    assert [node.op_type for node in foreign.graph.node] == ["Mul", "Neg"]


def test_functions_keep_the_defaults_of_their_attributes(tmp_path: Path) -> None:
    """onnx's inliner forgets them: the slopes of these would be those of LeakyRelu."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    inner, outer = _node("LeakyRelu", ["a"], ["b"]), _node("Leak", ["a"], ["b"])
    inner.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    outer.domain = "local"
    default = [helper.make_attribute("slope", 0.25)]
    functions = [
        helper.make_function("local", "Leak", ["a"], ["b"], [inner], imports, attribute_protos=default),
        helper.make_function("local", "Twice", ["a"], ["b"], [outer], imports),
    ]
    nodes = [
        helper.make_node("Leak", ["x"], ["c"], domain="local"),
        helper.make_node("Leak", ["c"], ["d"], domain="local", slope=0.5),
        helper.make_node("Twice", ["d"], ["y"], domain="local"),
    ]
    proto = model(nodes, functions=functions, domains=["local"])
    foreign = read(save(proto, tmp_path / "function.onnx"))
    slopes = [round(helper.get_node_attr_value(node, "alpha"), 3) for node in foreign.graph.node]
    assert slopes == [0.25, 0.5, 0.25]
    image = _image((2, 3, 8, 8))
    np.testing.assert_array_equal(_run(runnable(foreign), image), _run(proto.SerializeToString(), image))


def test_quantisation_can_be_taken_away(tmp_path: Path) -> None:
    constants = [
        _tensor("s", 0.1, np.float32), _tensor("z", 3, np.int8), _tensor("ws", [0.1, 0.2], np.float32),
        _tensor("wz", [0, 1], np.int8), _tensor("w", np.arange(6).reshape(2, 3, 1, 1), np.int8),
    ]  # fmt: skip
    nodes = [
        _node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        _node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        _node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        _node("Conv", ["d", "wd"]),
    ]
    foreign = read(save(model(nodes, constants), tmp_path / "q.onnx"), dequantize=True)
    assert [node.op_type for node in foreign.graph.node] == ["Conv"]
    np.testing.assert_allclose(foreign.arrays["wd"].ravel(), [0.0, 0.1, 0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    assert foreign.notes


@pytest.mark.parametrize(("least", "opset"), [(0, 10), (0, 18), (-128, 13)])
@pytest.mark.parametrize("rectified", [True, False])
def test_what_a_pair_cuts_off_stays_cut_off(least: int, opset: int, rectified: bool, tmp_path: Path) -> None:
    """Quantisers leave out a Relu, or a Clip from 0, where the pair behind it begins at 0."""
    dtype = np.uint8 if least == 0 else np.int8
    relu = [_node("Relu", ["c"], ["r"])] if rectified else []
    constants = [
        _tensor("fine", 0.01, np.float32), _tensor("middle", least + 128, dtype),
        _tensor("s", 1 / 64, np.float32), _tensor("z", least, dtype),
        _tensor("ws", 0.01, np.float32), _tensor("wz", 0, np.int8),
        _tensor("w", np.random.default_rng(0).integers(-60, 60, (4, 3, 1, 1)), np.int8),
    ]  # fmt: skip
    nodes = [
        _node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        _node("Conv", ["x", "wd"], ["c"]),
        *relu,
        _node("QuantizeLinear", ["r" if rectified else "c", "s", "z"], ["q"]),
        _node("DequantizeLinear", ["q", "s", "z"], ["d1"]),
        _node("DequantizeLinear", ["q", "s", "z"], ["d2"]),
        _node("MaxPool", ["d1"], ["p1"], kernel_shape=[2, 2]),
        _node("QuantizeLinear", ["p1", "s", "z"], ["q1"]),
        _node("DequantizeLinear", ["q1", "s", "z"], ["p"]),
        _node("GlobalMaxPool", ["d2"], ["g"]),
        _node("Sub", ["p", "g"], ["y0"]),
        _node("QuantizeLinear", ["y0", "fine", "middle"], ["yq"]),
        _node("DequantizeLinear", ["yq", "fine", "middle"], ["y"]),
    ]
    proto = model(nodes, constants, opset=opset)
    foreign = read(save(proto, tmp_path / "q.onnx"), dequantize=True)
    kinds = [node.op_type for node in foreign.graph.node]
    assert kinds.count("Clip") == (not rectified)
    assert any("cut off below 0" in note for note in foreign.notes) == (not rectified)
    image = _image((2, 3, 8, 8)) * 0.2
    expected = _run(proto.SerializeToString(), image)
    np.testing.assert_allclose(_run(runnable(foreign), image), expected, atol=0.03)


def test_the_size_of_an_open_input(tmp_path: Path) -> None:
    path = save(model([_node("Neg", ["x"])], shape=("N", 3, "H", "W")), tmp_path / "open.onnx")
    dims = read(path, example=(3, 10, 12)).graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 3, 10, 12]
    with pytest.raises(ModelError, match="axes beside the batch"):
        read(path, example=(10, 12))


def test_an_output_by_name(tmp_path: Path) -> None:
    proto = model([_node("Neg", ["x"], ["y"]), _node("Exp", ["x"], ["z"])])
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    path = save(proto, tmp_path / "two.onnx")
    assert [node.op_type for node in read(path, output="z").graph.node] == ["Exp"]
    assert "'y'; left out: z" in read(path).notes[0]
    with pytest.raises(ModelError, match="no output 'q'"):
        read(path, output="q")


COMPUTED = {
    "scales of a Resize": (
        [
            _node("Shape", ["x"], ["s"], start=2),
            _node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
            _node("Div", ["size", "f"], ["scales"]),
            _node("Resize", ["x", "", "scales"], axes=[-2, -1], mode="linear"),
        ],
        [_tensor("size", [16, 9], np.float32)],
    ),
    "sizes of a Resize": (
        [
            _node("Shape", ["x"], ["s"], start=2),
            _node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
            _node("Mul", ["f", "factors"], ["more"]),
            _node("Cast", ["more"], ["sizes"], to=TensorProto.INT64),
            _node("Resize", ["x", "", "", "sizes"], axes=[2, 3], mode="cubic"),
        ],
        [_tensor("factors", [1.5, 2.0], np.float32)],
    ),
    "how many TopK picks": (
        [
            _node("Shape", ["x"], ["s"], start=3),
            _node("Div", ["s", "two"], ["k"]),
            _node("TopK", ["x", "k"], ["y", "places"]),
        ],
        [_tensor("two", [2])],
    ),
    "axes of a reduction": (
        [
            _node("Shape", ["x"], ["s"]),
            _node("Size", ["s"], ["rank"]),
            _node("Sub", ["rank", "one"], ["axis"]),
            _node("ReduceMax", ["x", "axis"]),
        ],
        [_tensor("one", [1])],
    ),
    "axis of a running sum": (
        [_node("CumSum", ["x", "axis"], reverse=1)],
        [_tensor("axis", -1)],
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("batch", ["N", 1])
def test_what_shapes_and_constants_compute_is_folded(name: str, batch: str | int, tmp_path: Path) -> None:
    nodes, tensors = COMPUTED[name]
    proto = model(nodes, tensors, shape=(batch, 3, 8, 6))
    foreign = read(save(proto, tmp_path / "computed.onnx"))
    assert not [note for note in foreign.notes if "batch" in note]
    assert [node.op_type for node in foreign.graph.node] == [nodes[-1].op_type]
    image = _image((batch, 3, 8, 6))
    image = image[:1] if batch == 1 else image
    found, expected = (_run(proto, image) for proto in (runnable(foreign), proto.SerializeToString()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_axes_that_the_data_compute_are_refused(tmp_path: Path) -> None:
    nodes = [
        _node("ArgMax", ["x"], ["place"], axis=1),
        _node("ReduceMin", ["place"], ["least"], keepdims=0),
        _node("Unsqueeze", ["least", "front"], ["axis"]),
        _node("ReduceMean", ["x", "axis"], ["mean"]),
        _node("Neg", ["mean"]),
    ]
    foreign = read(save(model(nodes, [_tensor("front", [0])]), tmp_path / "data.onnx"))
    ((op, node, why),) = foreign.problems
    assert (op, node) == ("ReduceMean", "ReduceMean 'ReduceMean_mean'")
    assert "number of axes the data compute" in why
