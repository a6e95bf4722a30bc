"""What a training run was asked to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from cnnc.bundle import Manifest
from cnnc.data import NAMED, OnBadImage
from cnnc.data.parts import Share
from cnnc.errors import UsageError, did_you_mean
from cnnc.runtime.guard import OnNan
from cnnc.runtime.providers import cpu_threads

FLOAT32_MAX = (2 - 2**-23) * 2.0**127


@dataclass(frozen=True)
class Settings:
    """The settings of a run; None means the default that `resolved` fills in, or that it is off.

    `source` is what was built, with `options` of a graph file, `class_weights` in its losses (see
    `cnnc.class_weights`) and `average` as the decay of its moving average; `init_from` is where the first
    parameters come from (see `cnnc.runtime.initial_from`), and `data` what `cnnc.data.load` takes. `lr`
    replaces the base learning rate of the bundle's schedule. `seed` draws the initial parameters (those that
    are drawn), the order of the examples, the validation split and whatever is random in the step. `threads`
    are those inside an operator. `eval_batch_size` decides speed and memory, never a metric, as do the
    `workers` that decode image files (None: as `cnnc.data.load` decides); `on_bad_image` says what a bad one
    does.

    `validation` is the share of the training data that is set aside: the best state, `patience` and `plateau`
    then go by it, and by the test data otherwise. `limit` is the number of examples of each split that are
    used at all. `best` names the metric by which the best state is kept. The run ends after `patience` epochs
    in which that metric has not got better by more than `min_delta`; after `plateau` such epochs the learning
    rate is multiplied by `plateau_factor`.

    `on_nan` says what follows a loss, metric or state that is not finite (see `cnnc.runtime.guard`), and
    `save_every` is the number of seconds after which an epoch under way is saved.

    `tune` says whether the step is tuned for this machine (None: where the run is long enough, or the cache
    has one), and `exact` leaves out forms that round otherwise than the portable step. A run has in `tune`
    what was decided: whether it began with a tuned step. Raises UsageError.
    """

    source: str | None = None
    class_weights: str | None = None
    average: float | None = None
    init_from: str | None = None
    data: str = "digits"
    epochs: int = 10
    batch_size: int = 32
    lr: float | None = None
    seed: int | None = None
    device: str = "auto"
    threads: int | None = None
    eval_batch_size: int = 128
    validation: float = 0.0
    limit: int | None = None
    best: str | None = None
    patience: int | None = None
    min_delta: float = 0.0
    plateau: int | None = None
    plateau_factor: float = 0.1
    on_nan: OnNan = "stop"
    save_every: float = 60.0
    workers: int | None = None
    on_bad_image: OnBadImage = "stop"
    tune: bool | None = None
    exact: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size", "threads", "limit", "patience", "plateau"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: it must be at least 1.")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"workers is {self.workers}: it must be at least 0.")
        for name, least, below in (
            ("average", 0.0, 1.0),
            ("validation", 0.0, 1.0),
            ("plateau_factor", 0.0, 1.0),
            ("min_delta", 0.0, math.inf),
            ("save_every", 0.0, math.inf),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value < below:
                limits = f"{least:g} or more" + (f" and below {below:g}" if below < math.inf else "")
                raise UsageError(f"{name} is {value:g}: it must be {limits}.")
        for name, kind in (("on_nan", OnNan), ("on_bad_image", OnBadImage)):
            if (value := getattr(self, name)) not in get_args(kind):
                raise UsageError(
                    f"{name} is '{value}', no such thing.", hint=did_you_mean(value, get_args(kind))
                )
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr >= 0):
            raise UsageError(f"the learning rate is {self.lr}: it must be a finite number, 0 or more.")
        if self.seed is not None and not 0 <= self.seed < 2**31:
            raise UsageError(f"the seed is {self.seed}: it must lie between 0 and {2**31 - 1}.")

    def resolved(self, manifest: Manifest, device: str) -> Settings:
        """The same with every default written out, for `manifest` on `device` (as `choose` chose it).

        A folder of data becomes an absolute path, so that the run goes on from anywhere.
        """
        names = [metric.name for metric in manifest.scalar_metrics]
        losses = {"loss"}.union(*(metric.parts for metric in manifest.metrics))
        best = self.best or next((name for name in names if name not in losses), names[0] if names else None)
        if best is None:
            raise UsageError("the bundle has no metrics.", hint="Name some in the graph file's Program.")
        if best not in names:
            raise UsageError(f"the bundle has no metric '{best}'.", hint=did_you_mean(best, names))
        if self.lr and not manifest.learning_rate:
            raise UsageError("the bundle's own learning rate is 0, which no factor turns into another.")
        if self.lr and self.lr / manifest.learning_rate > FLOAT32_MAX:
            raise UsageError(f"the learning rate {self.lr:g} is too large for float32.")
        return replace(
            self,
            data=self.data if self.data in NAMED else str(Path(self.data).resolve()),
            init_from=str(Path(self.init_from).resolve()) if self.init_from else None,
            lr=manifest.learning_rate if self.lr is None else self.lr,
            seed=manifest.seed if self.seed is None else self.seed,
            device=device,
            threads=self.threads or cpu_threads(),
            best=best,
            eval_batch_size=self._eval_batch_size(manifest),
        )

    def _eval_batch_size(self, manifest: Manifest) -> int:
        """As asked for, but no larger than what a step that fits into a memory limit takes at once."""
        if manifest.memory is None:
            return self.eval_batch_size
        return min(self.eval_batch_size, -(-manifest.memory.batch // manifest.memory.chunks))

    @property
    def share(self) -> Share:
        """What of the training data is trained on."""
        return Share(self.limit, self.validation, self.seed or 0)

    @property
    def held_out(self) -> str:
        """The part of the data that decides what is best: ``validation`` where there is one, or ``test``."""
        return "validation" if self.validation else "test"

    def scalars(self, manifest: Manifest, factor: float = 1.0) -> dict[str, int | float]:
        """The scalar inputs of the step that carry resolved settings into the graph.

        `factor` multiplies the learning rate, as plateaus and rollbacks ask for.
        """
        assert self.lr is not None
        assert self.seed is not None
        ratio = self.lr / manifest.learning_rate if manifest.learning_rate else 1.0
        wanted: dict[str, int | float] = {"lr_scale": ratio * factor, "seed": self.seed}
        return {name: wanted[name] for name in manifest.scalars if name in wanted}
