"""Folded weights as the kernels of `tinyalpaca.generation.cuda.decode` want them, on the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from minigrad.device import Device
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation.folded_weights import Weights


class Product(NamedTuple):
    """W (outputs, inputs) and b (outputs,): an output's factors lie side by side."""

    weight: Any
    bias: Any

    @property
    def outputs(self) -> int:
        """Their number."""
        return self.bias.shape[0]


class Layer(NamedTuple):
    """`qkv` and `fc1` take x̂; `out` and `fc2` take [x̂ | block] post-norm, else the block alone."""

    qkv: Product
    out: Product
    fc1: Product
    fc2: Product


class DeviceWeights:
    """A model for generation on a device.

    Attributes:
        config, eps, tokens, positions: as in `Weights`.
        rotation: (L, D), cosine and sine of each angle side by side; None if there is none.
        layers, head: their products, all layers in one piece of memory.
    """

    config: ModelConfig
    eps: float
    dtype: np.dtype
    head: Product
    tokens: Any
    positions: Any

    def __init__(self, folded: Weights, device: Device) -> None:
        config = folded.config
        self.device = device
        self.config, self.eps, self.dtype = config, folded.eps, folded.dtype
        c, f = config.d_model, config.d_ff
        after_norm = (
            c  # where the bias is among the rows of a folded matrix, see `folded_weights.Layer`
        )
        after_residual, through = (0, 0) if config.pre_norm else (c, c)

        def put(array: np.ndarray | None) -> Any:
            return None if array is None else device.asarray(np.ascontiguousarray(array))

        flat = [
            part
            for layer in folded.layers
            for matrix, bias_row in (
                (layer.qkv, after_norm),
                (layer.out, after_residual),
                (layer.fc1, after_norm),
                (layer.fc2, after_residual),
            )
            for part in _flat(matrix, bias_row)
        ]
        layers, head = put(np.concatenate(flat)), put(np.concatenate(_flat(folded.head, c)))
        shapes = ((3 * c, c), (c, through + c), (f, c), (c, through + f))
        products = _products(layers, shapes * config.num_layers)
        self.layers: list[Layer] = [Layer(*products[i : i + 4]) for i in range(0, len(products), 4)]
        [self.head] = _products(head, [(folded.head.shape[1], c)])
        self.tokens, self.positions = put(folded.tokens), put(folded.positions)
        turns = folded.rotation  # (L, D/2) complex
        self.rotation: Any = put(None if turns is None else turns.view(folded.dtype))


def _flat(matrix: np.ndarray, bias_row: int) -> tuple[np.ndarray, np.ndarray]:
    """A folded matrix, in which the bias is one of the rows, as W (outputs, inputs) and b, flat."""
    return np.delete(matrix, bias_row, axis=0).T.ravel(), matrix[bias_row]


def _products(flat: Any, shapes: Iterable[tuple[int, int]]) -> list[Product]:
    """What lies in `flat`, as views: W and b of each shape (outputs, inputs)."""
    products, start = [], 0
    for outputs, inputs in shapes:
        middle = start + outputs * inputs
        end = middle + outputs
        products.append(Product(flat[start:middle].reshape(outputs, inputs), flat[middle:end]))
        start = end
    return products
