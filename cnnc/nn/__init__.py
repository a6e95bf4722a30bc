"""Layers: plain typed data, callable on the values of a network under construction."""

from cnnc.nn import initializers
from cnnc.nn.activations import ACTIVATIONS, GELU, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from cnnc.nn.combine import Add, Concat, Sequential
from cnnc.nn.layer import Layer
from cnnc.nn.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten
from cnnc.nn.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from cnnc.nn.trace import Trace, Value

__all__ = [
    "ACTIVATIONS",
    "GELU",
    "Add",
    "AvgPool2d",
    "BatchNorm2d",
    "Concat",
    "Conv2d",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Layer",
    "LeakyReLU",
    "MaxPool2d",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Trace",
    "Value",
    "initializers",
]
