"""The tables of the layout pass: forms bring an operator into a layout, followers stay in it.

A *form* computes one operator in one layout: which form an operator gets is a choice (see `Plan`), and
decides where layouts begin. A *follower* computes an operator in whatever layout its inputs lie in: it is no
choice.
Both are functions from a `Site` to the operator's outputs::

    @form("Conv", HWNC, legal=pointwise)
    def product(op: Site) -> Value: ...

Adding one is one function in the file of its family; the pass, the tuner and the tests find it in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cnnc.ir import GRAD_OPS, Builder, sizes_of
from cnnc.ir.windows import Window, window_of
from cnnc.layout.ops import LayoutOps, block_size
from cnnc.layout.order import Layout, Sizes

if TYPE_CHECKING:
    from cnnc.layout.relayout import Relayout

Value = ir.Value


@dataclass(frozen=True)
class Pending:
    """A feature map that is not computed yet: outer · (z · scale + shift + plus), vectors [C] per channel.

    Whoever reads it may do better than compute it: a ReLU joins the same pass, a max pool moves the shift
    behind itself, a convolution's gradients take `outer` into the weight. `z` and `plus` lie in `layout`.
    """

    layout: Layout
    z: Value
    scale: Value | None = None
    shift: Value | None = None
    plus: Value | None = None
    outer: Value | None = None


Output = Value | Pending | None
Emit = Callable[["Site"], Output | Sequence[Output]]
_E = TypeVar("_E", bound=Emit)


class Site(LayoutOps):
    """One operator of the step as a form or follower sees it; ``op.Mul(a, b)`` appends a node.

    Operands are numbered as the node's inputs. `layout` is the one to compute in.
    """

    def __init__(self, step: Relayout, node: ir.Node, layout: Layout, builder: Builder) -> None:
        super().__init__(builder, local=step is None or step.local, exact=step is not None and step.exact)
        self.step, self.node, self.layout = step, node, layout

    @cached_property
    def window(self) -> Window:
        """The sliding window of a convolution or pool, or of a gradient of one."""
        return window_of(self.node)

    @cached_property
    def one_block(self) -> bool:
        """Whether both sides of a convolution have as many channels as a block of ONNX Runtime's kernels."""
        weight = self.dims(self.named("w"))
        return set(weight[:2]) == {block_size()}

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or `default` where it is absent."""
        return self.node.attributes[name].value if name in self.node.attributes else default

    def value(self, index: int) -> Value | None:
        """Operand `index` in the step as it was; None where it is absent."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def named(self, name: str) -> int:
        """The number of the operand that a convolution (x, w, b) or a gradient op calls `name`."""
        op_type = self.node.op_type
        names = ("x", "w", "b") if op_type == "Conv" else GRAD_OPS[op_type].inputs
        return [n.rstrip("?") for n in names].index(name)

    def dims(self, index: int) -> tuple[int, ...]:
        """The sizes of operand `index`, in the order that ONNX gives them."""
        value = self.value(index)
        assert value is not None
        return sizes_of(value)

    def sizes(self, index: int = 0) -> Sizes:
        """N, C, H and W of operand `index`, a feature map."""
        n, c, h, w = self.dims(index)
        return n, c, h, w

    @cached_property
    def out(self) -> Sizes:
        """N, C, H and W of the first output, a feature map."""
        n, c, h, w = sizes_of(self.node.outputs[0])
        return n, c, h, w

    def read(self, index: int, layout: Layout | None = None) -> Value:
        """Operand `index`, a feature map, in `layout` (the site's own)."""
        value = self.value(index)
        assert value is not None
        return self.step.read(value, layout or self.layout)

    def core(self, index: int) -> tuple[Value, Value | None]:
        """Operand `index` as (z, scale): a map in the site's layout, and a factor [C] yet to be applied."""
        value = self.value(index)
        assert value is not None
        return self.step.core(value, self.layout)

    def pending(self, index: int) -> Pending | None:
        """Operand `index` where it is not computed yet, and would be in the site's layout."""
        value = self.value(index)
        found = self.step.pending.get(value) if value is not None else None
        return found if found is not None and found.layout == self.layout else None

    def plain(self, index: int) -> Value:
        """Operand `index` as ONNX has it: a parameter, a vector, a scalar, or a map in [N, C, H, W]."""
        value = self.value(index)
        assert value is not None
        return self.step.plain(value)

    def constant(self, matrix: npt.NDArray[np.float64]) -> Value:
        """A constant of the first output's type."""
        return self.builder.constant(matrix, self.node.outputs[0].dtype)

    def share(self, what: str, *of: Any, make: Callable[[], Value]) -> Value:
        """The value called `what` of these operands, layouts or numbers: made once in a step."""
        return self.step.share((what, *of), make)

    def readers(self, output: int = 0) -> list[ir.Node]:
        """The nodes of the step that read an output."""
        return [node for node, _ in self.node.outputs[output].uses()]


@dataclass(frozen=True)
class Form:
    """A way to compute operator `op` in a layout.

    `layout` may depend on the site. `exact` says that values differ from the plain ones by the order of sums
    only; `local` that it needs operators of ONNX Runtime's CPU build beyond the standard. Where `first` says
    so it is likely the fastest of its layout, and is tried before others. It may compute what the form called
    `leaner_than` does with less memory, and little more work.
    """

    op: str
    name: str
    layout: Callable[[Site], Layout]
    emit: Emit
    legal: Callable[[Site], bool]
    exact: bool
    local: bool
    first: Callable[[Site], bool]
    leaner_than: str = ""

    @property
    def doc(self) -> str:
        """What is done, in words."""
        return (self.emit.__doc__ or "").strip()


FORMS: dict[str, dict[str, Form]] = {}
FOLLOWERS: dict[str, Emit] = {}
ANYWHERE: set[str] = set()
"""Operators whose follower is asked where no operand has a layout, too."""


def form(
    op: str,
    layout: Layout | Callable[[Site], Layout],
    *,
    legal: Callable[[Site], bool] = lambda site: True,
    exact: bool = True,
    local: bool = False,
    first: Callable[[Site], bool] = lambda site: False,
    leaner_than: str = "",
) -> Callable[[_E], _E]:
    """Register a function as a form of `op`, called after the layout and the function (see `Form`)."""

    def register(emit: _E) -> _E:
        where = layout.name if isinstance(layout, Layout) else (layout.__doc__ or "").split()[0]
        name = f"{where}.{emit.__name__.rstrip('_')}"
        place = (lambda site: layout) if isinstance(layout, Layout) else layout
        FORMS.setdefault(op, {})[name] = Form(op, name, place, emit, legal, exact, local, first, leaner_than)
        return emit

    return register


def follower(*ops: str, anywhere: bool = False) -> Callable[[_E], _E]:
    """Register a function that computes these operators in any layout; or returns None, to leave them plain.

    It is asked where a map that the operator reads has a layout, or, with `anywhere`, for each of them.
    """

    def register(emit: _E) -> _E:
        for op in ops:
            FOLLOWERS[op] = emit
            if anywhere:
                ANYWHERE.add(op)
        return emit

    return register
