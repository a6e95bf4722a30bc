"""A residual network for 32×32 colour images; He et al., 2015, section 4.2.

``depth`` is 6n + 2 (20, 32, 44, 56, 110) and ``width`` the channels of the first stage. With ``augment``
images are shifted by up to 4 pixels and mirrored, as there.
"""

from cnnc import Program, Tensor, losses, metrics, nn, optim, schedules
from cnnc.augment import RandomCrop, RandomHorizontalFlip


def convolution(x: nn.Value, channels: int, kernel: int, stride: int = 1) -> nn.Value:
    """A convolution and batch normalisation, whose bias makes the convolution's own needless."""
    conv = nn.Conv2d(channels, kernel, stride, padding=kernel // 2, bias=False, weight_init="he_normal")
    return nn.BatchNorm2d()(conv(x))


def block(x: nn.Value, channels: int, stride: int) -> nn.Value:
    """Two convolutions beside a shortcut, which is a 1×1 convolution where the shape changes."""
    y = nn.ReLU()(convolution(x, channels, 3, stride))
    y = convolution(y, channels, 3)
    shortcut = x if x.shape == y.shape else convolution(x, channels, 1, stride)
    return nn.ReLU()(y + shortcut)


def program(depth: int = 20, width: int = 16, augment: bool = False) -> Program:
    """The program, for ``--set depth=20 --set width=16 --set augment=true``."""
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth must be 6n + 2, such as 20 or 32, not {depth}")

    def model(x: nn.Value) -> nn.Value:
        x = nn.ReLU()(convolution(x, width, 3))
        for stage in range(3):
            for i in range(blocks):
                x = block(x, width * 2**stage, stride=2 if stage > 0 and i == 0 else 1)
        return nn.Dense(10)(nn.GlobalAvgPool2d()(x))

    rate = schedules.Warmup(400, schedules.Step(0.1, every=32_000))
    return Program(
        input=Tensor("image", ("N", 3, 32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        model=model,
        loss=losses.SoftmaxCrossEntropy(),
        optimizer=optim.SGD(rate, momentum=0.9, weight_decay=1e-4),
        metrics=[metrics.Accuracy()],
        augment=[RandomCrop(4), RandomHorizontalFlip()] if augment else [],
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    )
