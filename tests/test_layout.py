"""The layout pass: every form against the plain operator, whole steps against portable ones.

Values are compared twice: in float64 under the ReferenceEvaluator, where a form must be the same algebra to
many digits, and in float32 on ONNX Runtime, whose own kernels some forms need. A form that is legal in no
row of `ROWS` fails the suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cnnc import Program, Tensor, losses, nn, optim
from cnnc.bundle import Bundle, write_bundle
from cnnc.compiler import compile_program
from cnnc.deploy.reference_operators import OPERATORS
from cnnc.errors import UnsupportedError
from cnnc.ir import Builder, Dim, Ops, TensorType, dims_of, sizes_of
from cnnc.layout import FORMS, LAYOUTS, fix_batch, legal_forms, relayout
from cnnc.layout.ops import BLOCKED, block_size
from cnnc.layout.step import fixed_step, planned_step
from cnnc.lowering import lower
from cnnc.opset import GRAD_DOMAIN, GRAD_VERSION, IR_VERSION, OPSET

Array = np.ndarray[Any, Any]
DOUBLE, FLOAT = ir.DataType.DOUBLE, ir.DataType.FLOAT


# Rows: a convolution and its gradients.


@dataclass(frozen=True)
class Row:
    """A convolution of maps `x` [N, C, H, W] to `out` channels, perhaps with a max pool behind."""

    x: tuple[int, int, int, int]
    out: int
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1
    bias: bool = False
    pool: tuple[int, int] | None = None

    def __str__(self) -> str:
        parts = [
            "x".join(map(str, self.x)),
            f"to{self.out}",
            f"k{self.kernel[0]}{self.kernel[1]}",
            f"s{self.strides[0]}{self.strides[1]}",
            "p" + "".join(map(str, self.pads)),
            f"d{self.dilations[0]}{self.dilations[1]}",
            f"g{self.group}",
        ]
        return "-".join(parts) + ("-bias" if self.bias else "") + ("-pool" if self.pool else "")


def depthwise(n: int, c: int, h: int, w: int, **changes: Any) -> Row:
    return Row((n, c, h, w), c, group=c, **changes)


POINT: dict[str, Any] = {"kernel": (1, 1), "pads": (0, 0, 0, 0)}
ROWS = (
    # Products of channels.
    Row((1, 3, 5, 4), 4, **POINT),
    Row((7, 4, 3, 5), 6, bias=True, **POINT),
    Row((4, 2, 32, 32), 3, **POINT),  # long enough for sums in parts
    # Columns: odd sizes, pads of every side, strides, dilations, an image's few channels.
    Row((1, 3, 7, 5), 8),
    Row((7, 2, 6, 7), 4, pads=(0, 1, 2, 0), bias=True),
    Row((2, 3, 9, 8), 5, kernel=(2, 3), strides=(2, 1), pads=(0, 1, 1, 2)),
    Row((3, 2, 9, 9), 4, strides=(2, 2), dilations=(2, 1), bias=True),
    Row((1, 9, 8, 7), 10, strides=(2, 2)),
    Row((7, 8, 6, 6), 8, strides=(2, 2), **POINT),
    Row((2, 3, 11, 10), 4, kernel=(5, 4), strides=(3, 2), pads=(2, 0, 1, 3)),
    Row((2, 3, 15, 14), 8, kernel=(7, 7), strides=(2, 2), pads=(3, 3, 3, 3)),
    Row((3, 7, 1, 7), 4, (1, 1), (2, 2), (1, 0, 0, 0), bias=True),  # nothing but padding is seen
    Row((2, 1, 8, 6), 4, bias=True, pool=(2, 2)),
    Row((3, 2, 9, 7), 4, pads=(0, 0, 0, 0), pool=(3, 2)),
    # Winograd: heights and widths that tiles of 4 do not divide, pads up to 2.
    Row((1, 8, 8, 8), 8),
    Row((7, 9, 5, 11), 8, pads=(2, 0, 1, 1), bias=True),
    Row((2, 8, 17, 6), 10, pads=(0, 0, 0, 0)),
    # Blocks of channels, one and several, and of examples; rows strided and dilated, and some not seen.
    Row((16, 16, 5, 7), 16),
    Row((32, 32, 6, 5), 16, pads=(0, 2, 1, 1), bias=True),
    Row((3, 16, 7, 6), 48, kernel=(3, 2), dilations=(2, 3), pads=(2, 1, 0, 3)),
    Row((16, 5, 9, 8), 32, kernel=(2, 3), strides=(2, 2), pads=(0, 1, 0, 0)),
    Row((32, 16, 9, 7), 16, kernel=(3, 2), strides=(3, 1), dilations=(2, 1), pads=(2, 1, 1, 0)),
    # Depthwise: whole maps, rows, blocks of channels.
    depthwise(1, 16, 6, 5),
    depthwise(7, 3, 8, 8, bias=True),
    depthwise(2, 8, 9, 7, strides=(2, 2)),
    depthwise(2, 8, 8, 8, strides=(2, 2)),
    depthwise(16, 3, 7, 10, kernel=(5, 2), strides=(1, 2), pads=(0, 1, 3, 0)),
    depthwise(4, 4, 11, 9, strides=(3, 1), dilations=(2, 2), pads=(2, 1, 2, 0)),
    depthwise(2, 8, 5, 6, kernel=(1, 3), pads=(0, 1, 0, 1)),
    depthwise(2, 8, 1, 2, kernel=(5, 3), pads=(2, 1, 2, 1)),  # rows of the filter that see padding alone
    depthwise(2, 4, 3, 4, strides=(2, 2), dilations=(2, 1), pads=(3, 0, 0, 1)),
    # Examples in blocks, and what a blocked convolution makes of strides, dilations and pads.
    Row((32, 3, 5, 4), 2, bias=True, **POINT),
    Row((16, 3, 9, 8), 5, kernel=(2, 3), strides=(2, 1), pads=(0, 1, 1, 2)),
    depthwise(32, 2, 6, 7, bias=True),
    depthwise(16, 3, 9, 7, strides=(2, 2)),
    depthwise(16, 1, 8, 8, strides=(2, 2), dilations=(2, 2), pads=(2, 2, 2, 2)),
    depthwise(32, 1, 9, 10, kernel=(5, 4), strides=(3, 2), pads=(2, 1, 1, 2)),
    depthwise(16, 2, 4, 5, pads=(2, 2, 2, 2)),
    depthwise(16, 2, 8, 8, strides=(2, 2), pads=(0, 0, 0, 0)),  # the last row and column nobody sees
)


def step(row: Row, dtype: ir.DataType) -> ir.Graph:
    """The graph of a row: y, or the pool's output, and the gradients of x, w and b from dy."""
    imports = {"": OPSET, GRAD_DOMAIN: GRAD_VERSION}
    op = Ops(Builder(ir.Graph([], [], nodes=[], opset_imports=imports, name="step")))

    def new(name: str, *dims: Dim) -> ir.Value:
        return op.builder.input(name, TensorType(dtype, dims))

    window = {
        "kernel_shape": row.kernel,
        "strides": row.strides,
        "pads": row.pads,
        "dilations": row.dilations,
    }
    _, c, h, w = row.x
    x, weight = new("x", "N", c, h, w), new("w", row.out, c // row.group, *row.kernel)
    bias = new("b", row.out) if row.bias else None
    y = op.Conv(x, weight, *([bias] if bias is not None else []), **window, group=row.group)
    outputs: dict[str, ir.Value] = {}
    if row.pool:
        pool = {"kernel_shape": row.pool, "strides": row.pool}
        outputs["p"] = p = op.MaxPool(y, **pool)
        dp = new("dp", *dims_of(p))
        dy = op.MaxPoolGrad(dp, y, p, **pool, pads=[0] * 4, dilations=[1, 1], ceil_mode=0)
    else:
        outputs["y"] = y
        dy = new("dy", *dims_of(y))
    outputs["dx"] = op.ConvGradInput(dy, weight, x, **window, group=row.group)
    outputs["dw"] = op.ConvGradWeight(dy, x, weight, **window, group=row.group)
    if bias is not None:
        outputs["db"] = op.ConvGradBias(dy, bias)
    for name, value in outputs.items():
        op.builder.rename(value, name)
    op.builder.graph.outputs.extend(outputs.values())
    fix_batch(op.builder.graph, "N", row.x[0])
    return op.builder.graph


def serialised(graph: ir.Graph) -> onnx.ModelProto:
    model = ir.Model(graph, ir_version=IR_VERSION)
    functions, _ = lower(graph)
    for function in functions:
        model.functions[function.identifier()] = function
    if functions:
        graph.opset_imports[GRAD_DOMAIN] = GRAD_VERSION
    return ir.serde.serialize_model(model)


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    run = ReferenceEvaluator(model, new_ops=[*OPERATORS, *LOCAL], check_shape_annotations=True)
    return dict(zip(run.output_names, run.run(None, dict(feeds)), strict=True))


def execute(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feeds)), strict=True))


