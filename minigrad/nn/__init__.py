"""Layers, and the `Module` tree that holds their parameters."""

from minigrad.nn import functional
from minigrad.nn.activations import GELU, ReLU, Sigmoid, SiLU, Tanh
from minigrad.nn.containers import ModuleList, Sequential
from minigrad.nn.convolution import Conv1d, Conv2d
from minigrad.nn.layers import Dropout, Embedding, LayerNorm, Linear, RMSNorm
from minigrad.nn.losses import HuberLoss, L1Loss, MSELoss
from minigrad.nn.module import Module, Parameter
from minigrad.nn.pooling import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d

__all__ = [
    "GELU",
    "AvgPool1d",
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "HuberLoss",
    "L1Loss",
    "LayerNorm",
    "Linear",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "functional",
]
