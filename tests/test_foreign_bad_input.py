"""Foreign models that are damaged, hostile or can't be trained: each a clear error, from bounded means."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from foreign_models import classifier, model, save, weight
from onnx import TensorProto, helper

from cnnc.errors import ModelError, UsageError
from cnnc.foreign.coverage import coverage
from cnnc.foreign.reading import read
from cnnc.foreign.training import Wishes, compile_model

Make = Callable[[], onnx.ModelProto]


def _node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, f"the_{op}", **attributes)


def _edited(edit: Callable[[onnx.ModelProto], object]) -> Make:
    def make() -> onnx.ModelProto:
        proto = classifier()
        edit(proto)
        return proto

    return make


def _claim(dims: list[int]) -> Make:
    """An initializer that claims other sizes than its data has."""

    def edit(proto: onnx.ModelProto) -> None:
        del proto.graph.initializer[0].dims[:]
        proto.graph.initializer[0].dims.extend(dims)

    return _edited(edit)


def _bomb(op: str, side: int) -> onnx.ModelProto:
    """A few bytes that stand for `side`² numbers."""
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [2], [side, side])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1, 1], [1.0])
    making = _node(op, ["sizes"] if op == "ConstantOfShape" else ["one", "sizes"], ["w"])
    return model([making, _node("MatMul", ["x", "w"], ["y"])], [sizes, one], shape=("N", side))


def _doubling() -> onnx.ModelProto:
    """Each node gives twice what it reads, sixty times."""
    nodes = [_node("Conv", ["x", "w"], ["c0"])]
    nodes += [_node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=1) for i in range(60)]
    return model(nodes, [weight("w", 4, 3, 1, 1)], output="c60")


def _if(condition: str) -> onnx.ModelProto:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, [read], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, op, read in (("then", "Relu", "c"), ("else", "Sigmoid", "mean"))
    }
    nodes = [
        _node("Conv", ["x", "w"], ["c"]),
        _node("ReduceMean", ["c"], ["mean"], keepdims=0),
        _node("Greater", ["mean", "zero"], ["computed"]),
        _node("If", [condition], ["y"], **branches),
    ]
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    constant = helper.make_tensor("constant", TensorProto.BOOL, [], [True])
    return model(nodes, [weight("w", 4, 3, 1, 1), zero, constant])


def _functions(*bodies: list[str]) -> onnx.ModelProto:
    """F0, F1, …, each of which calls the functions or operators of these names one after the other."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            *("local", f"F{i}" if i else "F", ["v0"], [f"v{len(body)}"]),
            [
                helper.make_node(op, [f"v{j}"], [f"v{j + 1}"], domain="local" if op[0] == "F" else "")
                for j, op in enumerate(body)
            ],
            imports,
        )
        for i, body in enumerate(bodies)
    ]
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    return model([call], functions=functions, domains=["local"])


def _laughs() -> onnx.ModelProto:
    return _functions(*([f"F{i + 1}"] * 2 for i in range(40)), ["Relu"])


def _recursive() -> onnx.ModelProto:
    return _functions(["F1"], ["Relu", "F"])


def _renamed(old: str, new: str) -> Make:
    def edit(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
        for item in (*proto.graph.initializer, *proto.graph.input):
            item.name = new if item.name == old else item.name

    return _edited(edit)


def _cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "r"


def _quantised() -> onnx.ModelProto:
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1])
    zero = helper.make_tensor("zero", TensorProto.INT8, [], [0])
    nodes = [
        _node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        _node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        _node("Conv", ["d", "w"], ["y"]),
    ]
    return model(nodes, [scale, zero, weight("w", 4, 3, 1, 1)])


