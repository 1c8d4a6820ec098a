"""Arrays of parameters, gradients and averages are replaced between two steps.

An optimizer updates flat memory as one array. So a step must notice if an array was replaced by
another one of the same shape.
"""

from collections.abc import Callable

import numpy as np
import pytest

from minigrad import Tensor
from minigrad.nn import Parameter
from minigrad.optim import AdamW, FlatParameters
from tests.minigrad.optim.problem import gradients, parameters, set_gradients


def flattened_again(params: list[Parameter]) -> None:
    FlatParameters(params).zero_grad()


def flattened_in_another_order(params: list[Parameter]) -> None:
    FlatParameters(params[::-1]).zero_grad()


def with_arrays_of_their_own(params: list[Parameter]) -> None:
    for p in params:
        p.data = p.data.copy()
        p.grad = None


def with_new_gradients(params: list[Parameter]) -> None:
    for p in params:
        p.grad = Tensor(np.zeros_like(p.data))


def one_of_them_with_an_array_of_its_own(params: list[Parameter]) -> None:
    params[1].data = params[1].data.copy()


@pytest.mark.parametrize(
    "change",
    [
        flattened_again,
        flattened_in_another_order,
        with_arrays_of_their_own,
        with_new_gradients,
        one_of_them_with_an_array_of_its_own,
    ],
)
def test_a_step_after_memory_was_exchanged(change: Callable[[list[Parameter]], None]) -> None:
    """The steps equal those of an optimizer that had separate arrays from the start."""
    params, others = parameters(), parameters()
    ours, plain = AdamW(params, lr=1e-2), AdamW(others, lr=1e-2)
    ours.flatten().zero_grad()
    for step in range(4):
        if step == 2:
            change(params)
        set_gradients(params, step)
        for p, g in zip(others, gradients(step), strict=True):
            p.grad = Tensor(g)
        ours.step()
        plain.step()
        for p, other in zip(params, others, strict=True):
            np.testing.assert_allclose(p.data, other.data, rtol=1e-13, atol=1e-15)