def feeds_of(graph: ir.Graph, dtype: ir.DataType) -> dict[str, Array]:
    """Halves from -1 to 1: sums that are exact in float32, too, and ties in every pool."""
    rng = np.random.default_rng(0)
    return {str(v.name): (rng.integers(-2, 3, sizes_of(v)) / 2).astype(dtype.numpy()) for v in graph.inputs}


@cache
def plain(row: Row) -> dict[str, Array]:
    graph = step(row, DOUBLE)
    return evaluate(serialised(graph), feeds_of(graph, DOUBLE))


def assert_near(got: Mapping[str, Array], want: Mapping[str, Array], tolerance: float) -> None:
    assert got.keys() == want.keys()
    least = 1e-3 * max(map(np.linalg.norm, want.values()))  # the gradient of a bias may be 0 but for rounding
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        error = np.linalg.norm(got[name] - value) / max(np.linalg.norm(value), least)
        assert error < tolerance, f"{name}: {error:.1e}"


def uniform(graph: ir.Graph, layout: str, **allowed: bool) -> dict[str, str]:
    """The first legal form of each node in a layout, the tiled one before the plain."""
    plan = {}
    for node in graph:
        names = [form.name for form in legal_forms(node, **allowed) if form.name.startswith(layout)]
        if names:
            plan[str(node.name)] = min(names, key=lambda name: "/" not in name)
    return plan


