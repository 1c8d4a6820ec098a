"""Layers, and the `Module` tree that holds their parameters."""

from typing import TYPE_CHECKING

from minigrad.hints import missing_name
from minigrad.nn import functional
from minigrad.nn.activations import GELU, ReLU, Sigmoid, SiLU, Tanh
from minigrad.nn.attention import MultiheadAttention
from minigrad.nn.containers import ModuleDict, ModuleList, Sequential
from minigrad.nn.convolution import Conv1d, Conv2d
from minigrad.nn.layers import Dropout, Embedding, LayerNorm, Linear, RMSNorm
from minigrad.nn.losses import HuberLoss, L1Loss, MSELoss
from minigrad.nn.module import Module, Parameter
from minigrad.nn.normalization_layers import BatchNorm1d, BatchNorm2d, GroupNorm
from minigrad.nn.pooling import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from minigrad.nn.shaping import Flatten, Identity
from minigrad.nn.state_dicts import LoadedKeys

__all__ = [
    "GELU",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "HuberLoss",
    "Identity",
    "L1Loss",
    "LayerNorm",
    "Linear",
    "LoadedKeys",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiheadAttention",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "functional",
]

if not TYPE_CHECKING:  # otherwise checkers would accept every name
    __getattr__ = missing_name(__name__)
