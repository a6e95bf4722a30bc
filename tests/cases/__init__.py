"""The table of cases: each row is one forward node, or a small graph, whose gradients the tests check.

A row gives the operator, its inputs and its attributes. An input is written as its dimensions, ``"N 3 4"``:
drawn from a normal distribution and differentiated. `positive`, `off_zero`, `spaced`, … draw it elsewhere,
away from kinks; `fixed`, `labels`, … are inputs that are not differentiated; a list or array is a constant.
Symbols stand for the sizes in `SIZES`; rows with the symbol N run with a batch of one, too.

A registered rule or body that no row reaches fails the suite.
"""

from cases.activations import ACTIVATIONS
from cases.constant import CONSTANT
from cases.convolution import CONVOLUTION
from cases.elementwise import BROADCAST, ELEMENTWISE, POWERS
from cases.indexing import INDEXING
from cases.normalization import NORMALIZATION
from cases.pooling import POOLING
from cases.products import PRODUCTS
from cases.reduction import REDUCTION
from cases.resampling import GRID_SAMPLE, RESIZE
from cases.row import (
    SIZES,
    Array,
    Case,
    Input,
    case,
    fixed,
    graph,
    labels,
    normal,
    off_zero,
    positive,
    spaced,
)
from cases.shape import SHAPE
from cases.slicing import SLICING
from cases.standard_losses import STANDARD_LOSSES
from cases.training import LOSSES, UPDATES
from cases.trigonometry import TRIGONOMETRY

CASES = [
    *ELEMENTWISE,
    *POWERS,
    *TRIGONOMETRY,
    *ACTIVATIONS,
    *BROADCAST,
    *CONSTANT,
    *SHAPE,
    *SLICING,
    *INDEXING,
    *REDUCTION,
    *PRODUCTS,
    *CONVOLUTION,
    *POOLING,
    *NORMALIZATION,
    *RESIZE,
    *GRID_SAMPLE,
    *LOSSES,
    *STANDARD_LOSSES,
    *UPDATES,
]

__all__ = [
    "CASES",
    "SIZES",
    "Array",
    "Case",
    "Input",
    "case",
    "fixed",
    "graph",
    "labels",
    "normal",
    "off_zero",
    "positive",
    "spaced",
]
