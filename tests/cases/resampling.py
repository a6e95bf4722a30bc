"""Resize and GridSample."""

from __future__ import annotations

from cases.row import case, fixed, inside

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
