"""``cnnc train --overfit-one-batch``: whether the network can learn at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cnnc.cli.output import counted, metric_words, print_json

if TYPE_CHECKING:
    from cnnc.bundle import Bundle
    from cnnc.data import Dataset
    from cnnc.runtime import Settings


def overfit(bundle: Bundle, dataset: Dataset, settings: Settings, json: bool) -> None:
    """Train on one batch and say what came of it. Raises RunError where it was not learned."""
    from cnnc.runtime.probing import overfit_one_batch, refuse_unlearned

    result = overfit_one_batch(bundle, dataset, settings)
    refuse_unlearned(result)
    steps, last = (
        counted(len(result.losses), "step"),
        {result.metric: result.value, "loss": result.losses[-1]},
    )
    if json:
        print_json({"learned": True, "steps": len(result.losses), "examples": result.examples, **last})
        return
    typer.echo(f"the network can learn: it knows a batch of {result.examples} by heart after {steps}")
    typer.echo(f"{metric_words(last)} (loss {result.losses[0]:.4f} before)")
