"""A step on the machine: loaded, checked against the portable one, and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cnnc.bundle import LOSS, NEXT, Bundle
from cnnc.data import assumed_sizes, synthetic_batch
from cnnc.runtime.providers import choose
from cnnc.runtime.session.bound import Graph, Outputs
from cnnc.runtime.session.sessions import open_step
from cnnc.runtime.session.specs import dtype_of

Array = npt.NDArray[Any]
GRADIENT = "grad/"
"""How the names of a step's gradients begin where they are outputs, too."""

LOSS_TOLERANCE = 1e-4
OWN_TOLERANCE, WHOLE_TOLERANCE = 0.15, 1e-3
"""What a tensor may differ by, as parts of its own norm and of all gradients' norm together.

Elements next to a kink may fall on its other side when the order of a sum changes, and count as errors here:
in ResNet-50 on a batch of 8, two exact forms differ from one another by 6 % in the gradient of every layer,
as much as from the portable step. What is wrong is wrong by more."""


class Refused(Exception):  # noqa: N818 -- an outcome, not an error
    """A step failed to load, or does not compute what the portable one does."""


def feeds_of(bundle: Bundle, batch: int) -> dict[str, Array]:
    """One made-up batch, the scalars and the initial state."""
    manifest = bundle.manifest
    arrays = synthetic_batch(manifest, batch, "tune", assumed_sizes(manifest))
    feeds: dict[str, Array] = dict(zip(manifest.batch_names, arrays, strict=True))
    for name, value in manifest.scalars.items():
        feeds[name] = np.array(value)
    return feeds | bundle.initial_state()


@dataclass
class Contestant:
    """A loaded step with its inputs and outputs bound, as training binds them.

    `graphs` are one graph, or that of each lane and that which joins them; the bound memory is that of the
    arrays `feeds` and `following`.
    """

    graphs: tuple[bytes, ...]
    step: Graph
    outputs: Outputs
    feeds: dict[str, Array]
    following: dict[str, Array]
    times: list[float] = field(default_factory=list)

    @classmethod
    def load(
        cls,
        graphs: Sequence[bytes],
        bundle: Bundle,
        feeds: Mapping[str, Array],
        threads: int,
        options: Mapping[str, str],
        lanes: int = 1,
    ) -> Contestant:
        """Open its sessions and bind them. Raises Refused."""
        feeds = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in feeds.items()}
        try:
            sessions = open_step(graphs, lanes, choose("cpu"), threads, options, stop_spinning=True)
            outputs = Outputs(bundle, sessions.last)
            kinds = {value.name: dtype_of(value.type) for value, _ in sessions.inputs()}
            feeds |= {name: feeds[name].astype(kinds[name]) for name in bundle.manifest.scalars}
            state = {entry.name: feeds[entry.name] for entry in bundle.manifest.state}
            following = {name: np.zeros_like(array) for name, array in state.items()}
            given, taken = (
                {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
                for arrays in (state, following)
            )
            step = sessions.load((given, taken), outputs)
            for name, array in feeds.items():
                if name in bundle.manifest.batch_names:
                    step.feed(0, name, array)
                elif name not in state:
                    step.bind(name, ort.OrtValue.ortvalue_from_numpy(array))
            step.run(0)
        except Exception as error:  # ORT's exceptions have no common base
            raise Refused(str(error).strip().splitlines()[0][:300]) from error
        return cls(tuple(graphs), step, outputs, feeds, following)

    def run(self, count: int) -> None:
        """Time `count` steps."""
        for _ in range(count):
            begun = time.perf_counter()
            self.step.run(0)
            self.times.append(1e3 * (time.perf_counter() - begun))

    @property
    def quick(self) -> float:
        """The lower quartile of its times, in ms, of few the least: when nothing else takes the machine."""
        return statistics.quantiles(self.times, n=4)[0] if len(self.times) > 3 else min(self.times)

    @property
    def median(self) -> float:
        """The median of its times, in ms."""
        return statistics.median(self.times)

    def results(self, gradients: Sequence[str]) -> dict[str, Array]:
        """All outputs of the last step; `gradients` as ``grad/0``, ``grad/1``, …: chunks rename them."""
        names = {name: f"{GRADIENT}{i}" for i, name in enumerate(gradients)}
        found = {names.get(name, name): array for name, array in self.outputs.arrays.items()}
        return found | {NEXT + name: array for name, array in self.following.items()}


def moved(feeds: Mapping[str, Array], bundle: Bundle) -> dict[str, Array]:
    """The feeds with a state as training reaches it: no bias is 0 any more, no scale 1, no slot empty."""
    random = np.random.default_rng(1)
    trial = dict(feeds)
    for entry in bundle.manifest.state:
        value = feeds[entry.name]
        if entry.role == "counter":
            trial[entry.name] = value + 3
        elif value.ndim and value.dtype.kind == "f":
            noise = random.standard_normal(value.shape)
            if entry.role in ("parameter", "average"):
                size = 0.1 * float(np.abs(value).mean()) or 0.05
                trial[entry.name] = (value + size * noise).astype(value.dtype)
            else:
                trial[entry.name] = (np.abs(value) + 1e-2 * np.abs(noise)).astype(value.dtype)
    return trial


def check(found: Mapping[str, Array], right: Mapping[str, Array], feeds: Mapping[str, Array]) -> None:
    """Compare a step's results with the portable step's: each gradient, each move of the state, the metrics.

    Raises Refused, with the first that differs.
    """
    loss, expected = float(found[LOSS]), float(right[LOSS])
    if not abs(loss - expected) <= LOSS_TOLERANCE * max(abs(expected), 1e-3):
        raise Refused(f"its loss is {loss:.7g}, not {expected:.7g}")
    whole = np.sqrt(sum(_norm(value) ** 2 for name, value in right.items() if name.startswith(GRADIENT)))
    for name, value in right.items():
        difference, mine = _norm(found[name].astype(np.float64) - value), _norm(value)
        if name.startswith(NEXT):
            before = feeds[name.removeprefix(NEXT)]
            allowed = 2 * OWN_TOLERANCE * _norm(value.astype(np.float64) - before) + WHOLE_TOLERANCE * mine
        elif name.startswith("metrics/"):
            allowed = 2 + WHOLE_TOLERANCE * mine  # an answer or two may tip over
        else:
            allowed = OWN_TOLERANCE * mine + WHOLE_TOLERANCE * whole
        if not difference <= allowed:
            raise Refused(f"its '{name}' differs by {difference:.2g} of {mine:.2g}")


def _norm(value: Array) -> float:
    return float(np.linalg.norm(value.astype(np.float64).ravel()))
