"""The second piece of the step: the gradient of the loss for each trained parameter."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from cnnc.autodiff import gradients
from cnnc.errors import UnsupportedError
from cnnc.ir import Builder
from cnnc.memory import recompute
from cnnc.step.training import Training


def backward(
    builder: Builder,
    training: Training,
    loss: ir.Value,
    state: Mapping[str, ir.Value],
    *,
    save_memory: bool = False,
) -> tuple[dict[str, ir.Value], tuple[str, ...]]:
    """Emit the gradient of `loss` for each trained parameter, by name.

    To save memory cheap activations are computed again rather than kept: second come their names. Raises
    UnsupportedError where a parameter has no gradient.
    """
    wrt, emitted = [state[p.name] for p in training.trained], list(builder.graph)
    found = gradients(builder, loss, wrt)
    if still := [str(v.name) for v, gradient in zip(wrt, found, strict=True) if gradient is None]:
        raise UnsupportedError(
            f"the loss has no gradient for {', '.join(still[:5])}: between them lie only operators whose "
            "output does not change smoothly.",
            hint="Freeze them.",
        )
    recomputed = tuple(recompute(builder, emitted)) if save_memory else ()
    return {str(v.name): g for v, g in zip(wrt, found, strict=True) if g is not None}, recomputed
