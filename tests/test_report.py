"""A run's report: what stands in it, that it is one well-formed file, and that it never stops a run."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import built
import numpy as np
import pytest
from command_line import SMALL, call, contents, done

from cnnc import Program, Tensor, losses, metrics, nn, optim
from cnnc.bundle import Bundle, write_bundle
from cnnc.compiler import compile_program
from cnnc.data import Dataset, Split, load
from cnnc.deploy.predict import open_model
from cnnc.report import RunReport, write_report
from cnnc.report.answers import answers
from cnnc.report.figure import Chart, Matrix, Series, axis
from cnnc.report.graph import UPDATE_ROW, Stage
from cnnc.report.graph_reading import training_graph
from cnnc.report.graph_svg import Drawing, draw_graph
from cnnc.report.layout import FEW_ROWS, rails, spans
from cnnc.report.pictures import png
from cnnc.report.svg import draw_chart, draw_matrix
from cnnc.runtime import Run, Settings, evaluate, train
from cnnc.runtime.checkpoint import BEST
from cnnc.runtime.checkpoint import load as load_state
from cnnc.runtime.learning_rate import LearningRate

VOID = {"meta", "link", "br", "img", "rect", "line", "circle", "path", "polyline", "image", "input"}
ADDRESSES = ("http://www.w3.org/2000/svg",)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return built.digits_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def reported(run: Run) -> Path:
    return write_report(run, load("digits")).report


class Checker(HTMLParser):
    """Every tag is closed in order, and nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "link"), tag
        for name, value in attributes:
            if name in ("href", "src"):
                assert str(value).startswith("data:image/png;base64,"), value
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(path: Path) -> str:
    """The words of an HTML page, once it is known to be whole and to fetch nothing."""
    html = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    for word in ("http:", "https:", "@import", "url("):
        rest = html
        for known in (*ADDRESSES, "url(#to-"):
            rest = rest.replace(known, "")
        assert word not in rest
    return " ".join(checker.text)


