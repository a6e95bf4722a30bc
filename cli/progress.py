"""How a training run shows on standard error: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from cnnc.cli.live import Live, time_left
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
        live = Live(console, start_lines)
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
    return f"{moment.images_per_second:,.0f} images/s {time_left(moment.seconds_left)} left"
