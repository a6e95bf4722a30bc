"""A training run on a terminal: a table with a line an epoch, and under it the epoch under way.

::

            train              test
    epoch     loss accuracy     loss accuracy      time  images/s
     1/10   0.4312   0.8812   0.2031   0.9417     2.1 s    12,345 *
     2/10   0.1903   0.9466                              12,098
    ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸━━━━━━━━  812/1437   0:17 left   213 MB
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from rich.console import Console, Group
from rich.live import Live as Display
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnnc.runtime import Callback, Moment, Start
from cnnc.runtime.history import Row
from cnnc.runtime.memory import memory

_EPOCH, _NUMBER, _REST = 8, 10, 22
"""Widths of the columns: the epoch, a metric (at least), and time and speed together."""


class Live(Callback):
    """The table. `introduce` makes the lines above it. Metrics that find no room are left out."""

    def __init__(self, console: Console, introduce: Callable[[Start], Iterable[str]]) -> None:
        self.display = Display(console=console, auto_refresh=False, transient=True)
        self._console, self._introduce = console, introduce
        self._names: list[str] = []
        self._headed = False

    def on_tune(self, words: str) -> None:
        """Pass it on."""
        self._console.print(words, soft_wrap=True)

    def on_start(self, start: Start) -> None:
        """Say what runs where."""
        for line in self._introduce(start):
            self._console.print(line, soft_wrap=True)
        self._epochs = start.epochs
        self._began = time.monotonic()

    def on_step(self, moment: Moment) -> None:
        """Show the epoch under way."""
        self._choose(moment.values)
        line = self._line(moment.epoch, moment.values, {})
        now = Text(line + _speed("", f"{moment.images_per_second:,.0f}"))
        room = max(10, self._console.width - 46)
        bar = ProgressBar(total=moment.batches, completed=moment.batch, width=room)
        place = f"{moment.batch:,}/{moment.batches:,}"
        rest = f"{time_left(moment.seconds_left)} left  {memory() / 1e6:,.0f} MB"
        under = Table.grid(padding=(0, 2))
        under.add_row(bar, Text(place), Text(rest))
        heading = [] if self._headed else [self._heading("test")]
        self.display.update(Group(*heading, now, under), refresh=True)

    def on_epoch(self, row: Row, improved: bool) -> None:
        """Leave a line of the epoch above the one under way."""
        held_out = "validation" if any(name.startswith("validation_") for name in row) else "test"
        parts = {
            part: {n.removeprefix(f"{part}_"): v for n, v in row.items() if n.startswith(f"{part}_")}
            for part in ("train", held_out)
        }
        self._choose(parts["train"])
        if not self._headed:
            self._console.print(self._heading(held_out))
            self._headed = True
        line = self._line(int(row["epoch"]), parts["train"], parts[held_out])
        rate = row.get("images_per_second", 0.0)
        line += _speed(f"{row.get('seconds', 0.0):.1f} s", f"{rate:,.0f}")
        self.display.update(Text(), refresh=True)
        self._console.print(Text(line + (" *" if improved else ""), "bold green" if improved else ""))

    def on_note(self, note: str) -> None:
        """Leave it above the epoch under way."""
        self._console.print(note, soft_wrap=True)

    def _choose(self, values: Mapping[str, float]) -> None:
        """The metrics that find room twice, once for each part of the data: the loss first."""
        if self._names:
            return
        room = self._console.width - _EPOCH - _REST - 2
        for name in sorted(values, key=lambda name: name != "loss"):
            room -= 2 * _width(name)
            if room < 0 and self._names:
                break
            self._names.append(name)

    def _heading(self, held_out: str) -> Text:
        across = sum(map(_width, self._names))
        over = " " * _EPOCH + f"{'train':^{across}}" + f"{held_out:^{across}}"
        names = "".join(f"{name.replace('_', ' '):>{_width(name)}}" for name in self._names)
        under = f"{'epoch':>{_EPOCH}}{names}{names}{_speed('time', 'images/s')}"
        return Text(f"{over.rstrip()}\n{under}", "dim")

    def _line(self, epoch: int, train: Mapping[str, float], held_out: Mapping[str, float]) -> str:
        cells = (
            f"{part[name]:>{_width(name)}.4f}" if name in part else " " * _width(name)
            for part in (train, held_out)
            for name in self._names
        )
        return f"{f'{epoch}/{self._epochs}':>{_EPOCH}}{''.join(cells)}"


def _speed(time: str, rate: str) -> str:
    """The last two columns."""
    return f"{time:>11}{rate:>10}"


def _width(name: str) -> int:
    return max(_NUMBER, len(name) + 2)


def time_left(seconds: float) -> str:
    """``0:17``, ``1:02:04``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
