"""Sessions over the graphs of a bundle: the training step with its state, evaluation, inference."""

from cnnc.runtime.session.bound import Sums
from cnnc.runtime.session.evaluation import EvalSession
from cnnc.runtime.session.inference import InferSession
from cnnc.runtime.session.specs import spec_of
from cnnc.runtime.session.step import StepSession

__all__ = ["EvalSession", "InferSession", "StepSession", "Sums", "spec_of"]