def _integers_only() -> onnx.ModelProto:
    """The weight counts only in a comparison."""
    nodes = [
        _node("Conv", ["x", "w"], ["c"]),
        _node("ArgMax", ["c"], ["i"], axis=1),
        _node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    return model(nodes, [weight("w", 4, 3, 1, 1)])


CASES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "no nodes": (lambda: model([]), ("no nodes",)),
    "opset 6": (lambda: classifier(opset=6), ("opset 6", "7 to")),
    "opset of the future": (lambda: classifier(opset=99), ("opset 99",)),
    "no opset": (_edited(lambda m: m.ClearField("opset_import")), ("which opset",)),
    "cycle": (_edited(_cycle), ("cycle", "relu")),
    "no such input": (_edited(lambda m: m.graph.node.pop(0)), ("relu", "'c'", "nothing in the model")),
    "given twice": (_edited(lambda m: m.graph.node.append(m.graph.node[0])), ("conv", "'c'", "already")),
    "shapes that don't fit": (_claim([4, 9, 3, 1]), ("conv", "invalid")),
    "negative size": (_claim([-4, -3, 3, 3]), ("conv.weight", "[-4, -3, 3, 3]")),
    "size that overflows": (_claim([2**62, 2**62, 3, 3]), ("conv.weight", "no tensor")),
    "less data than claimed": (_claim([4, 3, 3, 4]), ("conv.weight", "bytes", "damaged")),
    "unknown type": (
        _edited(lambda m: setattr(m.graph.initializer[0], "data_type", 99)),
        ("conv.weight", "99"),
    ),
    "input size that overflows": (
        lambda: classifier(shape=("N", 3, 2**40, 2**40)),
        ("'x'", "claims"),
    ),
    "ConstantOfShape bomb": (
        lambda: _bomb("ConstantOfShape", 2**15),
        ("the_ConstantOfShape", "more than any model"),
    ),
    "larger bomb": (lambda: _bomb("ConstantOfShape", 2**20), ("the_ConstantOfShape", "beyond any memory")),
    "Expand bomb": (lambda: _bomb("Expand", 2**17), ("the_Expand", "beyond any memory")),
    "values beyond any memory": (_doubling, ("the_Concat", "beyond any memory")),
    "unknown operator": (
        lambda: model([_node("Convolve", ["x"], ["y"])]),
        ("Convolve", "the_Convolve", "no operator of ONNX", "cnnc check"),
    ),
    "unknown domain": (
        lambda: model([_node("Attention", ["x"], ["y"], domain="com.microsoft")], domains=["com.microsoft"]),
        ("'com.microsoft'", "Attention"),
    ),
    "If": (lambda: _if("computed"), ("the_If", "branch")),
    "quantised": (_quantised, ("quantised", "the_QuantizeLinear", "--dequantize")),
    "nothing to train": (
        lambda: model([_node("Relu", ["x"], ["y"])]),
        ("nothing to train",),
    ),
    "functions in functions": (_laughs, ("unfold to", "nodes")),
    "a function of itself": (_recursive, ("local.F", "calls itself")),
    "integers on the path": (_integers_only, ("nothing to train",)),
    "parameter called like state": (_renamed("conv.bias", "next/bias"), ("next/bias", "another name")),
    "input called like a label": (_renamed("x", "label"), ("'label'",)),
    "two inputs": (
        _edited(lambda m: m.graph.input.append(helper.make_tensor_value_info("z", 1, [1]))),
        ("'x', 'z'",),
    ),
    "integer input": (lambda: classifier(dtype=TensorProto.UINT8), ("'x'", "uint8", "float32")),
    "open size": (lambda: classifier(shape=("N", 3, "H", "W")), ("'x'", "--input-size")),
    "no output": (_edited(lambda m: m.graph.ClearField("output")), ("no outputs",)),
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, tmp_path: Path) -> None:
    make, words = CASES[case]
    path = save(make(), tmp_path / "bad.onnx")
    with pytest.raises(ModelError) as raised:
        compile_model(path)
    text = str(raised.value)
    assert "bad.onnx" in text
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_the_child_tells_it_too(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"bad\.onnx: .*cycle"):
        read(save(_edited(_cycle)(), tmp_path / "bad.onnx"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated(share: float, tmp_path: Path) -> None:
    data = classifier().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        read(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        read(tmp_path / "absent.onnx")
    with pytest.raises(ModelError):
        read(tmp_path)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes_never_surprise(seed: int, tmp_path: Path) -> None:
    """Whatever a few wrong bytes make of a model, it is reported on or refused in words."""
    chance = random.Random(seed)
    makes: list[Make] = [classifier, _quantised, lambda: _if("constant")]
    data = bytearray(chance.choice(makes)().SerializeToString())
    for _ in range(chance.choice([1, 2, 4])):
        place = chance.randrange(len(data))
        if chance.random() < 0.7:
            data[place] = chance.randrange(256)
        else:
            del data[place : place + chance.randrange(1, 8)]
    path = tmp_path / "damaged.onnx"
    path.write_bytes(data)
    with contextlib.suppress(ModelError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy, on damaged numbers
        coverage(path)


def _external(location: str, folder: Path, length: int | None = None) -> Path:
    proto = classifier()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location} | ({} if length is None else {"length": str(length)})
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return save(proto, folder / "model.onnx")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "link.bin", "hard.bin", "folder/in.bin", "",
     "C:\\x", "folder", "absent.bin", "short.bin"],
)  # fmt: skip
def test_external_data_stays_in_the_folder(location: str, tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret.bin", tmp_path / "model"
    secret.write_bytes(bytes(4 * 3 * 3 * 3 * 4))
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    os.link(secret, folder / "hard.bin")
    (folder / "folder").symlink_to(tmp_path)
    (tmp_path / "in.bin").write_bytes(secret.read_bytes())
    (folder / "short.bin").write_bytes(b"1234")
    with pytest.raises(ModelError) as raised:
        read(_external(location, folder))
    assert "conv.weight" in str(raised.value)
    assert "model.onnx" in str(raised.value)


def test_external_data_is_read(tmp_path: Path) -> None:
    data = classifier().graph.initializer[0].raw_data
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "weights.bin").write_bytes(data)
    foreign = read(_external("below/weights.bin", tmp_path))
    assert foreign.arrays["conv.weight"].tobytes() == data


def test_a_memory_limit_and_a_time_limit_are_told(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx: .*(MiB|failed|killed)"):
        read(path, memory=2**26)
    with pytest.raises(ModelError, match=r"longer than"):
        read(path, seconds=0.05)


def test_a_constant_branch_is_taken(tmp_path: Path) -> None:
    foreign = read(save(_if("constant"), tmp_path / "branch.onnx"))
    assert [node.op_type for node in foreign.graph.node] == ["Conv", "Relu"]


WISHES = {
    "loss": (Wishes(loss="softmax_cross_entropi"), "softmax_cross_entropy"),
    "optimizer": (Wishes(optimizer="adm"), "adam"),
    "rate": (Wishes(lr=-1.0), "--lr"),
    "expression": (Wishes(train="("), "regular expression"),
    "nothing matches": (Wishes(train="layer9.*"), "conv.weight"),
    "nothing left": (Wishes(freeze=".*"), "nothing to train"),
    "mean": (Wishes(mean=(0.5,)), "3 channels"),
    "std": (Wishes(std=(0.5, 0.0, 0.5)), "positive"),
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("case", WISHES)
def test_wishes_that_can_not_be(case: str, tmp_path: Path) -> None:
    wishes, word = WISHES[case]
    with pytest.raises(UsageError) as raised:
        compile_model(save(classifier(), tmp_path / "model.onnx"), wishes)
    assert word in str(raised.value)


def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    """Files with holes in them: they take no space."""
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(ModelError, match=r"model\.onnx: the file is larger than 2 GiB"):
        read(path)
    proto = classifier()
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(5 * 2**28)
    for name in ("one", "other"):
        tensor = proto.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=[5, 2**26])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(
        ModelError, match=r"model\.onnx: the model's tensors take 2\.5 GiB; cnnc reads up to 2"
    ):
        read(save(proto, path))
