"""The bundle: a folder of data where cnnc's two halves meet. The compiler writes it, the runtime reads it.

::

    train.onnx         one step: batch + scalars + state → loss, metrics, next state
    grad.onnx          batch + scalars + parameters + buffers → loss, metrics, next buffers, flat gradient
    apply.onnx         flat gradient + scalars + parameters + slots + step → next of each; where gradients of
                       several batches are gathered, also ``metrics/loss/count`` of the batch
    eval.onnx          batch + parameters + buffers → metrics (dropout off, running statistics used)
    infer.onnx         the deployable model, with the initial parameters inside
    manifest.json      everything else a runtime must know; SHA-256 of every other file
    state.safetensors  the initial state, under the names of the inputs it feeds

Names are the contract. State ``conv1.weight`` goes in under that name and comes back as
``next/conv1.weight``; the scalar ``loss`` is the mean over the batch; metric ``m`` comes as
``metrics/m/sum`` and ``metrics/m/count``, which add up over batches of any size (see `MetricSpec`; a count
may be a sum of weights). Of several outputs ``loss`` is the weighted sum of their losses and
``metrics/loss/sum`` that times the examples in the batch; what belongs to the output ``h`` carries its name:
metric ``h_accuracy``, target ``label/h``, prediction ``probabilities/h``. The flat gradient is
``gradient``, where parameter p lies at ``p.offset : p.offset + size`` in row-major order.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from cnnc.errors import BundleError

FORMAT, VERSION = "cnnc-bundle", 1
MANIFEST, STATE = "manifest.json", "state.safetensors"
GRAPHS = ("train.onnx", "grad.onnx", "apply.onnx", "eval.onnx", "infer.onnx")
LOSS, GRADIENT, NEXT, ADAPTED = "loss", "gradient", "next/", "adapted/"

Array = npt.NDArray[Any]
Role = Literal["parameter", "buffer", "slot", "accumulator", "average", "counter"]
Resize = Literal["exact", "stretch", "crop", "pad"]


def metric_sum(name: str) -> str:
    """The graph output that holds the sum of metric `name` over a batch."""
    return f"metrics/{name}/sum"


def metric_count(name: str) -> str:
    """The graph output that holds the number of examples in the sum of metric `name`."""
    return f"metrics/{name}/count"


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output. `dtype` is NumPy's name; a dimension is a size or a symbol such as ``"N"``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Preprocessing:
    """How a stored image becomes the graph's input: ``(uint8 · scale - mean) / std``, per channel.

    `mean` and `std` are empty (0 and 1) or have one number a channel. Floating-point data is taken as
    already scaled: only `mean` and `std` apply. An image file of another size than the input is first brought
    to it as `resize` says: ``exact`` files must have it, ``stretch`` ignores their proportions, ``crop``
    scales the largest centred rectangle of the input's proportions (the share `crop` of its height and
    width), ``pad`` adds black margins. Resampling is bilinear, averaging where it shrinks.
    """

    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: Resize = "exact"
    crop: float = 1.0


@dataclass(frozen=True)
class StateEntry:
    """One tensor of the state.

    A ``parameter`` is trained; a ``buffer`` (running statistics) is updated by the forward pass; a ``slot``
    belongs to the optimizer and to the parameter that `of` names, an ``accumulator`` holds the sum of its
    gradients since the last update, an ``average`` is its moving average; the ``counter`` counts finished
    steps. `initial` describes the distribution of its first value (see `cnnc.initial`); `offset` is where a
    parameter's gradient begins in the flat gradient, in elements; a frozen parameter (`trainable` false)
    has none and comes back unchanged.
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    initial: dict[str, Any]
    of: str | None = None
    trainable: bool = True
    offset: int | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class AdapterSpec:
    """A low-rank addition to a parameter: `weight` + `scale` · (`left` · `right`), in the weight's shape.

    train.onnx, grad.onnx and eval.onnx compute the sum, named ``adapted/<weight>``; infer.onnx has it in
    place of the weight. `left` is [first axis, rank], `right` [rank, all other axes].
    """

    weight: str
    left: str
    right: str
    scale: float


@dataclass(frozen=True)
class MetricSpec:
    """A metric of train.onnx and eval.onnx, made of a sum and a count that add up over batches.

    These are the outputs ``metrics/<counted>/sum`` and ``…/count``; metrics made of the same ones share them.
    The value of a ``mean`` is Σ sum / Σ count, that of ``psnr`` -10 · log₁₀ of it. A ``total`` is the sum of
    the metrics that `parts` names, each times its weight: the loss of several outputs. The others are made of
    the int64 matrix [C, C] of answers, rows labels and columns predictions: ``iou``, ``precision`` and
    ``recall`` of the class `label`, or their mean over the classes that occur; ``confusion_matrix`` is itself
    no number.
    """

    name: str
    better: Literal["higher", "lower"]
    kind: Literal["mean", "psnr", "iou", "precision", "recall", "confusion_matrix", "total"] = "mean"
    source: str = ""
    label: int | None = None
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def counted(self) -> str:
        """The name in the graphs' outputs: `source`, or its own."""
        return self.source or self.name


