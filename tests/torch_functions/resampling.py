"""Resize and GridSample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def resize(
    x: Tensor,
    _roi: None,
    scales: np.ndarray | None,
    sizes: Sequence[int] | None = None,
    *,
    mode: str,
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    antialias: int = 0,
    exclude_outside: int = 0,
    axes: Sequence[int] | None = None,
) -> Tensor:
    """The modes that PyTorch has, along the spatial axes."""
    assert antialias == exclude_outside
    rank = x.ndim
    wanted: Sequence[float] | None = sizes if scales is None else scales.tolist()
    assert wanted is not None
    given = dict(zip(axes or range(rank), wanted, strict=True))
    space = [given.get(axis, x.shape[axis] if scales is None else 1.0) for axis in range(2, rank)]
    if mode == "nearest":
        exact = (coordinate_transformation_mode, nearest_mode) == ("half_pixel", "round_prefer_ceil")
        assert exact or (coordinate_transformation_mode, nearest_mode) == ("asymmetric", "floor")
        name = "nearest-exact" if exact else "nearest"
    else:
        names = {"linear": ["linear", "bilinear", "trilinear"], "cubic": ["", "bicubic", ""]}
        name = names[mode][rank - 3]
        assert coordinate_transformation_mode in ("half_pixel", "pytorch_half_pixel", "align_corners")
    corners = None if mode == "nearest" else coordinate_transformation_mode == "align_corners"
    target: dict[str, Any] = {"size": space} if scales is None else {"scale_factor": space}
    return F.interpolate(x, **target, mode=name, align_corners=corners, antialias=bool(antialias))


def grid_sample(
    x: Tensor, grid: Tensor, *, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: int = 0
) -> Tensor:
    return F.grid_sample(x, grid, mode, padding_mode, bool(align_corners))


FUNCTIONS: dict[str, Callable[..., Tensor]] = {"Resize": resize, "GridSample": grid_sample}
