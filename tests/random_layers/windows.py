"""Convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from hypothesis import strategies as st

from random_layers.growing import LARGEST, Draw, Growing, layer, pair, sizes


def _pads(draw: Draw, x: ir.Value, kernel: Sequence[int], dilations: Sequence[int], most: int) -> list[int]:
    """Pads with which at least one window fits."""
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    begins, ends = ([draw(st.integers(0, min(most, k - 1))) for k in kernel] for _ in range(2))
    fits = (n + b + e >= s for n, b, e, s in zip(sizes(x)[1:], begins, ends, spans, strict=True))
    return [*begins, *ends] if all(fits) else []


def _drops_last(x: ir.Value, window: dict[str, Any], dilations: Sequence[int]) -> bool:
    """Whether ceil_mode adds a window that begins in the end pad, which runtimes leave out."""
    axes = zip(
        *(sizes(x)[1:], window["kernel_shape"], window["strides"], dilations),
        *(window["pads"][:2], window["pads"][2:]),
        strict=True,
    )
    return any(-((d * (k - 1) + 1 - n - b - e) // s) * s >= n + b for n, k, s, d, b, e in axes)


@layer(weight=5)
def conv(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels = sizes(x)[0]
    kernel, dilations = pair(draw, 1, 3), draw(st.sampled_from([[1, 1], [1, 1], [2, 1], [2, 2]]))
    group = draw(st.sampled_from([g for g in (1, 1, 2, channels) if channels % g == 0]))
    out = group * draw(st.integers(1, 2)) if group > 1 else draw(st.integers(1, 5))
    window: dict[str, Any] = {"strides": draw(st.sampled_from([[1, 1], [1, 1], [2, 2], [1, 2]]))}
    if draw(st.integers(0, 3)) == 0 and dilations == [1, 1]:
        window["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    else:
        window |= {"pads": _pads(draw, x, kernel, dilations, 2), "dilations": dilations}
        if not window["pads"]:
            return None
    bias = [net.weight(out)] if draw(st.booleans()) else []
    weight = net.weight(out, channels // group, *kernel)
    y: ir.Value = net.op.Conv(x, weight, *bias, group=group, **window)
    return y


@layer(weight=2)
def conv_transpose(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    channels, *space = sizes(x)
    kernel, strides = pair(draw, 1, 3), draw(st.sampled_from([[1, 1], [2, 2], [1, 2]]))
    pads = [*(draw(st.integers(0, k - 1)) for k in kernel * 2)]
    after = [
        (n - 1) * s + k - b - e
        for n, s, k, b, e in zip(space, strides, kernel, pads[:2], pads[2:], strict=True)
    ]
    if min(after) < 1 or max(after) > LARGEST + 2:
        return None
    group = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    outer = draw(st.integers(1, 3)) if group == 1 else 1
    added = [draw(st.integers(0, s - 1)) for s in strides]
    bias = [net.weight(group * outer)] if draw(st.booleans()) else []
    weight = net.weight(channels, outer, *kernel)
    y: ir.Value = net.op.ConvTranspose(
        x, weight, *bias, group=group, strides=strides, pads=pads, output_padding=added
    )
    return y


@layer(weight=3)
def pool(draw: Draw, net: Growing, x: ir.Value) -> ir.Value | None:
    kind = draw(st.sampled_from(["MaxPool", "MaxPool", "AveragePool", "LpPool"]))
    kernel, strides = pair(draw, 1, 3), pair(draw, 1, 2)
    dilations = draw(st.sampled_from([[1, 1], [1, 1], [2, 1]])) if kind == "MaxPool" else [1, 1]
    window: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    # onnx's ReferenceEvaluator averages no windows with gaps between them where auto_pad says SAME.
    gaps = kind == "AveragePool" and any(k < s for k, s in zip(kernel, strides, strict=True))
    if draw(st.integers(0, 3)) == 0 and kind != "LpPool" and not gaps:
        window["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    else:
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        window["pads"] = _pads(draw, x, kernel, dilations, 1)
        if not window["pads"] or any(n < s for n, s in zip(sizes(x)[1:], spans, strict=True)):
            return None  # a window of nothing but pads has no largest element
        window["ceil_mode"] = draw(st.integers(0, 1))
        if window["ceil_mode"] and _drops_last(x, window, dilations):
            return None  # inference of our opset and runtimes differ: see test_foreign_windows.py
    if kind == "MaxPool":
        return net.op.MaxPool(x, dilations=dilations if "pads" in window else None, **window)
    if kind == "AveragePool":
        return net.op.AveragePool(x, count_include_pad=draw(st.integers(0, 1)), **window)
    # Its root has a pole at 0, which what a rectifier gives would meet.
    return net.op.LpPool(net.op.Softplus(x), p=draw(st.integers(1, 3)), **window)


@layer()
def gate(draw: Draw, net: Growing, x: ir.Value) -> ir.Value:
    """Squeeze and excite."""
    channels = sizes(x)[0]
    kind = draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"]))
    squeezed = net.op.builder.op(kind, x)
    gates = net.op.Sigmoid(net.op.Conv(squeezed, net.weight(channels, channels, 1, 1), net.weight(channels)))
    y: ir.Value = net.op.Mul(*draw(st.permutations([x, gates])))
    return y
