"""A bundle written by hand: logistic regression on 8×8 images, by the contract of `cnnc.bundle`.

It lets the runtime be tested without the compiler. The step is small enough to check by eye: a dense
layer, softmax cross-entropy, momentum on the weight, a brightness that depends on (seed, step) in place of
augmentation, and a running mean of the image as the one buffer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from onnx import parser

from cnnc.bundle import (
    Array,
    Bundle,
    Manifest,
    MetricSpec,
    Preprocessing,
    StateEntry,
    TargetSpec,
    TensorSpec,
    write_bundle,
)
from cnnc.initial import draw
from cnnc.opset import IR_VERSION, OPSET

LEARNING_RATE = 0.05

FORWARD = """
    one = Constant<value = float {1.0}>()
    flat = Flatten<axis = 1>(image)
    centred = Sub(flat, "pixel.mean")
    bright = Mul(centred, brightness)
    [dense] logits = Gemm(bright, "dense.weight", "dense.bias")
"""
METRICS = """
    logp = LogSoftmax<axis = 1>(logits)
    label_column = Unsqueeze(label, axis_1)
    [loss] picked = GatherElements<axis = 1>(logp, label_column)
    loss_each = Neg(picked)
    "metrics/loss/sum" = ReduceSum<keepdims = 0>(loss_each)
    guess = ArgMax<axis = 1, keepdims = 0>(logits)
    right = Equal(guess, label)
    right_float = Cast<to = 1>(right)
    "metrics/accuracy/sum" = ReduceSum<keepdims = 0>(right_float)
    batch = Shape<start = 0, end = 1>(label)
    count = Squeeze(batch)
    "metrics/accuracy/count" = Cast<to = 1>(count)
    "metrics/loss/count" = Cast<to = 1>(count)
"""
RANDOM = """
    counter = Add(seed, step)
    five = Constant<value = int64 {5}>()
    drawn = Mod(counter, five)
    drawn_float = Cast<to = 1>(drawn)
    hundredth = Constant<value = float {0.01}>()
    extra = Mul(drawn_float, hundredth)
    unit = Constant<value = float {1.0}>()
    brightness = Add(unit, extra)
"""
BACKWARD = """
    count_float = Cast<to = 1>(count)
    loss = Div("metrics/loss/sum", count_float)
    p = Softmax<axis = 1>(logits)
    depth = Constant<value = int64 {10}>()
    off_on = Constant<value = float[2] {0.0, 1.0}>()
    target = OneHot<axis = 1>(label, depth, off_on)
    excess = Sub(p, target)
    dlogits = Div(excess, count_float)
    ["grad/dense/weight"] dweight = Gemm<transA = 1>(bright, dlogits)
    axis_0 = Constant<value = int64[1] {0}>()
    ["grad/dense/bias"] dbias = ReduceSum<keepdims = 0>(dlogits, axis_0)
    batch_mean = ReduceMean<keepdims = 0>(flat, axis_0)
    tenth = Constant<value = float {0.1}>()
    drift = Sub(batch_mean, "pixel.mean")
    move = Mul(drift, tenth)
    "next/pixel.mean" = Add("pixel.mean", move)
"""
FLATTEN_GRADIENT = """
    minus_1 = Constant<value = int64[1] {-1}>()
    flat_weight = Reshape(dweight, minus_1)
    gradient = Concat<axis = 0>(flat_weight, dbias)
"""
SPLIT_GRADIENT = """
    sizes = Constant<value = int64[2] {640, 10}>()
    flat_weight, dbias = Split<axis = 0>(gradient, sizes)
    weight_shape = Constant<value = int64[2] {64, 10}>()
    dweight = Reshape(flat_weight, weight_shape)
"""
UPDATE = f"""
    rate = Constant<value = float {{{LEARNING_RATE}}}>()
    lr = Mul(rate, lr_scale)
    decay = Constant<value = float {{0.9}}>()
    kept = Mul("dense.weight.momentum", decay)
    "next/dense.weight.momentum" = Add(kept, dweight)
    weight_step = Mul("next/dense.weight.momentum", lr)
    ["update/dense.weight"] "next/dense.weight" = Sub("dense.weight", weight_step)
    bias_step = Mul(dbias, lr)
    "next/dense.bias" = Sub("dense.bias", bias_step)
    one_step = Constant<value = int64 {{1}}>()
    "next/step" = Add(step, one_step)