@dataclass(frozen=True)
class TargetSpec:
    """What the loss compares with: the graph input `name`.

    ``class`` labels are integers in [0, classes), one for each example, shape [N], or each pixel, [N, H, W];
    those equal to `ignored` count for nothing. ``binary`` targets are floats in [0, 1], ``distribution``
    targets such that add up to 1 along axis 1, and ``value`` targets any floats, all of the output's shape.
    `array` is what data calls them.
    """

    name: str
    kind: Literal["class", "binary", "distribution", "value"]
    dtype: str
    shape: tuple[int | str, ...]
    ignored: int | None = None
    array: str = "y"


@dataclass(frozen=True)
class HeadSpec:
    """One output of the network: what infer.onnx gives, and what it is compared with in training.

    `output` is the output of infer.onnx and `activation` what it applies to the network's value (``softmax``,
    ``sigmoid`` or ``identity``). `name` tells several outputs apart, and is empty where there is one. Heads
    may have the same `target`.
    """

    name: str
    output: TensorSpec
    activation: Literal["softmax", "sigmoid", "identity"]
    target: TargetSpec
    classes: tuple[str, ...]
    loss: dict[str, Any]


@dataclass(frozen=True)
class FunctionSpec:
    """Which body a gradient op got: `node` of train.onnx calls `function`, the `body` of gradient op `op`."""

    node: str
    op: str
    body: str
    function: str


@dataclass(frozen=True)
class Machine:
    """The machine that a tuned bundle's train.onnx was chosen on, and may be fast or able to run on alone.

    `runtime` is ONNX Runtime's version, `options` the session's settings that go with the step.
    """

    processor: str
    runtime: str
    threads: int
    options: dict[str, str]


