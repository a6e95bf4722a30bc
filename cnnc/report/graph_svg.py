"""The training graph as SVG: four columns for the four stages of a step, rows that join without gaps.

A row is drawn by itself, with the lines that pass through it, so that rows stack and fold in any order of
opening. Forward values run down the first column, gradients up the second, and from there to the right into
the gradients of parameters and their updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnc.report.graph import STAGES, Box, Stage, TrainingGraph
from cnnc.report.graph_boxes import BOX, TALL, draw_box, draw_path, markers
from cnnc.report.layout import Flow, Rail, Span, rails

GAP, PAD = 8.0, 13.0
"""The gap between two boxes, the space above and below a row's."""
_STEP, _BETWEEN = 9.0, 46.0
HEADINGS: dict[Stage, tuple[str, str]] = {
    "forward": ("1 · Forward ↓", "values, from the image to the loss"),
    "backward": ("2 · Backward ↑", "∂x: gradient of the loss in x"),
    "gradient": ("3 · Gradients of parameters →", "what the update follows"),
    "update": ("4 · Update", "parameters for the next step"),
}
CSS = """
svg.graph { display: block;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.graph text { fill: var(--soft); font-size: 11px; }
.graph .op { fill: var(--ink); font-size: 12.5px; font-weight: 600; }
.graph .mono { font-size: 10.5px;
  font-family: ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; }
.graph .result { fill: var(--ink); }
.graph .box { fill: var(--paper); stroke-width: 1.5; }
.graph .tint { stroke: none; opacity: .09; }
.graph .ghost { stroke-dasharray: 3 3; }
.graph path { fill: none; stroke-width: 1.7; }
.graph .saved { stroke: var(--soft); stroke-dasharray: 3 4; stroke-width: 1.2; }
.graph .turn { stroke-width: 3; }
.graph .head { font-size: 14px; font-weight: 650; }
"""


