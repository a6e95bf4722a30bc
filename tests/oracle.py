"""What gradients are checked against: central differences in float64 under onnx's ReferenceEvaluator.

The loss of a case is Σ v·y over its outputs with random v, so that every element of them matters. For a
random direction d of each input, the gradient g that the graph computes must give the slope that the forward
graph alone has: ⟨g, d⟩ = (L(x + h·d) - L(x - h·d)) / 2h. Two numbers for an input, whatever its size.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from cases import CASES, Array, Case, Input
from formulas import FORMULAS
from onnx.reference import ReferenceEvaluator
from reference import evaluator

from cnnc.autodiff import gradients
from cnnc.ir import Builder, TensorType, type_of
from cnnc.lowering import Body, legal_bodies, lower
from cnnc.opset import GRAD_DOMAIN, GRAD_VERSION, IR_VERSION, OPSET

STEP = 1e-5
SLOPE_TOLERANCE = 1e-6
"""Of ⟨g, d⟩, relative to |g|: far above what central differences miss, far below an error of 0.05 %."""
VALUE_TOLERANCE = 1e-10
"""Of a float64 tensor against a formula, relative to its largest element."""
SINGLE_TOLERANCE = 2e-5
"""Of a float32 tensor against float64, relative to its largest element."""

DOUBLE, FLOAT = ir.DataType.DOUBLE, ir.DataType.FLOAT
Choice = Mapping[str, str]
"""From gradient nodes to the bodies they shall have; the default for those not named."""


def check(case: Case) -> None:
    """All that a row promises, for each body: types, slopes, formula, and float32 on ONNX Runtime."""
    samples = [measure(case, sizes) for sizes in case.batches]
    double, float_ = (_backward(case, dtype).graph for dtype in (DOUBLE, FLOAT))
    for choice in _choices(double):
        exact = evaluator(_serialised(double, choice))
        single = session(_serialised(float_, choice))
        for sample in samples:
            told = f"{case} of {sample.shapes} with {choice or 'default bodies'}"
            values = run(exact, sample.feeds)
            for name, direction in sample.directions.items():
                gradient, slope = values[f"gradient/{name}"], sample.slopes[name]
                error = abs(np.vdot(gradient, direction) - slope)
                scale = float(np.linalg.norm(gradient)) + abs(slope) + 1e-3
                assert error <= SLOPE_TOLERANCE * scale, f"{told}: {name} is off by {error / scale:.1e}"
            if case.op in FORMULAS and not case.graph:
                for i, y in enumerate(FORMULAS[case.op](*sample.inputs, **case.attributes)):
                    assert_close(values[f"y{i}"], y, VALUE_TOLERANCE, f"{told}: output {i}")
            rounded = run(single, sample.feeds)
            for name, array in values.items():
                assert_close(rounded[name], array, SINGLE_TOLERANCE, f"{told}: {name} on ONNX Runtime")


@dataclass(frozen=True)
class Sample:
    """Feeds of one run; for each differentiated input a direction, and the loss's slope along it."""

    feeds: dict[str, Array]
    directions: dict[str, Array]
    slopes: dict[str, float]

    @property
    def inputs(self) -> list[Array]:
        return [array for name, array in self.feeds.items() if name.startswith("x")]

    @property
    def shapes(self) -> str:
        return ", ".join(str(array.shape) for array in self.inputs)


def measure(case: Case, sizes: Mapping[str, int]) -> Sample:
    """Central differences of a row; its numbers are a function of the row and the sizes alone."""
    rng = np.random.default_rng(zlib.crc32(f"{case}{sizes}".encode()))
    feeds: dict[str, Array] = {f"x{i}": _draw(spec, sizes, rng) for i, spec in enumerate(case.inputs)}
    forward = evaluator(_serialised(forward_graph(case, DOUBLE).graph))
    outputs = [*forward.run(None, feeds)][: case.projected]
    projections = [_single(rng.standard_normal(y.shape)) for y in outputs]
    directions: dict[str, Array] = {
        f"x{i}": np.asarray(rng.standard_normal(feeds[f"x{i}"].shape))
        for i, spec in enumerate(case.inputs)
        if spec.differentiated
    }

    def loss(name: str, step: float) -> float:
        outputs = forward.run(None, {**feeds, name: feeds[name] + step * directions[name]})
        return sum(float(np.vdot(v, y)) for v, y in zip(projections, outputs, strict=False))

    slopes = {name: (loss(name, STEP) - loss(name, -STEP)) / (2 * STEP) for name in directions}
    return Sample(feeds | {f"v{i}": v for i, v in enumerate(projections)}, directions, slopes)


def differentiate(case: Case, dtype: ir.DataType, choice: Choice | None = None) -> onnx.ModelProto:
    """The row's graph with projections v0, … as further inputs and gradient/x0, … as further outputs."""
    return _serialised(_backward(case, dtype).graph, choice)


