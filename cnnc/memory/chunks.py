"""A batch in chunks, one after the other: activations of one chunk at a time, sums over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from cnnc.ir import Builder, Dim, TensorType, dims_of, is_static, type_of

Emit = Callable[[Builder, Sequence[ir.Value]], Mapping[str, ir.Value]]
"""Appends the work on one chunk of the batch to a builder; what it returns is added up over the chunks."""


def in_chunks(builder: Builder, count: int, batch: Sequence[ir.Value], emit: Emit) -> dict[str, ir.Value]:
    """Do `emit` on at most `count` chunks of `batch` in a Loop; return its sums over them.

    Chunks have equal sizes but for the last; a batch of fewer examples than `count` has a chunk for each.
    """
    with builder.scope("chunks"):
        size, trips = _sizes(builder, batch[0], count)
    body = builder.inner("chunk")
    index = body.input("chunk/index", TensorType(ir.DataType.INT64, ()))
    going = body.input("chunk/going", TensorType(ir.DataType.BOOL, ()))
    with body.scope("chunk"):
        begin = body.op("Mul", size, index)
        end = body.op("Add", begin, size)
        parts = [
            body.op("Slice", value, begin, end, [0], name=f"chunk/{value.name}", dims=dims_of(value))
            for value in batch
        ]
    sums = emit(body, parts)
    with body.scope("chunk"):
        outputs = [body.op("Identity", going)]
        for name, value in sums.items():
            before = body.input(f"chunk/{name}/before", type_of(value))
            outputs.append(body.op("Add", before, value, name=f"chunk/{name}/after"))
    body.graph.outputs.extend(outputs)
    _rename(body.graph, dims_of(batch[0])[0], "chunk/N")
    with builder.scope("chunks"):
        begun = [_zeros(builder, value) for value in sums.values()]
        totals = builder.loop(body, trips, begun, name="chunks")
    return dict(zip(sums, totals, strict=True))


def _rename(graph: ir.Graph, symbol: Dim, other: str) -> None:
    """Call the batch of a chunk by another name than that of the whole batch."""
    for node in graph.all_nodes():
        for value in node.outputs:
            value.shape = ir.Shape(other if dim == symbol else dim for dim in dims_of(value))


def _sizes(builder: Builder, image: ir.Value, count: int) -> tuple[ir.Value, ir.Value]:
    """The size of a chunk, [1], and the number of chunks, a scalar."""
    rows = builder.op("Shape", image, start=0, end=1)
    size = builder.op("Div", builder.op("Add", rows, count - 1), count)
    trips = builder.op("Div", builder.op("Add", rows, builder.op("Sub", size, 1)), size)
    return size, builder.op("Squeeze", trips, dims=())


def _zeros(builder: Builder, like: ir.Value) -> ir.Value:
    dims, dtype = dims_of(like), type_of(like).dtype
    assert is_static(dims)
    if not dims:
        return builder.constant(0, dtype)
    zero = ir.tensor([0], dtype)
    zeros: ir.Value = builder.op("ConstantOfShape", [int(d) for d in dims], value=zero, dims=dims)
    return zeros
