"""How a training run shows on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cnnc.cli.output import counted, metric_words
from cnnc.runtime import Callback, Moment, Start
from cnnc.runtime.history import Row

LINE_SECONDS = 10.0
"""How often a run in a log file says where it is."""
BEST = " *"


@contextmanager
def progress(quiet: bool = False) -> Iterator[Callback]:
    """The callback that fits standard error."""
    console = Console(stderr=True, highlight=False, markup=False)
    if quiet:
        yield Callback()
    elif console.is_terminal and not console.is_dumb_terminal:
        live = Live(console)
        with live.display:
            yield live
    else:
        yield Lines()


class Lines(Callback):
    """A line an epoch, and one every `LINE_SECONDS` between."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LINE_SECONDS

    def on_tune(self, words: str) -> None:
        """Pass it on."""
        self._say(words)

    def on_start(self, start: Start) -> None:
        """Say what runs where."""
        for line in start_lines(start):
            self._say(line)
        self._epochs = start.epochs

    def on_step(self, moment: Moment) -> None:
        """Say how far the epoch is, now and then."""
        if time.monotonic() >= self._next:
            place = f"epoch {moment.epoch}/{moment.epochs} step {moment.batch}/{moment.batches}"
            self._say(f"{place}: {metric_words(moment.values)}, {speed(moment)}")

    def on_epoch(self, row: Row, improved: bool) -> None:
        """Say what the epoch came to."""
        rate = f"; {row['images_per_second']:,.0f} images/s"
        self._say(epoch_line(row, self._epochs) + rate + BEST * improved)

    def on_note(self, note: str) -> None:
        """Say it."""
        self._say(note)

    def _say(self, line: str) -> None:
        self._next = time.monotonic() + LINE_SECONDS
        with suppress(BrokenPipeError):  # nobody reads any more: the run matters more than its progress
            print(line, file=sys.stderr, flush=True)


class Live(Callback):
    """A line an epoch above a bar for the epoch under way."""

    def __init__(self, console: Console) -> None:
        self.display = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[values]}"),
            TextColumn("{task.fields[speed]}"),
            console=console,
            expand=True,
            transient=True,
            auto_refresh=False,
        )
        self._task = self.display.add_task("", visible=False, epoch="", values="", speed="")

    def on_tune(self, words: str) -> None:
        """Pass it on."""
        self.display.console.print(words, soft_wrap=True)

    def on_start(self, start: Start) -> None:
        """Say what runs where."""
        for line in start_lines(start):
            self.display.console.print(line, soft_wrap=True)
        self._epochs = start.epochs

    def on_step(self, moment: Moment) -> None:
        """Move the bar."""
        self.display.update(
            self._task,
            total=moment.batches,
            completed=moment.batch,
            visible=True,
            epoch=f"{moment.epoch}/{moment.epochs}",
            values=metric_words(moment.values),
            speed=speed(moment),
            refresh=True,
        )

    def on_epoch(self, row: Row, improved: bool) -> None:
        """Leave a line of the epoch above the bar."""
        self.display.console.print(epoch_line(row, self._epochs) + BEST * improved, soft_wrap=True)

    def on_note(self, note: str) -> None:
        """Leave it above the bar."""
        self.display.console.print(note, soft_wrap=True)


def start_lines(start: Start) -> Iterator[str]:
    """What runs where, and what the run has to note."""
    again = f", from step {start.step}" if start.step else ""
    yield f"{start.run} on {start.provider}, {counted(start.threads, 'thread')}{again}"
    work = f"{counted(start.epochs, 'epoch')} of {counted(start.steps_per_epoch, 'step')}"
    yield f"{work}, {counted(start.batch_size, 'example')} a step;{BEST} marks the best epoch so far"
    yield from start.notes


def epoch_line(row: Row, epochs: int) -> str:
    """What an epoch came to: training metrics, then those of the part that was evaluated."""
    words = {
        part: metric_words(
            {
                name.removeprefix(f"{part}_"): value
                for name, value in row.items()
                if name.startswith(f"{part}_")
            }
        )
        for part in ("train", "validation", "test")
    }
    held_out = "; ".join(f"{part} {words[part]}" for part in ("validation", "test") if words[part])
    return f"epoch {row['epoch']}/{epochs}: {words['train']}; {held_out}"


def speed(moment: Moment) -> str:
    """Images a second, and the time left."""
    minutes, seconds = divmod(round(moment.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{moment.images_per_second:,.0f} images/s {left} left"
