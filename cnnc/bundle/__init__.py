"""The bundle: a folder of data where cnnc's two halves meet. The compiler writes it, the runtime reads it.

::

    train.onnx         one step: batch + scalars + state → loss, metrics, next state
    grad.onnx          batch + scalars + parameters + buffers → loss, metrics, next buffers, flat gradient;
                       where there are averages, also step + those of the buffers → next of these
    apply.onnx         flat gradient + scalars + parameters + slots + averages + step → next of each; where
                       gradients of several batches are gathered, also ``metrics/loss/count`` of the batch
    eval.onnx          batch + parameters + buffers → metrics (dropout off, running statistics used)
    infer.onnx         the deployable model, with the initial parameters inside
    lane.onnx, join.onnx   in some tuned bundles: train.onnx again, in parts that run side by side
    manifest.json      everything else a runtime must know; SHA-256 of every other file and of itself
    state.safetensors  the initial state, under the names of the inputs it feeds

Names are the contract. State ``conv1.weight`` goes in under that name and comes back as
``next/conv1.weight``; the scalar ``loss`` is the mean over the batch; metric ``m`` comes as
``metrics/m/sum`` and ``metrics/m/count``, which add up over batches of any size (see `MetricSpec`; a count
may be a sum of weights). Of several outputs ``loss`` is the weighted sum of their losses and
``metrics/loss/sum`` that times the examples in the batch; what belongs to the output ``h`` carries its name:
metric ``h_accuracy``, target ``label/h``, prediction ``probabilities/h``. The flat gradient is
``gradient``, where parameter p lies at ``p.offset : p.offset + size`` in row-major order.
"""

from cnnc.bundle.folder import Bundle, behind_link, check_replaceable, file_hash, write_bundle
from cnnc.bundle.manifest import Manifest
from cnnc.bundle.names import (
    ADAPTED,
    FORMAT,
    GRADIENT,
    GRAPHS,
    JOIN,
    LANE,
    LOSS,
    MANIFEST,
    NEXT,
    RUN_BUNDLE,
    RUN_SETTINGS,
    STATE,
    VERSION,
    metric_count,
    metric_sum,
    of_lane,
)
from cnnc.bundle.sealing import seal
from cnnc.bundle.specs import (
    AdapterSpec,
    FunctionSpec,
    HeadSpec,
    Machine,
    MemorySpec,
    MetricSpec,
    Preprocessing,
    Resize,
    Role,
    StateEntry,
    TargetSpec,
    TensorSpec,
)
from cnnc.bundle.state import Array, averaged, encode_state, merged, read_state, state_mismatch

__all__ = [
    "ADAPTED",
    "FORMAT",
    "GRADIENT",
    "GRAPHS",
    "JOIN",
    "LANE",
    "LOSS",
    "MANIFEST",
    "NEXT",
    "RUN_BUNDLE",
    "RUN_SETTINGS",
    "STATE",
    "VERSION",
    "AdapterSpec",
    "Array",
    "Bundle",
    "FunctionSpec",
    "HeadSpec",
    "Machine",
    "Manifest",
    "MemorySpec",
    "MetricSpec",
    "Preprocessing",
    "Resize",
    "Role",
    "StateEntry",
    "TargetSpec",
    "TensorSpec",
    "averaged",
    "behind_link",
    "check_replaceable",
    "encode_state",
    "file_hash",
    "merged",
    "metric_count",
    "metric_sum",
    "of_lane",
    "read_state",
    "seal",
    "state_mismatch",
    "write_bundle",
]
