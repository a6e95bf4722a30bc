"""``cnnc new``: a graph file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnc.cli.options import Debug, Json
from cnnc.cli.output import print_json
from cnnc.errors import GraphFileError, UsageError

TEMPLATE = '''"""A network for images. Build, train and change it:

    cnnc train {file} --data digits          trains it as it stands, on the digits that come with cnnc
    cnnc train {file} --data FOLDER          your own: images in train/<class>/… and test/<class>/…
    cnnc train {file} --data digits --set width=32
    cnnc summary {file}                      layers, shapes, and what computes each gradient
"""

from cnnc import Program, Tensor, losses, metrics, nn, optim

CLASSES = 10


def block(channels: int) -> nn.Sequential:
    """A convolution, normalised. The bias of the normalisation makes the convolution's own needless."""
    return nn.Sequential(
        nn.Conv2d(channels, 3, padding="same", bias=False),
        nn.BatchNorm2d(),
        nn.ReLU(),
    )


def program(width: int = 16, learning_rate: float = 1e-3) -> Program:
    """What is built. Its parameters are options: ``--set width=32 --set learning_rate=0.01``."""
    return Program(
        # N images of channels × height × width; 3 channels are colour. With mean=(…) and std=(…), a number
        # a channel, pixels between 0 and 1 are normalised.
        input=Tensor("image", ("N", 1, 8, 8)),
        # Any function from value to value may stand here; a wrong shape is told with the line of this file.
        model=nn.Sequential(
            block(width),
            nn.MaxPool2d(2),
            block(2 * width),
            nn.GlobalAvgPool2d(),
            nn.Dense(CLASSES),
        ),
        # The softmax is part of this loss; the exported model applies it, too.
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optim.Adam(learning_rate=learning_rate),
        metrics=[metrics.Accuracy()],
        # Names of the classes, in the order of their numbers, are kept in the exported model:
        # classes=("cat", "dog", …),
    )
'''


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the network: NAME.py is written.", show_default=False)
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a commented graph file, which builds and trains as it stands."""
    path = Path(name if name.endswith(".py") else f"{name}.py")
    if not path.stem.replace("-", "_").isidentifier():
        raise UsageError(f"'{path.stem}' is no name of a network.", hint="Take letters, digits, - and _.")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.replace("{file}", str(path)))
    except FileExistsError:
        raise GraphFileError("this file exists.", where=str(path), hint="Choose another name.") from None
    except OSError as error:
        raise GraphFileError(f"this can't be written: {error.strerror or error}.", where=str(path)) from error
    if json:
        print_json({"path": str(path)})
        return
    typer.echo(f"{path}: change it, and train it with `cnnc train {path} --data digits`.")
