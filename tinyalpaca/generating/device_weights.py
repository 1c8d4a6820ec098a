"""Folded weights as the kernels of `minigrad.kernels.cuda.decode` want them, on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minigrad.device import Device
from tinyalpaca.generating.folded_weights import FoldedWeights


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
        config, eps: as in `FoldedWeights`.
        tokens: (V, C)
        positions: (L, C), or None if positions are rotary.
        rotation: (L, D), cosine and sine of each angle side by side; None if they are learned.
        layers: the decoder layers.
        head: from x̂ to logits.
    """

    def __init__(self, folded: FoldedWeights, device: Device) -> None:
        config = folded.config
        self.config, self.eps, self.dtype = config, folded.eps, folded.dtype

        def put(array: np.ndarray | None) -> Any:
            return None if array is None else device.asarray(np.ascontiguousarray(array))

        def product(matrix: np.ndarray, bias_row: int) -> Product:
            """Of a folded matrix, in which the bias is one of the rows."""
            weight = np.delete(matrix, bias_row, axis=0).T
            return Product(put(weight), put(matrix[bias_row]))

        after_norm = config.d_model
        after_residual = 0 if config.pre_norm else config.d_model  # see FoldedLayer
        self.tokens, self.positions = put(folded.tokens), put(folded.positions)
        self.rotation = None
        if folded.rotation is not None:
            self.rotation = put(folded.rotation.view(folded.dtype))  # (L, D/2) complex -> (L, D)
        self.layers = [
            Layer(
                product(layer.qkv, after_norm),
                product(layer.out, after_residual),
                product(layer.fc1, after_norm),
                product(layer.fc2, after_residual),
            )
            for layer in folded.layers
        ]
        self.head = product(folded.head, after_norm)
