"""A small CNN for handwritten digits of 8×8 pixels, with batch normalisation."""

from cnnc import Program, Tensor, losses, metrics, nn, optim


def convolution(channels: int) -> nn.Sequential:
    """A convolution, normalised; the bias of the normalisation makes its own needless."""
    return nn.Sequential(
        nn.Conv2d(channels, 3, padding="same", bias=False),
        nn.BatchNorm2d(),
        nn.ReLU(),
    )


program = Program(
    input=Tensor("image", ("N", 1, 8, 8)),
    model=nn.Sequential(
        convolution(32),
        convolution(64),
        nn.MaxPool2d(2),
        convolution(64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(10),
    ),
    loss=losses.SoftmaxCrossEntropy(),
    optimizer=optim.Adam(learning_rate=1e-3),
    metrics=[metrics.Accuracy()],
)
