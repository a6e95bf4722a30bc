"""Operators that stay in the layout of what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from cnnc.ir import dims_of, sizes_of, type_of
from cnnc.layout import overlaps
from cnnc.layout.form import Output, Pending, Site, Value, follower
from cnnc.layout.ops import STEEP
from cnnc.layout.order import LAYOUTS, Tiled
from cnnc.layout.relayout import Pool, is_map


@follower(
    *("Abs", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("LeakyRelu", "Log", "Mish", "Mul", "Div", "Sub", "Max", "Min", "Neg", "Pow", "Reciprocal", "Selu"),
    *("Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu", "Where", "Greater"),
    *("Less", "Equal", "And", "Or", "Not", "Cast", "CastLike", "Identity", "PRelu"),
)
def elementwise(op: Site) -> Output:
    """The operator itself, on operands brought to one layout."""
    if any(isinstance(dim, str) for out in op.node.outputs for dim in dims_of(out)):
        return None
    if isinstance(op.layout, Tiled) or not all(is_map(out) for out in op.node.outputs):
        return None
    operands = [_operand(op, i) for i in range(len(op.node.inputs))]
    attributes = {name: attr.value for name, attr in op.node.attributes.items()}
    return op.builder.op(op.node.op_type, *operands, dims=op.layout.dims(op.out), **attributes)


def _operand(op: Site, index: int) -> Value | None:
    """An operand that broadcasts against maps of the layout."""
    value = op.value(index)
    if value is None:
        return None
    dims = op.dims(index)
    if is_map(value) and dims == op.out:
        return op.read(index)
    plain = op.plain(index)
    if not dims or prod(dims) == 1:
        return plain if not dims else op.reshape(plain, (1,) * 4)
    full = op.reshape(plain, (1,) * (4 - len(dims)) + dims)
    return op.layout.beside(op, full)


@follower("Relu")
def relu(op: Site) -> Output:
    """In the pass that computes its input, where that one is still to come."""
    waiting = op.pending(0)
    if waiting is None or waiting.outer is not None:
        return op.Relu(op.read(0))
    return op.layout.affine(
        op, waiting.z, op.sizes(), scale=waiting.scale, shift=waiting.shift, plus=waiting.plus, relu=True
    )


@follower("ReluGrad")
def relu_grad(op: Site) -> Output:
    """dy · [y > 0], the mask once for all that read it."""
    return op.Mul(op.read(0), positive(op, 1))


def positive(op: Site, index: int) -> Value:
    """1 where a map is positive, else 0; made once."""
    return op.share(
        "positive",
        op.value(index),
        op.layout,
        make=lambda: op.HardSigmoid(op.read(index), alpha=STEEP, beta=0.0),
    )


@follower("Add")
def add(op: Site) -> Output:
    """A sum with a map that is still to be scaled and shifted waits, too: a ReLU may come."""
    if isinstance(op.layout, Tiled) or op.dims(0) != op.dims(1) or not all(map(is_map, op.node.inputs)):
        return elementwise(op)
    for one, other in ((0, 1), (1, 0)):
        waiting = op.pending(one)
        if waiting is not None and waiting.plus is None and waiting.outer is None:
            return replace(waiting, plus=op.read(other))
    return op.Add(op.read(0), op.read(1))


@follower("Sum")
def sum_(op: Site) -> Output:
    """All contributions to a gradient."""
    if not all(is_map(value) and op.dims(i) == op.out for i, value in enumerate(op.node.inputs)):
        return elementwise(op)
    return op.Sum(*(op.read(i) for i in range(len(op.node.inputs))), dims=op.layout.dims(op.out))


@follower("ConvGradBias")
def bias_gradient(op: Site) -> Output:
    """Σ dy per channel. Behind a max pool the pooled gradient has the same sum, and is a quarter as large."""
    source = op.value(0)
    node = None if source is None else source.producer()
    if node is not None and node.op_type == "MaxPoolGrad" and node.inputs[2] in op.step.pools:
        pool = op.step.pools[node.inputs[2]]
        dy = node.inputs[0]
        assert dy is not None
        n, c, h, w = sizes_of(dy)
        return pool.layout.base.channel_sum(op, op.step.read(dy, pool.layout.base), (n, c, h, w))
    core, outer = op.core(0)
    total = op.layout.channel_sum(op, core, op.sizes())
    return total if outer is None else op.Mul(total, outer)


@follower("GlobalAveragePool")
def global_average_pool(op: Site) -> Output:
    """The mean over space, as a sum along rows or down columns."""
    n, c, h, w = op.sizes()
    lead, tail = op.layout.around(op.sizes())
    rows = (lead, h * w, tail) if tail > 1 else (lead, h * w)
    mean = op.ReduceMean(op.reshape(op.read(0), rows), [1], keepdims=0)
    return op.reshape(mean, op.layout.dims((n, c, 1, 1)))


@follower("Expand", anywhere=True)
def expand(op: Site) -> Output:
    """A map of one element a channel, repeated over space: the gradient of global pooling.

    Promised in every layout, whichever it will be read in.
    """
    if not is_map(op.node.outputs[0]) or not is_map(op.value(0)) or op.dims(0) != (*op.out[:2], 1, 1):
        return None
    if not op.layout.plain:
        return _repeated(op)
    for layout in LAYOUTS.values():
        if not layout.plain and layout.fits(op.out[0]):
            there = Site(op.step, op.node, layout, op.builder)
            op.step.makers[op.node.outputs[0], layout] = partial(_repeated, there)
    return None


def _repeated(op: Site) -> Value:
    """Each element along axes H and W: where these are innermost a product with ones is fastest."""
    _, _, h, w = op.out
    lead, tail = op.layout.around(op.out)
    if tail == 1:
        ones = np.ones((1, h * w), type_of(op.node.outputs[0]).dtype.numpy())
        repeated = op.MatMul(op.reshape(op.read(0), (lead, 1)), ones)
    else:
        dims = (lead, h * w, tail)
        repeated = op.Expand(op.reshape(op.read(0), (lead, 1, tail)), dims, dims=dims)
    return op.reshape(repeated, op.layout.dims(op.out))


@follower("BatchNormalizationTraining")
def batch_normalization(op: Site) -> Sequence[Output]:
    """The statistics in one pass each; the scaling and shifting waits for what follows.

    The variance is E[x²] - E[x]², whose relative error is about float32's rounding times mean²/variance: a
    step that is to be exact has E[(x - E[x])²], one more pass.
    """
    _, scale, bias, running_mean, running_var = (op.plain(i) if i else None for i in range(5))
    x, sizes, momentum = op.read(0), op.sizes(), op.attr("momentum")
    share = 1.0 / (prod(sizes) // sizes[1])
    mean = op.Mul(op.layout.channel_sum(op, x, sizes), share)
    if op.exact:
        x = _centred(op, 0, mean)
    square = op.Mul(op.layout.channel_dot(op, x, x, sizes), share)
    var = square if op.exact else op.Max(op.Sub(square, op.Mul(mean, mean)), 0.0)
    inv_std = op.Reciprocal(op.Sqrt(op.Add(var, op.attr("epsilon"))))
    factor = op.Mul(inv_std, scale)
    next_mean = op.Add(op.Mul(running_mean, momentum), op.Mul(mean, 1.0 - momentum))
    next_var = op.Add(op.Mul(running_var, momentum), op.Mul(var, 1.0 - momentum))
    shift = bias if op.exact else op.Sub(bias, op.Mul(mean, factor))
    return Pending(op.layout, x, scale=factor, shift=shift), next_mean, next_var, mean, inv_std


@follower("BatchNormalizationGrad")
def batch_normalization_grad(op: Site) -> Sequence[Output]:
    """dx = a·(dy + p·x + q) with vectors a, p and q: it waits, and a convolution takes a into its weight."""
    scale, mean, inv_std = (op.plain(i) for i in (2, 3, 4))
    dy, sizes = op.read(0), op.sizes(1)
    x = _centred(op, 1, mean) if op.exact else op.read(1)
    share = -1.0 / (prod(sizes) // sizes[1])
    dbias = op.layout.channel_sum(op, dy, sizes)
    dot = op.layout.channel_dot(op, dy, x, sizes)
    dscale = op.Mul(dot if op.exact else op.Sub(dot, op.Mul(mean, dbias)), inv_std)
    slope = op.Mul(op.Mul(dscale, inv_std), share)
    shift = op.Mul(dbias, share)
    if not op.exact:
        shift = op.Sub(shift, op.Mul(slope, mean))
    dx = Pending(op.layout, x, scale=slope, shift=shift, plus=dy, outer=op.Mul(scale, inv_std))
    return dx, dscale, dbias


def _centred(op: Site, index: int, mean: Value) -> Value:
    """A map less the mean of each channel, made once."""
    return op.share(
        "centred",
        op.value(index),
        op.layout,
        make=lambda: op.layout.affine(op, op.read(index), op.sizes(index), shift=op.Neg(mean)),
    )


@follower("MaxPool")
def max_pool(op: Site) -> Output:
    """Tiles side by side: the maximum over an axis of their own. A shift of the channels moves behind it."""
    if not _tiles(op):
        return overlaps.pooled(op) if overlaps.gathers(op) else None
    waiting = op.pending(0)
    moved = waiting is not None and (waiting.scale, waiting.plus, waiting.outer) == (None, None, None)
    z = waiting.z if waiting is not None and moved else op.read(0)
    base = op.layout.base
    pooled = op.reshape(_over_tiles(op, z, "ReduceMax"), base.dims(op.out))
    op.step.pools[op.node.outputs[0]] = Pool(op.layout, z, pooled)
    return replace(waiting, layout=base, z=pooled) if waiting is not None and moved else Pending(base, pooled)


@follower("MaxPoolGrad")
def max_pool_grad(op: Site) -> Output:
    """dy shared evenly by the elements of a tile that equal its maximum, found before any shift."""
    pool = op.step.pools.get(op.value(2))
    if pool is None:
        return overlaps.pooled_gradient(op) if overlaps.gathers(op) else None
    op.layout = pool.layout
    mask = op.HardSigmoid(op.Sub(_apart(op, pool.x), _together(op, pool.y)), alpha=STEEP, beta=1.0)
    ties = _over_tiles(op, mask, "ReduceSum")
    share = op.Div(op.reshape(op.read(0, pool.layout.base), dims_of(ties)), ties)
    return op.reshape(op.Mul(mask, _together(op, share)), op.layout.dims(op.sizes(1)))


def _tiles(op: Site) -> bool:
    """Whether a pool's windows lie side by side and cover the map, in rows long enough to be fast."""
    if not op.window.tiles or op.attr("ceil_mode", 0) or op.window.rank != 2 or len(op.node.outputs) > 1:
        return False
    if isinstance(op.layout, Tiled):
        return op.layout.tile == op.window.kernel_shape
    covered = all(size % tile == 0 for size, tile in zip(op.sizes()[2:], op.window.kernel_shape, strict=True))
    return covered and op.layout.around(op.sizes())[1] > 1