class Drawing:
    """Draws the rows of one graph, all to the same measure; `width` is theirs."""

    def __init__(self, graph: TrainingGraph) -> None:
        self.graph = graph
        edges: dict[Flow, frozenset[tuple[int, int]]] = {"forward": graph.forward, "backward": graph.backward}
        self.edges = edges
        self.rails = {flow: rails(edges[flow]) for flow in edges}
        columns = {flow: 1 + max((r.column for r in self.rails[flow]), default=-1) for flow in edges}
        self.left: dict[Stage, float] = {
            "forward": 8 + _STEP * columns["forward"] + (8 if columns["forward"] else 0)
        }
        self.left["backward"] = self.left["forward"] + BOX + _BETWEEN + _STEP * columns["backward"]
        self.left["gradient"] = self.left["backward"] + BOX + _BETWEEN
        self.left["update"] = self.left["gradient"] + BOX + 30
        self.width = self.left["update"] + BOX + 8

    def heading(self) -> tuple[str, float]:
        """The titles of the columns, and the height they take."""
        parts = []
        for stage, (title, words) in HEADINGS.items():
            x = self.left[stage]
            parts.append(f'<text class="head" x="{x:.0f}" y="18" style="fill:var(--{stage})">{title}</text>')
            parts.append(f'<text x="{x:.0f}" y="34">{words}</text>')
        return "".join(parts), 42.0

    def row(self, index: int) -> tuple[str, float]:
        """Row `index` with all its boxes, and its height."""
        return self._item(Span(index, index), self.graph.rows[index].boxes, self.graph.rows[index].name)

    def group(self, span: Span) -> tuple[str, float]:
        """The rows of `span` as one, with a box a stage that says how much is in them."""
        rows = self.graph.rows[span.first : span.last + 1]
        boxes: dict[Stage, list[Box]] = {}
        for stage in STAGES:
            inside = [box for row in rows for box in row.boxes[stage]]
            boxes[stage] = [_merged(stage, inside)] if inside else []
        return self._item(span, boxes, title(self.graph, span), folded=True)

    def band(self, span: Span, height: float = 24.0) -> tuple[str, float]:
        """What stands above the rows of an opened group: the lines that enter it from above."""
        parts = []
        for flow in self.rails:
            x = self._middle(flow)
            ends = sorted((span.first - 1, span.first), reverse=flow == "backward")
            if tuple(ends) in self.edges[flow]:
                parts.append(draw_path(f"M{x:.1f} 0V{height}", flow))
            for rail in self.rails[flow]:
                if rail.start < span.first <= rail.end:
                    parts.append(draw_path(f"M{self._rail_x(flow, rail):.1f} 0V{height}", flow))
        return "".join(parts), height

    def _item(
        self, span: Span, boxes: dict[Stage, list[Box]], name: str, folded: bool = False
    ) -> tuple[str, float]:
        stacked = max(1, len(boxes["gradient"]), len(boxes["update"]))
        height = 2 * PAD + stacked * TALL + (stacked - 1) * GAP
        parts = [
            *self._flow(span, "forward", boxes, height),
            *self._flow(span, "backward", boxes, height),
            *self._across(span, boxes, height),
        ]
        named = next(stage for stage in STAGES if boxes[stage])
        for stage in STAGES:
            for place, box in enumerate(boxes[stage]):
                y = PAD + place * (TALL + GAP)
                if stage in ("forward", "backward"):
                    y = (height - TALL) / 2
                parts.append(
                    draw_box(stage, box, self.left[stage], y, name if stage == named else "", folded)
                )
        return "".join(parts), height

    def _flow(self, span: Span, flow: Flow, boxes: dict[Stage, list[Box]], height: float) -> Iterator[str]:
        """The lines of one pass through an item: to and from its neighbours, and its rails."""
        x, middle = self._middle(flow), height / 2
        top, bottom = middle - TALL / 2, middle + TALL / 2
        above, below = (span.first - 1, span.first), (span.last, span.last + 1)
        reaches = bool(boxes[flow])
        if flow == "forward":
            if above in self.edges[flow]:
                yield draw_path(f"M{x:.1f} 0V{top - 1:.1f}", flow, arrow=True)
            if below in self.edges[flow]:
                yield draw_path(f"M{x:.1f} {bottom:.1f}V{height:.1f}", flow)
        else:
            if above[::-1] in self.edges[flow] and reaches:
                yield draw_path(f"M{x:.1f} {top:.1f}V0", flow)
            if below[::-1] in self.edges[flow]:
                end = bottom + 1 if reaches else middle
                yield draw_path(f"M{x:.1f} {height:.1f}V{end:.1f}", flow, arrow=reaches)
        for rail in self.rails[flow]:
            yield from self._rail(span, flow, rail, height)

    def _rail(self, span: Span, flow: Flow, rail: Rail, height: float) -> Iterator[str]:
        if rail.start > span.last or rail.end < span.first:
            return
        inside = rail.start >= span.first
        if inside and rail.end <= span.last:
            return  # within a folded group
        x, edge, middle = self._rail_x(flow, rail), self.left[flow], height / 2
        forward = flow == "forward"
        if inside:
            y = middle + 14
            down = f"M{edge:.1f} {y:.1f}H{x + 6:.1f}Q{x:.1f} {y:.1f} {x:.1f} {y + 6:.1f}V{height:.1f}"
            up = f"M{x:.1f} {height:.1f}V{y + 6:.1f}Q{x:.1f} {y:.1f} {x + 6:.1f} {y:.1f}H{edge - 1:.1f}"
            yield draw_path(down if forward else up, flow, arrow=not forward)
            return
        on = rail.end > span.last
        if on:
            yield draw_path(f"M{x:.1f} 0V{height:.1f}", flow)
        if any(span.first <= tap <= span.last for tap in rail.taps):
            y = middle - 14
            above = y - 6 if on else 0.0
            begin = f"M{x:.1f} {above:.1f}V{y - 6:.1f}"
            into = f"{begin}Q{x:.1f} {y:.1f} {x + 6:.1f} {y:.1f}H{edge - 1:.1f}"
            out = f"M{edge:.1f} {y:.1f}H{x + 6:.1f}Q{x:.1f} {y:.1f} {x:.1f} {y - 6:.1f}V{above:.1f}"
            yield draw_path(into if forward else out, flow, arrow=forward)

    def _across(self, span: Span, boxes: dict[Stage, list[Box]], height: float) -> Iterator[str]:
        """The lines to the right: saved values, the turn at the loss, and on to the update."""
        left, middle = self.left, height / 2
        forward, backward = boxes["forward"], boxes["backward"]
        turns = self.graph.loss is not None and span.first <= self.graph.loss <= span.last
        if forward and backward and (turns or any(box.saved for box in backward)):
            path = f"M{left['forward'] + BOX:.1f} {middle:.1f}H{left['backward'] - 1:.1f}"
            if turns:
                yield draw_path(path, "backward", kind="turn", arrow=True)
            else:
                yield draw_path(path, "", kind="saved", arrow=True)
        update = {box.parameter: place for place, box in enumerate(boxes["update"])}
        for place, box in enumerate(boxes["gradient"]):
            y = PAD + place * (TALL + GAP) + TALL / 2
            yield from self._into_gradient(span, box, bool(backward), y, middle, height)
            if box.parameter in update:
                to = PAD + update[box.parameter] * (TALL + GAP) + TALL / 2
                start, end = left["gradient"] + BOX, left["update"] - 1
                bend = f"{start + 15:.1f} {y:.1f} {end - 15:.1f} {to:.1f} {end:.1f} {to:.1f}"
                yield draw_path(f"M{start:.1f} {y:.1f}C{bend}", "gradient", arrow=True)

    def _into_gradient(
        self, span: Span, box: Box, has_backward: bool, y: float, middle: float, height: float
    ) -> Iterator[str]:
        """From the backward pass into the gradient of one parameter."""
        left = self.left
        end, turn = left["gradient"] - 1, left["gradient"] - 20
        if not box.nodes and has_backward:  # the backward box makes it too
            start, level = left["backward"] + BOX, middle
        elif has_backward:  # it takes what the backward box takes: the line branches off below the box
            start, level = self._middle("backward"), middle + TALL / 2 + PAD / 2
        else:
            start, level = self._middle("backward"), middle
        yield draw_path(
            f"M{start:.1f} {level:.1f}H{turn:.1f}L{turn:.1f} {y:.1f}H{end:.1f}", "backward", arrow=True
        )

    def _middle(self, flow: Flow) -> float:
        return self.left[flow] + BOX / 2

    def _rail_x(self, flow: Flow, rail: Rail) -> float:
        return self.left[flow] - 13 - _STEP * rail.column


