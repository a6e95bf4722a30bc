"""Convolutions."""

from __future__ import annotations

from cases.row import case, graph

DIRECT = [
    case("Conv", "N 2 5 6", "3 2 3 3", "3"),
    case("Conv", "N 2 5 6", "3 2 3 3"),
    case("Conv", "N 2 5 6", "3 2 3 3", "3", pads=[1, 1, 1, 1]),
    case("Conv", "N 2 5 4", "3 2 3 2", "3", pads=[2, 0, 1, 1]),
    case("Conv", "N 2 7 6", "3 2 3 3", "3", strides=[2, 2]),
    case("Conv", "N 2 8 7", "3 2 3 2", "3", strides=[3, 2], pads=[1, 0, 0, 1]),
    case("Conv", "N 2 7 6", "3 2 2 2", "3", dilations=[2, 3]),
    case("Conv", "N 1 8 8", "2 1 2 3", "2", dilations=[3, 2], strides=[2, 3], pads=[1, 2, 0, 1]),
    case("Conv", "N 3 5 5", "4 3 1 1", "4"),
    case("Conv", "N 3 5 5", "4 3 1 1", "4", strides=[2, 2]),
    case("Conv", "N 3 4 4", "4 3 1 1", "4", pads=[1, 1, 1, 1]),
    case("Conv", "N 2 6 6", "3 2 1 1", strides=[3, 3]),
    case("Conv", "N 1 6 6", "2 1 2 2", strides=[3, 3]),
    case("Conv", "N 4 5 6", "6 2 3 3", "6", group=2),
    case("Conv", "N 4 5 6", "2 2 3 2", "2", group=2, strides=[2, 2], pads=[0, 1, 1, 0]),
    case("Conv", "N 6 4 5", "3 2 2 2", "3", group=3, dilations=[2, 1], pads=[1, 1, 1, 1]),
    case("Conv", "N 4 5 5", "4 2 1 1", "4", group=2),
    case("Conv", "N 3 5 5", "3 1 3 3", "3", group=3, pads=[1, 1, 1, 1]),
    case("Conv", "N 3 6 5", "3 1 3 3", "3", group=3, strides=[2, 2], pads=[1, 1, 1, 1]),
    case("Conv", "N 2 5 5", "4 1 3 2", "4", group=2),
    case("Conv", "N 2 5 5", "4 1 2 3", "4", group=2, strides=[2, 1], dilations=[1, 2]),
    case("Conv", "N 2 5 4", "3 2 5 4", "3"),
    case("Conv", "N 2 3 3", "2 2 2 2", pads=[2, 2, 2, 2]),
    case("Conv", "N 2 3 3", "2 2 2 2", pads=[3, 2, 2, 4]),
    case("Conv", "N 2 3 4", "2 2 2 2", pads=[3, 2, 2, 4], strides=[2, 3]),
    case("Conv", "N 1 1 1", "1 1 1 1", "1"),
    *(
        case("Conv", "N 2 6 7", "3 2 3 2", "3", auto_pad=auto_pad, strides=strides)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2], [3, 1])
    ),
    case("Conv", "N 2 H W", "3 2 3 3", "3", pads=[1, 1, 1, 1]),
    case("Conv", "N 2 H W", "3 2 1 1", "3"),
    case("Conv", "N 4 H W", "4 2 2 2", group=2),
    case("Conv", "N 2 7", "3 2 3", "3", pads=[1, 0]),
    case("Conv", "N 4 8", "4 2 3", "4", group=2, strides=[3], pads=[1, 1]),
    case("Conv", "N 2 9", "3 2 2", strides=[2], dilations=[2]),
    case("Conv", "N 2 3 4 3", "2 2 2 2 2", "2", pads=[1, 0, 0, 0, 1, 1]),
    case("Conv", "N 2 4 3 5", "2 1 2 2 3", "2", group=2, strides=[2, 1, 2]),
    case("Conv", "N 1 5 5 5", "2 1 3 2 1", strides=[2, 3, 2], dilations=[2, 1, 1], pads=[0, 1, 0, 0, 0, 0]),
    *(
        case("Conv", "N 2 H W", "3 2 3 2", "3", auto_pad=auto_pad)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER")
    ),
    case("Conv", "N 2 H W", "3 2 3 2", strides=[2, 3], pads=[1, 0, 0, 1]),
    case("Conv", "N 4 H W", "4 2 1 3", group=2, strides=[2, 2], pads=[0, 1, 0, 0]),
    case("Conv", "N 3 H", "3 1 2", group=3, strides=[3]),
    case("Conv", "N 2 5 6", "3 2 3 2", kernel_shape=[3, 2]),
    *(
        case("Conv", x, w, auto_pad=auto_pad, strides=strides)
        for auto_pad, x, w, strides in [
            ("SAME_UPPER", "N 2 7", "3 2 4", [2]),
            ("SAME_LOWER", "N 2 6", "3 2 4", [1]),
            ("SAME_LOWER", "N 1 4 3 5", "2 1 2 3 2", [2, 1, 2]),
            ("SAME_UPPER", "N 1 3 4 3", "2 1 2 2 3", [1, 2, 1]),
        ]
    ),
    graph("Conv", lambda op, x, w: op.Conv(op.Conv(x, w), w), "N 2 5 5", "2 2 2 2"),
]

