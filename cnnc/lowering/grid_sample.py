"""Bodies of the gradients of GridSample: x [N, C, H, W], grid [N, P, Q, 2], dy [N, C, P, Q].

A point of the grid reads T × T neighbours ("taps") of x, T = 1, 2, 4 for nearest, bilinear, bicubic. A tap's
weight along an axis is a polynomial of how far the point lies behind its base element: all weights are one
product with the polynomials' coefficients, and their slopes another. Padding concerns the integer places of
the taps alone: to interpolate between clipped or reflected places is to clip or reflect the point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cnnc.lowering.body import Call, Value, body

_A = -0.75  # of the cubic kernel (Keys, 1981), as ONNX Runtime, onnx and PyTorch have it
_WEIGHTS: dict[str, tuple[int, npt.NDArray[np.float64]]] = {
    "nearest": (0, np.array([[1.0]])),
    "bilinear": (0, np.array([[1.0, -1.0], [0.0, 1.0]])),
    "bicubic": (
        -1,
        np.array(
            [[0, _A, -2 * _A, _A], [1, 0, -_A - 3, _A + 2], [0, -_A, 2 * _A + 3, -_A - 2], [0, 0, _A, -_A]]
        ),
    ),
}
"""For each mode the first tap, counted from the base element, and rows of coefficients of 1, f, f², f³."""


@body("GridSampleGradInput")
def scattered(op: Call, dy: Value, grid: Value, x: Value) -> Value:
    """Each element of dy goes back to its taps by their weights, all in one ScatterElements that adds."""
    down, across = _taps(op, grid, x, axis=0), _taps(op, grid, x, axis=1)
    weights = op.Unsqueeze(_pairs(op, down.weights, across.weights), [1])
    shares = op.Reshape(op.Mul(_by_point(op, dy), weights), [0, 0, -1])
    places = op.Expand(_places(op, down, across, x), op.Shape(shares))
    zeros = op.Reshape(op.zeros(x), [0, 0, -1])
    return op.Reshape(
        op.ScatterElements(zeros, places, shares, axis=2, reduction="add"), op.Shape(x), dims=op.dims(x)
    )


@body("GridSampleGradGrid")
def gathered(op: Call, dy: Value, grid: Value, x: Value) -> Value:
    """Σ over channels of dy times the taps' elements, then over the taps by the slopes of their weights."""
    down, across = _taps(op, grid, x, axis=0), _taps(op, grid, x, axis=1)
    flat = op.Reshape(x, [0, 0, -1])
    places = _places(op, down, across, x)
    places = op.Expand(places, op.Concat(op.Shape(flat, end=2), op.Shape(places, start=2), axis=0))
    elements = op.GatherElements(flat, places, axis=2)
    elements = op.Reshape(elements, [0, 0, int(op.dims(down.weights)[1]) ** 2, -1])
    seen = op.ReduceSum(op.Mul(_by_point(op, dy), elements), [1], keepdims=0)
    sides = [
        op.Mul(op.ReduceSum(op.Mul(seen, pairs), [1], keepdims=0), axis.scale)
        for pairs, axis in [
            (_pairs(op, down.weights, across.slopes), across),
            (_pairs(op, down.slopes, across.weights), down),
        ]
    ]
    both = op.Concat(*(op.Unsqueeze(side, [2]) for side in sides), axis=2)
    return op.Reshape(both, op.Shape(grid), dims=op.dims(grid))


@dataclass(frozen=True)
class _Taps:
    """What the points read along one axis, [N, T, P·Q] each; `scale` elements of x are a unit of the grid."""

    places: Value
    weights: Value
    slopes: Value
    scale: Value


def _taps(op: Call, grid: Value, x: Value, axis: int) -> _Taps:
    """Along spatial axis 0, whose coordinate stands last in the grid, or 1."""
    aligned, (first, coefficients) = op.attr("align_corners"), _WEIGHTS[op.attr("mode")]
    size = op.CastLike(op.Squeeze(op.Shape(x, start=axis + 2, end=axis + 3)), x)
    last = op.Sub(size, 1.0)
    # In ONNX Runtime's own order of operations, so that a point that lies between two elements rounds alike.
    unit = op.Add(op.Gather(op.Reshape(grid, [0, 1, -1, 2]), 1 - axis, axis=3), 1.0)
    point = op.Mul(op.Div(unit, 2.0), last) if aligned else op.Div(op.Sub(op.Mul(unit, size), 1.0), 2.0)
    base = op.Round(point) if op.attr("mode") == "nearest" else op.Floor(point)
    behind = op.Sub(point, base)
    powers = [op.CastLike(op.Equal(base, base), x), behind, op.Mul(behind, behind)]
    powers = op.Concat(*powers, op.Mul(powers[2], behind), axis=1)

    def polynomials(rows: npt.NDArray[np.float64]) -> Value:
        padded = np.zeros((len(rows), 4))
        padded[:, : rows.shape[1]] = rows
        return op.MatMul(op.builder.constant(padded, x.dtype), powers)

    ahead = op.builder.constant(first + np.arange(len(coefficients))[:, None], x.dtype)
    places, weights = op.Add(base, ahead), polynomials(coefficients)
    slopes = polynomials(coefficients[:, 1:] * np.arange(1, coefficients.shape[1]))
    kept = _padded(op, places, size, last)
    if op.attr("padding_mode") == "zeros":
        inside = op.CastLike(op.Equal(kept, places), x)
        weights, slopes = op.Mul(weights, inside), op.Mul(slopes, inside)
    scale = op.Div(last if aligned else size, 2.0)
    return _Taps(op.Cast(kept, to=int(ir.DataType.INT64)), weights, slopes, scale)


def _padded(op: Call, places: Value, size: Value, last: Value) -> Value:
    """Places inside of x: clipped, or reflected at the outermost elements or half an element beyond them."""
    if op.attr("padding_mode") == "reflection":
        aligned = op.attr("align_corners")
        period = op.Max(op.Mul(last if aligned else size, 2.0), 1.0)
        phase = op.Sub(places, op.Mul(period, op.Floor(op.Div(places, period))))
        mirrored = op.Sub(period, phase)
        places = op.Min(phase, mirrored if aligned else op.Sub(mirrored, 1.0))
    return op.Max(op.Min(places, last), 0.0)


def _pairs(op: Call, down: Value, across: Value) -> Value:
    """Products for each pair of taps: [N, T, P·Q] twice → [N, T·T, P·Q]."""
    taps = int(op.dims(down)[1])
    return op.Reshape(op.Mul(op.Unsqueeze(down, [2]), op.Unsqueeze(across, [1])), [0, taps * taps, -1])


def _places(op: Call, down: _Taps, across: _Taps, x: Value) -> Value:
    """The places of each point's taps in the flat image: [N, 1, T·T·P·Q]."""
    rows = op.Mul(down.places, op.Shape(x, start=3))
    both = op.Add(op.Unsqueeze(rows, [2]), op.Unsqueeze(across.places, [1]))
    return op.Reshape(both, [0, 1, -1])


def _by_point(op: Call, dy: Value) -> Value:
    """[N, C, P, Q] → [N, C, 1, P·Q], to go with the taps."""
    return op.Reshape(dy, [0, 0, 1, -1])
