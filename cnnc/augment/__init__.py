"""Augmentation inside the training graph: what changes the images of a batch before the network sees them.

train.onnx and grad.onnx draw it anew for every example and step; eval.onnx and infer.onnx know nothing of it.
It draws by the counter-based generator (docs/decisions/0002): a function of (seed, step, augmentation,
example) alone, so that a resumed run goes on bit for bit, and every runtime makes the same choices. Names and
meanings are torchvision's. One family a file.

Images have their final size already, and the network's preprocessing is done: a fill is given as the stored
pixel times its scale (0 is black, 1 is white). Targets that are images of the same size (masks, pixel labels,
images to be restored) move with what moves pixels.

Where examples are mixed, the loss is the sum over both targets by their shares, and metrics of the training
batch compare with the target that has the larger share (the example's own, of equal ones): they tell less
than those of the evaluation, which mixes nothing.
"""

from cnnc.augment.affine import RandomAffine, RandomResizedCrop, RandomRotation
from cnnc.augment.augmentation import Augmentation
from cnnc.augment.choice import RandomChoice
from cnnc.augment.colour import ColorJitter
from cnnc.augment.erasing import RandomErasing
from cnnc.augment.mixing import CutMix, MixUp
from cnnc.augment.shifts import RandomCrop, RandomHorizontalFlip, RandomVerticalFlip

__all__ = [
    "Augmentation",
    "ColorJitter",
    "CutMix",
    "MixUp",
    "RandomAffine",
    "RandomChoice",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
]
