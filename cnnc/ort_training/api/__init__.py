"""Training with what `cnnc.ort_training.artifacts` wrote. It imports no part of the compiler."""

from cnnc.ort_training.api.checkpoint_state import CheckpointState
from cnnc.ort_training.api.lr_scheduler import LinearLRScheduler
from cnnc.ort_training.api.module import Module
from cnnc.ort_training.api.optimizer import Optimizer

__all__ = ["CheckpointState", "LinearLRScheduler", "Module", "Optimizer"]