def _tile_axes(op: Site) -> tuple[int, int, int, int, int]:
    """[rows of tiles, tile height, tiles in a row, tile width, elements behind] of the site's pooled map."""
    th, tw = op.window.kernel_shape
    n, c, h, w = op.sizes(1 if op.node.op_type == "MaxPoolGrad" else 0)
    lead, tail = op.layout.around((n, c, h, w))
    return lead * (h // th), th, w // tw, tw, tail


def _apart(op: Site, x: Value) -> Value:
    """A map with axes of their own for the elements of a tile."""
    if isinstance(op.layout, Tiled):
        c, tile, *rest = sizes_of(x)
        return op.reshape(x, (c, tile, prod(rest)))
    return op.reshape(x, _tile_axes(op))


def _together(op: Site, y: Value) -> Value:
    """A pooled map that broadcasts against `_apart`."""
    if isinstance(op.layout, Tiled):
        c, *rest = sizes_of(y)
        return op.reshape(y, (c, 1, prod(rest)))
    rows, _, columns, _, tail = _tile_axes(op)
    return op.reshape(y, (rows, 1, columns, 1, tail))


def _over_tiles(op: Site, x: Value, reduce: str) -> Value:
    """A reduction over the elements of each tile: axis by axis, each in the middle of three."""
    x = _apart(op, x)
    if isinstance(op.layout, Tiled):
        return op.builder.op(reduce, x, [1], keepdims=0)
    rows, th, columns, tw, tail = _tile_axes(op)
    down = op.builder.op(reduce, op.reshape(x, (rows, th, columns * tw * tail)), [1], keepdims=0)
    return op.builder.op(reduce, op.reshape(down, (rows * columns, tw, tail)), [1], keepdims=0)


@follower(
    *("SGDUpdate", "MomentumUpdate", "AdamUpdate", "NAdamUpdate", "LionUpdate", "RMSpropUpdate"),
    *("CenteredRMSpropUpdate", "AdagradUpdate", "AdadeltaUpdate"),
    anywhere=True,
)
def flat_update(op: Site) -> Sequence[Output] | None:
    """The update of a 1×1 filter as of a vector: a scalar is broadcast element by element along axes of 1."""
    dims = op.dims(0)
    if len(dims) < 2 or dims[-1] > 1:
        return None
    operands = [None if value is None else op.plain(i) for i, value in enumerate(op.node.inputs)]
    flat = [
        op.reshape(value, (prod(dims),)) if value is not None and dims_of(value) == dims else value
        for value in operands
    ]
    attributes = {name: attribute.value for name, attribute in op.node.attributes.items()}
    results = op.builder.op(op.node.op_type, *flat, **attributes)
    results = results if isinstance(results, tuple) else (results,)
    return [
        op.reshape(result, dims_of(value)) for result, value in zip(results, op.node.outputs, strict=True)
    ]
