"""Graph files: what is found and executed, options, and each way in which a file can be wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from command_line import SMALL, done

from cnnc.errors import GraphFileError, ShapeError
from cnnc.graph_file import known_graphs, load_program
from cnnc.ir import dims_of

PROGRAM = """
from cnnc import Program, Tensor, losses, nn, optim

def make(units=3):
    return Program(
        input=Tensor("image", ("N", 4)),
        model=nn.Dense(units),
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optim.SGD(),
    )
"""


def write(folder: Path, text: str, name: str = "net.py") -> Path:
    path = folder / name
    path.write_text(PROGRAM + text, encoding="utf-8")
    return path


def test_listing_the_graphs_executes_none() -> None:
    before = set(sys.modules)
    assert known_graphs() == ["digits", "lenet5", "mnist", "resnet_cifar"]
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("name", "output", "parameters"),
    [("digits", 10, 17), ("lenet5", 10, 10), ("mnist", 10, 4), ("resnet_cifar", 10, 107)],
)
def test_graphs_trace(name: str, output: int, parameters: int) -> None:
    program = load_program(name)
    network = program.trace()
    assert program.name == name
    assert dims_of(network.output) == ("N", output)
    assert len(network.parameters) == parameters
    places = {node.metadata_props.get("cnnc.where", "").partition(":")[0] for node in network.graph}
    assert places <= {f"{name}.py", ""}


def test_a_file_and_its_name(tmp_path: Path) -> None:
    program = load_program(write(tmp_path, "program = make()", "my net.py"))
    assert program.name == "my net"
    assert load_program(str(tmp_path / "my net.py")).name == "my net"


def test_a_file_beside_it_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_the_graph.py").write_text("UNITS = 7\n")
    before = list(sys.path)
    for text in (
        "from beside_the_graph import UNITS\nprogram = make(UNITS)",
        "def program():\n    from beside_the_graph import UNITS\n    return make(UNITS)",
    ):
        sys.modules.pop("beside_the_graph", None)
        assert dims_of(load_program(write(tmp_path, text)).trace().output) == ("N", 7)
    assert sys.path == before


def test_nothing_is_written_beside_it(tmp_path: Path) -> None:
    load_program(write(tmp_path, "program = make()"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]


TYPED = """
def program(width: int = 3, rate: float = 0.1, wide: bool = False, text: str = "x"):
    assert [type(v) for v in (width, rate, wide, text)] == [int, float, bool, str]
    return make(width * 2 if wide else width)
