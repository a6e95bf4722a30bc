"""A bundle's training step for one batch size, with forms and bodies as a plan has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from cnnc.bundle import Bundle
from cnnc.errors import UnsupportedError
from cnnc.ir.types import dims_of
from cnnc.layout.chunks import in_chunks, unsplittable
from cnnc.layout.lanes import join_of, lane_of
from cnnc.layout.recover import recover_step
from cnnc.layout.relayout import Plan, fix_batch, relayout
from cnnc.lowering import lower
from cnnc.opset import GRAD_DOMAIN, GRAD_VERSION, IR_VERSION


def fixed_step(bundle: Bundle, batch: int, chunks: int = 1) -> ir.Graph:
    """The step of a bundle as autodiff left it, for batches of `batch` examples, which `chunks` divides.

    Raises BundleError; UnsupportedError where the batch can't go in equal chunks.
    """
    if chunks == 1:
        return _of_size(bundle, batch)
    step, names = _splittable(bundle, batch // chunks)
    return in_chunks(step, names, chunks)


def laned_step(bundle: Bundle, batch: int, lanes: int, chunks: int = 1) -> tuple[ir.Graph, ir.Graph]:
    """The same in `lanes` side by side, each in `chunks`: the graph of a lane, and the graph that joins them.

    Raises BundleError; UnsupportedError where the batch can't go in equal parts.
    """
    step, names = _splittable(bundle, batch // (lanes * chunks))
    lane, join = lane_of(step, names), join_of(step, names, lanes)
    return in_chunks(lane, names, chunks) if chunks > 1 else lane, join


def _of_size(bundle: Bundle, batch: int) -> ir.Graph:
    return _fixed(recover_step(bundle), bundle, batch)


def _fixed(step: ir.Graph, bundle: Bundle, batch: int) -> ir.Graph:
    name = bundle.manifest.input.name
    symbol = next(iter(dims_of(next(v for v in step.inputs if v.name == name))))
    if isinstance(symbol, str):
        fix_batch(step, symbol, batch)
    return step


def _splittable(bundle: Bundle, part: int) -> tuple[ir.Graph, set[str]]:
    """The step for equal parts of a batch, and the names of the inputs that hold the batch."""
    step, names = recover_step(bundle), {*bundle.manifest.batch_names}
    if reason := unsplittable(step, names):
        raise UnsupportedError(f"the batch can't go in equal parts: {reason}.")
    return _fixed(step, bundle, part), names


def planned_step(
    step: ir.Graph,
    plan: Plan,
    choices: Mapping[str, str] | None = None,
    *,
    watched: Sequence[str] = (),
    local: bool = True,
    exact: bool = False,
) -> bytes:
    """`step`, from `fixed_step`, as an ONNX model.

    Its forms are those of `plan` (`local` and `exact` as in `relayout`), the bodies of its other gradient
    ops those of `choices`. The values that `watched` names are outputs, too. Raises UnsupportedError for a
    form or body that is unknown or illegal.
    """
    graph = relayout(step, plan, watched, local=local, exact=exact)
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="cnnc")
    functions, _ = lower(graph, choices)
    for function in functions:
        model.functions[function.identifier()] = function
    if functions:
        graph.opset_imports[GRAD_DOMAIN] = GRAD_VERSION
    return ir.serde.serialize_model(model).SerializeToString(deterministic=True)
