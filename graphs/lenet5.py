"""LeNet-5 for 28×28 digits, with average pooling and tanh; LeCun et al., 1998."""

from cnnc import Program, Tensor, losses, metrics, nn, optim

program = Program(
    input=Tensor("image", ("N", 1, 28, 28)),
    model=nn.Sequential(
        nn.Conv2d(6, 5, padding=2, activation="tanh"),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 5, activation="tanh"),
        nn.AvgPool2d(2),
        nn.Conv2d(120, 5, activation="tanh"),
        nn.Flatten(),
        nn.Dense(84, activation="tanh"),
        nn.Dense(10),
    ),
    loss=losses.SoftmaxCrossEntropy(),
    optimizer=optim.SGD(learning_rate=0.02, momentum=0.9),
    metrics=[metrics.Accuracy()],
)
