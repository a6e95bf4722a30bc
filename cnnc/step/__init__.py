"""The training step in its three pieces: forward, backward, update.

::

    images, targets ─► augmentation ─► network in its training form ─► loss, metrics
                                                  gradients ◄────────── loss
    parameters, slots, step ─► update ◄────────── gradients
                                 │
                                 └─► moving averages, where the program keeps them

`Training` is what a step is made for: a network and the recipe by which it is trained. `forward_backward`
emits the first two pieces, for a batch at once or in chunks; `Update` is the third, and `Average` follows
what moves. `finish` makes a graph of them a model.
"""

from cnnc.step.average import Average
from cnnc.step.batch import forward_backward
from cnnc.step.chunked import unsplittable
from cnnc.step.finish import finish, following, new_graph
from cnnc.step.form import INFERENCE_FORM
from cnnc.step.forward import adapted, forward
from cnnc.step.inputs import Inputs, image_input, scalar_inputs, state_inputs, weight_constants
from cnnc.step.manifest import manifest_of
from cnnc.step.outcome import Outcome
from cnnc.step.training import Recipe, Revision, Training

__all__ = [
    "INFERENCE_FORM",
    "Average",
    "Inputs",
    "Outcome",
    "Recipe",
    "Revision",
    "Training",
    "adapted",
    "finish",
    "following",
    "forward",
    "forward_backward",
    "image_input",
    "manifest_of",
    "new_graph",
    "scalar_inputs",
    "state_inputs",
    "unsplittable",
    "weight_constants",
]
