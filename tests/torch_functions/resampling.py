"""Resize and GridSample."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def grid_sample(
    x: Tensor, grid: Tensor, *, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: int = 0
) -> Tensor:
    return F.grid_sample(x, grid, mode, padding_mode, bool(align_corners))


FUNCTIONS: dict[str, Callable[..., Tensor]] = {"GridSample": grid_sample}
