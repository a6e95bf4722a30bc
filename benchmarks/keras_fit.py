"""The first network trained as a Keras user would: ``keras_fit.py FOLDER EPOCHS BATCH``.

FOLDER holds one ``*train.npz`` and one ``*test.npz``, arrays ``x`` [n, 28, 28] of bytes and ``y`` [n].
Prints a JSON object with ``test_accuracy``.
"""

import json
import sys
from pathlib import Path

import numpy as np
from keras import Input, Sequential
from keras.layers import Conv2D, Dense, Flatten, MaxPooling2D


def split(folder: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    (path,) = Path(folder).glob(f"*{name}.npz")
    with np.load(path) as file:
        return file["x"][..., None].astype("float32") / 255.0, file["y"]


folder, epochs, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = Sequential(
    [
        Input((28, 28, 1)),
        Conv2D(32, (3, 3), activation="relu"),
        MaxPooling2D((2, 2)),
        Flatten(),
        Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
images, labels = split(folder, "train")
history = model.fit(
    images, labels, batch, epochs, verbose=0, validation_data=split(folder, "test"), validation_batch_size=256
)
print(json.dumps({"test_accuracy": history.history["val_accuracy"][-1]}))
