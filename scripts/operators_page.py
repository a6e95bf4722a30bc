"""Writes docs/operators.md from the tables themselves: ``python scripts/operators_page.py``.

Rules, forms of other opsets, gradient ops and bodies are those that the compiler has; attributes and inputs
are those of the table of test cases; what is refused is read from the errors in the code.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import onnx

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cases import CASES, Case, Input  # noqa: E402

from cnnc.autodiff import RULES, WITHOUT_GRADIENT, Context  # noqa: E402
from cnnc.foreign.extensions import EXTENSIONS  # noqa: E402
from cnnc.foreign.opsets import FORMS  # noqa: E402
from cnnc.foreign.sequences import SEQUENCES  # noqa: E402
from cnnc.foreign.structure import OLDEST  # noqa: E402
from cnnc.ir import GRAD_OPS  # noqa: E402
from cnnc.lowering import BODIES  # noqa: E402
from cnnc.opset import OPSET  # noqa: E402

PAGE = ROOT / "docs" / "operators.md"
NEWEST = onnx.defs.onnx_opset_version()
IN_TRAINING = {
    "BatchNormalization": "In training: by the batch's own statistics, unless they are frozen.",
    "Dropout": "In training: times a mask from the counter-based generator.",
}


TEMPLATE = """\
# Operators

<!-- Written by scripts/operators_page.py from the tables in the code: change those. -->

cnnc reads models of opset {oldest} to {newest} and writes opset {opset}. `cnnc check model.onnx` says which
operators of a model lie between its parameters and the loss, and what is missing.

## With a gradient

*Opsets* are those in which ONNX has the operator, as far as cnnc reads them; *gradients for* the inputs that
have one; *attributes* those that the tests vary (the rest keep their defaults there); *refused* what has no
gradient. A ceil_mode is refused in graphs that are built by hand only: a model's pools get the end pads with
which inference and runtimes count the same windows.

{smooth}

## Through which nothing flows

Their outputs are integers, truth values, shapes or steps: the gradient is zero or there is none, and what
stands beside them keeps its own.

{constant}

## Written with other operators

Forms of other opsets, and operators that opset {opset} does not have: each node becomes nodes that have
gradients. Model-local functions are inlined, and nodes that only compute shapes are computed ahead. An If is
the branch that a known condition takes, else both branches and a Where; a Loop or a Scan of known length is
written out, step by step. Lists of tensors are gone where their members are known:

{sequences}

{forms}

## Of ONNX Runtime's own

What ONNX Runtime's optimizer leaves in models that it saved (`ORT_ENABLE_EXTENDED` or lower):

{extensions}

## Gradient ops and their bodies

A gradient with no single obvious expression is a node of the domain `cnnc.grad`, which has one or more bodies
in standard ONNX. The first that is legal is the default.

{bodies}

## Without a gradient

A Loop or Scan that goes round as often as the data say is kept as it is before the first parameter and
refused behind it. Branches of different shapes are refused, and quantised arithmetic, whose pairs
`--dequantize` takes away. These are fine where they don't lie between a parameter and the loss:

