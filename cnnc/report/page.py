"""report.html: one file that shows a run, without network access and without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from cnnc.report import graph_svg, svg
from cnnc.report.answers import Answers
from cnnc.report.figure import Chart, Matrix
from cnnc.report.graph import Row, TrainingGraph
from cnnc.report.graph_boxes import markers
from cnnc.report.graph_svg import Drawing
from cnnc.report.layout import spans
from cnnc.report.pictures import draw_wrong
from cnnc.report.record import Record
from cnnc.report.style import STYLE

MOST_CLASSES, MOST_PAIRS, MOST_ROWS = 30, 12, 200
_LEGEND = (
    "Every node of train.onnx, layer by layer. ∂x is the gradient of the loss with respect to x. Values run "
    "down the first column to the loss, gradients up the second and from there into the gradients of "
    "parameters and their updates; a dashed line is a value kept from the forward pass. Open a row to "
    "see its nodes."
)


def page(
    record: Record, charts: Sequence[Chart], graph: TrainingGraph, answers: Sequence[Answers], note: str
) -> str:
    """The whole report as HTML; `note` says what is missing and why."""
    name = record.run.bundle.manifest.name
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(name)} · cnnc</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{svg.CSS}{STYLE}{graph_svg.CSS}</style><main>",
        *_head(record),
        f'<p class="note">{escape(note)}</p>' if note else "",
        *_curves(charts),
        *(part for found in answers for part in _answers(found)),
        *_graph(graph),
        *_tables(record),
        f'<svg width="0" height="0" style="position:absolute">{markers()}</svg></main></html>\n',
    ]
    return "".join(parts)


def _head(record: Record) -> Iterable[str]:
    manifest = record.run.bundle.manifest
    data = record.run.data
    sizes = f"{data['train']['examples']:,} training and {data['test']['examples']:,} test images"
    under = " · ".join((f"{data['name']}: {sizes}", record.state_in_words, str(record.run.path)))
    yield f'<h1>{escape(manifest.name)}</h1><div class="sub">{escape(under)}</div>'
    shown = (
        f'<div class="card"><b>{escape(value)}</b><span>{escape(words)}</span></div>'
        for value, words in _tiles(record)
    )
    yield f'<div class="tiles">{"".join(shown)}</div>'


def _tiles(record: Record) -> Iterable[tuple[str, str]]:
    """The few numbers that count, with their names."""
    if (best := record.best) is not None:
        name, last, part = record.best_metric.name, record.rows[-1], record.held_out
        words = f"best {part} {name.replace('_', ' ')}, epoch {best['epoch']}"
        yield f"{best[f'{part}_{name}']:.4f}", words
        if f"{part}_loss" in last:
            yield f"{last[f'{part}_loss']:.4f}", f"last {part} loss"
        yield f"{last['epoch']:,}", f"epochs, {int(last['step']):,} steps"
        yield _duration(sum(row.get("seconds", 0.0) for row in record.rows)), "of training"
        yield f"{last.get('images_per_second', 0):,.0f}", "images a second"
    yield f"{sum(e.size for e in record.run.bundle.manifest.entries('parameter')):,}", "parameters"


def _curves(charts: Sequence[Chart]) -> Iterable[str]:
    if charts:
        cards = (f'<div class="card">{svg.draw_chart(chart)}</div>' for chart in charts)
        yield f'<h2>Curves</h2><div class="pair">{"".join(cards)}</div>'


def _answers(answers: Answers) -> Iterable[str]:
    matrix = answers.matrix
    total = sum(map(sum, matrix.counts))
    right = sum(row[i] for i, row in enumerate(matrix.counts))
    of = f"Answers of {answers.output}" if answers.output else "Answers"
    yield f"<h2>{escape(of)} on the test split</h2>"
    said = (
        f"By the {answers.which} state: {right:,} of {total:,} right. A row is a label, a column a prediction"
    )
    yield f'<p class="note">{said}; the colour shows the share of its row.</p>'
    counts = Matrix(matrix.name, "Counts", matrix.classes, matrix.counts)
    shares = Matrix(matrix.name, "Shares of each label", matrix.classes, matrix.counts)
    drawn = [svg.draw_matrix(counts)]
    if len(matrix.classes) <= svg.NUMBERED:
        drawn.append(svg.draw_matrix(shares, shares=True))
    cards = (f'<div class="card scroll">{each}</div>' for each in drawn)
    yield f'<div class="pair">{"".join(cards)}</div>'
    yield f'<div class="pair" style="margin-top:16px">{_classes(matrix)}{_pairs(matrix)}</div>'
    if answers.wrong:
        grid = draw_wrong(answers.wrong, probabilities=answers.probabilities)
        where = f"Where {answers.output} is most wrong" if answers.output else "Where it is most wrong"
        yield f'<h2>{escape(where)}</h2><div class="card">{grid}</div>'


def _classes(matrix: Matrix) -> str:
    """Recall and precision of each class, the worst recall first where there are many."""
    columns = [sum(column) for column in zip(*matrix.counts, strict=True)]
    lines = [
        (name, sum(row), row[i] / max(sum(row), 1), row[i] / max(columns[i], 1))
        for i, (name, row) in enumerate(zip(matrix.classes, matrix.counts, strict=True))
    ]
    title = "Each class"
    if len(lines) > MOST_CLASSES:
        lines = sorted((line for line in lines if line[1]), key=lambda line: line[2])[:MOST_CLASSES]
        title = f"The {len(lines)} classes of lowest recall"
    rows = [
        (name, f"{count:,}", f"{recall:.1%}", f"{precision:.1%}") for name, count, recall, precision in lines
    ]
    return f'<div class="card"><b>{title}</b>{_table(("class", "images", "recall", "precision"), rows)}</div>'


def _pairs(matrix: Matrix) -> str:
    mistakes = matrix.mistakes()
    rows = [
        (matrix.classes[i], matrix.classes[j], f"{n:,}", f"{n / sum(matrix.counts[i]):.1%}")
        for i, j, n in mistakes[:MOST_PAIRS]
    ]
    body = _table(("label", "taken for", "times", "of the label"), rows, numbers=2)
    return f'<div class="card"><b>Most confused</b>{body if rows else "<p>Nothing.</p>"}</div>'


def _graph(graph: TrainingGraph) -> Iterable[str]:
    drawing = Drawing(graph)
    yield f'<h2>The training step</h2><p class="note">{_LEGEND}</p>'
    inner, height = drawing.heading()
    yield f'<div class="card scroll"><div class="graphs">{_part(drawing, inner, height)}'
    for span in spans(graph):
        rows = range(span.first, span.last + 1)
        if span.first == span.last:
            yield _row(graph, drawing, span.first)
            continue
        folded, band = _part(drawing, *drawing.group(span)), _part(drawing, *drawing.band(span))
        name = escape(graph_svg.title(graph, span))
        yield (
            f'<details class="group"><summary><span class="name">{name}: fold up</span>'
            f'<div class="folded">{folded}</div><div class="band">{band}</div></summary>'
        )
        yield from (_row(graph, drawing, index) for index in rows)
        yield "</details>"
    yield "</div></div>"
    if graph.functions:
        yield '<details class="more"><summary>The bodies of the gradient ops, in standard ONNX</summary>'
        for name, lines in graph.functions.items():
            body = escape("\n".join(lines))
            yield f'<div class="nodes"><b>{escape(name)}</b><pre>{body}</pre></div>'
        yield "</details>"


def _row(graph: TrainingGraph, drawing: Drawing, index: int) -> str:
    nodes = "\n".join(_nodes(graph.rows[index]))
    drawn = _part(drawing, *drawing.row(index))
    return f'<details><summary>{drawn}</summary><div class="nodes"><pre>{nodes}</pre></div></details>'


def _part(drawing: Drawing, inner: str, height: float) -> str:
    return svg.document(inner, drawing.width, height, "part of the training graph", False, kind="graph")


def _nodes(row: Row) -> Iterable[str]:
    for node in row.nodes:
        aside = ", ".join(filter(None, (f"body {node.body}" if node.body else "", node.where)))
        call = escape(f"{', '.join(node.outputs)} = {node.op}({', '.join(node.inputs)})")
        yield f"{call}  <i>{escape(aside)}</i>" if aside else call


def _tables(record: Record) -> Iterable[str]:
    rows = record.rows
    if rows:
        columns = tuple(rows[0])
        shown = rows if len(rows) <= MOST_ROWS else rows[-MOST_ROWS:]
        table = _table(
            [name.replace("_", " ") for name in columns],
            [[_cell(row[name]) for name in columns] for row in shown],
            numbers=0,
        )
        state = " open" if len(rows) <= 20 else ""
        yield f'<h2>Epochs</h2><details class="more"{state}><summary>metrics.csv</summary>'
        yield f'<div class="card scroll">{table}</div></details>'
    settings: dict[str, Any] = asdict(record.run.settings)
    manifest = record.run.bundle.manifest
    settings |= {
        "optimizer": manifest.optimizer,
        "loss": manifest.loss,
        "metrics": [m.name for m in manifest.metrics],
    }
    yield '<h2>How it was made</h2><div class="pair">'
    yield f'<div class="card"><b>Settings</b>{_facts(settings)}</div>'
    for session in record.environments[-1:]:
        again = len(record.environments) - 1
        title = "Environment" + (f" (of the last time it went on; {again} before)" if again else "")
        yield f'<div class="card"><b>{title}</b>{_facts(session)}</div>'
    yield "</div>"


def _facts(facts: dict[str, Any]) -> str:
    return _table(
        ("", ""), [(name.replace("_", " "), _words(value)) for name, value in facts.items()], numbers=9
    )


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 1) -> str:
    """A table whose columns from `numbers` on are right-aligned."""

    def line(cells: Sequence[str], tag: str) -> str:
        made = (
            f'<{tag} class="n">{escape(cell)}</{tag}>' if i >= numbers else f"<{tag}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(made)}</tr>"

    header = line(head, "th") if any(head) else ""
    return f"<table>{header}{''.join(line(row, 'td') for row in rows)}</table>"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
