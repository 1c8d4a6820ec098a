"""Layers, and the `Module` tree that holds their parameters."""

from minigrad.nn import functional
from minigrad.nn.activations import GELU, ReLU, Sigmoid, SiLU, Tanh
from minigrad.nn.containers import ModuleList, Sequential
from minigrad.nn.layers import Dropout, Embedding, LayerNorm, Linear, RMSNorm
from minigrad.nn.module import Module, Parameter

__all__ = [
    "GELU",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
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
