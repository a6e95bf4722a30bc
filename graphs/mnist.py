"""A first CNN for 28×28 digits: one convolution, one pool, one dense layer."""

from cnnc import Program, Tensor, losses, metrics, nn, optim

program = Program(
    input=Tensor("image", ("N", 1, 28, 28)),
    model=nn.Sequential(
        nn.Conv2d(32, 3, activation="relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(10),
    ),
    loss=losses.SoftmaxCrossEntropy(),
    optimizer=optim.Adam(learning_rate=1e-3),
    metrics=[metrics.Accuracy()],
)
