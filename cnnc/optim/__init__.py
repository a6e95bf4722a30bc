"""Optimizers: how gradients move the parameters, as graphs. One family a file.

The order of one step: gradients are clipped together, what the step needs once is computed (`scalars`), then
each parameter is updated. Weight decay leaves out biases and normalisation unless `decay_all`.
"""

from cnnc.optim.adafactor import Adafactor
from cnnc.optim.adam import LAMB, Adam, AdamW, NAdam
from cnnc.optim.adaptive import Adadelta, Adagrad, RMSprop
from cnnc.optim.group import Group
from cnnc.optim.lion import Lion
from cnnc.optim.optimizer import Optimizer, Slot, Update
from cnnc.optim.sgd import SGD

__all__ = [
    "LAMB",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Group",
    "Lion",
    "NAdam",
    "Optimizer",
    "RMSprop",
    "Slot",
    "Update",
]