def cells() -> list[Any]:
    found = []
    for row in ROWS:
        for node in step(row, FLOAT):
            found += [
                pytest.param(row, node.op_type, form.name, id=f"{node.op_type}-{form.name}-{row}")
                for form in legal_forms(node)
            ]
    return found


CELLS = cells()


def test_every_form_has_a_row_and_says_what_it_does() -> None:
    tried = {(cell.values[1], cell.values[2]) for cell in CELLS}
    offered = {(op, name) for op, forms in FORMS.items() for name in forms}
    blocks = {(op, name) for op, name in offered if name.startswith("CBHWN")}
    assert tried == (offered if block_size() else offered - blocks)
    assert all(form.doc for forms in FORMS.values() for form in forms.values())


@pytest.mark.parametrize(("row", "op_type", "name"), CELLS)
def test_a_form_gives_what_the_plain_operator_gives(row: Row, op_type: str, name: str) -> None:
    for dtype, run, tolerance in ((DOUBLE, evaluate, 1e-11), (FLOAT, execute, 2e-5)):
        graph = step(row, dtype)
        node = next(node for node in graph if node.op_type == op_type)
        if FORMS[op_type][name] not in legal_forms(node):
            assert dtype == DOUBLE  # blocked kernels are of float32 alone
            continue
        local = FORMS[op_type][name].local
        planned = relayout(graph, {str(node.name): name}, local=local)
        assert local or {n.domain for n in planned} <= {"", GRAD_DOMAIN}
        got = run(serialised(planned), feeds_of(graph, dtype))
        assert_near(got, plain(row), tolerance)


@pytest.mark.parametrize(
    ("row", "layout"),
    [(row, layout) for row in ROWS for layout in LAYOUTS if uniform(step(row, FLOAT), layout)],
    ids=str,
)
def test_forms_of_one_layout_share_what_they_make(row: Row, layout: str) -> None:
    for dtype, run, tolerance in ((DOUBLE, evaluate, 1e-11), (FLOAT, execute, 2e-5)):
        graph = step(row, dtype)
        plan = uniform(graph, layout)
        got = run(serialised(relayout(graph, plan)), feeds_of(graph, dtype))
        assert_near(got, plain(row), tolerance)


