"""The file ``checkpoint``: safetensors, and in its metadata what onnxruntime-training keeps beside tensors.

Tensors are the model's whole state under the names of the graphs' inputs: parameters, running statistics,
and where the optimizer's state was saved too, its slots and its step counter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cnnc.bundle import Array, encode_state, read_state
from cnnc.errors import RunError

_KEY, _VERSION = "cnnc-ort-training", 1
LABELS = "cnnc.labels"
"""Metadata of a training or evaluation model: how many classes the labels, its last input, have."""

Property = int | float | str


@dataclass(frozen=True)
class Record:
    """What a checkpoint says of its tensors.

    `parameters` names the parameters in the model's order, `trainable` those that are trained, `slots` the
    state of the optimizer; other tensors are state that a script does not see. `learning_rate` is the
    optimizer's, where its state is saved; `calls` counts training steps of the module, which dropout masks
    depend on.
    """

    parameters: tuple[str, ...]
    trainable: tuple[str, ...]
    slots: tuple[str, ...] = ()
    properties: dict[str, Property] = field(default_factory=dict)
    learning_rate: float | None = None
    calls: int = 0


def encode(tensors: Mapping[str, Array], record: Record) -> bytes:
    """A checkpoint as bytes."""
    return encode_state(tensors, {_KEY: json.dumps({"version": _VERSION, **asdict(record)})})


def load(path: Path) -> tuple[dict[str, Array], Record]:
    """Read a checkpoint. Raises RunError where it is missing, not whole, or not one of these."""
    try:
        tensors, metadata = read_state(path)
        if _KEY not in metadata:
            raise ValueError("it was not written by cnnc.ort_training")
        content = json.loads(metadata[_KEY])
        if (version := content.pop("version")) != _VERSION:
            raise ValueError(f"its version is {version}, this cnnc reads version {_VERSION}")
        record = Record(
            tuple(content.pop("parameters")),
            tuple(content.pop("trainable")),
            tuple(content.pop("slots")),
            dict(content.pop("properties")),
            **content,
        )
        if absent := [name for name in (*record.parameters, *record.slots) if name not in tensors]:
            raise ValueError(f"it lacks '{absent[0]}'")
    except FileNotFoundError:
        raise RunError("there is no such checkpoint.", where=str(path)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"this is no checkpoint that can be read: {error}.",
            where=str(path),
            hint="generate_artifacts writes one; those of onnxruntime-training itself can't be read.",
        ) from error
    return tensors, record
