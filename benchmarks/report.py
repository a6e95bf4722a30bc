"""From turns to a table, as Markdown for people and as JSON with every number."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import EAGER
from benchmarks.driver import Entry
from benchmarks.networks import Row
from benchmarks.workers.protocol import Task


@dataclass(frozen=True)
class Line:
    """A contestant in a row. Times are milliseconds a step; a ratio below 1 is a faster step."""

    contestant: str
    median_ms: float
    fastest_ms: float
    to_eager: float | None
    to_best_peer: float | None
    peak_memory_mb: float
    deviation: float


@dataclass(frozen=True)
class Table:
    """A measured row: its lines from the fastest to the slowest, who is out and why, and the raw turns."""

    row: Row
    task: Task
    lines: tuple[Line, ...]
    out: dict[str, str]
    versions: dict[str, dict[str, str]]
    turns: dict[str, list[list[float]]]
    load: float

    @property
    def best_peer(self) -> str | None:
        """The peer whose line reads 1.00 in the last column."""
        return next((line.contestant for line in self.lines if line.to_best_peer == 1.0), None)


def tabulate(row: Row, task: Task, entries: Sequence[Entry], load: float) -> Table:
    """The table of one row; `load` is the load average before it began."""
    measured = {entry.contestant.name: entry for entry in entries if entry.turns and not entry.out}
    medians = {name: np.median(entry.turns, axis=1) for name, entry in measured.items()}
    eager = medians.get(EAGER.name)
    base = eager if eager is not None else next(iter(medians.values()), np.ones(0))
    order = sorted(measured, key=lambda name: float(np.median(medians[name] / base)))
    best = next((medians[name] for name in order if measured[name].contestant.is_peer), None)

    def line(name: str) -> Line:
        def ratio(other: Any) -> float | None:
            return None if other is None else float(np.median(medians[name] / other))

        return Line(
            name,
            float(np.median(medians[name])),
            float(np.min(measured[name].turns)),
            ratio(eager),
            ratio(best),
            measured[name].peak_memory_mb,
            measured[name].deviation,
        )

    return Table(
        row,
        task,
        tuple(map(line, order)),
        {entry.contestant.name: entry.out for entry in entries if entry.out},
        {name: entry.versions for name, entry in measured.items()},
        {name: entry.turns for name, entry in measured.items()},
        load,
    )


def machine() -> dict[str, Any]:
    """The machine in words that name no host."""
    models = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory[0] * 1024 / 1e9, 1) if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def markdown(tables: Sequence[Table], machine: dict[str, Any], threads: int) -> str:
    """The tables with everything needed to read them."""
    words = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}"
    )
    parts = [
        "# Side by side",
        f"{words}; {threads} threads each, float32. Contestants in processes of their own take turns, those "
        "that wait are stopped; each started from the same state and its first five steps gave the same "
        "losses. Ratios are times over times within a round, median over rounds: below 1 is faster. Memory "
        "is the process's largest resident size in 10⁶ bytes; *differs* is by how much of the largest loss "
        "(or probability) it differed from the first contestant in those five steps.",
    ]
    parts += map(section, tables)
    parts += ["## Versions", "\n".join(f"- {line}" for line in _versions(tables))]
    return "\n\n".join(parts) + "\n"


def section(table: Table) -> str:
    """One row of the benchmark under its heading."""
    rounds = max(map(len, table.turns.values()), default=0)
    return "\n\n".join(
        (
            f"## {table.row}, {table.task}",
            _rows(table.lines),
            *(f"{name} is out: {why}" for name, why in table.out.items()),
            f"{rounds} rounds; load average before the row {table.load:.2f}.",
        )
    )


def write(tables: Sequence[Table], threads: int, folder: Path) -> str:
    """Write results.md and results.json in `folder`, and return the last table's section."""
    here = machine()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(markdown(tables, here, threads), encoding="utf-8")
    record = {"machine": here, "threads": threads, "rows": [asdict(table) for table in tables]}
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return section(tables[-1])


def _rows(lines: Sequence[Line]) -> str:
    head = ("", "median ms", "fastest ms", "/ PyTorch eager", "/ best peer", "memory MB", "differs")
    cells = [
        (
            line.contestant,
            f"{line.median_ms:.2f}",
            f"{line.fastest_ms:.2f}",
            _ratio(line.to_eager),
            _ratio(line.to_best_peer),
            f"{line.peak_memory_mb:.0f}",
            f"{line.deviation:.0e}",
        )
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---", *["--:"] * 6), *cells))


def _versions(tables: Sequence[Table]) -> list[str]:
    """A line for each set of libraries and the contestants that ran on it."""
    users: dict[str, list[str]] = {}
    for table in tables:
        for name, versions in table.versions.items():
            libraries = ", ".join(f"{library} {version}" for library, version in versions.items())
            names = users.setdefault(libraries, [])
            if name not in names:
                names.append(name)
    return [f"{libraries}: {', '.join(names)}" for libraries, names in users.items()]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
