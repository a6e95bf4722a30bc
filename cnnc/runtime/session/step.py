"""The training step with the state it carries.

The state lives in two sets of buffers that take turns: a step reads one and writes the other. Writing in
place would be a race, since ONNX Runtime may store a new weight before the last reader of the old one ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from cnnc.bundle import (
    GRADIENT,
    JOIN,
    LANE,
    LOSS,
    NEXT,
    Array,
    Bundle,
    metric_count,
    metric_sum,
    state_mismatch,
)
from cnnc.errors import BundleError
from cnnc.runtime.provenance import explain
from cnnc.runtime.providers import (
    Provider,
    choose,
    cpu_threads,
    nodes_on_cpu,
    open_session,
)
from cnnc.runtime.session.bound import Graph, Loaded, Outputs, Sums
from cnnc.runtime.session.sessions import open_step
from cnnc.runtime.session.specs import dtype_of
from cnnc.runtime.tuned import TunedStep, processor


class StepSession:
    """train.onnx with the state it carries from step to step.

    `state` is the first state (default: the bundle's initial state); `scalars` replaces defaults of the
    manifest's scalars, such as ``lr_scale``. `threads` None means the cores this process may use. `graph` is
    another step of the same inputs and outputs to run in place of train.onnx. `tuned` is a step for batches
    of one size: those of any other take train.onnx; or, where train.onnx is itself for one size, grad.onnx
    and apply.onnx, which are the same step. Where it has lanes they run in place of the whole. Raises
    BundleError for a graph that doesn't fit the manifest, ProviderError as `choose` does.

    `is_tuned` says whether it runs a step chosen for one machine: `tuned`, or that of a tuned bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str | Provider = "auto",
        threads: int | None = None,
        *,
        state: Mapping[str, Array] | None = None,
        scalars: Mapping[str, int | float] | None = None,
        graph: Path | None = None,
        tuned: TunedStep | None = None,
    ) -> None:
        self.bundle = bundle
        self.graph = graph or (tuned.path if tuned else bundle.graph("train.onnx"))
        self.provider = device if isinstance(device, Provider) else choose(device)
        self._threads = threads or cpu_threads()
        machine = bundle.manifest.machine
        if machine is not None and (machine.processor, machine.runtime) != (processor(), ort.__version__):
            raise BundleError(
                f"this bundle's step is tuned for another machine: {machine.processor}, ONNX Runtime "
                f"{machine.runtime}.",
                where=str(bundle.path),
                hint="Take the bundle it was made from; `cnnc tune` makes one for this machine.",
            )
        chosen = tuned or machine
        whole = tuned.path if tuned else bundle.graph("train.onnx")
        lanes = chosen.lanes if chosen and self.graph == whole else 1
        graphs = [whole.with_name(name) for name in (LANE, JOIN)] if lanes > 1 else [self.graph]
        settings = chosen.options if chosen else {}
        self._sessions = open_step(graphs, lanes, self.provider, self._threads, settings)
        self._batch = bundle.manifest.batch_names
        kinds = self._checked_inputs()
        self._outputs = Outputs(bundle, self._sessions.last)
        self._loss = self._outputs.arrays[LOSS]
        self._values = (self._allocate(), self._allocate())
        self._step = (self._sessions.load(self._values, self._outputs),)
        self._size = self._sessions.size(self._batch[0])
        self.is_tuned = chosen is not None
        self._others: tuple[Graph, ...] = ()
        self._now = 0
        self._kinds = kinds
        self._scalars: dict[str, ort.OrtValue] = {}
        for name, number in {**bundle.manifest.scalars, **(scalars or {})}.items():
            self.set_scalar(name, number)
        self._moving = tuple(map(self._floats, self._values)) if self.checks_cheaply else ()
        self.load_state(bundle.initial_state() if state is None else state)

    def step(self, images: Array, *targets: Array) -> tuple[float, Sums]:
        """Train on one batch of any size: `images` [n, C, H, W] and `targets`, of the graph's dtypes.

        Several targets are given in the order of `Manifest.targets`.

        Returns the mean loss and the sums of the metrics, both of the state before the step. Raises
        ModelError where ONNX Runtime fails; the state is then the one before the step.
        """
        graphs = self._step if self._size in (None, len(images)) else self._of_any_size()
        try:
            for graph in graphs:
                for name, array in zip(self._batch, (images, *targets), strict=True):
                    graph.feed(self._now, name, array)
                graph.run(self._now)
        except Exception as error:  # ORT's exceptions have no common base
            raise explain(error, self.bundle, "train.onnx") from error
        self._now = 1 - self._now
        return self._loss.item(), self._outputs.sums()

    def undo(self) -> None:
        """Take the last step back, the last alone: the state is again the one before it."""
        self._now = 1 - self._now

    def set_scalar(self, name: str, value: float) -> None:
        """Give the step's scalar input `name`, such as ``lr_scale``, another value from now on."""
        scalar = ort.OrtValue.ortvalue_from_numpy(np.array(value, self._kinds[name]))
        for graph in (*self._step, *self._others):
            graph.bind(name, scalar)
        self._scalars[name] = scalar  # a binding does not keep the array's memory alive

    def state(self, into: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """A copy of the whole state, under the names of `Manifest.state`.

        `into` is an earlier copy, whose arrays are overwritten: that is faster than to allocate new ones.
        """
        if into is None:
            return {name: np.array(value.numpy()) for name, value in self.values.items()}
        for name, value in self.values.items():
            np.copyto(into[name], value.numpy())
        return dict(into)

    def not_finite(self) -> str:
        """The name of a tensor of the state that has a NaN or an infinity; empty where none has."""
        moving = self._moving[self._now] if self._moving else self._floats(self.values)
        return next((name for name, array in moving if not np.isfinite(array).all()), "")

    @property
    def checks_cheaply(self) -> bool:
        """Whether `not_finite` reads the state where it lies; on CUDA it copies the whole state first."""
        return self.provider.device == "cpu"

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from `state`. Raises BundleError where it is not a state of this bundle."""
        if problem := state_mismatch(self.bundle.manifest, state):
            raise BundleError(problem, where=str(self.bundle.path))
        for name, value in self.values.items():
            value.update_inplace(np.ascontiguousarray(state[name]).reshape(state[name].shape))

    @property
    def values(self) -> dict[str, ort.OrtValue]:
        """The state as values on the device, valid until the next step; an `EvalSession` reads them there."""
        return self._values[self._now]

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """On CUDA the nodes that run on the CPU all the same; on the CPU nothing."""
        return nodes_on_cpu(self._sessions.last) if self.provider.device == "cuda" else ()

    def _of_any_size(self) -> tuple[Graph, ...]:
        """The step for batches of a size that the one in use does not take, loaded when first asked for."""
        if not self._others:
            symbolic = not isinstance(self.bundle.manifest.input.shape[0], int)
            names = ("train.onnx",) if self.is_tuned and symbolic else ("grad.onnx", "apply.onnx")
            sessions = [
                open_session(self.bundle.graph(name), self.provider, self._threads, stop_spinning=True)
                for name in names
            ]
            between = {}
            for output in sessions[0].get_outputs() if len(names) > 1 else ():
                if output.name == GRADIENT:
                    size, dtype = (self.bundle.manifest.gradient_size,), np.dtype(dtype_of(output.type))
                    between[GRADIENT] = ort.OrtValue.ortvalue_from_shape_and_type(size, dtype)
                elif output.name == metric_count("loss"):
                    array = self._outputs.arrays[output.name]
                    between[output.name] = ort.OrtValue.ortvalue_from_numpy(array)
            self._others = tuple(
                Loaded(session, self._values, self._outputs, between) for session in sessions
            )
            for name, scalar in self._scalars.items():
                for graph in self._others:
                    graph.bind(name, scalar)
        self._carry_over()
        return self._others

    def _carry_over(self) -> None:
        """Copy to the next state what none of the other graphs writes there: what never moves."""
        written = {name for graph in self._others for name in graph.outputs}
        for name, value in self.values.items():
            if NEXT + name not in written:
                self._values[1 - self._now][name].update_inplace(value.numpy())

    def _floats(self, values: Mapping[str, ort.OrtValue]) -> tuple[tuple[str, Array], ...]:
        """The tensors of one set that a step could spoil, as arrays: views on the CPU, copies elsewhere."""
        return tuple(
            (entry.name, values[entry.name].numpy())
            for entry in self.bundle.manifest.state
            if np.dtype(entry.dtype).kind == "f" and (entry.role != "parameter" or entry.trainable)
        )

    def _checked_inputs(self) -> dict[str, str]:
        """The dtype of each graph input, once their names are known to be the manifest's."""
        manifest = self.bundle.manifest
        kinds = {value.name: dtype_of(value.type) for value, _ in self._sessions.inputs()}
        names = [entry.name for entry in manifest.state]
        expected = {*self._batch, *manifest.scalars, *names}
        outputs = {LOSS, *(NEXT + name for name in names)}
        outputs |= {part(name) for name in manifest.counted for part in (metric_sum, metric_count)}
        differing = (expected ^ kinds.keys()) | (
            outputs - {value.name for value in self._sessions.last.get_outputs()}
        )
        if differing:
            raise BundleError(
                f"its inputs and outputs are not the manifest's: {', '.join(sorted(differing)[:5])}.",
                where=str(self.graph),
                hint="Build the bundle again with `cnnc build`.",
            )
        return kinds

    def _allocate(self) -> dict[str, ort.OrtValue]:
        """One set of state buffers, each in the memory where the graph reads that input.

        Elsewhere binding would copy once, and the graph would never see what later steps write.
        """
        devices = {value.name: device for value, device in self._sessions.inputs()}
        return {
            entry.name: ort.OrtValue.ortvalue_from_shape_and_type(
                entry.shape, np.dtype(entry.dtype), devices[entry.name]
            )
            for entry in self.bundle.manifest.state
        }
