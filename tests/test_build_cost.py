"""What it costs to build a network grows with its layers, and no faster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import onnx
import pytest
from foreign_models import model, save, weight
from onnx import helper

from cnnc.foreign.training import compile_model

pytestmark = [pytest.mark.usefixtures("in_process"), pytest.mark.slow]


def _chain(layers: int, path: Path) -> Path:
    """A convolution, batch normalisation and ReLU, again and again."""
    nodes, tensors, x, channels = [], [], "x", 3
    for i in range(layers):
        statistics = [f"bn{i}.{name}" for name in ("weight", "bias", "mean", "var")]
        tensors += [weight(f"conv{i}.weight", 4, channels, 3, 3), *(weight(name, 4) for name in statistics)]
        nodes += [
            helper.make_node("Conv", [x, f"conv{i}.weight"], [f"c{i}"], f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"c{i}", *statistics], [f"b{i}"], f"bn{i}"),
            helper.make_node("Relu", [f"b{i}"], [f"r{i}"], f"relu{i}"),
        ]
        x, channels = f"r{i}", 4
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["y"], "pool"))
    return save(model(nodes, tensors), path)


def _calls(path: Path) -> int:
    """How many functions of Python a build calls: a measure that no other process disturbs."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        compile_model(path)
    finally:
        sys.setprofile(before)
    return count


def test_the_cost_of_a_build_is_linear_in_layers(tmp_path: Path) -> None:
    small, middle, large = (_calls(_chain(n, tmp_path / f"{n}.onnx")) for n in (4, 8, 16))
    assert (large - middle) / (middle - small) == pytest.approx(2.0, rel=0.05)


MEASURED = """
import resource, sys
from cnnc.build import build_model
build_model(sys.argv[1], sys.argv[2])
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def test_a_build_takes_four_times_the_parameters_and_half_a_gigabyte(tmp_path: Path) -> None:
    """The largest of the light models, in a process of its own."""
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_vgg19.onnx"
    command = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "vgg.bundle")]
    peak = 1024 * int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    parameters = (tmp_path / "vgg.bundle" / "state.safetensors").stat().st_size
    assert peak < 4 * parameters + 500e6
