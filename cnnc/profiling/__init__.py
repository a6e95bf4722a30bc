"""Where the time of a step goes: what `cnnc bench` measures and shows. It imports no part of the compiler."""

from cnnc.profiling.measure import bench
from cnnc.profiling.picture import draw
from cnnc.profiling.report import Report, Row
from cnnc.profiling.subject import PASSES, Subject

__all__ = ["PASSES", "Report", "Row", "Subject", "bench", "draw"]
