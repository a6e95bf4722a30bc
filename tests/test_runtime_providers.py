"""Devices: what is chosen, what is refused, and that nothing falls back silently."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import onnxruntime as ort
import pytest
from tiny_bundle import write_tiny_bundle

from cnnc.errors import ProviderError, UsageError
from cnnc.runtime import providers
from cnnc.runtime.providers import CPU, CUDA, Provider, choose, cpu_threads, nodes_on_cpu, open_session

without_cuda = pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")


def test_the_cpu_is_taken_when_asked_for() -> None:
    assert choose("cpu").device == "cpu"
    assert ort.__version__ in choose("cpu").words


@without_cuda
def test_auto_says_that_this_build_has_no_cuda() -> None:
    chosen = choose("auto")
    assert chosen.device == "cpu"
    assert "without CUDA" in chosen.words


@without_cuda
def test_cuda_without_the_provider_names_the_package() -> None:
    with pytest.raises(ProviderError) as caught:
        choose("cuda")
    message = str(caught.value)
    assert "pip install onnxruntime-gpu" in message
    assert "pip uninstall onnxruntime" in message
    assert "must not be installed together" in message


@without_cuda
def test_both_packages_at_once_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda package: "1.32.0")
    with pytest.raises(ProviderError, match="both onnxruntime and onnxruntime-gpu are installed"):
        choose("cuda")


def test_an_unknown_device_is_a_wrong_usage() -> None:
    with pytest.raises(UsageError, match="Did you mean 'cuda'"):
        choose("cude")


@without_cuda
def test_cuda_that_does_not_start_is_an_error_and_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(ProviderError, match=r"CUDA doesn't start: .*nvidia-smi"):
        choose("cuda")
    assert "CUDA doesn't start" in choose("auto").words


@without_cuda
def test_a_session_that_fell_back_is_an_error(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with pytest.raises(ProviderError, match=f"{CUDA} was asked for, and ONNX Runtime took {CPU}"):
        open_session(bundle.graph("eval.onnx"), Provider("cuda", "a GPU that is not there"), 1)


def test_nodes_on_the_cpu_are_listed_by_operator_and_name(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    model = write_tiny_bundle(tmp_path / "tiny").graph("train.onnx")
    found = nodes_on_cpu(ort.InferenceSession(model, options, providers=[CPU]))
    assert "Gemm 'grad/dense/weight'" in found
    assert "Flatten" in found


@pytest.mark.parametrize(
    ("siblings", "quota", "expected"),
    [
        (["0", "1", "2", "3"], "max 100000", 4),
        (["0-1", "0-1", "2-3", "2-3"], "max 100000", 2),
        (["0", "1", "2", "3"], "150000 100000", 2),
        (["0", "1", "2", "3"], "50000 100000", 1),
        (["", "", "", ""], "", 4),
    ],
    ids=["cores", "hyperthreads", "quota", "less than one", "nothing known"],
)
def test_threads_are_the_cores_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, siblings: list[str], quota: str, expected: int
) -> None:
    def read(path: str) -> str:
        return quota if path.endswith("cpu.max") else siblings[int(path.split("/cpu/cpu")[1].split("/")[0])]

    monkeypatch.setattr(providers, "_read", read)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    assert cpu_threads() == expected
