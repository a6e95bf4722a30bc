"""A step in lanes: a graph runs for each equal part of the batch at the same time, and another joins them.

The graphs are those of `cnnc.runtime.tuned`. Each lane has a session with threads of its own, so that lanes
meet at their end alone; `Session.run` of ONNX Runtime lets go of Python's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import onnxruntime as ort

from cnnc.bundle import Array, of_lane
from cnnc.runtime.session.bound import Loaded, Outputs, Sets
from cnnc.runtime.session.specs import dtype_of


class Lanes:
    """A step of `lanes`, sessions of the same graph, and the `join` that takes what they give: a `Graph`.

    `outputs` are the join's. Batches are of one size, that of all lanes together.
    """

    def __init__(
        self, lanes: Sequence[ort.InferenceSession], join: ort.InferenceSession, sets: Sets, outputs: Outputs
    ) -> None:
        self._lanes: list[Loaded] = []
        between: dict[str, ort.OrtValue] = {}
        for i, session in enumerate(lanes):
            given = {
                value.name: ort.OrtValue.ortvalue_from_numpy(np.zeros(value.shape, dtype_of(value.type)))
                for value in session.get_outputs()
            }
            between |= {of_lane(i, name): value for name, value in given.items()}
            self._lanes.append(Loaded(session, sets, None, given))
        self._join = Loaded(join, sets, outputs, between)
        self._others = ThreadPoolExecutor(len(lanes) - 1, thread_name_prefix="lane")
        self.inputs = self._lanes[0].inputs | (self._join.inputs - between.keys())
        self.outputs = self._join.outputs

    def bind(self, name: str, value: ort.OrtValue) -> None:
        """Bind an input for all steps to come, where a graph has it."""
        for graph in (*self._lanes, self._join):
            graph.bind(name, value)

    def feed(self, turn: int, name: str, array: Array) -> None:
        """Give each lane its part of the batch's `array`, which the caller keeps."""
        for lane, part in zip(self._lanes, np.split(array, len(self._lanes)), strict=True):
            lane.feed(turn, name, part)

    def run(self, turn: int) -> None:
        """All lanes, then the join."""
        first, *others = self._lanes
        running = [self._others.submit(lane.run, turn) for lane in others]
        try:
            first.run(turn)
        finally:
            wait(running)  # they write to memory that is the caller's again after this
        for lane in running:
            lane.result()
        self._join.run(turn)
