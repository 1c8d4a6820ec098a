"""Compares the convolution kernel with its page."""

from typing import Any

import numpy as np
import pytest

from minigrad.kernels.cpu import convolution
from tests.minigrad.kernels.twins import check_twins, layouts

SHAPES: dict[str, tuple[Any, ...]] = {
    "an axis": ((3, 4, 11), (6, 4, 3), (1,), (0,), (1,), 1),
    "an axis, all settings": ((3, 4, 11), (6, 2, 3), (2,), (2,), (3,), 2),
    "images": ((2, 3, 8, 9), (5, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "images, all settings": ((2, 4, 8, 9), (6, 2, 3, 2), (2, 1), (0, 2), (1, 3), 2),
    "a kernel of 1": ((2, 3, 4, 5), (2, 3, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "volumes": ((2, 2, 4, 3, 5), (3, 2, 2, 2, 2), (1, 1, 2), (0, 1, 0), (1, 1, 1), 1),
}


@pytest.mark.parametrize("block", [1, 200, convolution.BLOCK])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("label", SHAPES)
def test_twins(label: str, dtype: Any, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the columns of one image, of several and of all images at a time."""
    monkeypatch.setattr(convolution, "BLOCK", block)
    x_shape, w_shape, stride, padding, dilation, groups = SHAPES[label]
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1]))
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    check_twins("convolution", (x, w, b), rng, **settings)
    check_twins("convolution", (x, w, None), rng, **settings)
    check_twins("convolution", (x, w, b), rng, needs=(False, True, False), **settings)
    check_twins("convolution", (x, w, b), rng, needs=(True, False, True), **settings)


def test_orders_of_memory() -> None:
    rng = np.random.default_rng(1)
    x, w, b = (rng.standard_normal(s) for s in ((2, 3, 6, 5), (4, 3, 2, 3), (4,)))
    settings = {"stride": (1, 2), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    for x_layout in layouts(x).values():
        for w_layout in layouts(w).values():
            check_twins("convolution", (x_layout, w_layout, b), rng, **settings)
