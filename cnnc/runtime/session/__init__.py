"""Sessions over the graphs of a bundle: the training step with its state, evaluation, inference."""

from cnnc.runtime.session.bound import Sums
from cnnc.runtime.session.evaluation import EvalSession, State
from cnnc.runtime.session.inference import InferSession
from cnnc.runtime.session.specs import spec_of
from cnnc.runtime.session.step import StepSession

__all__ = ["EvalSession", "InferSession", "State", "StepSession", "Sums", "spec_of"]
