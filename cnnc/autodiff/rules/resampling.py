"""Resampling: each element of the output is a weighted sum of elements of the input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnc.autodiff.rule import Context, Gradients, Value, rule
from cnnc.ir import Dim, is_static


@rule("Resize")
def resize(op: Context, dy: Value) -> Gradients:
    before, after = op.dims(op.x), op.dims(op.y)
    rank = len(before)
    axes = [axis % rank for axis in op.attr("axes") or range(rank)]
    scales, roi = [1.0] * rank, [0.0] * rank + [1.0] * rank
    # A scale of 0 is the size of dy over that of x.
    given = op.constant(2) or _one_scale(op, axes) or [float(before[axis] == after[axis]) for axis in axes]
    for axis, scale in zip(axes, given, strict=True):
        scales[axis] = scale
    if op.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        for i, edge in enumerate(op.constant(1) or []):
            roi[axes[i % len(axes)] + rank * (i // len(axes))] = edge
    if scales == [1.0] * rank and roi == [0.0] * rank + [1.0] * rank:
        return dy
    modes = ("mode", "coordinate_transformation_mode", "nearest_mode")
    settings = ("cubic_coeff_a", "exclude_outside", "antialias")
    attributes = {name: op.attr(name) for name in (*modes, *settings)}
    return op.ResizeGrad(dy, op.x, **attributes, scales=scales, roi=roi)


def _one_scale(op: Context, axes: Sequence[int]) -> list[float] | None:
    """The scale of all axes where their ratio is kept: the smallest or the largest that the sizes ask for.

    It is 0, dy's size by x's, along the axes whose sizes make it.
    """
    policy = op.attr("keep_aspect_ratio_policy")
    if policy == "stretch":
        return None
    before, after = ([op.dims(value)[axis] for axis in axes] for value in (op.x, op.y))
    if not is_static((*before, *after)):
        raise op.unsupported(f"keep_aspect_ratio_policy='{policy}' and the symbolic sizes {before}")
    if op.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise op.unsupported(f"keep_aspect_ratio_policy='{policy}' and a region that is cropped")
    wanted = _ratios(op.constant(3) or [], before)
    scale = min(wanted) if policy == "not_larger" else max(wanted)
    if scale == 1.0:
        return [1.0] * len(axes)
    return [0.0 if ratio == scale else float(scale) for ratio in _ratios(after, before)]


def _ratios(sizes: Sequence[Dim], before: Sequence[Dim]) -> list[np.float32]:
    """Sizes over sizes, as runtimes divide them."""
    return [np.float32(int(a)) / np.float32(int(b)) for a, b in zip(sizes, before, strict=True)]


@rule("GridSample")
def grid_sample(op: Context, dy: Value) -> Gradients:
    """Moving the grid changes nothing where the nearest element is taken."""
    x, grid = op.inputs
    attributes = {name: op.attr(name) for name in ("mode", "padding_mode", "align_corners")}
    dgrid = None if attributes["mode"] == "nearest" else op.GridSampleGradGrid(dy, grid, x, **attributes)
    return op.GridSampleGradInput(dy, grid, x, **attributes), dgrid
