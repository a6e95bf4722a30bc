"""Batch normalisation folded away: the same function, wherever it may be, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from cnnc.deploy.folding import fold_batch_normalization

NORM = "BatchNormalization<epsilon = 0.01>"
STATISTICS = "double[6] g, double[6] b, double[6] m, double[6] v"
FOLDED = {
    "conv with bias": (
        "double[N,4,5,5] x",
        "double[6,4,3,3] w, double[6] c",
        f"z = Conv<kernel_shape = [3, 3]>(x, w, c) y = {NORM}(z, g, b, m, v)",
    ),
    "conv without": (
        "double[N,4,5,5] x",
        "double[6,4,3,3] w",
        f"z = Conv<kernel_shape = [3, 3]>(x, w) y = {NORM}(z, g, b, m, v)",
    ),
    "grouped conv": (
        "double[N,4,5,5] x",
        "double[6,2,3,3] w, double[6] c",
        f"z = Conv<group = 2, strides = [2, 2]>(x, w, c) y = {NORM}(z, g, b, m, v)",
    ),
    "gemm": ("double[N,5] x", "double[5,6] w, double[6] c", f"z = Gemm(x, w, c) y = {NORM}(z, g, b, m, v)"),
    "gemm without bias": ("double[N,5] x", "double[5,6] w", f"z = Gemm(x, w) y = {NORM}(z, g, b, m, v)"),
    "transposed gemm": (
        "double[N,5] x",
        "double[6,5] w, double[1,6] c",
        f"z = Gemm<transB = 1, alpha = 0.5, beta = 3.0>(x, w, c) y = {NORM}(z, g, b, m, v)",
    ),
    "gemm with one bias for all": (
        "double[N,5] x",
        "double[5,6] w, double c",
        f"z = Gemm<beta = 0.5>(x, w, c) y = {NORM}(z, g, b, m, v)",
    ),
}
KEPT = {
    "another reader": (
        "double[N,5] x",
        "double[5,6] w, double[6] c",
        f"z = Gemm(x, w, c) n = {NORM}(z, g, b, m, v) y = Add(n, z)",
    ),
    "shared weight": (
        "double[N,6] x",
        "double[6,6] w, double[6] c",
        f"z = Gemm(x, w, c) n = {NORM}(z, g, b, m, v) y = Gemm(n, w, b)",
    ),
    "a bias for each row": (
        "double[2,5] x",
        "double[5,6] w, double[2,6] c",
        f"z = Gemm(x, w, c) y = {NORM}(z, g, b, m, v)",
    ),
    "weight that is computed": (
        "double[N,5] x",
        "double[5,6] w, double[6] c",
        f"t = Tanh(w) z = Gemm(x, t, c) y = {NORM}(z, g, b, m, v)",
    ),
    "nothing to fold into": ("double[N,6] x", "", f"z = Relu(x) y = {NORM}(z, g, b, m, v)"),
}


def _model(image: str, weights: str, body: str) -> onnx.ModelProto:
    """A model with random weights; variances are positive."""
    declared = ", ".join(filter(None, (image, weights, STATISTICS)))
    output = f"double[{', '.join('ABCD'[: image.count(',') + 1])}] y"
    opset = '<ir_version: 8, opset_import: ["" : 18]>'
    model = parser.parse_model(f"{opset} m ({declared}) => ({output}) {{ {body} }}")
    random = np.random.default_rng(3)
    for value in list(model.graph.input)[1:]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = random.uniform(0.5, 2.0, shape) if value.name == "v" else random.standard_normal(shape)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
        model.graph.input.remove(value)
    return model


def _run(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    shape = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    (result,) = ReferenceEvaluator(model).run(None, {"x": np.random.default_rng(4).standard_normal(shape)})
    return np.asarray(result)


@pytest.mark.parametrize("case", FOLDED)
def test_folded_models_compute_the_same(case: str) -> None:
    model = _model(*FOLDED[case])
    before = _run(model)
    assert fold_batch_normalization(model.graph) == 1
    assert [node.op_type for node in model.graph.node] == ["Gemm" if "gemm" in case else "Conv"]
    assert len(model.graph.initializer) == 2
    np.testing.assert_allclose(_run(model), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", KEPT)
def test_what_cannot_be_folded_stays_as_it_is(case: str) -> None:
    model = _model(*KEPT[case])
    before = model.SerializeToString()
    assert fold_batch_normalization(model.graph) == 0
    assert model.SerializeToString() == before


def test_a_chain_is_folded_link_by_link() -> None:
    second = "double[6,6] u, double[6] h, double[6] i, double[6] j, double[6] k"
    model = _model(
        "double[N,6] x",
        f"double[6,6] w, {second}",
        f"p = Gemm(x, w) n = {NORM}(p, g, b, m, v) r = Relu(n) q = Gemm(r, u) s = Abs(k) "
        f"y = {NORM}(q, h, i, j, s)",
    )
    before = _run(model)
    assert fold_batch_normalization(model.graph) == 1, "the variance of the second one is computed"
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["Gemm", "Relu", "Gemm", "Abs", "BatchNormalization"]
    np.testing.assert_allclose(_run(model), before, rtol=1e-12, atol=1e-12)