def test_the_form_that_is_likely_the_fastest_is_tried_first() -> None:
    """Blocked kernels for a block of channels, Winograd for more, columns of an image, products for a tap."""
    block = block_size() or 16
    for channels, filters, kernel, want in (
        (block, block, 3, "blocked"),
        (2 * block, 2 * block, 3, "winograd"),
        (3, 2 * block, 3, "columns"),
        (block, block, 1, "product"),
    ):
        pad = kernel // 2
        row = Row((block, channels, 6, 6), filters, kernel=(kernel, kernel), pads=(pad,) * 4)
        plan = uniform(step(row, FLOAT), "HWNC")
        if block_size() or want != "blocked":
            assert {name.split(".")[1].split("_")[0] for name in plan.values()} == {want}


def test_a_form_that_is_unknown_or_illegal_is_refused() -> None:
    graph = step(ROWS[0], FLOAT)
    conv = next(str(node.name) for node in graph if node.op_type == "Conv")
    with pytest.raises(UnsupportedError, match=r"can't have the form 'HWNC.winograd'"):
        relayout(graph, {conv: "HWNC.winograd"})
    with pytest.raises(UnsupportedError, match=r"can't have the form 'nothing'"):
        relayout(graph, {conv: "nothing"})


POOLS: tuple[dict[str, Any], ...] = (
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [0, 1, 2, 0]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]},  # the last row and column are not seen
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 0, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "strides": [3, 1], "pads": [1, 2, 0, 1], "dilations": [2, 2]},
)


@pytest.mark.parametrize("window", POOLS, ids=str)
def test_pools_that_overlap_stay_in_their_layout(window: dict[str, Any]) -> None:
    """Values are halves, few above 0: ties in most windows, and padding would win if it were 0."""
    for dtype, run, tolerance in ((DOUBLE, evaluate, 1e-11), (FLOAT, execute, 2e-5)):
        imports = {"": OPSET, GRAD_DOMAIN: GRAD_VERSION}
        op = Ops(Builder(ir.Graph([], [], nodes=[], opset_imports=imports, name="step")))
        x = op.builder.input("x", TensorType(dtype, ("N", 3, 7, 10)))
        y = op.Conv(x, op.builder.constant(-np.eye(3).reshape(3, 3, 1, 1), dtype))
        p = op.builder.rename(op.MaxPool(y, **window), "p")
        dp = op.builder.input("dp", TensorType(dtype, dims_of(p)))
        whole = {"dilations": [1, 1], "ceil_mode": 0, **window}
        dx = op.builder.rename(op.MaxPoolGrad(dp, y, p, **whole), "dx")
        op.builder.graph.outputs.extend([p, dx])
        graph = op.builder.graph
        fix_batch(graph, "N", 2)
        feeds = feeds_of(graph, dtype)
        feeds["x"] = np.maximum(feeds["x"], -0.5)
        conv = next(str(node.name) for node in graph if node.op_type == "Conv")
        planned = relayout(graph, {conv: "HWNC.product"}, local=False)
        assert not {node.op_type for node in planned} & {"MaxPool", "MaxPoolGrad"}
        assert_near(run(serialised(planned), feeds), run(serialised(graph), feeds), tolerance)


# Whole steps.


def mixed(x: nn.Value) -> nn.Value:
    """What followers meet: normalisation, a residual sum, a shift before a pool, gradients of two readers."""
    x = nn.ReLU()(nn.BatchNorm2d()(nn.Conv2d(8, 3, padding=1, bias=False)(x)))
    y = nn.ReLU()(nn.BatchNorm2d()(nn.Conv2d(8, 3, padding=1, groups=8, bias=False)(x)))
    y = nn.BatchNorm2d()(nn.Conv2d(8, 1)(y))
    x = nn.ReLU()(x + y)
    x = nn.MaxPool2d(2)(nn.ReLU()(nn.Conv2d(8, 3, padding=1)(x)))
    y = nn.BatchNorm2d()(nn.Conv2d(8, 1, 2, bias=False)(x))
    x = nn.LeakyReLU()(nn.BatchNorm2d()(nn.Conv2d(8, 3, 2, 1, groups=8)(x)) + y)
    return nn.Dense(3)(nn.GlobalAvgPool2d()(nn.Sigmoid()(x) + x))


