"""A tuned step as a bundle of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TypeVar

from cnnc.bundle import GRAPHS, Bundle, FunctionSpec, Machine, TargetSpec, TensorSpec, write_bundle
from cnnc.runtime.tuned import TunedStep

_S = TypeVar("_S", TensorSpec, TargetSpec)


def write_tuned_bundle(bundle: Bundle, tuned: TunedStep, path: str | os.PathLike[str]) -> Bundle:
    """Write a bundle whose train.onnx is the tuned step, marked as this machine's; the rest is `bundle`'s.

    Its batches have a fixed size; a batch of another size takes grad.onnx and apply.onnx. Raises BundleError
    where it can't be written.
    """
    manifest, conditions = bundle.manifest, tuned.conditions
    graphs = {name: bundle.graph(name).read_bytes() for name in GRAPHS}
    graphs["train.onnx"] = tuned.path.read_bytes()
    graphs |= {name: tuned.path.with_name(name).read_bytes() for name in tuned.names[1:]}
    forms = {**tuned.choices, **tuned.plan}
    functions = tuple(_chosen(function, forms) for function in manifest.functions)
    machine = Machine(
        conditions.processor, conditions.runtime, conditions.threads, dict(tuned.options), tuned.lanes
    )

    def fixed(spec: _S) -> _S:
        return replace(spec, shape=(conditions.batch, *spec.shape[1:]))

    described = replace(
        manifest,
        input=fixed(manifest.input),
        target=fixed(manifest.target),
        further=tuple(replace(head, target=fixed(head.target)) for head in manifest.further),
        functions=functions,
        machine=machine,
    )
    return write_bundle(path, described, graphs, bundle.initial_state())


def _chosen(function: FunctionSpec, forms: dict[str, str]) -> FunctionSpec:
    """What computes a gradient op now; a form is inlined, and has no function."""
    name = forms.get(function.node)
    if name is None:
        return function
    return replace(function, body=name, function="" if "." in name else function.function)
