"""The same network on every runtime at hand: inference and one training step, in both of its forms.

For a tensor a of ONNX Runtime on the CPU (the reference) and b of another runtime the difference is ::

    max |a - b| / (max |a| + max |a - a'| / 10⁻⁶)

where a' is what the reference itself computes when every number of the input moves by up to a millionth of
itself. So it is relative to the largest magnitude in the tensor, unless the tensor is ill-conditioned: Adam
divides a gradient by its own size, which makes a full step of a gradient that is nothing but rounding (that
of a bias before batch normalisation), and no two runtimes round alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from cnnc.bundle import GRADIENT, Array, Bundle, Manifest
from cnnc.data import synthetic_batch
from cnnc.deploy.inference_graph import trained_model
from cnnc.deploy.runtimes import REFERENCE, RUNTIMES, Call, Runtime
from cnnc.deploy.trained import Source, Trained
from cnnc.errors import BundleError, CnncError, UsageError
from cnnc.initial import uniforms
from cnnc.runtime import StepSession, choose
from cnnc.runtime.provenance import explain

TOLERANCE = 1e-4
BATCHES = (4, 1)
WARM_UP = 3
"""Steps before the one that is compared, for a bundle: at first its optimizer slots are nothing but zeros."""
MOVE = 1e-6
INFER, TRAIN, SPLIT = "infer/", "train/", "split/"

Results = dict[str, Array]
_STEP = ("train.onnx", "grad.onnx", "apply.onnx")


@dataclass(frozen=True)
class RuntimeReport:
    """How one runtime did.

    `differences` holds the largest one over all batches of each output of infer.onnx (``infer/…``) and of
    train.onnx (``train/loss``, ``train/metrics/…``, ``train/next/…``), and of what grad.onnx and apply.onnx
    make of the same step (``split/…``), which is compared with train.onnx. `failure` is what the runtime
    said where it couldn't run a graph.
    """

    name: str
    version: str
    differences: dict[str, float]
    failure: str = ""

    def largest(self, prefix: str = "") -> tuple[str, float]:
        """The output with the largest difference, among those whose name begins with `prefix`."""
        found = [(value, name) for name, value in self.differences.items() if name.startswith(prefix)]
        value, name = max(found, default=(0.0, ""))
        return name, value

    def ok(self, tolerance: float) -> bool:
        """Whether the runtime ran everything, within the tolerance."""
        return not self.failure and self.largest()[1] <= tolerance


@dataclass(frozen=True)
class VerifyReport:
    """How all runtimes did; `absent` says of each that isn't here why, and how to install it."""

    where: str
    tolerance: float
    batches: tuple[int, ...]
    runtimes: tuple[RuntimeReport, ...]
    absent: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether every runtime present agrees with the reference."""
        return all(report.ok(self.tolerance) for report in self.runtimes)

    def record(self) -> dict[str, Any]:
        """The report as one JSON object; an infinite difference (no number, another shape) is null."""
        groups = {"outputs": INFER, "loss": f"{TRAIN}loss", "state": f"{TRAIN}next/", "split_step": SPLIT}
        runtimes = [
            {
                "runtime": report.name,
                "version": report.version,
                "ok": report.ok(self.tolerance),
                "failure": report.failure,
                **{group: _json(report.largest(prefix)[1]) for group, prefix in groups.items()},
                "largest": report.largest()[0],
                "differences": {name: _json(value) for name, value in report.differences.items()},
            }
            for report in self.runtimes
        ]
        return {**vars(self), "ok": self.ok, "runtimes": runtimes}


def _json(value: float) -> float | None:
    """JSON has no infinity."""
    return value if np.isfinite(value) else None


def verify(
    source: Source,
    *,
    tolerance: float = TOLERANCE,
    batches: Sequence[int] = BATCHES,
    runtimes: Sequence[Runtime] = RUNTIMES,
    progress: Callable[[str], None] = lambda name: None,
) -> VerifyReport:
    """Run infer.onnx and one training step of `source` on each of `runtimes` that is installed.

    The step is taken twice: by train.onnx, and by grad.onnx and apply.onnx. The examples are made up, one
    batch of each size in `batches`; the state is a run's last one, as training has it, or a bundle's after
    three steps. `progress` is called with the name of each runtime before it begins. A runtime that can't run
    a graph is part of the report. Raises UsageError, RunError or BundleError, and ModelError where the
    reference itself fails.
    """
    if min(batches, default=0) < 1:
        raise UsageError(f"the batches are {list(batches)}: each must be at least 1.")
    trained = Trained.open(source, "raw")
    bundle, manifest = trained.bundle, trained.bundle.manifest
    if manifest.machine is not None:
        raise BundleError(
            "the step of this bundle is tuned for one machine and batch size: other runtimes can't run it.",
            where=trained.where,
            hint="Verify the bundle it was made from; `cnnc tune` has checked the one against the other.",
        )
    state = trained.state if trained.run else _warmed_up(bundle)
    graphs = {name: onnx.load(bundle.graph(name)) for name in _STEP}
    graphs["infer.onnx"] = trained_model(Trained(bundle, state))
    scalars = dict(manifest.scalars) | (trained.run.settings.scalars(manifest) if trained.run else {})
    feeds = [_feeds(manifest, state, size, scalars) for size in batches]
    try:
        reference = _load(REFERENCE, graphs)
        cases = [_Case.of(reference, each, manifest.input.name) for each in feeds]
    except CnncError:
        raise
    except Exception as error:  # ORT's exceptions have no common base
        raise explain(error) from error
    reports, absent = [], {}
    for runtime in runtimes:
        if absence := runtime.absence():
            absent[runtime.name] = absence
            continue
        progress(runtime.name)
        reports.append(_report(runtime, graphs, cases))
    return VerifyReport(trained.where, tolerance, tuple(batches), tuple(reports), absent)


def _report(runtime: Runtime, graphs: dict[str, onnx.ModelProto], cases: Sequence[_Case]) -> RuntimeReport:
    differences: dict[str, float] = {}
    failure = ""
    try:
        calls = _load(runtime, graphs)
        for case in cases:
            for name, value in case.differences(_results(calls, case.feeds)).items():
                differences[name] = max(differences.get(name, 0.0), value)
    except Exception as error:  # each runtime has exceptions of its own
        failure = " ".join(str(error).partition("Stack backtrace")[0].split())[:600] or type(error).__name__
    return RuntimeReport(runtime.name, runtime.version(), differences, failure)


def _load(runtime: Runtime, graphs: dict[str, onnx.ModelProto]) -> dict[str, Call]:
    return {name: runtime.load(model) for name, model in graphs.items()}


def _results(calls: dict[str, Call], feeds: Results) -> Results:
    """All outputs of one runtime, with their prefixes; apply.onnx gets the runtime's own gradient."""
    gradient = calls["grad.onnx"](feeds)
    step = {**gradient, **calls["apply.onnx"]({**feeds, **gradient})}
    del step[GRADIENT]
    outputs = {INFER: calls["infer.onnx"](feeds), TRAIN: calls["train.onnx"](feeds), SPLIT: step}
    return {prefix + name: value for prefix, found in outputs.items() for name, value in found.items()}


