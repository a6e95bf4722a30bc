"""Operators that pick elements by indices, or put them somewhere."""

from __future__ import annotations

import numpy as np

from cases.row import case, conditions, graph, having, indices, spaced, with_zeros

REDUCTIONS = (
    ("none", "{}".format, "{}".format),
    ("add", "{}".format, "{}".format),
    ("mul", with_zeros, with_zeros),
    ("max", spaced, lambda dims: spaced(dims, offset=0.05)),
    ("min", spaced, lambda dims: spaced(dims, offset=0.05)),
)
"""Of scattering: how the data and the updates are drawn so that none tie."""

UNPOOLED = [
    ("N 2 4 6", having(kernel_shape=[2, 2], strides=[2, 2])),
    ("N 2 6", having(kernel_shape=[2], strides=[2], pads=[1, 1])),
    ("N 1 5 4", having(kernel_shape=[2, 1], strides=[3, 1])),
]
"""What is pooled, and how, before it is spread again."""

INDEXING = [
    *(
        graph(
            "MaxUnpool",
            lambda op, x, how=how: op.MaxUnpool(*op.MaxPool(x, outputs=2, **how), **how),
            spaced(dims),
        )
        for dims, how in UNPOOLED
    ),
    case("ReverseSequence", "5 3 H", np.array([1, 3, 5])),
    case("ReverseSequence", "3 5 2", np.array([2, 5, 4]), time_axis=1, batch_axis=0),
    case("Gather", "5 3", indices("4", 5)),
    case("Gather", "5 3", indices("N 2", 5)),
    case("Gather", "5", indices("N", 5)),
    case("Gather", "N 5 3", indices("6", 5), axis=1),
    case("Gather", "N 4", indices("2 3", 4), axis=-1),
    case("Gather", "N H W", indices("", 3), axis=1),
    case("Gather", "5 H W", indices("3 2", 5)),
    case("Gather", "N 5", np.array(2), axis=1),
    case("Gather", "N 5", np.array(-1), axis=-1),
    case("Gather", "N 5 2", [1, 2, 3], axis=1),
    case("Gather", "N 5 2", [3, -5, 1], axis=1),
    case("Gather", "4 3", [2, 0, 3, 1]),
    case("Gather", "N 4", np.array([[0, 2], [3, 1]]), axis=1),
    case("Gather", "N 4", [1, 1, 2], axis=1),
    case("Gather", "N H", np.array(-1), axis=1),
    case("GatherElements", "4 3", indices("2 3", 4)),
    case("GatherElements", "N 5", indices("N 4", 5), axis=1),
    case("GatherElements", "N 4 2", indices("N 6 2", 4), axis=1),
    case("GatherND", "4 3", indices("5 1", 3)),
    case("GatherND", "3 4 2", indices("N 2", 3)),
    case("GatherND", "3 3", indices("2 N 2", 3)),
    case("GatherND", "4 3 2", indices("1", 4)),
    case("GatherND", "N 4 2", indices("N 1", 4), batch_dims=1),
    case("GatherND", "N 3 2", indices("N 4 1", 3), batch_dims=1),
    case("GatherND", "N 2 3 4", indices("N 2 5 2", 3), batch_dims=2),
    case("GatherND", "N 3 H", indices("N 2 1", 3), batch_dims=1),
    case("TopK", spaced("N 5"), [2], outputs=2, projected=1),
    case("TopK", spaced("4 3"), [2], outputs=2, projected=1, axis=0, largest=0),
    case("TopK", spaced("N 4 2"), [3], outputs=2, projected=1, axis=-2),
    graph("TopK", lambda op, x: op.ReduceSum(op.Exp(op.TopK(x, [3], outputs=2, sorted=0)[0])), spaced("N 5")),
    graph(
        "TopK",
        lambda op, x: op.ReduceSum(op.Exp(op.TopK(x, [2], outputs=2, sorted=0, largest=0)[0]), [1]),
        spaced("N 4"),
    ),
    case("Compress", "N 4", [True, False, True, True], axis=1),
    case("Compress", "4 3 2", conditions("3"), axis=-2),
    case("Compress", "N 4", [False, True], axis=1),
    case("Compress", "N 4", conditions("3")),
    case("OneHot", indices("N 2", 5), 5, "2"),
    case("OneHot", indices("N", 4), 4, "2", axis=0),
    *(
        row
        for reduction, draw, new in REDUCTIONS
        for row in (
            case(
                "ScatterElements",
                *(draw("2 4"), np.array([[1, -1], [0, 2]]), new("2 2")),
                axis=1,
                reduction=reduction,
            ),
            case(
                "ScatterElements",
                *(draw("4 3"), np.array([[1, 0, 3], [-1, 2, 1]]), new("2 3")),
                reduction=reduction,
            ),
            case("ScatterND", draw("5 3"), np.array([[1], [-1]]), new("2 3"), reduction=reduction),
            case(
                "ScatterND",
                *(draw("2 3 2"), np.array([[[0, 2], [1, -2]]]), new("1 2 2")),
                reduction=reduction,
            ),
        )
    ),
    *(
        row
        for reduction, draw, new in REDUCTIONS[1:]
        for row in (
            case(
                "ScatterElements",
                *(draw("N 4"), indices("N 6", 4), new("N 6")),
                axis=1,
                reduction=reduction,
            ),
            case("ScatterND", draw("4 2"), indices("N 5 1", 4), new("N 5 2"), reduction=reduction),
        )
    ),
    case("ScatterND", "N 3", np.array([[0]]), "1 3"),
    graph("Gather", lambda op, x: op.Mul(op.Gather(x, [0], axis=1), x), "N 3"),
]
