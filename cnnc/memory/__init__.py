"""Steps that fit into a given memory: what they take, and what to compute twice, or in turns, to save."""

from cnnc.memory.chunks import in_chunks
from cnnc.memory.liveness import Estimate, estimate
from cnnc.memory.plan import MemoryLimit, Saving, fit
from cnnc.memory.recompute import recompute

__all__ = ["Estimate", "MemoryLimit", "Saving", "estimate", "fit", "in_chunks", "recompute"]
