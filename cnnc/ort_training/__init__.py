"""A way over for scripts written for onnxruntime-training: the same calls, on stock ONNX Runtime.

::

    from cnnc.ort_training import artifacts                                # was onnxruntime.training
    from cnnc.ort_training.api import CheckpointState, Module, Optimizer   # was onnxruntime.training.api

`artifacts` compiles a model to the files that `api` trains; ``docs/migrating.md`` says what differs. The
files carry the old names and hold cnnc's own graphs: neither reads the other's.
"""

from __future__ import annotations

from typing import Any

from cnnc.errors import UnsupportedError


def __getattr__(name: str) -> Any:
    if name in ("onnxblock", "ORTModule", "ortmodule", "optim", "experimental"):
        raise UnsupportedError(
            f"cnnc.ort_training has no {name}: it stands in for `artifacts` and `api` alone.",
            hint="Other losses and optimizers are in cnnc.losses and cnnc.optim: see docs/migrating.md.",
        )
    raise AttributeError(f"module 'cnnc.ort_training' has no attribute '{name}'")