TRANSPOSED = [
    case("ConvTranspose", "N 2 3 4", "2 3 3 2", "3"),
    case("ConvTranspose", "N 2 3 4", "2 3 3 2"),
    case("ConvTranspose", "N 2 3 3", "2 3 1 1", "3"),
    case("ConvTranspose", "N 2 3 3", "2 3 2 2", "3", strides=[2, 2]),
    case("ConvTranspose", "N 2 3 4", "2 3 3 2", "3", strides=[2, 3], pads=[1, 0, 0, 1]),
    case("ConvTranspose", "N 2 3 2", "2 3 2 3", "3", strides=[3, 2], output_padding=[2, 1]),
    case(
        "ConvTranspose",
        *("N 2 3 2", "2 2 3 2"),
        strides=[2, 2],
        pads=[0, 1, 2, 0],
        output_padding=[1, 0],
        dilations=[1, 3],
    ),
    case("ConvTranspose", "N 2 2 3", "2 1 2 2", "1", strides=[3, 1], dilations=[1, 2]),
    case("ConvTranspose", "N 2 4 4", "2 1 3 3", "1", pads=[2, 2, 2, 2]),
    case("ConvTranspose", "N 4 3 3", "4 3 2 2", "6", group=2, strides=[2, 1]),
    case("ConvTranspose", "N 3 3 3", "3 1 3 3", "3", group=3, strides=[2, 2], pads=[1, 1, 1, 1]),
    case("ConvTranspose", "N 4 2 3", "4 1 2 2", group=2, dilations=[2, 1], pads=[1, 0, 0, 1]),
    *(
        case("ConvTranspose", "N 2 3 2", "2 3 4 3", "3", auto_pad=auto_pad, strides=strides)
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2], [5, 3])
    ),
    case("ConvTranspose", "N 2 3 3", "2 3 3 2", "3", auto_pad="VALID", strides=[2, 2], output_padding=[1, 1]),
    *(
        case(
            "ConvTranspose",
            *("N 2 3 3", "2 3 3 4", "3"),
            strides=[2, 2],
            output_shape=[5, 7],
            auto_pad=auto_pad,
            output_padding=output_padding,
        )
        for auto_pad in ("NOTSET", "SAME_UPPER", "SAME_LOWER")
        for output_padding in ([0, 0], [1, 0])
    ),
    case("ConvTranspose", "N 2 2 3", "2 1 2 2", strides=[3, 3], output_shape=[6, 8]),
    case(
        "ConvTranspose", "N 2 H W", "2 3 3 2", "3", strides=[2, 2], pads=[1, 0, 1, 0], output_padding=[1, 0]
    ),
    case("ConvTranspose", "N 4 H W", "4 1 2 2", group=2, auto_pad="SAME_UPPER"),
    case("ConvTranspose", "N 2 4", "2 3 3", "3", strides=[2], pads=[1, 0], output_padding=[1]),
    case("ConvTranspose", "N 4 3", "4 2 2", "4", group=2, dilations=[2]),
    case("ConvTranspose", "N 2 2 3 2", "2 1 2 2 2", "1", strides=[2, 1, 2], pads=[0, 1, 0, 1, 0, 1]),
    case("ConvTranspose", "N 4 2 2 2", "4 1 2 1 2", "2", group=2, strides=[1, 2, 2]),
    case("ConvTranspose", "N 2 3 4", "2 3 3 2", kernel_shape=[3, 2]),
    case("ConvTranspose", "N 2 4", "2 1 4", auto_pad="SAME_UPPER", strides=[3]),
    case("ConvTranspose", "N 2 4", "2 1 4", auto_pad="SAME_LOWER", strides=[2], output_shape=[7]),
    case("ConvTranspose", "N 1 2 3 2", "1 2 3 2 3", auto_pad="SAME_LOWER", strides=[2, 1, 1]),
    case(
        "ConvTranspose",
        *("N 1 2 2 2", "1 2 2 2 3"),
        strides=[2, 1, 3],
        dilations=[1, 2, 1],
        output_padding=[1, 0, 2],
        output_shape=[4, 3, 6],
    ),
    graph(
        "ConvTranspose", lambda op, x, w: op.ConvTranspose(op.ConvTranspose(x, w), w), "N 2 3 2", "2 2 2 2"
    ),
]

CONVOLUTION = [*DIRECT, *TRANSPOSED]
