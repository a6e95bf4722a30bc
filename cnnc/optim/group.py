"""Parameters that train otherwise than the rest: PyTorch's parameter groups, chosen by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnc.checks import kind_of, real
from cnnc.errors import GraphFileError
from cnnc.ir import Parameter
from cnnc.patterns import matching
from cnnc.source import user_line


@dataclass(frozen=True)
class Group:
    """The trained parameters whose whole name the regular expression `match` matches.

    They have a base `learning_rate` or a `weight_decay` of their own; None leaves the optimizer's. Schedules
    and ``lr_scale`` multiply the group's rate as they do the optimizer's own: the ratio of the two stays.
    Weight decay applies to the same kinds of parameters as everywhere (weights alone, unless the optimizer
    has ``decay_all``). Raises GraphFileError.
    """

    match: str
    learning_rate: float | None = None
    weight_decay: float | None = None
    where: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", user_line())
        if not isinstance(self.match, str):
            raise GraphFileError(
                f"Group: match must be a regular expression, not {kind_of(self.match)}.", where=self.where
            )
        for name in ("learning_rate", "weight_decay"):
            if getattr(self, name) is not None:
                real("Group", name, getattr(self, name))
        if self.learning_rate is None and self.weight_decay is None:
            raise GraphFileError(
                f"Group '{self.match}' changes nothing.",
                where=self.where,
                hint="Give it a learning_rate or a weight_decay.",
            )

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {"match": self.match, "learning_rate": self.learning_rate, "weight_decay": self.weight_decay}


@dataclass(frozen=True)
class Own:
    """What groups say of one parameter: the factor of the optimizer's rate, and its weight decay."""

    rate_factor: float = 1.0
    weight_decay: float | None = None


def assigned(
    groups: Sequence[Group], parameters: Sequence[Parameter], base: float, decay_all: bool
) -> dict[str, Own]:
    """For each of the trained `parameters` in a group, what is its own. `base` is the optimizer's rate.

    Raises GraphFileError for a group that matches nothing, or nothing that its weight decay applies to, and
    where two groups give one parameter the same thing.
    """
    names = [p.name for p in parameters]
    rates, decays = dict[str, Group](), dict[str, Group]()
    for group in groups:
        found = matching("Group", group.match, names, GraphFileError, group.where)
        if group.learning_rate is not None:
            _give(rates, found, group, "learning rate")
        if group.weight_decay is not None:
            decayed = {p.name for p in parameters if decay_all or p.kind == "weight"}
            if decayed.isdisjoint(found):
                raise GraphFileError(
                    f"Group '{group.match}' has a weight decay, and matches only parameters that do not "
                    f"decay: {', '.join(found[:3])}.",
                    where=group.where,
                    hint="Decay applies to weights; decay_all=True applies it to biases and scales too.",
                )
            _give(decays, found, group, "weight decay")
    factors = {name: _factor(group, base) for name, group in rates.items()}
    return {
        name: Own(factors.get(name, 1.0), decays[name].weight_decay if name in decays else None)
        for name in names
        if name in factors or name in decays
    }


def _give(owners: dict[str, Group], names: Sequence[str], group: Group, what: str) -> None:
    for name in names:
        if name in owners:
            raise GraphFileError(
                f"two groups give '{name}' a {what}: '{owners[name].match}' and '{group.match}'.",
                where=group.where,
                hint="Change one of them so that each parameter is in one.",
            )
        owners[name] = group


def _factor(group: Group, base: float) -> float:
    assert group.learning_rate is not None
    factor = group.learning_rate / base if base else math.inf
    if not factor <= 1e30:
        raise GraphFileError(
            f"Group '{group.match}' has the learning rate {group.learning_rate:g}, and the optimizer's own "
            f"is {base:g}: no factor turns one into the other.",
            where=group.where,
            hint="Give the optimizer a learning rate above 0.",
        )
    return factor
