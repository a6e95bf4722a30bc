"""Keras on TensorFlow: layers, optimizers and loss of Keras in a tf.function, as its own `fit` has them."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers as kl

from benchmarks.architectures import (
    Adam,
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    Layers,
    MaxPool,
    Momentum,
    ReLU,
    Residual,
)
from benchmarks.workers.layouts import channels_last_batches, channels_last_state
from benchmarks.workers.protocol import Array, Job, Step, serve

WEIGHTS = ("weight", "bias", "running_mean", "running_var")


class Network:
    """The network as a functional model, and its layers by their names."""

    def __init__(self, architecture: Architecture) -> None:
        channels, height, width = architecture.image
        self.named: dict[str, kl.Layer] = {}
        image = keras.Input((height, width, channels))
        self.model = keras.Model(image, self.apply(architecture.layers, image))

    def apply(self, layers: Layers, x: keras.KerasTensor) -> keras.KerasTensor:
        for layer in layers:
            x = self.call(layer, x)
        return x

    def call(self, layer: Layer, x: keras.KerasTensor) -> keras.KerasTensor:
        match layer:
            case Conv(_, outputs, kernel, stride, padding, groups, bias):
                x, border = padded(x, kernel, stride, padding)
                made = (
                    kl.Conv2D(outputs, kernel, stride, border, use_bias=bias)
                    if groups == 1
                    else kl.DepthwiseConv2D(kernel, stride, border, use_bias=bias)
                )
            case BatchNorm():
                made = kl.BatchNormalization(momentum=0.9, epsilon=1e-5)
            case Dense(_, outputs):
                made = kl.Dense(outputs)
            case MaxPool(kernel, stride, padding):  # behind a ReLU, where zeros never win
                x, border = padded(x, kernel, stride, padding)
                return kl.MaxPooling2D(kernel, stride, border)(x)
            case ReLU():
                return kl.ReLU()(x)
            case GlobalAvgPool():
                return kl.GlobalAveragePooling2D()(x)
            case Flatten():
                return kl.Flatten()(x)
            case Residual(body, shortcut):
                return kl.Add()([self.apply(body, x), self.apply(shortcut, x)])
        self.named[layer.name] = made
        return made(x)

    def load(self, state: dict[str, Array]) -> None:
        for name, layer in self.named.items():
            arrays = [state[key] for key in (f"{name}.{w}" for w in WEIGHTS) if key in state]
            if isinstance(layer, kl.DepthwiseConv2D):
                arrays[0] = arrays[0].swapaxes(2, 3)
            layer.set_weights(arrays)


def padded(x: keras.KerasTensor, kernel: int, stride: int, padding: int) -> tuple[keras.KerasTensor, str]:
    """The border as Keras names it; with a stride its "same" is lopsided, so zeros go round by a layer."""
    if padding == 0:
        return x, "valid"
    if stride == 1 and padding == kernel // 2:
        return x, "same"
    return kl.ZeroPadding2D(padding)(x), "valid"


def contestant(job: Job) -> Step:
    """Options: ``step`` is function, xla, or train_on_batch (Keras's own, with its bookkeeping)."""
    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    network = Network(job.architecture)
    network.load(channels_last_state(job))
    model = network.model
    batches = [(tf.constant(x), tf.constant(y)) for x, y in channels_last_batches(job)]
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = make_optimizer(job.architecture.optimizer)
    xla = job.options["step"] == "xla"

    if job.task == "train" and job.options["step"] == "train_on_batch":
        model.compile(optimizer, loss_function)

        def train_on_batch(i: int) -> float:
            model.reset_metrics()  # or it would return the mean since the first step
            return float(model.train_on_batch(*batches[i % len(batches)]))

        return train_on_batch

    @tf.function(jit_compile=xla)
    def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function(jit_compile=xla)
    def evaluate(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return loss_function(y, model(x, training=False))

    @tf.function(jit_compile=xla)
    def infer(x: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(model(x, training=False))

    function = {"train": train, "evaluate": evaluate, "infer": infer}[job.task]
    return lambda i: function(*batches[i % len(batches)]).numpy()


def make_optimizer(wanted: Adam | Momentum) -> keras.optimizers.Optimizer:
    if isinstance(wanted, Adam):
        return keras.optimizers.Adam(wanted.rate, wanted.beta1, wanted.beta2, wanted.epsilon)
    return keras.optimizers.SGD(wanted.rate, wanted.momentum)


if __name__ == "__main__":
    serve(contestant, "keras", "tensorflow-cpu", "numpy")