"""


@pytest.mark.parametrize(
    ("options", "units"),
    [
        ({}, 3),
        ({"width": "64"}, 64),
        ({"width": "5", "wide": "true"}, 10),
        ({"wide": "No"}, 3),
        ({"rate": "1"}, 3),
        ({"rate": "1e-3", "text": "5"}, 3),
    ],
)
def test_options(tmp_path: Path, options: dict[str, str], units: int) -> None:
    program = load_program(write(tmp_path, TYPED), options)
    assert dims_of(program.trace().output) == ("N", units)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"widht": "3"}, "there is no option 'widht'. Did you mean 'width'?"),
        ({"zzz": "3"}, "there is no option 'zzz'. Known: rate, text, wide, width."),
        ({"width": "3.5"}, "option 'width' must be an integer, not '3.5'. Its default is 3."),
        ({"rate": "fast"}, "option 'rate' must be a number, not 'fast'. Its default is 0.1."),
        ({"wide": "2"}, "option 'wide' must be true or false, not '2'. Its default is false."),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, str], text: str) -> None:
    with pytest.raises(GraphFileError) as caught:
        load_program(write(tmp_path, TYPED), options)
    assert str(caught.value) == f"net.py:12: {text}"


WRONG: list[tuple[str, str]] = [
    ("program = make(", "net.py:11: this is not Python: '(' was never closed."),
    ("program = make()\n  x = 1", "net.py:12: this is not Python: unexpected indent."),
    ("program = make(1 / 0)", "net.py:11: the graph file raised ZeroDivisionError: division by zero."),
    ("import sys\nsys.exit(3)", "net.py:12: the graph file raised SystemExit: 3."),
    ("import nowhere", "net.py:11: the graph file raised ModuleNotFoundError: No module named 'nowhere'."),
    ("import json\njson.loads('')", "net.py:12: the graph file raised JSONDecodeError: Expecting value"),
    (
        "nn.Conv2d(8, 3, strides=2)",
        "net.py:11: the graph file raised TypeError: Conv2d.__init__() got an unexpected keyword argument",
    ),
    ("raise ValueError", "net.py:11: the graph file raised ValueError."),
    (
        "",
        "net.py: this graph file has no `program`. "
        "End it with `program = Program(…)` or `def program(): return Program(…)`.",
    ),
    (
        "program = nn.Dense(3)",
        "net.py: `program` is a Dense, not a Program. "
        "Write `program = Program(…)`, or a function that returns one.",
    ),
    ("program = 3", "net.py: `program` is an int, not a Program."),
    ("def program(): pass", "net.py: `program` returned None, not a Program."),
    ("def program(a=3): return make(1 / 0)", "net.py:11: `program` raised ZeroDivisionError"),
    (
        "def program(width): return make(width)",
        "net.py:11: option 'width' of `program` has no default that is an int, float, bool or str. "
        "Write one, such as `width: int = 16`: it gives the option's type.",
    ),
    ("program = make(0)", "net.py:7: Dense: units must be at least 1, not 0."),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=[told[:60] for _, told in WRONG])
def test_wrong_files(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(GraphFileError) as caught:
        load_program(write(tmp_path, text))
    message = str(caught.value).replace(str(tmp_path) + "/", "")
    assert message.startswith(told)


@pytest.mark.parametrize("text", ["\0", "(" * 300, "x = " + "-" * 200_000 + "1", "\udcff"])
def test_what_is_not_python_at_all(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.py"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(GraphFileError, match=r"^net\.py(:1)?: this is not Python: "):
        load_program(path)


def test_a_shape_error_keeps_its_kind(tmp_path: Path) -> None:
    with pytest.raises(ShapeError):
        load_program(write(tmp_path, "program = make(-1)"))


def test_options_of_a_file_without_any(tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match=r"there is no option 'width': this graph file has none\."):
        load_program(write(tmp_path, "program = make()"), {"width": "3"})


def test_what_is_no_graph_file(tmp_path: Path) -> None:
    write(tmp_path, "program = make()")
    (tmp_path / "net.txt").write_text("")
    for source, text in [
        ("mnits", "mnits: there is no such graph file. Did you mean 'mnist'?"),
        (f"{tmp_path}/nett.py", f"there is no such graph file. Did you mean '{tmp_path}/net.py'?"),
        (f"{tmp_path}", "this is a folder, not a graph file."),
        (f"{tmp_path}/net.txt", "this is no graph file: its name does not end in .py."),
        ("x" * 5000, "there is no such graph file."),
        ("a\0b", "there is no such graph file."),
    ]:
        with pytest.raises(GraphFileError, match=re.escape(text)):
            load_program(source)


def test_only_graphs_are_offered_where_no_name_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any .py beside a graph file may be a script of the user's: it is named only where it may be meant."""
    monkeypatch.chdir(tmp_path)
    for name in ("setup.py", "my_net.py"):
        (tmp_path / name).write_text("program = make()")
    with pytest.raises(GraphFileError) as caught:
        load_program("zzz")
    assert caught.value.hint == "Known: digits, lenet5, mnist, resnet_cifar."
    for source in ("my_nett.py", "my-net.py"):
        with pytest.raises(GraphFileError, match=r"Did you mean 'my_net\.py'"):
            load_program(source)


def test_the_shipped_resnet_has_options() -> None:
    network = load_program("resnet_cifar", {"depth": "8", "width": "4"}).trace()
    assert network.parameters["conv1.weight"].type.dims == (4, 3, 3, 3)
    with pytest.raises(
        GraphFileError, match=r"resnet_cifar\.py:\d+: `program` raised ValueError: depth must"
    ):
        load_program("resnet_cifar", {"depth": "21"})


def test_what_it_prints_is_not_the_commands(tmp_path: Path) -> None:
    source = tmp_path / "loud.py"
    text = SMALL.replace("def program", "print('while it is read')\n\ndef program")
    source.write_text(text.replace("    return", "    print('as it is called')\n    return"))
    told = done("build", source, "-o", tmp_path / "b", "--json")
    assert json.loads(told.out)["name"] == "loud"
    assert told.err.splitlines()[:2] == ["while it is read", "as it is called"]


@pytest.mark.parametrize(("value", "rate"), [("0.5", 0.5), ("2", 2.0)])
def test_an_option_said_to_be_a_float_takes_any_number(value: str, rate: float, tmp_path: Path) -> None:
    source = tmp_path / "rated.py"
    text = SMALL.replace("width: int = 4", "width: int = 4, rate: float = 1")
    source.write_text(text.replace("learning_rate=0.01", "learning_rate=rate"))
    assert load_program(source, {"rate": value}).optimizer.schedule.base == rate
