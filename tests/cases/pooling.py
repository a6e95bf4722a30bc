"""Pools."""

from __future__ import annotations

from cases.row import case, having, off_zero, spaced

POOLING = [
    case("MaxPool", spaced("N 2 4 6"), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", spaced("N 2 5 7"), kernel_shape=[2, 3], strides=[2, 3]),
    case("MaxPool", spaced("N 2 5 5"), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", spaced("N 1 6 6"), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", spaced("N 2 5 5"), kernel_shape=[3, 3]),
    case("MaxPool", spaced("2 3 5 4"), kernel_shape=[3, 2]),
    case("MaxPool", spaced("N 2 7 6"), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    case("MaxPool", spaced("N 2 6 6"), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0]),
    case("MaxPool", spaced("N 2 6 7"), kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0]),
    case("MaxPool", spaced("N 1 7 7"), kernel_shape=[2, 2], strides=[3, 3]),
    case("MaxPool", spaced("N 1 7 6"), kernel_shape=[2, 3], dilations=[3, 2], strides=[2, 1]),
    case("MaxPool", spaced("N 1 6 6"), kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", spaced("N 2 3 3"), kernel_shape=[1, 1]),
    case("MaxPool", spaced("N 2 5 4"), kernel_shape=[5, 4]),
    case("MaxPool", spaced("N 2 4 4"), kernel_shape=[2, 2], strides=[2, 2], outputs=2),
    *(
        case("MaxPool", spaced("N 1 5 6"), kernel_shape=[2, 3], strides=strides, auto_pad=auto_pad)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2], [3, 2])
    ),
    case("MaxPool", spaced("N 2 7"), kernel_shape=[2], strides=[2]),
    case("MaxPool", spaced("N 2 7"), kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("MaxPool", spaced("N 1 4 3 4"), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    case("MaxPool", spaced("N 1 4 3 4"), kernel_shape=[2, 2, 3], pads=[0, 1, 0, 1, 0, 1], strides=[2, 1, 1]),
    case("AveragePool", "N 2 4 6", kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", "N 2 5 7", kernel_shape=[2, 3], strides=[2, 3]),
    case("AveragePool", "N 2 5 5", kernel_shape=[3, 3]),
    case("AveragePool", "2 3 5 4", kernel_shape=[3, 2]),
    case("AveragePool", "N 1 7 7", kernel_shape=[2, 2], strides=[3, 3]),
    case("AveragePool", "N 2 3 3", kernel_shape=[1, 1]),
    case("AveragePool", "N 2 5 4", kernel_shape=[5, 4]),
    *(
        case("AveragePool", f"N 2 {height} 6", kernel_shape=[3, 2], count_include_pad=include, **attributes)
        for include in (0, 1)
        for height, attributes in [
            (7, having(strides=[2, 1], pads=[1, 0, 1, 1])),
            (5, having(strides=[2, 2], pads=[0, 1, 1, 0])),
            (6, having(strides=[2, 2], ceil_mode=1)),
            (6, having(strides=[2, 3], ceil_mode=1, pads=[1, 1, 0, 0])),
        ]
    ),
    *(
        case("AveragePool", "N 1 5 6", kernel_shape=[2, 3], strides=strides, auto_pad=auto_pad)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2])
    ),
    *(
        case("AveragePool", "N 1 5 6", kernel_shape=[2, 3], auto_pad=auto_pad, count_include_pad=1)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    *(
        case(op, spaced(shape), kernel_shape=kernel, auto_pad=auto_pad, **attributes)
        for op in ("MaxPool", "AveragePool", "LpPool")
        for auto_pad, shape, kernel, attributes in [
            ("SAME_UPPER", "N 2 7", [4], having(strides=[2])),
            ("SAME_LOWER", "N 1 4 3 5", [2, 3, 2], having(strides=[2, 1, 2])),
        ]
    ),
    case("AveragePool", "N 2 7", kernel_shape=[3], strides=[2], pads=[2, 1], count_include_pad=1),
    case("AveragePool", "N 2 7", kernel_shape=[2], strides=[2]),
    case("AveragePool", "N 2 7", kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("AveragePool", "N 1 4 3 4", kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    case("AveragePool", "N 1 4 3 4", kernel_shape=[2, 2, 3], pads=[0, 1, 0, 1, 0, 1], strides=[2, 1, 1]),
    case("GlobalAveragePool", "N 2 3 4"),
    case("GlobalAveragePool", "N 2 H W"),
    case("GlobalAveragePool", "N 2 5"),
    case("GlobalAveragePool", "N 2 3 2 2"),
    *(
        case("MaxPool", spaced(shape), kernel_shape=kernel, ceil_mode=1, **attributes)
        for shape, kernel, attributes in [
            ("N 2 6", [3], having(strides=[2])),
            ("N 2 5", [2], having(strides=[2], pads=[1, 0])),
            ("N 1 5 4 3", [2, 3, 2], having(strides=[2, 2, 2], pads=[0, 1, 0, 0, 1, 0])),
            ("N 1 6 7", [2, 2], having(strides=[2, 2], dilations=[2, 3])),
        ]
    ),
    case("MaxPool", spaced("N 1 7"), kernel_shape=[3], dilations=[2], outputs=2),
    case("MaxPool", spaced("N 1 4 5"), kernel_shape=[2, 2], storage_order=1, outputs=2),
    case("MaxPool", spaced("N 1 5 4 5"), kernel_shape=[2, 2, 2], dilations=[2, 1, 3], strides=[2, 1, 1]),
    case("MaxPool", spaced("N 2 H W"), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", spaced("N 1 3 34"), kernel_shape=[3, 2], strides=[3, 2]),
    case("MaxPool", spaced("N 1 H W"), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    case("MaxPool", spaced("N 1 H W"), kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1),
    case("MaxPool", spaced("N 1 H 5"), kernel_shape=[3, 3], auto_pad="SAME_UPPER"),
    *(
        case("AveragePool", shape, kernel_shape=kernel, count_include_pad=include, ceil_mode=1, **attributes)
        for include in (0, 1)
        for shape, kernel, attributes in [
            ("N 2 6", [3], having(strides=[2], pads=[1, 1])),
            ("N 1 5 4 3", [2, 3, 2], having(strides=[2, 2, 2], pads=[0, 1, 0, 0, 1, 0])),
            ("N 1 H W", [3, 3], having(strides=[2, 2], pads=[1, 1, 1, 1])),
            ("N 1 H W", [3, 2], having(strides=[3, 2])),
        ]
    ),
    case("AveragePool", "N 2 H W", kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", "N 1 H W", kernel_shape=[3, 2], strides=[2, 1]),
    case("AveragePool", "N 1 H W", kernel_shape=[3, 2], pads=[1, 0, 0, 1]),
    case("AveragePool", "N 1 H W", kernel_shape=[3, 2], pads=[1, 0, 0, 1], count_include_pad=1),
    *(
        case("LpPool", off_zero(shape), kernel_shape=kernel, p=p, **attributes)
        for shape, kernel, p, attributes in [
            ("N 2 5 4", [2, 2], 1, having(strides=[2, 2])),
            ("N 2 5 4", [2, 2], 2, having(strides=[2, 2])),
            ("N 2 5 4", [2, 2], 3, having(strides=[2, 2])),
            ("N 2 5 4", [3, 2], 1, having(pads=[1, 0, 0, 1])),
            ("N 2 5 4", [3, 2], 2, having(strides=[2, 1], pads=[1, 0, 0, 1])),
            ("N 2 5 4", [3, 2], 4, having(strides=[1, 3])),
            ("N 2 5 5", [2, 2], 2, having(strides=[2, 2], ceil_mode=1)),
            ("N 1 6 5", [2, 3], 3, having(dilations=[3, 2], strides=[2, 1])),
            ("N 2 5 6", [2, 3], 2, having(auto_pad="SAME_UPPER")),
            ("N 2 5 6", [2, 3], 2, having(auto_pad="SAME_LOWER", strides=[2, 2])),
            ("N 2 7", [3], 2, having(strides=[2])),
            ("N 2 8", [3], 3, having(dilations=[2], strides=[2], ceil_mode=1, pads=[1, 0])),
            ("N 2 5 4", [2, 3], 2, having(auto_pad="VALID", strides=[2, 1])),
            ("N 1 3 4 3", [2, 2, 2], 2, having(strides=[1, 2, 1])),
            ("N 1 5 4 4", [2, 2, 2], 2, having(dilations=[2, 1, 2], pads=[0, 1, 0, 1, 0, 0])),
            ("N 1 4 3 5", [2, 2, 2], 1, having(strides=[3, 2, 2], ceil_mode=1)),
            ("N 2 H W", [2, 2], 2, having(strides=[2, 2])),
        ]
    ),
    *(case("GlobalMaxPool", spaced(shape)) for shape in ("N 2 3 4", "N 2 H W", "N 2 5", "N 2 3 2 2")),
    *(case("GlobalLpPool", off_zero("N 2 3 2"), p=p) for p in (1, 2, 3)),
    case("GlobalLpPool", off_zero("N 2 5")),
    case("GlobalLpPool", off_zero("N 2 2 H W")),
]
