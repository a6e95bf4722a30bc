"""Resize and GridSample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cases.row import Array, Attributes, Case, case, fixed, inside


def scaled(x: str, *scales: float, **attributes: Any) -> Case:
    return case("Resize", x, None, np.array(scales, np.float32), **attributes)


def sized(x: str, *sizes: int, **attributes: Any) -> Case:
    return case("Resize", x, None, None, list(sizes), **attributes)


def unknown_to_pytorch(row: Case) -> Case:
    """As a graph, which is not compared with PyTorch."""
    return replace(row, graph=lambda op, *inputs: op.Resize(*inputs, **row.attributes))


CROP: Attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0}
REGIONS: list[tuple[str, Array | None]] = [
    *((mode, None) for mode in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")),
    *((mode, None) for mode in ("align_corners", "asymmetric")),
    ("tf_crop_and_resize", np.array([0.1, 0.03, 0.9, 0.8], np.float32)),
]

RESIZE = [
    # An axis that is resized and keeps its size, where PyTorch leaves it as it is.
    *(unknown_to_pytorch(scaled("N 2 2 5", 1, 1, 1.2, 1.2, mode=mode)) for mode in ("linear", "cubic")),
    unknown_to_pytorch(
        sized("3 1 2 5", 2, 6, mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_smaller")
    ),
    *(
        scaled("N 2 3 4", 1, 1, 2, 3, mode="nearest", coordinate_transformation_mode=mode, nearest_mode=whole)
        for mode, whole in [("asymmetric", "floor"), ("half_pixel", "round_prefer_ceil")]
    ),
    *(
        unknown_to_pytorch(
            scaled(
                "N 2 3 4", 1, 1, 2, 3, mode="nearest", coordinate_transformation_mode=mode, nearest_mode=whole
            )
        )
        for mode, whole in [
            ("asymmetric", "ceil"),
            ("half_pixel", "round_prefer_floor"),
            ("half_pixel", "floor"),
            ("half_pixel_symmetric", "round_prefer_ceil"),
            ("pytorch_half_pixel", "round_prefer_floor"),
            ("align_corners", "ceil"),
        ]
    ),
    *(
        scaled("N 2 4 5", *scales, mode=mode, coordinate_transformation_mode=coordinates)
        for mode in ("linear", "cubic")
        for scales in ((1, 1, 2, 3), (1, 1, 0.5, 0.4))
        for coordinates in ("half_pixel", "pytorch_half_pixel")
    ),
    *(
        sized("2 2 4 5", 2, 2, *sizes, mode=mode, coordinate_transformation_mode=coordinates)
        for mode in ("linear", "cubic")
        for sizes, coordinates in [((7, 3), "half_pixel"), ((3, 9), "align_corners")]
    ),
    *(
        unknown_to_pytorch(
            sized("2 2 4 5", 2, 2, *sizes, mode=mode, coordinate_transformation_mode=coordinates)
        )
        for mode in ("nearest", "linear", "cubic")
        for sizes, coordinates in [((8, 5), "half_pixel_symmetric"), ((3, 9), "asymmetric")]
    ),
    unknown_to_pytorch(sized("2 2 4 5", 2, 2, 2, 6, mode="nearest")),
    unknown_to_pytorch(sized("2 2 3 4", 2, 2, 6, 4, mode="nearest")),
    sized("2 2 3 4", 2, 2, 1, 1, mode="linear", coordinate_transformation_mode="align_corners"),
    unknown_to_pytorch(scaled("N 2 3 4", 1, 1, 2, 1, mode="cubic", cubic_coeff_a=-0.5)),
    unknown_to_pytorch(scaled("N 2 3 4", 1, 1, 2.5, 1.5, mode="cubic", exclude_outside=1)),
    unknown_to_pytorch(scaled("N 2 6 7", 1, 1, 0.5, 0.6, mode="linear", antialias=1)),
    sized("2 2 6 8", 2, 2, 3, 5, mode="linear", antialias=1, exclude_outside=1),
    unknown_to_pytorch(scaled("N 2 6 7", 1, 1, 0.5, 0.6, mode="cubic", antialias=1)),
    scaled("N 2 3 4", 1.5, 2, mode="linear", axes=[3, 2]),
    sized("N 2 3 4", 7, mode="linear", axes=[3]),
    scaled("N 2 H W", 1, 1, 2, 2, mode="nearest", nearest_mode="round_prefer_ceil"),
    scaled("N 2 H W", 1, 1, 3, 1.5, mode="linear"),
    sized("N 2 H W", 7, 2, mode="linear", axes=[2, 3]),
    scaled("N 2 5", 1, 1, 2, mode="nearest", nearest_mode="round_prefer_ceil"),
    scaled("N 2 5", 1, 1, 1.6, mode="linear"),
    scaled("N 1 2 3 2", 1, 1, 2, 2, 3, mode="nearest", nearest_mode="round_prefer_ceil"),
    scaled("N 1 2 3 2", 1, 1, 2, 1.5, 2, mode="linear"),
    unknown_to_pytorch(scaled("2 3", 2, 2, mode="nearest", nearest_mode="floor")),
    *(
        unknown_to_pytorch(
            case(
                "Resize",
                *("N 1 5 4", region, None, [7, 3]),
                axes=[2, 3],
                coordinate_transformation_mode=coordinates,
                nearest_mode=nearest_mode,
            )
        )
        for coordinates, region in REGIONS
        for nearest_mode in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    *(
        unknown_to_pytorch(sized(x, *sizes, axes=[2, 3], mode=mode, keep_aspect_ratio_policy=policy))
        for policy in ("not_larger", "not_smaller")
        for mode in ("nearest", "linear", "cubic")
        for x, sizes in [("N 2 4 5", (7, 8)), ("N 1 4 7", (7, 10)), ("N 1 6 5", (4, 4))]
    ),
    *(
        unknown_to_pytorch(
            case(
                "Resize",
                *("N 2 4 5", np.array(region, np.float32), None, [3, 7]),
                mode=mode,
                axes=[2, 3],
                **CROP,
            )
        )
        for mode in ("nearest", "linear", "cubic")
        for region in ([0.15, 0.0, 0.8, 0.7], [-0.3, 0.1, 0.7, 1.2])
    ),
]

GRID_SAMPLE = [
    *(
        case(
            "GridSample",
            "N 2 3 4",
            inside("N 3 2 2", -1.8, 1.8) if mode != "nearest" else fixed("N 3 2 2", -1.8, 1.8),
            mode=mode,
            padding_mode=padding_mode,
            align_corners=align_corners,
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding_mode in ("zeros", "border", "reflection")
        for align_corners in (0, 1)
    ),
    case("GridSample", "N 2 H W", inside("N 3 2 2", -1.2, 1.2)),
    case("GridSample", "N 1 1 3", inside("N H W 2", -3.0, 3.0), padding_mode="reflection", align_corners=1),
    case("GridSample", "2 3 2 2", fixed("2 1 1 2")),
]