@dataclass(frozen=True, eq=False)
class _Case:
    """One batch: the inputs of all graphs, what the reference makes of them, and the scale of each output."""

    feeds: Results
    expected: Results
    scales: dict[str, float]

    @classmethod
    def of(cls, reference: dict[str, Call], feeds: Results, image: str) -> _Case:
        expected, moved = (_results(reference, each) for each in (feeds, _moved(feeds, image)))
        scales = {
            name: float(_size(value) + _size(value.astype(np.float64) - moved[name]) / MOVE)
            for name, value in expected.items()
        }
        return cls(feeds, expected, scales)

    def differences(self, actual: Results) -> dict[str, float]:
        """The difference of each output, infinite where it is of another kind or not finite."""
        found = {}
        for name, value in actual.items():
            like = name.replace(SPLIT, TRAIN, 1)
            expected = self.expected[like]
            distance = float("inf")
            if (value.shape, value.dtype) == (expected.shape, expected.dtype):
                distance = float(_size(value.astype(np.float64) - expected))
            relative = distance / self.scales[like] if distance else 0.0
            found[name] = relative if np.isfinite(relative) else float("inf")
        return found


def _size(values: Array) -> np.float64:
    """The largest magnitude."""
    return np.float64(np.abs(values).max(initial=0))


def _feeds(manifest: Manifest, state: Results, count: int, scalars: Mapping[str, int | float]) -> Results:
    """The inputs of every graph: a made-up batch of `count` examples, the scalars and the state."""
    kinds = {"lr_scale": manifest.input.dtype, "seed": "int64"}
    return {
        **dict(zip(manifest.batch_names, synthetic_batch(manifest, count, "verify"), strict=True)),
        **{name: np.asarray(value, kinds[name]) for name, value in scalars.items()},
        **state,
    }


def _moved(feeds: Results, image: str) -> Results:
    """The same with every number of the image moved by up to `MOVE`, relative to itself."""
    values = feeds[image]
    signs = 2 * uniforms(values.size, 0, "verify/move").reshape(values.shape) - 1
    return {**feeds, image: (values * (1 + MOVE * signs)).astype(values.dtype)}


def _warmed_up(bundle: Bundle) -> Results:
    """The state after a few steps from the initial one."""
    session = StepSession(bundle, choose("cpu"))
    for step in range(WARM_UP):
        session.step(*synthetic_batch(bundle.manifest, BATCHES[0], f"verify/{step}"))
    return session.state()
