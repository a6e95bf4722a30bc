"""TensorBoard event files of a run, by tensorboardX: the extra ``cnnc[tensorboard]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnc.errors import CnncError, RunError
from cnnc.runtime import Callback, Moment, Start, Summary
from cnnc.runtime.history import Row

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"
_ASIDE = {"epoch", "step", "skipped"}


class TensorBoard(Callback):
    """Writes ``RUN/tensorboard``: look at it with ``tensorboard --logdir runs``.

    Scalars stand under ``train/``, ``test/`` (or ``validation/``) and ``run/``, by step; those of an epoch
    under way as ``running/``. A run that goes on adds a file. Raises RunError where tensorboardX is missing.
    """

    def __init__(self) -> None:
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise RunError(
                f"TensorBoard files need tensorboardX, which can't be imported: {error}.",
                hint="Install the extra: `pip install 'cnnc[tensorboard]'`.",
            ) from error
        self._writer: SummaryWriter | None = None

    def on_start(self, start: Start) -> None:
        """Open the event file; steps after `start.step` that a crash may have left are hidden."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
            str(start.run / FOLDER), purge_step=start.step + 1, filename_suffix=f".{start.step}"
        )

    def on_step(self, moment: Moment) -> None:
        """The metrics of the epoch so far."""
        assert self._writer is not None
        for name, value in moment.values.items():
            self._writer.add_scalar(f"running/{name}", value, moment.step)
        self._writer.add_scalar("run/images_per_second", moment.images_per_second, moment.step)

    def on_epoch(self, row: Row, improved: bool) -> None:
        """The row of metrics.csv."""
        assert self._writer is not None
        for name, value in row.items():
            part, _, metric = name.partition("_")
            tag = f"{part}/{metric}" if part in ("train", "test", "validation") else f"run/{name}"
            if name not in _ASIDE:
                self._writer.add_scalar(tag, value, int(row["step"]))
        self._writer.flush()

    def on_end(self, summary: Summary) -> None:
        """Close the file."""
        self._close()

    def on_stop(self, reason: CnncError) -> None:
        """Close the file."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