def choices(case: Case) -> Iterator[dict[str, str]]:
    """The portable default, then one by one each other legal body of each gradient op."""
    return _choices(_backward(case, DOUBLE).graph)


def reached(case: Case) -> dict[str, list[Body]]:
    """The gradient ops in a row's graph, and their legal bodies."""
    return _reached(_backward(case, DOUBLE).graph)


@cache
def rows_by_body() -> dict[tuple[str, str], Case]:
    """For each body, by its op and name, a row of the table that reaches it."""
    found: dict[tuple[str, str], Case] = {}
    for row in CASES:
        for bodies in reached(row).values():
            for body in bodies:
                found.setdefault((body.op, body.name), row)
    return found


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(
    runtime: ReferenceEvaluator | onnxruntime.InferenceSession, feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """All outputs of a model; it gets the feeds that it has inputs for, in its own element types."""
    if isinstance(runtime, ReferenceEvaluator):
        inputs, outputs = runtime.input_names, runtime.output_names
        typed = {name: feeds[name] for name in inputs}
    else:
        outputs = [output.name for output in runtime.get_outputs()]
        kinds = {
            "tensor(float)": np.float32,
            "tensor(double)": np.float64,
            "tensor(int64)": np.int64,
            "tensor(bool)": np.bool_,
        }
        typed = {i.name: feeds[i.name].astype(kinds[i.type]) for i in runtime.get_inputs()}
    return dict(zip(outputs, runtime.run(outputs, typed), strict=True))


def assert_close(actual: Array, expected: Array, tolerance: float, told: str) -> None:
    """Equal up to `tolerance` of the largest element."""
    assert actual.shape == expected.shape, f"{told}: {actual.shape}, not {expected.shape}"
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= tolerance * (np.abs(expected).max(initial=0.0) + 1e-3), f"{told}: off by {error:.1e}"


def forward_graph(case: Case, dtype: ir.DataType) -> Builder:
    """The row's graph with inputs x0, x1, … and outputs y0, y1, …"""
    imports = {"": OPSET, GRAD_DOMAIN: GRAD_VERSION}
    builder = Builder(ir.Graph([], [], nodes=[], opset_imports=imports, name="case"))
    inputs = iter(
        builder.input(f"x{i}", TensorType(spec.dtype or dtype, spec.dims))
        for i, spec in enumerate(case.inputs)
    )
    operands = [next(inputs) if isinstance(o, Input) else o for o in case.operands]
    for i, y in enumerate(case.emit(builder, *operands)):
        builder.graph.outputs.append(builder.op("Identity", y, name=f"y{i}"))
    return builder


def _backward(case: Case, dtype: ir.DataType) -> Builder:
    builder = forward_graph(case, dtype)
    graph = builder.graph
    wrt = [x for x, spec in zip(graph.inputs, case.inputs, strict=True) if spec.differentiated]
    if not wrt:
        return builder
    terms = []
    for i, y in enumerate(graph.outputs[: case.projected]):
        v = builder.input(f"v{i}", type_of(y))
        terms.append(builder.op("ReduceSum", builder.op("Mul", v, y), keepdims=0))
    loss = terms[0] if len(terms) == 1 else builder.op("Sum", *terms)
    for x, gradient in zip(wrt, gradients(builder, loss, wrt), strict=True):
        assert gradient is not None, f"{case}: no gradient for {x.name}"
        assert type_of(gradient) == type_of(x), f"{case}: {type_of(gradient)} for {x.name}, {type_of(x)}"
        graph.outputs.append(builder.op("Identity", gradient, name=f"gradient/{x.name}"))
    return builder


def _choices(graph: ir.Graph) -> Iterator[dict[str, str]]:
    yield {}
    for node, bodies in _reached(graph).items():
        yield from ({node: body.name} for body in bodies[1:])


def _reached(graph: ir.Graph) -> dict[str, list[Body]]:
    return {str(node.name): legal_bodies(node) for node in graph if node.domain == GRAD_DOMAIN}


def _serialised(graph: ir.Graph, choice: Choice | None = None) -> onnx.ModelProto:
    """A lowered copy of the graph, checked."""
    graph = graph.clone()
    functions, _ = lower(graph, choice)
    model = ir.serde.serialize_model(ir.Model(graph, ir_version=IR_VERSION, functions=functions))
    onnx.checker.check_model(model, full_check=True)
    return model


def _draw(spec: Input, sizes: Mapping[str, int], rng: np.random.Generator) -> Array:
    array = np.asarray(spec.draw(rng, [sizes[d] if isinstance(d, str) else d for d in spec.dims]))
    return array if spec.dtype else _single(array)


def _single(array: npt.ArrayLike) -> Array:
    """float64 numbers that float32 holds, too, so that both see the same inputs."""
    return np.asarray(array, np.float32).astype(np.float64)
