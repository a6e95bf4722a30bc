"""The networks as cnnc's programs, and the rows of the table: which network at which batch size.

Peers build the same networks from `benchmarks.architectures`; that they are the same is checked in every
run by the losses of the first steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.architectures import ARCHITECTURES, Adam
from cnnc import Program, Tensor, losses, nn, optim
from cnnc.graphs import mnist, resnet_cifar
from cnnc.program import Model


def vgg(x: nn.Value) -> nn.Value:
    """Three times two padded 3×3 convolutions and a pool."""
    for channels in (32, 64, 128):
        for _ in range(2):
            x = nn.Conv2d(channels, 3, padding="same", activation="relu")(x)
        x = nn.MaxPool2d(2)(x)
    return nn.Dense(10)(nn.Flatten()(x))


def normalised(x: nn.Value, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Value:
    """A convolution and batch normalisation, whose bias makes the convolution's own needless."""
    conv = nn.Conv2d(channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.BatchNorm2d()(conv(x))


def mobile(x: nn.Value) -> nn.Value:
    """Depthwise 3×3 and 1×1 convolutions in turn, as in MobileNet; Howard et al., 2017."""
    x = nn.ReLU()(normalised(x, 32, 3, stride=2))
    inputs = 32
    for channels, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        x = nn.ReLU()(normalised(x, inputs, 3, stride, groups=inputs))
        x = nn.ReLU()(normalised(x, channels, 1))
        inputs = channels
    return nn.Dense(10)(nn.GlobalAvgPool2d()(x))


def resnet50(x: nn.Value) -> nn.Value:
    """He et al., 2015, with the stride of a block in its 3×3 convolution, as in PyTorch's torchvision."""
    x = nn.ReLU()(normalised(x, 64, 7, stride=2))
    x = nn.MaxPool2d(3, 2, padding=1)(x)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            y = nn.ReLU()(normalised(x, width, 1))
            y = nn.ReLU()(normalised(y, width, 3, stride))
            y = normalised(y, 4 * width, 1)
            x = nn.ReLU()(y + (normalised(x, 4 * width, 1, stride) if block == 0 else x))
    return nn.Dense(1000)(nn.GlobalAvgPool2d()(x))


MODELS: dict[str, Model] = {
    "mission": mnist.program.model,
    "vgg": vgg,
    "resnet20": resnet_cifar.program(depth=20).model,
    "mobile": mobile,
    "resnet50": resnet50,
}


def program(network: str) -> Program:
    """The network as a program, with the optimizer that everyone uses on it, and no metric but the loss."""
    architecture = ARCHITECTURES[network]
    wanted = architecture.optimizer
    optimizer: optim.Optimizer = (
        optim.Adam(wanted.rate, wanted.beta1, wanted.beta2, wanted.epsilon)
        if isinstance(wanted, Adam)
        else optim.SGD(wanted.rate, wanted.momentum)
    )
    return Program(
        input=Tensor("image", ("N", *architecture.image)),
        model=MODELS[network],
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optimizer,
        name=network,
    )


@dataclass(frozen=True)
class Row:
    """A network at a batch size; a turn is `steps` of it, after `warm_up` steps that don't count.

    Turns are short: two cores of a virtual machine may be one of the host for seconds, and all contestants of
    a round should meet that alike.
    """

    network: str
    batch: int
    steps: int = 4
    warm_up: int = 1

    def __str__(self) -> str:
        return f"{self.network}:{self.batch}"

    @classmethod
    def parse(cls, text: str) -> Row:
        """``network:batch``, one of `ROWS` or not. Raises ValueError."""
        network, _, batch = text.partition(":")
        if network not in ARCHITECTURES or not batch.isdigit() or int(batch) < 1:
            raise ValueError(f"'{text}' is no row: write network:batch, the network one of {_NETWORKS}")
        size = int(batch)
        nearest = min((row for row in ROWS if row.network == network), key=lambda row: abs(row.batch - size))
        return replace(nearest, batch=size)


ROWS = (
    Row("mission", 32, steps=100, warm_up=20),
    Row("mission", 128, steps=40, warm_up=10),
    Row("mission", 512, steps=12, warm_up=3),
    Row("vgg", 64),
    Row("resnet20", 64),
    Row("mobile", 32),
    Row("resnet50", 8, steps=1),
)
_NETWORKS = ", ".join(ARCHITECTURES)