"""
AXIS = "axis_1 = Constant<value = int64[1] {1}>()\n"
STEADY = "brightness = Constant<value = float {1.0}>()\n"

IMAGE, LABEL = "float[N,1,8,8] image", "int64[N] label"
PARAMETERS = ["float[64,10] dense.weight", "float[10] dense.bias"]
BUFFERS = ["float[64] pixel.mean"]
SLOTS = ["float[64,10] dense.weight.momentum"]
COUNTER = ["int64 step"]
SCALARS = ["float lr_scale", "int64 seed"]
STATE = [*PARAMETERS, *BUFFERS, *SLOTS, *COUNTER]
SUMS = [f"float metrics/{name}/{part}" for name in ("accuracy", "loss") for part in ("sum", "count")]
ORIGIN = {
    "loss": ("loss", "tiny.py:9"),
    "grad/dense/weight": ("dense", "tiny.py:3"),
    "grad/dense/bias": ("dense", "tiny.py:3"),
}


def write_tiny_bundle(path: Path, **changes: Any) -> Bundle:
    """Write the bundle to a new folder `path`; `changes` replace fields of the manifest."""
    following = [_renamed(value) for value in STATE]
    gradient = "float[650] gradient"
    graphs = {
        "train.onnx": _model(
            [IMAGE, LABEL, *SCALARS, *STATE],
            ["float loss", *SUMS, *following],
            RANDOM + FORWARD + AXIS + METRICS + BACKWARD + UPDATE,
        ),
        "grad.onnx": _model(
            [IMAGE, LABEL, "int64 seed", *COUNTER, *PARAMETERS, *BUFFERS],
            ["float loss", *SUMS, _renamed(BUFFERS[0]), gradient],
            RANDOM + FORWARD + AXIS + METRICS + BACKWARD + FLATTEN_GRADIENT,
        ),
        "apply.onnx": _model(
            [gradient, "float lr_scale", *PARAMETERS, *SLOTS, *COUNTER],
            [_renamed(value) for value in (*PARAMETERS, *SLOTS, *COUNTER)],
            SPLIT_GRADIENT + UPDATE,
        ),
        "eval.onnx": _model([IMAGE, LABEL, *PARAMETERS, *BUFFERS], SUMS, STEADY + FORWARD + AXIS + METRICS),
    }
    state = initial_state()
    infer = parser.parse_model(
        _text(
            [IMAGE], ["float[N,10] probability"], STEADY + FORWARD + "probability = Softmax<axis = 1>(logits)"
        )
    )
    for name in ("dense.weight", "dense.bias", "pixel.mean"):
        infer.graph.initializer.append(onnx.numpy_helper.from_array(state[name], name))
    onnx.checker.check_model(infer, full_check=True)
    graphs["infer.onnx"] = infer.SerializeToString()
    return write_bundle(path, replace(MANIFEST, **changes), graphs, state)


def initial_state(seed: int = 0) -> dict[str, Array]:
    return {e.name: draw(e.initial, e.shape, e.dtype, seed, e.name) for e in MANIFEST.state}


def _model(inputs: list[str], outputs: list[str], body: str) -> bytes:
    model = parser.parse_model(_text(inputs, outputs, body))
    for node in model.graph.node:
        for key, value in zip(("cnnc.forward", "cnnc.where"), ORIGIN.get(node.name, ()), strict=False):
            node.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _text(inputs: list[str], outputs: list[str], body: str) -> str:
    opset = f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>'
    return f"{opset} tiny ({_declared(inputs)}) => ({_declared(outputs)}) {{ {body} }}"


def _declared(values: list[str]) -> str:
    return ", ".join('{} "{}"'.format(*value.split()) for value in values)


def _renamed(value: str) -> str:
    kind, name = value.split()
    return f"{kind} next/{name}"


_ZERO = {"kind": "constant", "value": 0.0}
MANIFEST = Manifest(
    name="tiny",
    producer="hand",
    opset=OPSET,
    ir_version=IR_VERSION,
    input=TensorSpec("image", "float32", ("N", 1, 8, 8)),
    output=TensorSpec("probability", "float32", ("N", 10)),
    activation="softmax",
    target=TargetSpec("label", "class", "int64", ("N",)),
    preprocessing=Preprocessing(scale=1.0 / 16.0),
    classes=tuple("0123456789"),
    loss={"kind": "softmax_cross_entropy"},
    optimizer={"kind": "sgd", "momentum": 0.9},
    learning_rate=LEARNING_RATE,
    metrics=(MetricSpec("accuracy", "higher"), MetricSpec("loss", "lower")),
    scalars={"lr_scale": 1.0, "seed": 0},
    seed=0,
    state=(
        StateEntry(
            "dense.weight", "parameter", "float32", (64, 10), {"kind": "normal", "std": 0.1}, offset=0
        ),
        StateEntry("dense.bias", "parameter", "float32", (10,), _ZERO, offset=640),
        StateEntry("pixel.mean", "buffer", "float32", (64,), _ZERO),
        StateEntry("dense.weight.momentum", "slot", "float32", (64, 10), _ZERO, of="dense.weight"),
        StateEntry("step", "counter", "int64", (), {"kind": "constant", "value": 0}),
    ),
    functions=(),
)