def title(graph: TrainingGraph, span: Span) -> str:
    """What a group is called: what its rows' names begin with alike, else the first and the last."""
    names = [row.name for row in graph.rows[span.first : span.last + 1]]
    if len(names) == 1:
        return names[0]
    parts = [name.replace(".", "/").strip("/").split("/") for name in names]
    shared = []
    for pieces in zip(*parts, strict=False):
        if len(set(pieces)) > 1:
            break
        shared.append(pieces[0])
    return "/".join(shared) if shared else f"{names[0]} … {names[-1]}"


def _merged(stage: Stage, boxes: Sequence[Box]) -> Box:
    nodes = [node for box in boxes for node in box.nodes]
    if stage in ("gradient", "update"):
        return Box(nodes=nodes, parameter=f"{len({b.parameter for b in boxes})} parameters")
    last = boxes[-1] if stage == "forward" else boxes[0]
    return Box(nodes, "", last.results, [], last.shape, any(box.saved for box in boxes))


def draw_graph(graph: TrainingGraph) -> str:
    """The whole graph as an SVG file of its own, row below row."""
    from cnnc.report import svg

    drawing = Drawing(graph)
    inner, y = drawing.heading()
    parts = [markers(), inner]
    for index in range(len(graph.rows)):
        inner, height = drawing.row(index)
        parts.append(f'<g transform="translate(0 {y:.1f})">{inner}</g>')
        y += height
    style = f"<style>{CSS}</style>"
    return svg.document(
        style + "".join(parts), drawing.width, y + 8, "training graph", True, kind="figure graph"
    )
