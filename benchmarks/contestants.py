"""Who takes part: a worker module, the environment it runs in, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.workers.protocol import TASKS, Task


@dataclass(frozen=True)
class Contestant:
    """A module of `benchmarks.workers` and the one of `ENVIRONMENTS` it runs in; None is cnnc's own."""

    name: str
    worker: str
    environment: str | None
    options: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[Task, ...] = TASKS

    @property
    def is_peer(self) -> bool:
        """Whether it is not cnnc."""
        return self.environment is not None


def _pytorch(name: str, memory: str, compiled: str) -> Contestant:
    return Contestant(name, "pytorch", "pytorch", {"memory": memory, "compile": compiled})


def _keras(name: str, step: str, *tasks: Task) -> Contestant:
    return Contestant(name, "keras_tensorflow", "keras", {"step": step}, tasks or TASKS)


EAGER = _pytorch("pytorch", "contiguous", "no")
CNNC = Contestant("cnnc", "cnnc_runtime", None)
TUNED = Contestant("cnnc-tuned", "cnnc_runtime", None, {"tune": "60"}, ("train",))
"""With the step that ``cnnc tune`` finds in a minute, or has found before."""
CONTESTANTS = (
    CNNC,
    TUNED,
    EAGER,
    _pytorch("pytorch-channels-last", "channels-last", "no"),
    _pytorch("pytorch-compiled", "contiguous", "yes"),
    _pytorch("pytorch-compiled-channels-last", "channels-last", "yes"),
    _keras("keras", "function"),
    _keras("keras-train-on-batch", "train_on_batch", "train"),
    _keras("keras-xla", "xla"),
    Contestant("jax", "jax_jit", "jax"),
    Contestant("onnxruntime-training", "onnxruntime_training", "onnxruntime-training", {}, ("train",)),
)


def parse(text: str) -> Contestant:
    """A contestant by name, or cnnc with options of its own. Raises ValueError.

    ``cnnc:ConvGradWeight=one_hot,MaxPoolGrad=…`` gives each gradient op of that kind that body;
    ``cnnc:bundle=FOLDER`` takes a bundle of the row's network made elsewhere; ``cnnc:tune=SECONDS`` tunes.
    """
    name, _, options = text.partition(":")
    known = {contestant.name: contestant for contestant in CONTESTANTS}
    pairs = [option.partition("=") for option in options.split(",") if option]
    if name not in known or (pairs and name != CNNC.name) or not all(value for _, _, value in pairs):
        names = ", ".join(known)
        raise ValueError(f"'{text}' is no contestant: choose among {names}, or write cnnc:name=value,…")
    return replace(known[name], name=text, options={**known[name].options, **{k: v for k, _, v in pairs}})
