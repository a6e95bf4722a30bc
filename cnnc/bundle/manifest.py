"""The manifest: everything a runtime must know beside the graphs, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cnnc.bundle.checking import contradiction
from cnnc.bundle.decoding import decode
from cnnc.bundle.names import FORMAT, GRAPHS, JOIN, LANE, VERSION
from cnnc.bundle.sealing import seal
from cnnc.bundle.specs import (
    AdapterSpec,
    FunctionSpec,
    HeadSpec,
    Machine,
    MemorySpec,
    MetricSpec,
    Preprocessing,
    Role,
    StateEntry,
    TargetSpec,
    TensorSpec,
)

SEAL = "sha256"
"""The field of the JSON by which a change of any other is found."""


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime must know beside the graphs. `to_json` and `from_json` are inverse.

    `scalars` are the further inputs of the step with their defaults: ``lr_scale`` always, ``seed`` (int64,
    below 2³¹) where the graph draws random numbers. `learning_rate` is the schedule's base rate, so that a
    wish for another rate is ``lr_scale = wish / learning_rate``. `output`, `activation`, `target`, `classes`
    and `loss` are those of the network's output (see `HeadSpec`), of several the first, called `head`;
    `further` are the others. An update follows every `accumulate` steps; `average` is the decay of the moving
    average of parameters and buffers, where one is kept. A bundle with a `machine` has a tuned train.onnx,
    for batches of the one size that `input` states. `augment` says by what the examples of a step are
    changed; `memory` is there where the step was to fit into a limit.
    """

    name: str
    producer: str
    opset: int
    ir_version: int
    input: TensorSpec
    output: TensorSpec
    activation: Literal["softmax", "sigmoid", "identity"]
    target: TargetSpec
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    learning_rate: float
    metrics: tuple[MetricSpec, ...]
    scalars: dict[str, int | float]
    seed: int
    state: tuple[StateEntry, ...]
    functions: tuple[FunctionSpec, ...]
    accumulate: int = 1
    average: float | None = None
    head: str = ""
    further: tuple[HeadSpec, ...] = ()
    adapters: tuple[AdapterSpec, ...] = ()
    machine: Machine | None = None
    augment: tuple[dict[str, Any], ...] = ()
    memory: MemorySpec | None = None
    files: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT
    version: int = VERSION

    @property
    def graphs(self) -> tuple[str, ...]:
        """The names of the bundle's graphs."""
        in_lanes = self.machine is not None and self.machine.lanes > 1
        return (*GRAPHS, LANE, JOIN) if in_lanes else GRAPHS

    def entries(self, *roles: Role) -> tuple[StateEntry, ...]:
        """The state entries of these roles, in the graphs' order."""
        return tuple(entry for entry in self.state if entry.role in roles)

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """Every output, the first one first."""
        first = HeadSpec(self.head, self.output, self.activation, self.target, self.classes, self.loss)
        return (first, *self.further)

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The targets that the graphs take beside the image, each once, in the graphs' order."""
        return tuple({head.target.name: head.target for head in self.heads}.values())

    @property
    def batch_names(self) -> tuple[str, ...]:
        """The inputs of the graphs that are a batch: the images, then each of `targets`."""
        return (self.input.name, *(target.name for target in self.targets))

    @property
    def counted(self) -> tuple[str, ...]:
        """The metrics whose sums and counts the graphs give, each once."""
        return tuple(dict.fromkeys(metric.counted for metric in self.metrics))

    @property
    def scalar_metrics(self) -> tuple[MetricSpec, ...]:
        """The metrics that are numbers, which reports show."""
        return tuple(metric for metric in self.metrics if metric.kind != "confusion_matrix")

    @property
    def gradient_size(self) -> int:
        """Number of elements of the flat gradient."""
        return sum(entry.size for entry in self.state if entry.offset is not None)

    def to_json(self) -> str:
        """The manifest as indented JSON, keys in the order of the fields, under its seal."""
        record = {"format": self.format, "version": self.version, **asdict(self)}
        return json.dumps({**record, SEAL: seal(record)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest, with its seal or, if it is an early one, without.

        Raises ValueError where it is not as it was written, where a field is missing, unknown or of the wrong
        type, or where a value can't be.
        """
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"it is not a {FORMAT} manifest")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')!r}, this cnnc reads version {VERSION}")
        written = data.pop(SEAL, None)
        if written is not None and written != seal(data):
            raise ValueError("it is not as it was written: its SHA-256 is another")
        manifest = decode(cls, data, "manifest")
        assert isinstance(manifest, Manifest)
        if wrong := contradiction(manifest):
            raise ValueError(wrong)
        return manifest