def overlapping(x: nn.Value) -> nn.Value:
    """A stem as ResNet-50's: its pool overlaps and is padded; sizes that no tile divides."""
    x = nn.ReLU()(nn.BatchNorm2d()(nn.Conv2d(8, 5, 2, 2, bias=False)(x)))
    x = nn.MaxPool2d(3, 2, padding=1)(x)
    x = nn.ReLU()(nn.BatchNorm2d()(nn.Conv2d(16, 1, bias=False)(x)))
    return nn.Dense(3)(nn.Flatten()(nn.MaxPool2d(3, 1)(nn.ReLU()(x))))


NETWORKS = {"mixed": (mixed, (3, 12, 12)), "overlapping": (overlapping, (3, 15, 17))}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ir.DataType], Bundle]:
    found = {}
    for name, (model, image) in NETWORKS.items():
        for dtype in (DOUBLE, FLOAT):
            program = Program(
                input=Tensor("image", ("N", *image)),
                model=model,
                loss=losses.SoftmaxCrossEntropy(),
                optimizer=optim.SGD(0.1, momentum=0.9),
                name=name,
            )
            compiled = compile_program(program, dtype=dtype)
            path = tmp_path_factory.mktemp("bundles") / f"{name}-{dtype.name}"
            found[name, dtype] = write_bundle(path, compiled.manifest, compiled.graphs, compiled.state)
    return found


def step_feeds(bundle: Bundle, batch: int, dtype: ir.DataType) -> dict[str, Array]:
    """Images with blank regions, and scales of batch normalisation of every sign, 0 among them."""
    rng = np.random.default_rng(3)
    images = rng.standard_normal((batch, *map(int, bundle.manifest.input.shape[1:])))
    images[:, :, :5] = 0.5
    state = dict(bundle.initial_state())
    for name, value in state.items():
        if name.startswith("bn") and name.endswith("weight"):
            state[name] = np.resize([0.7, -1.3, 0.0, 1.1], value.shape)
        elif name.startswith("bn") and name.endswith("bias"):
            state[name] = np.resize([0.2, -0.1, 0.4], value.shape)
    feeds = {
        bundle.manifest.input.name: images,
        bundle.manifest.target.name: rng.integers(0, 3, batch),
        **{name: np.asarray(value) for name, value in bundle.manifest.scalars.items()},
        **state,
    }
    return feeds


def cast(feeds: Mapping[str, Array], model: onnx.ModelProto) -> dict[str, Array]:
    types = {
        v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in model.graph.input
    }
    return {name: np.asarray(feeds[name]).astype(dtype) for name, dtype in types.items()}


Way = tuple[int, dict[str, Any]]
"""The batch and what is allowed."""
WAYS: dict[str, Way] = {"all": (4, {}), "standard": (1, {"local": False}), "exact": (7, {"exact": True})}
WHOLE_BLOCKS: dict[str, Way] = {way: (16, allowed) for way, (_, allowed) in WAYS.items()}


