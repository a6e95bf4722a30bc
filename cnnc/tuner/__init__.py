"""The tuner: which forms, bodies and settings make a bundle's step fastest on this machine.

It is the one part that sees both halves: it asks the compiler for steps, and the runtime how fast they are.
What it finds is data, a `cnnc.runtime.tuned.TunedStep`; training on one needs no tuner.
"""

from cnnc.tuner.search import Tuning, tune

__all__ = ["Tuning", "tune"]
