"""Which execution provider runs a session, and the proof that it does: nothing falls back silently."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from cnnc.errors import BundleError, ProviderError, UsageError, did_you_mean
from cnnc.runtime.provenance import words

DEVICES = ("auto", "cpu", "cuda")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

ort.set_default_logger_severity(4)  # what goes wrong reaches the user as an exception, told in words

_CUDA_OPTIONS = {
    "device_id": "0",
    "use_tf32": "0",  # TF32 keeps 10 bits of mantissa: too few to follow the same run on a CPU
}


@dataclass(frozen=True)
class Provider:
    """The device that runs the sessions of a run; `words` says which it is and why, for people."""

    device: Literal["cpu", "cuda"]
    words: str

    @property
    def name(self) -> str:
        """ONNX Runtime's name of the execution provider."""
        return CUDA if self.device == "cuda" else CPU


def choose(device: str = "auto") -> Provider:
    """The provider for `device`: ``cpu``, ``cuda``, or ``auto`` (CUDA where it works, else the CPU).

    Raises ProviderError where CUDA is asked for and can't be had, UsageError for another name.
    """
    if device not in DEVICES:
        raise UsageError(f"there is no device '{device}'.", hint=did_you_mean(device, DEVICES))
    runtime = f"ONNX Runtime {ort.__version__}"
    if device == "cpu":
        return Provider("cpu", f"the CPU ({runtime})")
    if CUDA not in ort.get_available_providers():
        if device == "auto":
            return Provider("cpu", f"the CPU ({runtime}, a build without CUDA)")
        raise ProviderError(_both_installed() or f"{runtime} as installed has no {CUDA}.", hint=_INSTALL_CUDA)
    if problem := _cuda_problem():
        if device == "auto":
            return Provider("cpu", f"the CPU ({runtime}; CUDA doesn't start: {problem})")
        raise ProviderError(f"CUDA doesn't start: {problem}.", hint=_MEND_CUDA)
    return Provider("cuda", f"CUDA device {_CUDA_OPTIONS['device_id']} ({runtime})")


_INSTALL_CUDA = (
    "Replace the package by the one with CUDA (the two must not be installed together): "
    "`pip uninstall onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`, which is what "
    "the extra cnnc[cuda] names. Or use --device cpu."
)
_MEND_CUDA = (
    "Look whether `nvidia-smi` shows the GPU; CUDA's libraries come with "
    "`pip install 'onnxruntime-gpu[cuda,cudnn]'`. Or use --device cpu."
)


def _both_installed() -> str:
    """A sentence where both packages are installed, so that one hides the other; else empty."""
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            return ""
    return f"both onnxruntime and onnxruntime-gpu are installed, and the files of the first hide {CUDA}."


def _cuda_problem() -> str:
    """Why CUDA can't be used; empty where one element could be allocated on the device."""
    try:
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, "cuda", int(_CUDA_OPTIONS["device_id"]))
    except Exception as error:  # ORT raises RuntimeError, its own types, and OSError from the loader
        return str(error).strip().splitlines()[0].rstrip(".")
    return ""


def open_session(
    model: Path | bytes,
    provider: Provider,
    threads: int,
    *,
    stop_spinning: bool = False,
    options: ort.SessionOptions | None = None,
) -> ort.InferenceSession:
    """A quiet session for `model` on `provider` with `threads` threads inside an operator.

    `stop_spinning` is for a session that lives beside a busier one: its idle threads give their cores
    back at once; `options` are the caller's own, taken as they are. Raises BundleError for a model that can't
    be loaded, ProviderError where ONNX Runtime took another provider than the one asked for.
    """
    options = options or session_options(provider, threads, stop_spinning=stop_spinning)
    providers: list[Any] = [(CUDA, _CUDA_OPTIONS), CPU] if provider.device == "cuda" else [CPU]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a provider that is not there: told below
            session = ort.InferenceSession(_loadable(model), options, providers=providers)
    except Exception as error:  # ORT's exceptions have no common base
        where = "the model" if isinstance(model, bytes) else str(model)
        raise BundleError(f"ONNX Runtime can't load the graph: {words(error)}", where=where) from error
    session.disable_fallback()
    if provider.name not in session.get_providers():
        raise ProviderError(
            f"{provider.name} was asked for, and ONNX Runtime took {session.get_providers()[0]}.",
            hint=_MEND_CUDA,
        )
    return session


_LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session_options(
    provider: Provider,
    threads: int,
    settings: Mapping[str, str] | None = None,
    *,
    stop_spinning: bool = False,
) -> ort.SessionOptions:
    """What `open_session` takes where the caller has no options of its own, with `settings` beside them.

    These are ``graph_optimization_level`` (``disabled``, ``basic``, ``extended`` or ``all``) and what ONNX
    Runtime calls its configuration keys.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A plan of memory comes with the second step, beside the buffers of the first: up to twice the memory,
    # and no time saved. The benchmarks' networks take 0.6 to 0.85 of it without.
    options.enable_mem_pattern = False
    # Planned reuse keeps a buffer until the last value of its shape that takes it over: in a training step
    # from the forward pass to the backward one. Without it memory goes back at once, at no cost in time.
    options.enable_mem_reuse = False
    for name, value in (settings or {}).items():
        if name == "graph_optimization_level":
            options.graph_optimization_level = _LEVELS[value]
        else:
            options.add_session_config_entry(name, value)
    if stop_spinning:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if provider.device == "cuda":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.use_deterministic_compute = True
    return options


def _loadable(model: Path | bytes) -> str | bytes:
    """The model as ONNX Runtime takes it: a path that is no UTF-8 it does not take, but the file's bytes."""
    if isinstance(model, bytes):
        return model
    path = os.fspath(model)
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(model).read_bytes()
    return path


def nodes_on_cpu(session: ort.InferenceSession) -> tuple[str, ...]:
    """The nodes that a CUDA session runs on the CPU, as ``Op 'name'``, in the graph's order.

    Nodes on shapes and small integers belong there; anything else costs a copy each way a step.
    """
    return tuple(
        f"{node.op_type} '{node.name}'" if node.name else node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == CPU
        for node in part.get_nodes()
    )


def cpu_threads() -> int:
    """Threads for one session on the CPU: the physical cores this process may use, at least 1.

    ONNX Runtime's own default ignores a container's quota, and with more threads than cores it is many
    times slower.
    """
    try:
        mine = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return max(1, (os.cpu_count() or 2) // 2)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = {_read(topology.format(cpu)) or str(cpu) for cpu in mine}
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    limit = -(-int(quota) // int(period)) if quota.isdigit() else len(cores)
    return max(1, min(len(cores), limit))


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
