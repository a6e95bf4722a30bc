"""Data sets: readers, the check against a network, and batches for its step.

`load` finds and reads a data set, `check` tells whether it fits, `batches` cuts it up, `feed` makes of a
batch what the graph takes (`preprocess` of its images, `targets` of its labels), and `Prefetcher` does so
ahead of time on a thread. Where there is no data `synthetic_split` and `synthetic_batch` make some up. A new
format is one function and one row of `cnnc.data.loading.FORMATS`.

The embedded ``digits`` are the "Optical Recognition of Handwritten Digits" of E. Alpaydin and C. Kaynak (UCI
Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49), licensed under CC BY 4.0.
"""

from cnnc.data.batches import Prefetcher, batches, depth_for, epoch_order
from cnnc.data.checking import check
from cnnc.data.dataset import Dataset, OnBadImage, Split
from cnnc.data.feeds import feed, preprocess, targets
from cnnc.data.images import read_image
from cnnc.data.loading import FORMATS, NAMED, default_for, load, load_for
from cnnc.data.synthetic import assumed_sizes, synthetic_batch, synthetic_split

__all__ = [
    "FORMATS",
    "NAMED",
    "Dataset",
    "OnBadImage",
    "Prefetcher",
    "Split",
    "assumed_sizes",
    "batches",
    "check",
    "default_for",
    "depth_for",
    "epoch_order",
    "feed",
    "load",
    "load_for",
    "preprocess",
    "read_image",
    "synthetic_batch",
    "synthetic_split",
    "targets",
]
