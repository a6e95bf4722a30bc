"""Losses: what the network's output is compared with, as a graph. One family a file.

A loss is a mean over what it counts: examples, pixels, or the weights of either. It is emitted as a sum and a
count, which add up over batches of any size. Where augmentation mixes examples, each has several targets
with a share each.
"""

from cnnc.losses.binary import BinaryCrossEntropy, BinaryFocal
from cnnc.losses.cross_entropy import (
    DenseCrossEntropy,
    PixelCrossEntropy,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
)
from cnnc.losses.loss import Loss
from cnnc.losses.overlap import BinaryDice, Dice
from cnnc.losses.regression import Huber, MeanAbsoluteError, MeanSquaredError
from cnnc.losses.weighted import Weighted

__all__ = [
    "BinaryCrossEntropy",
    "BinaryDice",
    "BinaryFocal",
    "DenseCrossEntropy",
    "Dice",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "PixelCrossEntropy",
    "SoftmaxCrossEntropy",
    "SoftmaxFocal",
    "Weighted",
]
