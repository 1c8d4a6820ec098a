"""Folded weights on the device, in the layout that `tinyalpaca.generation.cuda.decode` needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from minigrad.device import Device
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation.folded_weights import Weights


class Product(NamedTuple):
    """W (outputs, inputs) and b (outputs,). The weights of an output are contiguous."""

    weight: Any
    bias: Any

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return self.bias.shape[0]


class Layer(NamedTuple):
    """The matrices of a layer. `qkv` and `fc1` are applied to x̂, `out` and `fc2` to [x̂ | block] in
    a post-norm model, else to the block alone."""

    qkv: Product
    out: Product
    fc1: Product
    fc2: Product


class DeviceWeights:
    """A model for generation on a device.

    Attributes:
        config, eps, tokens, positions: as in `Weights`.
        rotation: (L, D), cosine and sine of each angle in neighbouring elements; None if positions
            are learned.
        layers, head: their matrices; all layers lie in one array.
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
        after_norm = c  # the row of a folded matrix that is the bias, see `folded_weights.Layer`
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
    """W (outputs, inputs) and b, both flat, from a folded matrix that has the bias as one row."""
    return np.delete(matrix, bias_row, axis=0).T.ravel(), matrix[bias_row]


def _products(flat: Any, shapes: Iterable[tuple[int, int]]) -> list[Product]:
    """Views into `flat`: W and b for each shape (outputs, inputs)."""
    products, start = [], 0
    for outputs, inputs in shapes:
        middle = start + outputs * inputs
        end = middle + outputs
        products.append(Product(flat[start:middle].reshape(outputs, inputs), flat[middle:end]))
        start = end
    return products
