"""A small CNN for handwritten digits of 8×8 pixels."""

from cnnc import Program, Tensor, losses, metrics, nn, optim

program = Program(
    input=Tensor("image", ("N", 1, 8, 8)),
    model=nn.Sequential(
        nn.Conv2d(32, 3, padding="same", activation="relu"),
        nn.Conv2d(32, 3, padding="same", activation="relu"),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 3, padding="same", activation="relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Dense(10),
    ),
    loss=losses.SoftmaxCrossEntropy(),
    optimizer=optim.Adam(learning_rate=1e-3),
    metrics=[metrics.Accuracy()],
)
