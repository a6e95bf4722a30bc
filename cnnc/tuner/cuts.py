"""How a batch is cut: in one piece, in chunks one after the other, in lanes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from cnnc.bundle import Bundle
from cnnc.ir.update_ops import UPDATE_OPS
from cnnc.layout.step import fixed_step, laned_step, planned_step
from cnnc.tuner.candidates import Candidate, Group, groups_of

CHUNKS = (1, 2, 4, 8, 16)
SMALLEST_CHUNK = 16
"""Examples of a chunk at least."""
_UPDATES = {op.name for op in UPDATE_OPS}


@dataclass(frozen=True)
class Cut:
    """A step for a batch in parts: its graph, or those of a lane and of the join."""

    graphs: tuple[ir.Graph, ...]
    chunks: int = 1
    lanes: int = 1

    @classmethod
    def of(cls, bundle: Bundle, batch: int, chunks: int = 1, lanes: int = 1) -> Cut:
        """The step of a bundle. Raises BundleError; UnsupportedError where its batch can't go in parts."""
        if lanes > 1:
            return cls(laned_step(bundle, batch, lanes, chunks), chunks, lanes)
        return cls((fixed_step(bundle, batch, chunks),), chunks)

    @property
    def words(self) -> str:
        """The parts, for people."""
        chunks = f"{self.chunks} chunks" if self.chunks > 1 else ""
        lanes = f"{self.lanes} lanes" if self.lanes > 1 else ""
        return " of ".join(words for words in (lanes, chunks) if words)

    @property
    def gradients(self) -> list[str]:
        """The gradients that the updates read, as the last graph calls them."""
        read = [node.inputs[1] for node in self.graphs[-1] if node.op_type in _UPDATES]
        return list(dict.fromkeys(str(value.name) for value in read if value is not None))

    def groups(self, exact: bool) -> tuple[Group, ...]:
        """The groups of what sees the batch."""
        return groups_of(self.graphs[0], exact=exact)

    def planned(self, candidate: Candidate, exact: bool, watched: Sequence[str] = ()) -> tuple[bytes, ...]:
        """The graphs as ONNX models, with the candidate's forms and bodies; `watched` are outputs, too."""
        *lane, last = self.graphs
        if not lane:
            return (planned_step(last, candidate.plan, candidate.choices, watched=watched, exact=exact),)
        return (
            planned_step(lane[0], candidate.plan, candidate.choices, exact=exact),
            planned_step(last, {}, watched=watched, exact=exact),
        )


def chunks_for(batch: int, lanes: int) -> list[int]:
    """Into how many chunks the part of each of `lanes` may be cut."""
    return [
        chunks
        for chunks in CHUNKS
        if batch % (lanes * chunks) == 0 and batch // (lanes * chunks) >= SMALLEST_CHUNK
    ]


def lanes_for(threads: int) -> list[int]:
    """How many lanes are tried: one for each thread, and half as many of two threads each."""
    return [lanes for lanes in (threads, threads // 2) if lanes > 1 and threads % lanes == 0]
