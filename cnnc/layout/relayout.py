"""The pass: a training step, written anew with feature maps in the layouts of a plan.

It copies the step node by node. A node that the plan gives a form is computed by it; a node that reads a map
in some layout is computed there, if it has a follower; any other reads and gives [N, C, H, W]. A map is
brought from one layout to another where somebody reads it there, once; what nobody reads in the end is
removed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from cnnc.errors import UnsupportedError
from cnnc.ir import dims_of, is_static, sizes_of, type_of
from cnnc.ir.transcribe import begun_like, copy_node
from cnnc.layout.form import ANYWHERE, FOLLOWERS, FORMS, Form, Output, Pending, Site
from cnnc.layout.ops import LayoutOps
from cnnc.layout.order import NCHW, Layout, Sizes
from cnnc.opset import IR_VERSION

Value = ir.Value
Plan = Mapping[str, str]
"""From the names of nodes to the names of their forms; a node that is not named follows its inputs."""


def relayout(
    step: ir.Graph, plan: Plan, watched: Sequence[str] = (), *, local: bool = True, exact: bool = False
) -> ir.Graph:
    """A step of a static batch (see `fix_batch`) with the forms of `plan`.

    Inputs and outputs keep names, types and layout; the values that `watched` names become outputs, too.
    Without `local` only standard ONNX is written; with `exact` no value differs from the plain one by more
    than the order of sums. Raises UnsupportedError where the plan names a form that is unknown or illegal, or
    that these two exclude.
    """
    return Relayout(step, plan, local=local, exact=exact).run(watched)


def fix_batch(step: ir.Graph, symbol: str, size: int) -> None:
    """Make the batch of a step static, and note on each feature map that it is one."""
    values = [*step.inputs, *(output for node in step for output in node.outputs)]
    for value in values:
        if value.shape is None:
            continue
        dims = dims_of(value)
        fixed = tuple(size if d == symbol else d for d in dims)
        if len(dims) == 4 and dims[0] == symbol and is_static(fixed):
            value.metadata_props[_MAP] = "1"
        value.shape = ir.Shape(fixed)


_MAP = "cnnc.map"


def copy_note(value: Value, copy: Value) -> None:
    """Note on a copy that it is a feature map, where `value` is one."""
    if is_map(value):
        copy.metadata_props[_MAP] = "1"


def is_map(value: Value | None) -> bool:
    """Whether a value of a step is a feature map [N, C, H, W]."""
    return value is not None and _MAP in value.metadata_props


@dataclass(frozen=True)
class Pool:
    """A max pool that was computed in a layout: what it compared, and the maxima it found."""

    layout: Layout
    x: Value
    y: Value


def legal_forms(node: ir.Node, *, local: bool = True, exact: bool = False) -> list[Form]:
    """The forms that may compute a node of a step of fixed batch (see `relayout`), likely ones first."""
    maps = [value for value in (*node.inputs, *node.outputs) if value is not None and is_map(value)]
    if not maps:
        return []
    site = Site(None, node, NCHW, None)  # type: ignore[arg-type]  # legality asks the node alone
    batch = _sizes(maps[0])[0]
    legal = [
        form
        for form in FORMS.get(node.op_type, {}).values()
        if (local or not form.local) and (form.exact or not exact)
        if form.legal(site) and form.layout(site).fits(batch)
    ]
    return sorted(legal, key=lambda form: not form.first(site))


class Relayout:
    """One run of the pass; `Site` asks it for operands."""

    def __init__(self, step: ir.Graph, plan: Plan, *, local: bool = True, exact: bool = False) -> None:
        self.source, self.plan, self.local, self.exact = step, plan, local, exact
        self.builder = begun_like(step)
        self.ops = LayoutOps(self.builder, local=local, exact=exact)
        self.stored: dict[Value, dict[Layout, Value]] = {}
        self.pending: dict[Value, Pending] = {}
        self.makers: dict[tuple[Value, Layout], Callable[[], Value]] = {}
        self.columns: dict[Value | None, Value] = {}
        self.pools: dict[Value | None, Pool] = {}
        self._values: dict[Value, Value] = {}
        self._shared: dict[Hashable, Value] = {}

    def run(self, watched: Sequence[str] = ()) -> ir.Graph:
        """Copy the step and return the copy."""
        for value in self.source.inputs:
            self._values[value] = self.builder.input(str(value.name), type_of(value))
            if is_map(value):
                self.stored[value] = {NCHW: self._values[value]}
        for node in self.source:
            self._emit(node)
        outputs = [
            *self.source.outputs,
            *(v for node in self.source for v in node.outputs if v.name in watched),
        ]
        for output in dict.fromkeys(outputs):
            self._output(output)
        graph = self.builder.graph
        RemoveUnusedNodesPass()(ir.Model(graph, ir_version=IR_VERSION))
        return graph

    # What sites ask for.

    def read(self, value: Value, layout: Layout) -> Value:
        """A feature map in `layout`."""
        stored = self.stored.setdefault(value, {})
        if layout in stored:
            return stored[layout]
        if (value, layout) in self.makers:
            stored[layout] = self.makers[value, layout]()
            return stored[layout]
        waiting = self.pending.get(value)
        if waiting is not None and waiting.layout not in stored:
            stored[waiting.layout] = self._compute(value, waiting)
            return self.read(value, layout)
        have = NCHW if NCHW in stored else next(iter(stored))
        sizes = _sizes(value)
        if type(have).leave is Layout.leave and type(layout).enter is Layout.enter:
            perm = [have.axes.index(axis) for axis in layout.axes]
            stored[layout] = self.ops.Transpose(stored[have], perm=perm)
        else:
            if NCHW not in stored:
                stored[NCHW] = have.leave(self.ops, stored[have], sizes)
            stored[layout] = layout.enter(self.ops, stored[NCHW])
        return stored[layout]

    def layout_of(self, value: Value | None) -> Layout | None:
        """The layout beyond NCHW that a map lies in, or waits to be computed in, if any."""
        if value is None:
            return None
        if value in self.pending:
            return self.pending[value].layout
        return next((layout for layout in self.stored.get(value, {}) if not layout.plain), None)

    def core(self, value: Value, layout: Layout) -> tuple[Value, Value | None]:
        """A map in `layout` and a factor [C] that is yet to be applied to it."""
        waiting = self.pending.get(value)
        if (
            waiting is None
            or waiting.outer is None
            or waiting.layout != layout
            or layout in self.stored.get(value, {})
        ):
            return self.read(value, layout), None
        return self._core(value, waiting), waiting.outer

    def plain(self, value: Value) -> Value:
        """A value as ONNX has it."""
        return self.read(value, NCHW) if is_map(value) else self._values[value]

    def share(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `key` names, made once."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    # Nodes.

    def _emit(self, node: ir.Node) -> None:
        metadata = {
            key.removeprefix("cnnc."): value
            for key, value in node.metadata_props.items()
            if key.startswith("cnnc.") and key != "cnnc.body"
        }
        with self.builder.scope(str(node.name), **metadata):
            form = self._form(node)
            if form is not None:
                site = Site(self, node, NCHW, self.builder)
                site.layout = form.layout(site)
                self._store(node, form.emit(site), site.layout)
                return
            follow = FOLLOWERS.get(node.op_type)
            layout = self._layout(node)
            if follow is not None and (layout is not None or node.op_type in ANYWHERE):
                site = Site(self, node, layout or NCHW, self.builder)
                outputs = follow(site)
                if outputs is not None:
                    self._store(node, outputs, site.layout)
                    return
            inputs = [None if value is None else self.plain(value) for value in node.inputs]
            self._store(node, copy_node(self.builder, node, inputs), NCHW)

    def _form(self, node: ir.Node) -> Form | None:
        name = self.plan.get(str(node.name))
        if name is None:
            return None
        form = FORMS.get(node.op_type, {}).get(name)
        legal = legal_forms(node, local=self.local, exact=self.exact)
        if form is None or form not in legal:
            raise UnsupportedError(
                f"node '{node.name}' ({node.op_type}) can't have the form '{name}'.",
                hint=f"Forms of it: {', '.join(f.name for f in legal) or 'none'}.",
            )
        return form

    def _layout(self, node: ir.Node) -> Layout | None:
        """The layout that a node's maps lie in: the last input's that has one beyond NCHW.

        Gradient ops name what they differentiate last, and that is where the forward pass left it.
        """
        layouts = (self.layout_of(value) for value in reversed(node.inputs) if is_map(value))
        return next((layout for layout in layouts if layout is not None), None)

    def _store(self, node: ir.Node, outputs: Output | Sequence[Output], layout: Layout) -> None:
        results = [outputs] if outputs is None or isinstance(outputs, (ir.Value, Pending)) else outputs
        self._call(node, results[0])
        for value, result in zip(node.outputs, results, strict=False):
            if isinstance(result, Pending):
                self.pending[value] = result
            elif result is not None and is_map(value):
                self.stored[value] = {layout: result}
            elif result is not None:
                self._values[value] = result

    def _call(self, node: ir.Node, result: Output) -> None:
        """Give the node that computes the first output the name of the operator that it stands for."""
        value = result.z if isinstance(result, Pending) else result
        made = None if value is None else value.producer()
        if value is not None and made is not None and str(made.name).startswith(f"{node.name}/"):
            made.name = self.builder.unique(str(node.name))  # its value's name may be an output's of the step

    def _output(self, value: Value) -> None:
        result, name = self.plain(value), str(value.name)
        if result.name != name:
            if result.is_graph_input() or result in self.builder.graph.outputs:
                result = self.builder.op("Identity", result, name=name)
            else:
                result.name = name
        self.builder.graph.outputs.append(result)

    # Maps that wait.

    def _compute(self, value: Value, waiting: Pending) -> Value:
        result = self._core(value, waiting)
        if waiting.outer is None:
            return result
        return waiting.layout.affine(self.ops, result, _sizes(value), scale=waiting.outer)

    def _core(self, value: Value, waiting: Pending) -> Value:
        def make() -> Value:
            return waiting.layout.affine(
                self.ops,
                waiting.z,
                _sizes(value),
                scale=waiting.scale,
                shift=waiting.shift,
                plus=waiting.plus,
            )

        return self.share(("core", value), make)


def _sizes(value: Value) -> Sizes:
    n, c, h, w = sizes_of(value)
    return n, c, h, w