@dataclass(frozen=True)
class MemorySpec:
    """What was done so that the step fits into `limit` bytes at the batch size `batch`.

    `estimate` is what a process that trains takes beside its data set. `recomputed` counts the activations
    that are computed again rather than kept, `chunks` the parts in which a batch goes.
    """

    limit: int
    batch: int
    estimate: int
    recomputed: int
    chunks: int


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime must know beside the graphs. `to_json` and `from_json` are inverse.

    `scalars` are the further inputs of the step with their defaults: ``lr_scale`` always, ``seed`` (int64)
    where the graph draws random numbers. `learning_rate` is the schedule's base rate, so that a wish for
    another rate is ``lr_scale = wish / learning_rate``. `output`, `activation`, `target`, `classes` and
    `loss` are those of the network's output (see `HeadSpec`), of several the first, called `head`; `further`
    are the others. An update follows every `accumulate` steps; `average` is the decay of the parameters'
    moving average, where one is kept. A bundle with a `machine` has a tuned train.onnx, for batches of the
    one size that `input` states. `augment` says by what the examples of a step are changed; `memory` is
    there where the step was to fit into a limit.
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
        """The manifest as indented JSON, keys in the order of the fields."""
        return json.dumps({"format": self.format, "version": self.version, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest; ValueError where a field is missing, unknown or of the wrong type."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"it is not a {FORMAT} manifest")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')!r}, this cnnc reads version {VERSION}")
        manifest = _decode(cls, data, "manifest")
        assert isinstance(manifest, Manifest)
        return manifest


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files were whole and unaltered when it was opened."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read the manifest at `path` and check the hash of every file. Raises BundleError."""
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(
                "there is no such bundle.", where=str(folder), hint="Write one with `cnnc build`."
            )
        manifest_path = folder / MANIFEST
        try:
            manifest = Manifest.from_json(manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(
                f"this folder is no bundle: it has no {MANIFEST}.",
                where=str(folder),
                hint="Write one with `cnnc build`.",
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(
                f"the manifest can't be read: {error}.", where=str(manifest_path), hint=_REBUILD
            ) from error
        for name in (*GRAPHS, STATE):
            expected = manifest.files.get(name)
            try:
                actual = file_hash(folder / name)
            except FileNotFoundError:
                raise BundleError(
                    "this file of the bundle is missing.", where=str(folder / name), hint=_REBUILD
                ) from None
            except OSError as error:
                raise BundleError(f"this file can't be read: {error}.", where=str(folder / name)) from error
            if actual != expected:
                raise BundleError(
                    "this file is truncated or altered: its SHA-256 is not the manifest's.",
                    where=str(folder / name),
                    hint=_REBUILD,
                )
        return cls(folder, manifest)

    def graph(self, name: str) -> Path:
        """The path of one of the graphs, such as ``train.onnx``."""
        return self.path / name

    def initial_state(self) -> dict[str, Array]:
        """The initial state, checked against the manifest. Raises BundleError."""
        path = self.path / STATE
        try:
            state, _ = read_state(path)
        except (OSError, ValueError) as error:
            raise BundleError(f"the state can't be read: {error}.", where=str(path), hint=_REBUILD) from error
        if problem := state_mismatch(self.manifest, state):
            raise BundleError(problem, where=str(path), hint=_REBUILD)
        return state


_REBUILD = "Build the bundle again with `cnnc build`, or restore it from a copy."


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Manifest,
    graphs: Mapping[str, bytes],
    state: Mapping[str, Array],
) -> Bundle:
    """Write a bundle to a new folder `path`, whole or not at all. Raises BundleError.

    An existing empty folder, or an existing bundle, is replaced; anything else is left as it is.
    """
    folder = Path(path)
    files = {**graphs, STATE: encode_state(state)}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = Manifest(**{**{f.name: getattr(manifest, f.name) for f in fields(manifest)}, "files": hashes})
    files[MANIFEST] = manifest.to_json().encode()
    check_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, data in files.items():
                (temporary / name).write_bytes(data)
            temporary.chmod(0o777 & ~_umask())
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise BundleError(
            f"the bundle can't be written: {error.strerror or error}.",
            where=str(folder),
            hint="Choose another folder with -o.",
        ) from error
    return Bundle(folder, manifest)


def check_replaceable(folder: Path) -> None:
    """Raise BundleError unless `folder` is absent, empty, or an earlier bundle and nothing else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BundleError(
            "a file of this name exists.", where=str(folder), hint="Choose another name with -o."
        )
    names = {entry.name for entry in folder.iterdir()}
    if names and not (MANIFEST in names and names <= {*GRAPHS, STATE, MANIFEST}):
        raise BundleError(
            "this folder exists and holds something else than a bundle.",
            where=str(folder),
            hint="Choose another folder with -o, or empty this one.",
        )


def merged(manifest: Manifest, state: Mapping[str, Array]) -> dict[str, Array]:
    """The state with each adapter added to its weight: what infer.onnx has."""
    whole = dict(state)
    for adapter in manifest.adapters:
        weight = whole[adapter.weight]
        product = whole[adapter.left].astype(np.float64) @ whole[adapter.right]
        whole[adapter.weight] = (weight + adapter.scale * product.reshape(weight.shape)).astype(weight.dtype)
    return whole


def encode_state(state: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """A state as the bytes of a safetensors file (deterministic: the same state gives the same bytes)."""
    return save_safetensors(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in state.items()},
        dict(metadata) if metadata else None,
    )


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file: its arrays and its metadata. Raises OSError or ValueError."""
    data = Path(path).read_bytes()
    try:
        arrays = load_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"it is no whole safetensors file ({error})") from error
    return arrays, dict(header.get("__metadata__", {}))


def state_mismatch(manifest: Manifest, state: Mapping[str, Array]) -> str:
    """What keeps `state` from being a state of this bundle, in a sentence; empty where nothing does."""
    expected = {entry.name: entry for entry in manifest.state}
    if missing := sorted(expected.keys() - state.keys()):
        return f"the state lacks {', '.join(missing[:5])}."
    if extra := sorted(state.keys() - expected.keys()):
        return f"the state has {', '.join(extra[:5])}, which the manifest does not know."
    for name, entry in expected.items():
        array = state[name]
        if array.shape != entry.shape or array.dtype.name != entry.dtype:
            return (
                f"state '{name}' is {array.dtype.name} {list(array.shape)}, "
                f"the manifest says {entry.dtype} {list(entry.shape)}."
            )
    return ""


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _decode(kind: Any, value: Any, where: str) -> Any:
    """`value` from JSON as the type `kind`: dataclasses, tuples, dicts, literals and scalars."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        if value in arguments:
            return value
    elif origin in (Union, UnionType):
        for option in arguments:
            try:
                return _decode(option, value, where)
            except ValueError:
                continue
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    elif origin is dict:
        if isinstance(value, dict):
            return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    elif hasattr(kind, "__dataclass_fields__"):
        if isinstance(value, dict):
            hints = get_type_hints(kind)
            if unknown := value.keys() - hints.keys():
                raise ValueError(f"{where} has unknown fields {sorted(unknown)}")
            try:
                return kind(
                    **{key: _decode(hints[key], item, f"{where}.{key}") for key, item in value.items()}
                )
            except TypeError as error:
                raise ValueError(f"{where} is incomplete: {error}") from error
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{where} is {value!r}, which is not {getattr(kind, '__name__', kind)}")
