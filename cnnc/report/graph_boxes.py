"""The parts of a drawn graph: boxes with what they say, and lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from cnnc.report.graph import STAGES, UPDATE_ROW, Box, Stage

BOX, TALL = 232.0, 54.0
"""Width and height of a box."""
_LETTERS, _BOLD = 34, 27
"""Letters that fit into a box, in its monospaced lines and in its first one."""


def draw_path(d: str, colour: str, kind: str = "", arrow: bool = False) -> str:
    """A line in the colour of a stage, or of what is saved."""
    name = f' class="{kind}"' if kind else ""
    style = f' style="stroke:var(--{colour})"' if colour else ""
    head = f' marker-end="url(#to-{colour or "saved"})"' if arrow else ""
    return f'<path{name}{style} d="{d}"{head}/>'


def markers() -> str:
    """The arrow heads that `draw_path` names; a document needs them once."""
    made = (
        f'<marker id="to-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 .5L8 4L0 7.5z" '
        f'style="fill:var(--{"soft" if name == "saved" else name});stroke:none"/></marker>'
        for name in (*STAGES, "saved")
    )
    return f"<defs>{''.join(made)}</defs>"


def draw_box(stage: Stage, box: Box, x: float, y: float, name: str, folded: bool) -> str:
    """A box at (x, y) with three lines of text; `folded` where it stands for those of several rows."""
    frame = f'x="{x:.1f}" y="{y:.1f}" width="{BOX:g}" height="{TALL:g}" rx="6"'
    kind = "box" if box.nodes else "box ghost"
    lines = _folded_lines(box, name) if folded else _lines(box, name)
    texts = []
    for place, (words, style) in enumerate(zip(lines, ("op", "mono result", "mono"), strict=True)):
        down = y + 17 + 15 * place
        texts.append(f'<text class="{style}" x="{x + 10:.1f}" y="{down:.1f}">{escape(words)}</text>')
        if place == 1 and box.shape:
            end = f'class="mono" x="{x + BOX - 9:.1f}" y="{down:.1f}" text-anchor="end"'
            texts.append(f"<text {end}>{escape(box.shape)}</text>")
    outline = f'<rect class="{kind}" {frame} style="stroke:var(--{stage})"/>'
    tint = f'<rect class="tint" {frame} style="fill:var(--{stage})"/>'
    return f"<g><title>{escape(_tooltip(box))}</title>{outline}{tint}{''.join(texts)}</g>"


def _lines(box: Box, name: str) -> tuple[str, str, str]:
    """Operators, result and operands."""
    result, ops = box.results[0] if box.results else "", box.ops
    if not box.nodes:
        op = "from the same node" if box.parameter else "passed on unchanged"
        return op, _result(result, box), ""
    shown = f"{name}: " if name and name.split("/")[-1] != result.split("/")[-1] else ""
    if name == UPDATE_ROW:
        shown, ops = name, []
    more = f" +{len(box.results) - 1}" if len(box.results) > 1 else ""
    return _listed(shown, ops), _result(f"→ {result}{more}", box), _fitted(f"← {', '.join(box.operands)}")


def _folded_lines(box: Box, name: str) -> tuple[str, str, str]:
    """Title or size, the value that comes out, and the operators with their number."""
    counts = Counter(node.op for node in box.nodes if not node.plumbing)
    ops = ", ".join(f"{n} {op}" if n > 1 else op for op, n in counts.most_common())
    count = len(box.nodes)
    head = name or box.parameter or f"{count} node" + "s" * (count != 1)
    return _fitted(head, _BOLD), _result(f"→ {box.results[0]}" if box.results else "", box), _fitted(ops)


def _listed(head: str, ops: Sequence[str]) -> str:
    """``head`` and as many operators as fit, and how many more there are."""
    for count in range(len(ops), 1, -1):
        rest = f" +{len(ops) - count}" if count < len(ops) else ""
        if len(text := head + " · ".join(ops[:count]) + rest) <= _BOLD:
            return text
    rest = f" +{len(ops) - 1}" if len(ops) > 1 else ""
    return _fitted(head + "".join(ops[:1]), _BOLD - len(rest)) + rest


def _result(text: str, box: Box) -> str:
    """The name of a value, which gives way to its shape."""
    return _fitted(text, max(8, _LETTERS - len(box.shape) - 2) if box.shape else _LETTERS)


def _fitted(text: str, length: int = _LETTERS) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _tooltip(box: Box) -> str:
    if not box.nodes:
        return box.results[0] if box.results else ""
    shown = [_sentence(node.outputs, node.op, node.body, node.inputs) for node in box.nodes[:12]]
    return "\n".join([*shown, *(["…"] if len(box.nodes) > 12 else [])])


def _sentence(outputs: Iterable[str], op: str, body: str, inputs: Iterable[str]) -> str:
    return f"{', '.join(outputs)} = {op}{f' [{body}]' if body else ''}({', '.join(inputs)})"
