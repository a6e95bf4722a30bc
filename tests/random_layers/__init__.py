"""The layers of random networks, one file a family. Importing this package fills the table `LAYERS`."""

from random_layers import branches, moves, values, windows
from random_layers.growing import LAYERS, Array, Draw, Growing, sizes

__all__ = ["LAYERS", "Array", "Draw", "Growing", "branches", "moves", "sizes", "values", "windows"]