{missing}
"""


def page() -> str:
    """The whole page."""
    smooth = sorted({*RULES, "Dropout"} - set(WITHOUT_GRADIENT) - GRAD_OPS.keys())
    forms = sorted(((op, since, form) for since, ops, form in FORMS for op in ops), key=lambda row: row[:2])
    return TEMPLATE.format(
        oldest=OLDEST,
        newest=NEWEST,
        opset=OPSET,
        smooth=_table(
            ("operator", "opsets", "gradients for", "attributes", "refused"),
            ((f"`{op}`", _opsets(op), _inputs(op), _attributes(op), _refused(op)) for op in smooth),
        ),
        constant=_names(op for op in WITHOUT_GRADIENT if op not in GRAD_OPS),
        forms=_table(
            ("operator", "in opsets", "how", "refused"),
            (
                (f"`{op}`", _versions(op, since), _first_line(form), _join(_errors(form)))
                for op, since, form in forms
            ),
        ),
        sequences=_names(SEQUENCES),
        extensions=_table(
            ("operator", "how", "refused"),
            (
                (_qualified(*key), _first_line(_function(each.form)), _join(_errors(_function(each.form))))
                for key, each in sorted(EXTENSIONS.items(), key=lambda row: row[0][1])
            ),
        ),
        bodies=_table(
            ("gradient op", "what it is", "bodies"),
            ((f"`{op.name}`", op.doc, _bodies(op.name)) for op in GRAD_OPS.values()),
        ),
        missing=_names(_missing()),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _names(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(f"`{name}`" for name in sorted(names)), 110, break_long_words=False) + "."


def _join(parts: Iterable[str]) -> str:
    return "; ".join(parts)


def _rows(op: str) -> list[Case]:
    return [row for row in CASES if row.op == op]


def _opsets(op: str) -> str:
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op and not s.domain]
    newest = max(schemas, key=lambda schema: schema.since_version)
    last = newest.since_version - 1 if newest.deprecated else NEWEST
    return f"{max(min(s.since_version for s in schemas), OLDEST)}–{last}"


def _inputs(op: str) -> str:
    """The operator's names of the inputs that some row differentiates."""
    if op == "Dropout":
        return "data"
    formal = onnx.defs.get_schema(op, OPSET, "").inputs
    found: set[int] = set()
    for row in _rows(op):
        if row.graph is None:
            for place, operand in enumerate(row.operands):
                if isinstance(operand, Input) and operand.differentiated:
                    found.add(min(place, len(formal) - 1))
    names = [formal[place].name for place in sorted(found)] or [formal[0].name]
    variadic = formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    return "all" if variadic and len(formal) == 1 else ", ".join(names)


def _attributes(op: str) -> str:
    known = onnx.defs.get_schema(op, OPSET, "").attributes
    varied = {name for row in _rows(op) for name in row.attributes}
    note = IN_TRAINING.get(op, "")
    return " ".join(filter(None, [", ".join(sorted(varied & known.keys())), note]))


def _refused(op: str) -> str:
    return _join(_errors(RULES[op])) if op in RULES else ""


def _versions(op: str, since: int) -> str:
    if not since:
        return _opsets(op)
    return f"{since}–{NEWEST}" if since > OPSET else f"{OLDEST}–{since - 1}"


def _bodies(op: str) -> str:
    return "<br>".join(f"`{body.name}`: {' '.join(body.doc.split())}" for body in BODIES[op])


def _qualified(domain: str, op: str) -> str:
    until = EXTENSIONS[domain, op].until
    return f"`{domain}.{op}`" if domain else f"`{op}`" + (f" before opset {until}" if until else "")


def _function(form: Callable[..., Any]) -> Callable[..., Any]:
    return form.func if isinstance(form, partial) else form


def _first_line(form: Callable[..., Any]) -> str:
    doc = inspect.getdoc(form) or ""
    return " ".join(doc.split("\n\n")[0].split())


def _missing() -> set[str]:
    """Operators of the newest opset of which nothing above speaks."""
    known = {
        *RULES,
        *SEQUENCES,
        "Dropout",
        "Constant",
        "If",
        "Loop",
        "Scan",
        *(op for _, ops, _ in FORMS for op in ops),
    }
    schemas = onnx.defs.get_all_schemas()
    return {s.name for s in schemas if not s.domain and not s.deprecated and s.name not in known}


def _errors(function: Callable[..., Any]) -> list[str]:
    """What the errors in a function, and in those of ours that it calls, say is refused."""
    found: dict[str, None] = {}
    for inner in _reached(function):
        for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(inner)))):
            if isinstance(call, ast.Call) and _called(call).endswith("unsupported"):
                for argument in call.args:
                    if isinstance(argument, ast.JoinedStr) or (
                        isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                    ):
                        found[_told(argument)] = None
    return list(found)


def _reached(function: Callable[..., Any]) -> Iterator[FunctionType]:
    """The function and those of ours that it calls."""
    waiting, seen = [function], set()
    while waiting:
        each = waiting.pop()
        if not isinstance(each, FunctionType) or each in seen or each.__name__ == "_unsupported":
            continue
        seen.add(each)
        yield each
        for name in each.__code__.co_names:
            rule = each.__module__.startswith("cnnc.autodiff.rules")
            called = Context.constant if rule and name == "constant" else each.__globals__.get(name)
            if isinstance(called, FunctionType) and called.__module__.startswith("cnnc."):
                waiting.append(called)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _told(text: ast.JoinedStr | ast.Constant) -> str:
    """The words of an error; what it fills in is left out."""
    if isinstance(text, ast.Constant):
        return str(text.value)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in text.values)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