@pytest.mark.parametrize(
    ("layout", "batch", "allowed"),
    [
        pytest.param(layout, *ways[way], id=f"{layout}-{way}")
        for ways, layouts in ((WAYS, ("HWNC", "CHWN", "CNHW")), (WHOLE_BLOCKS, ("CBHWN",)))
        for layout in layouts
        for way in ways
    ],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_is_the_same_in_every_layout(
    bundles: dict[tuple[str, ir.DataType], Bundle],
    network: str,
    layout: str,
    batch: int,
    allowed: dict[str, Any],
) -> None:
    for dtype, run, tolerance in ((DOUBLE, evaluate, 1e-9), (FLOAT, execute, 2e-3)):
        bundle = bundles[network, dtype]
        graph = fixed_step(bundle, batch)
        model = onnx.load_from_string(planned_step(graph, uniform(graph, layout, **allowed), **allowed))
        feeds = cast(step_feeds(bundle, batch, dtype), model)
        want = reference_step(bundles[network, DOUBLE], batch)
        assert_near(changes(run(model, feeds), feeds), want, tolerance)
        if allowed == {"local": False}:
            assert {node.domain for node in model.graph.node} <= {"", GRAD_DOMAIN}


_STEPS: dict[tuple[Path, int], dict[str, Array]] = {}


def reference_step(bundle: Bundle, batch: int) -> dict[str, Array]:
    key = (bundle.path, batch)
    if key not in _STEPS:
        model = onnx.load(bundle.graph("train.onnx"))
        feeds = cast(step_feeds(bundle, batch, DOUBLE), model)
        _STEPS[key] = changes(evaluate(model, feeds), feeds)
    return _STEPS[key]


def changes(outputs: Mapping[str, Array], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The loss, and by how much the step moves each entry of the state."""
    moved = {
        name: value.astype(np.float64) - feeds[name.removeprefix("next/")].astype(np.float64)
        for name, value in outputs.items()
        if name.startswith("next/") and value.dtype.kind == "f"
    }
    return {"loss": outputs["loss"], **moved}


def test_exact_statistics_survive_a_mean_far_from_zero(
    bundles: dict[tuple[str, ir.DataType], Bundle],
) -> None:
    """Where a mean is a thousand times its deviation, E[x²] - E[x]² has lost its digits; centring has not."""
    bundle, errors = bundles["mixed", FLOAT], {}
    graph = fixed_step(bundle, 4)
    feeds = {**step_feeds(bundle, 4, FLOAT), "conv3.bias": np.full(8, 500.0)}
    model = onnx.load(bundles["mixed", DOUBLE].graph("train.onnx"))
    want = evaluate(model, cast(feeds, model))["next/bn3.running_var"] - 0.9
    for exact in (False, True):
        plan = uniform(graph, "CNHW", exact=exact)
        model = onnx.load_from_string(planned_step(graph, plan, exact=exact))
        got = execute(model, cast(feeds, model))["next/bn3.running_var"] - 0.9
        errors[exact] = np.abs(got / want - 1).max()
    assert errors[True] < 1e-3
    assert errors[False] > 10 * errors[True]


# ONNX Runtime's own operators, from their definitions.

BLOCK = 16


def _to_blocks(x: Array) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c // BLOCK, BLOCK, h, w).transpose(0, 1, 3, 4, 2).reshape(x.shape)


def _from_blocks(x: Array) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c // BLOCK, h, w, BLOCK).transpose(0, 1, 4, 2, 3).reshape(x.shape)


class FusedMatMul(OpRun):
    """A product of transposed operands; `transBatch` has the rows before the batches."""

    op_domain = "com.microsoft"

    def _run(self, a: Array, b: Array, **attributes: Any) -> tuple[Array]:
        operands = []
        for x, which in ((a, "A"), (b, "B")):
            if attributes.get(f"transBatch{which}"):
                x = np.moveaxis(x, 0, -2)
            operands.append(x.swapaxes(-1, -2) if attributes.get(f"trans{which}") else x)
        return (operands[0] @ operands[1],)


class ReorderInput(OpRun):
    """Channels into blocks: [N, C/16, H, W, 16]."""

    op_domain = BLOCKED

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        return (_to_blocks(x),)


class ReorderOutput(OpRun):
    """And back."""

    op_domain = BLOCKED

    def _run(self, x: Array, channels: int = 0, **attributes: Any) -> tuple[Array]:
        return (_from_blocks(x),)


class Conv(OpRun):
    """Conv of maps in blocks, one filter per channel, filters in blocks, too; plus a map; a ReLU."""

    op_domain = BLOCKED
    op_type = "Conv"

    def _run(
        self, x: Array, w: Array, b: Array | None = None, plus: Array | None = None, **attributes: Any
    ) -> tuple[Array]:
        o, i, kh, kw = w.shape
        assert i == 1
        assert o == attributes["group"] == x.shape[1]
        x = _from_blocks(x)[0]
        taps = _from_blocks(w.reshape(1, o, kh, kw))[0]
        (top, left, bottom, right), (sh, sw), (dh, dw) = (
            attributes[name] for name in ("pads", "strides", "dilations")
        )
        x = np.pad(x, ((0, 0), (top, bottom), (left, right)))
        p, q = (
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(x.shape[1:], (kh, kw), (sh, sw), (dh, dw), strict=True)
        )
        y = np.zeros((o, p, q), x.dtype)
        for row, column in np.ndindex(kh, kw):
            seen = x[:, row * dh :, column * dw :][:, : (p - 1) * sh + 1 : sh, : (q - 1) * sw + 1 : sw]
            y += taps[:, row, column, None, None] * seen
        y = _to_blocks((y if b is None else y + b[:, None, None])[None])
        y = y if plus is None else y + plus
        return (np.maximum(y, 0) if attributes.get("activation") else y,)


LOCAL: list[type[OpRun]] = [FusedMatMul, ReorderInput, ReorderOutput, Conv]
