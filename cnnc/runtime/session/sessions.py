"""The sessions of a step: one of the whole, or one for each lane and one of what joins them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from cnnc.bundle import of_lane
from cnnc.runtime.providers import Provider, open_session, session_options
from cnnc.runtime.session.bound import Graph, Loaded, Outputs, Sets
from cnnc.runtime.session.lanes import Lanes


@dataclass(frozen=True)
class Sessions:
    """`last` gives the results; before it run `lanes`, where there are any."""

    lanes: tuple[ort.InferenceSession, ...]
    last: ort.InferenceSession

    def load(self, sets: Sets, outputs: Outputs) -> Graph:
        """The step, bound to the state's buffers and to `outputs` of `last`."""
        return Lanes(self.lanes, self.last, sets, outputs) if self.lanes else Loaded(self.last, sets, outputs)

    def inputs(self) -> Iterator[tuple[ort.NodeArg, str]]:
        """What a caller gives, each once, and the memory where it is read: ``cpu`` or ``cuda``."""
        given = {of_lane(i, value.name) for i, lane in enumerate(self.lanes) for value in lane.get_outputs()}
        for session in (*self.lanes[:1], self.last):
            for value, memory in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True):
                if value.name not in given:
                    given.add(value.name)
                    yield value, "cuda" if memory.name == "Cuda" else "cpu"

    def size(self, image: str) -> int | None:
        """The examples of a batch, None where it takes any number of them; `image` names the images."""
        size = next(value.shape[0] for value, _ in self.inputs() if value.name == image)
        return size * max(1, len(self.lanes)) if isinstance(size, int) else None


def open_step(
    graphs: Sequence[Path | bytes],
    lanes: int,
    provider: Provider,
    threads: int,
    settings: Mapping[str, str],
    *,
    stop_spinning: bool = False,
) -> Sessions:
    """Sessions for a step of one of `graphs`; of two, the first of them is that of each of `lanes`.

    Lanes share `threads` among them. Raises as `open_session` does.
    """

    def opened(graph: Path | bytes, own: int) -> ort.InferenceSession:
        options = session_options(provider, own, settings, stop_spinning=stop_spinning or len(graphs) > 1)
        return open_session(graph, provider, own, options=options)

    *lane, last = graphs
    own = max(1, threads // lanes)
    return Sessions(tuple(opened(lane[0], own) for _ in range(lanes) if lane), opened(last, threads))
