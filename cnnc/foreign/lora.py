"""LoRA: training low-rank additions to weights that stay as they are; Hu et al., 2021.

A weight W of a Conv, ConvTranspose, Gemm or MatMul becomes W + alpha / rank · (left · right) in W's shape,
where W is taken as a matrix of its first axis by all others. For a convolution, W [out, in, k, k], left is B
[out, rank] and right A [rank, in·k·k]: the convolution by A to `rank` channels and a 1×1 convolution by B
back, as in Hugging Face's PEFT, written as the change of the weight that the authors' loralib computes with.
So grouped convolutions are as good as others, and the sum alone is left at export.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import onnx_ir as ir

from cnnc.errors import UsageError
from cnnc.ir import Adapter, Network, Parameter, TensorType
from cnnc.patterns import few, matching

RANK = 8


@dataclass(frozen=True)
class Lora:
    """Which weights are adapted, by a regular expression over whole names, and how.

    `alpha` None is `rank`, so that the addition is left · right itself. Raises UsageError.
    """

    match: str
    rank: int = RANK
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"--lora-rank is {self.rank}: it must be at least 1.")
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise UsageError(f"--lora-alpha is {self.alpha}: it must be a number above 0.")

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank


def adapt(network: Network, lora: Lora, trained: Collection[str]) -> list[str]:
    """Add adapters to the weights chosen; of all else only the parameters `trained` still move. Returns
    notes.

    The first factor in the order of the computation, A, is drawn as loralib draws it, from U(-b, b) with
    b = 1/√inputs (Kaiming with a = √5), and B is 0: the network is at first what it was. Raises UsageError.
    """
    names = [name for name, p in network.parameters.items() if p.kind != "statistic"]
    found = matching("--lora", lora.match, names)
    able = {name: first for name in names if (first := _draws_left(network, name)) is not None}
    chosen = [name for name in found if name in able and name not in trained]
    if not chosen:
        fit = [name for name in able if name not in trained]
        raise UsageError(
            f"--lora '{lora.match}' matches no weight of a Conv, Gemm or MatMul that stays as it is.",
            hint=f"There are: {few(fit)}." if fit else "The model has no such weight.",
        )
    large = [name for name in chosen if not _saves(network.parameters[name], lora.rank)]
    chosen = [name for name in chosen if name not in large]
    if not chosen:
        raise UsageError(
            f"--lora-rank {lora.rank} makes the adapters of {few(large)} no smaller than the weights.",
            hint="Take a lower rank.",
        )
    for name in names:
        kept = name in trained and network.parameters[name].trainable
        network.parameters[name] = replace(network.parameters[name], trainable=kept)
    for name in chosen:
        _add(network, name, lora, able[name])
    moved = [p for p in network.parameters.values() if p.trainable and p.kind != "statistic"]
    elements = sum(math.prod(p.type.sizes) for p in moved)
    notes = [
        f"{len(chosen)} weights are adapted at rank {lora.rank}; {elements:,} numbers are trained in all."
    ]
    if large:
        notes.append(f"not adapted, for that would take no fewer numbers: {few(large)}.")
    return notes


def _add(network: Network, name: str, lora: Lora, draws_left: bool) -> None:
    weight = network.parameters[name]
    rows, columns = _matrix(weight)
    layer = name.removesuffix(".weight")
    inputs = rows if draws_left else columns
    drawn = {"kind": "uniform", "bound": 1.0 / math.sqrt(inputs)}
    zero = {"kind": "constant", "value": 0.0}
    a, b = (_free(network, f"{layer}.lora_{letter}") for letter in "AB")
    left, right = (a, b) if draws_left else (b, a)
    for factor, dims in ((left, (rows, lora.rank)), (right, (lora.rank, columns))):
        initial = drawn if factor == a else zero
        type_ = TensorType(weight.type.dtype, dims)
        network.parameters[factor] = Parameter(factor, type_, "weight", initial)
    network.adapters.append(Adapter(name, left, right, lora.scale))


def _free(network: Network, name: str) -> str:
    taken = {value.name for node in network.graph for value in node.outputs}
    while name in taken or name in network.parameters:
        name += "_"
    return name


def _draws_left(network: Network, name: str) -> bool | None:
    """Whether the inputs of its layer are the rows of a weight; None where it can't be adapted."""
    value = next((v for v in network.graph.inputs[1:] if v.name == name), None)
    uses = [] if value is None else list(value.uses())
    if network.parameters[name].kind != "weight" or len(network.parameters[name].type.dims) < 2 or not uses:
        return None
    sides = {_INPUTS_FIRST[n.op_type](n) if n.op_type in _INPUTS_FIRST and i == 1 else None for n, i in uses}
    return sides.pop() if len(sides) == 1 else None


def _transposed(node: ir.Node) -> bool:
    return bool(node.attributes["transB"].as_int()) if "transB" in node.attributes else False


_INPUTS_FIRST: dict[str, Callable[[ir.Node], bool]] = {
    "Conv": lambda node: False,
    "ConvTranspose": lambda node: True,
    "Gemm": lambda node: not _transposed(node),
    "MatMul": lambda node: True,
}
"""For each operator, whether the first axis of its weight, input 1, counts its inputs."""


def _matrix(weight: Parameter) -> tuple[int, int]:
    first, *others = weight.type.sizes
    return first, math.prod(others)


def _saves(weight: Parameter, rank: int) -> bool:
    rows, columns = _matrix(weight)
    return rank * (rows + columns) < rows * columns