def test_report_shows_everything_in_one_file(run: Run, reported: Path) -> None:
    words = parsed(reported)
    with (run.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for said in (
        f"{float(rows[-1]['test_accuracy']):.4f}", "Loss", "Accuracy", "Learning rate", "Counts",
        "Shares of each label", "Most confused", "Most wrong test images", "ConvGradWeight", "AdamUpdate",
        "BatchNormalizationGrad", "∂conv1", "settings", "onnxruntime", "eight", "360 test images",
    ):  # fmt: skip
        assert said.lower() in words.lower(), said


def test_plots_are_svg_files(run: Run, reported: Path) -> None:
    plots = sorted((run.path / "plots").iterdir())
    assert [path.name for path in plots] == [
        "accuracy.svg", "confusion_matrix.svg", "confusion_matrix_shares.svg", "learning_rate.svg",
        "loss.svg", "most_wrong.svg", "training_graph.svg",
    ]  # fmt: skip
    for path in plots:
        assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_answers_are_those_of_the_evaluation(run: Run) -> None:
    dataset = load("digits")
    (found,) = answers(run, dataset, shown=5)
    assert found.output == ""
    counts = np.array(found.matrix.counts)
    assert counts.sum(axis=1).tolist() == np.bincount(dataset.test.labels, minlength=10).tolist()
    state = load_state(run.path / BEST, run.bundle.manifest).state
    accuracy = evaluate(run.bundle, state, dataset.test, device="cpu")["accuracy"]
    assert counts.trace() / counts.sum() == pytest.approx(accuracy)
    assert len(found.wrong) == 5
    assert [w.label_score for w in found.wrong] == sorted(w.label_score for w in found.wrong)
    for wrong in found.wrong:
        assert built.DIGITS.index(wrong.label) == dataset.test.labels[wrong.index]
        np.testing.assert_array_equal(wrong.image, dataset.test.images[wrong.index])
        assert wrong.label != wrong.prediction


def test_each_output_that_chooses_has_its_answers(tmp_path: Path) -> None:
    """Those of classes, of a distribution and of yes or no; numbers and several labels have none."""

    def model(x: nn.Value) -> dict[str, nn.Value]:
        flat = nn.Flatten()(x)
        sizes = {"kind": 3, "soft": 3, "sign": 1, "tags": 2, "depth": 2}
        return {name: nn.Dense(size)(flat) for name, size in sizes.items()}

    program = Program(
        input=Tensor("image", ("N", 1, 4, 4)),
        model=model,
        loss={
            "kind": losses.SoftmaxCrossEntropy(),
            "soft": losses.DenseCrossEntropy(),
            "sign": losses.BinaryCrossEntropy(),
            "tags": losses.BinaryCrossEntropy(),
            "depth": losses.MeanSquaredError(),
        },
        metrics={"kind": [metrics.Accuracy()]},
        optimizer=optim.SGD(0.1),
        classes={"kind": ["a", "b", "c"], "sign": ["no", "yes"]},
    )
    made = compile_program(program)
    bundle = write_bundle(tmp_path / "b", made.manifest, made.graphs, made.state)
    random = np.random.default_rng(0)
    images, kinds = random.integers(0, 256, (90, 1, 4, 4), dtype=np.uint8), random.integers(0, 3, 90)
    signs = (random.random((90, 1)) < 0.3).astype(np.float32)
    named = {
        "y_kind": kinds,
        "y_soft": np.eye(3, dtype=np.float32)[kinds] * 0.9 + np.float32(0.1 / 3),
        "y_sign": signs,
        "y_tags": random.integers(0, 2, (90, 2)).astype(np.float32),
        "y_depth": random.standard_normal((90, 2)).astype(np.float32),
    }
    split = Split(images, np.zeros((90, 0)), named=named)
    dataset = Dataset("made", split, split)
    train(bundle, dataset, Settings(epochs=1, device="cpu", threads=1), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    found = {each.output: each for each in answers(run, dataset)}
    assert list(found) == ["kind", "soft", "sign"]
    assert found["kind"].matrix.classes == ("a", "b", "c")
    for name in ("kind", "soft"):
        assert [sum(row) for row in found[name].matrix.counts] == np.bincount(kinds).tolist()
    sign = found["sign"]
    assert sign.matrix.classes == ("no", "yes")
    assert [sum(row) for row in sign.matrix.counts] == [int((signs == 0).sum()), int((signs == 1).sum())]
    scores = open_model(run).all(images)[2][:, 0]
    assert sign.matrix.counts[1][1] == int(((scores > 0.5) & (signs[:, 0] == 1)).sum())
    worst = sign.wrong[0]
    assert worst.label_score == pytest.approx(np.where(signs[:, 0] == 1, scores, 1 - scores).min())
    report = write_report(run, dataset)
    words = parsed(report.report)
    for name in found:
        assert f"Answers of {name} on the test split" in words
        assert {f"{name}_confusion_matrix.svg", f"{name}_most_wrong.svg"} <= {p.name for p in report.plots}
    assert "tags on the test" not in words


# The training graph.


def test_the_graph_has_every_node_once_in_its_stage(run: Run) -> None:
    import onnx

    model = onnx.load(run.bundle.graph("train.onnx"))
    wanted = sorted(node.name for node in model.graph.node if node.op_type != "Constant")
    graph = training_graph(run.bundle)
    assert sorted(node.name for row in graph.rows for node in row.nodes) == wanted
    for row in graph.rows:
        for stage, boxes in row.boxes.items():
            for node in (node for box in boxes for node in box.nodes):
                assert node.name.startswith("update/") == (stage == "update"), node.name
                assert node.name.startswith("grad/") == (stage in ("backward", "gradient")), node.name


def test_every_parameter_has_its_gradient_and_update_in_the_row_of_its_layer(run: Run) -> None:
    graph = training_graph(run.bundle)
    rows = {row.name: row for row in graph.rows}
    for entry in run.bundle.manifest.entries("parameter"):
        row = rows[entry.name.partition(".")[0]]
        results: dict[Stage, str] = {"gradient": f"∂{entry.name}", "update": f"next/{entry.name}"}
        for stage, result in results.items():
            (box,) = (box for box in row.boxes[stage] if box.parameter == entry.name)
            assert box.results[0] == result
    assert graph.rows[-1].name == UPDATE_ROW


def test_gradients_run_against_the_values(run: Run) -> None:
    graph = training_graph(run.bundle)
    assert graph.loss is not None
    layers = range(graph.loss + 1)
    assert {(a, b) for a, b in graph.forward if b in layers} == {(i, i + 1) for i in layers[:-1]}
    assert graph.backward == {(i + 1, i) for i in layers[:-1]}


def test_shortcuts_run_beside_and_a_sum_passes_its_gradient_on(tmp_path: Path) -> None:
    graph = training_graph(built.build("branches", tmp_path / "b"))
    names = [row.name for row in graph.rows]
    add = names.index("add1")
    into = {a for a, b in graph.forward if b == add}
    assert len(into) == 2
    assert {(b, a) for a, b in graph.forward if b == add} <= graph.backward
    assert ET.fromstring(draw_graph(graph)).tag.endswith("svg")


def test_a_graph_without_annotations_is_drawn_too(tmp_path: Path) -> None:
    from tiny_bundle import write_tiny_bundle

    graph = training_graph(write_tiny_bundle(tmp_path / "tiny"))
    assert ET.fromstring(draw_graph(graph)).tag.endswith("svg")
    with pytest.raises(LookupError):
        LearningRate(Bundle.open(tmp_path / "tiny"))


def test_a_deep_network_folds_into_its_blocks(tmp_path: Path) -> None:
    from cnnc.bundle import write_bundle
    from cnnc.compiler import compile_program
    from cnnc.graphs.resnet_cifar import program

    made = compile_program(program(depth=20, width=4))
    graph = training_graph(write_bundle(tmp_path / "b", made.manifest, made.graphs, made.state))
    assert len(graph.rows) > 2 * FEW_ROWS
    folded = spans(graph)
    assert [row for span in folded for row in range(span.first, span.last + 1)] == list(
        range(len(graph.rows))
    )
    assert len(folded) <= FEW_ROWS
    blocks = [span for span in folded if span.last - span.first >= 6]
    assert len(blocks) == 9
    for block in blocks:
        assert graph.rows[block.last - 1].name.startswith("add")
    drawing = Drawing(graph)
    for span in blocks:
        assert drawing.group(span)[1] < drawing.row(span.first)[1] + 40


def test_rails_that_overlap_have_columns_of_their_own() -> None:
    made = rails([(0, 1), (0, 4), (2, 5), (4, 8), (0, 6)])
    found = [(rail.start, rail.taps, rail.column) for rail in made]
    assert found == [(0, (4, 6), 0), (2, (5,), 1), (4, (8,), 2)]


# The learning rate.


def test_the_learning_rate_is_the_graphs_own(tmp_path: Path) -> None:
    bundle = built.build("average", tmp_path / "b")
    from cnnc import schedules

    schedule = schedules.Warmup(2, schedules.Cosine(0.1, 10))
    rate = LearningRate(bundle)
    for step in range(12):
        assert rate.at(step) == pytest.approx(schedule.at(step), rel=1e-5, abs=1e-8)
        assert rate.at(step, 0.5) == pytest.approx(0.5 * schedule.at(step), rel=1e-5, abs=1e-8)


# Figures.


@pytest.mark.parametrize(
    ("values", "ends", "ticks"),
    [
        ([0.0, 1.0], (0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([0.93, 0.981], (0.92, 1.0), ["0.92", "0.94", "0.96", "0.98", "1"]),
        ([3e-4, 3e-4], (0.0, 6e-4), ["0", "0.0002", "0.0004", "0.0006"]),
        ([float("nan"), 2.0, float("inf")], (0.0, 4.0), ["0", "1", "2", "3", "4"]),
        ([], (0.0, 2.0), ["0", "0.5", "1", "1.5", "2"]),
    ],
)
def test_axes_have_round_ticks(values: list[float], ends: tuple[float, float], ticks: list[str]) -> None:
    found = axis(values)
    assert (found.low, found.high) == pytest.approx(ends)
    assert [label for _, label in found.ticks] == ticks


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    found = axis([0.002, 7.0], log=True)
    assert [label for _, label in found.ticks] == ["0.001", "0.01", "0.1", "1", "10"]
    assert found.position(0.1) == pytest.approx(0.5)


def test_a_line_has_a_gap_where_a_value_is_not_finite() -> None:
    drawn = draw_chart(Chart("c", "C", "x", (Series("s", [1, 2, 3, 4], [1.0, float("nan"), 2.0, 3.0]),)))
    assert drawn.count("<polyline") == 2
    assert "nan" not in drawn


@pytest.mark.parametrize("count", [2, 26, 27, 80])
def test_a_confusion_matrix_of_any_size(count: int) -> None:
    rows = tuple(tuple(9 if i == j else (i + j) % 7 == 0 for j in range(count)) for i in range(count))
    drawn = draw_matrix(Matrix("m", "M", tuple(f"<{i}>" for i in range(count)), rows), alone=True)
    root = ET.fromstring(drawn)
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert ("9" in texts) == (count <= 26)
    assert ("<0>" in texts) == (count <= 60)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("low", [0.0, -3.0])
def test_stored_images_become_pictures(channels: int, low: float) -> None:
    import io

    from PIL import Image

    values = np.linspace(low, 1.0, channels * 300 * 200, dtype=np.float32).reshape(channels, 300, 200)
    picture = Image.open(io.BytesIO(png(values)))
    assert picture.mode == ("RGB" if channels == 3 else "L")
    assert picture.size == (128, 192)


# From the command line.


def test_pictures_as_png(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from PIL import Image

    path = tmp_path / "copy"
    shutil.copytree(run.path, path)
    record = json.loads(done("report", path, "--png", "--json").out)
    made = [Path(plot) for plot in record["plots"] if plot.endswith(".png")]
    assert {plot.stem for plot in made} == {
        "loss", "accuracy", "learning_rate", "confusion_matrix", "confusion_matrix_shares", "most_wrong",
    }  # fmt: skip
    for plot in made:
        with Image.open(plot) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    before = contents(path)
    result = call("report", path, "--png")
    assert (result.status, result.out) == (1, "")
    assert "pip install 'cnnc[plots]'" in result.err
    assert contents(path) == before


def test_train_writes_it_and_report_makes_it_anew(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    path = tmp_path / "run"
    said = done("train", tmp_path / "small.py", "--data", "digits", "-o", path, "--epochs", 1, "-q").out
    assert f"report {path / 'report.html'}" in said
    before = parsed(path / "report.html")
    environment = json.loads((path / "environment.json").read_text())["sessions"]
    assert len(environment) == 1
    assert environment[0]["threads"] >= 1
    assert "onnxruntime" in environment[0]["packages"]
    shutil.rmtree(path / "plots")
    (path / "report.html").unlink()
    record = json.loads(done("report", path, "--json").out)
    assert record["note"] == ""
    assert parsed(path / "report.html") == before
    assert {Path(plot).name for plot in record["plots"]} >= {"loss.svg", "confusion_matrix.svg"}


def test_without_the_data_the_rest_is_shown(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "copy"
    shutil.copytree(run.path, path)
    result = call("report", path, "--data", tmp_path / "nothing")
    assert result.status == 1
    assert "no such folder" in result.err
    made = write_report(path, None, note="no data here")
    words = parsed(made.report)
    assert "no data here" in words
    assert "Most wrong" not in words
    assert "Learning rate" in words


def test_a_report_that_fails_does_not_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnc.report import writing

    def broken(*arguments: object) -> str:
        raise ValueError("no ink")

    monkeypatch.setattr(writing, "page", broken)
    said: list[str] = []
    dataset = load("digits")
    bundle = built.build("digits", tmp_path / "b")
    settings = Settings(epochs=1, batch_size=500, device="cpu", threads=1)
    summary = train(bundle, dataset, settings, tmp_path / "run", [RunReport(dataset, said.append)])
    assert summary.epochs == 1
    assert said == ["The report could not be made: ValueError: no ink."]
