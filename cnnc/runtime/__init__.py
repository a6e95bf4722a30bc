"""The runtime half: it reads a bundle and trains it with ONNX Runtime. It imports no part of the compiler."""

from cnnc.runtime.evaluation import evaluate
from cnnc.runtime.providers import Provider, choose
from cnnc.runtime.reporter import Callback, Callbacks, Moment, Start, Summary
from cnnc.runtime.run import Run
from cnnc.runtime.session import EvalSession, InferSession, StepSession
from cnnc.runtime.settings import Settings
from cnnc.runtime.trainer import CHANGEABLE, resume, train

__all__ = [
    "CHANGEABLE",
    "Callback",
    "Callbacks",
    "EvalSession",
    "InferSession",
    "Moment",
    "Provider",
    "Run",
    "Settings",
    "Start",
    "StepSession",
    "Summary",
    "choose",
    "evaluate",
    "resume",
    "train",
]
