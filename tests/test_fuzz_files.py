"""Damaged files of every kind: an error that cnnc raises on purpose or a result, in bounded time and memory.

The readers of single arrays and images have more tests of the kind in `test_data_fuzz.py`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, Target, shard, with_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_fuzz import EXAMPLES, damaged

ALL = [*TARGETS, "manifest", "bundle", "state", "checkpoint"]
FUZZ = Path(__file__).parent.parent / "scripts" / "fuzz.py"
KINDS = [b"x", b"L", b"S", b"K", b"g", b"1"]
"""The types of members that tarfile treats in a way of their own."""
fuzzed = settings(max_examples=EXAMPLES or 60, derandomize=not EXAMPLES, deadline=5000, database=None)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return with_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("name", ALL)
def test_damage_is_told_or_does_no_harm(name: str, targets: dict[str, Target], tmp_path: Path) -> None:
    target = targets[name]
    path = target.prepare(tmp_path / "files")

    @fuzzed
    @given(st.sampled_from(target.seeds).flatmap(damaged))
    def damage(data: bytes) -> None:
        error = target.attempt(path, data)
        assert error is None or str(tmp_path) in str(error)

    for seed in target.seeds:
        assert target.attempt(path, seed) is None, "a sound file is read"
    damage()


@pytest.mark.parametrize("field", ["size", "type", "name", "link"])
def test_odd_headers_of_tar_members(field: str, tmp_path: Path) -> None:
    target = TARGETS["tar"]
    path = target.prepare(tmp_path / "files")
    place = {"name": (0, 100), "size": (124, 12), "type": (156, 1), "link": (157, 100)}[field]

    @fuzzed
    @given(
        st.binary(min_size=place[1], max_size=place[1])
        | st.sampled_from([b"x", b"L", b"S", b"K", b"g", b"1"])
    )
    def odd(value: bytes) -> None:
        data = bytearray(shard())
        data[place[0] : place[0] + len(value)] = value
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        target.attempt(path, bytes(data))

    odd()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris (extra [fuzz])")
@pytest.mark.parametrize("name", ALL)
def test_coverage_guided_fuzzing_finds_nothing(name: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(FUZZ), name, "--seconds", os.environ.get("CNNC_FUZZ_SECONDS", "3")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
