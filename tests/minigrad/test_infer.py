"""Kernels use `infer` if no gradient is wanted."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor


class shifted(mg.Op):
    """y = x + 1"""

    @staticmethod
    def forward(xp: Any, x: Any) -> Any:
        return x + 1, None

    @staticmethod
    def backward(xp: Any, dy: Any, saved: Any, needs: Any) -> Any:
        return (dy,)


class Rule:
    """y = x + 1; records which of its functions are called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def forward(self, x: Any) -> Any:
        self.calls.append("forward")
        return x + 1, None

    def infer(self, x: Any) -> Any:
        self.calls.append("infer")
        return x + 1

    def backward(self, dy: Any, saved: Any, needs: Any) -> Any:
        return (dy.copy(),)


@pytest.fixture
def rule() -> Rule:
    return mg.kernel(shifted, "cpu")(Rule())


def test_infer_where_no_gradient_is_wanted(rule: Rule) -> None:
    frozen, x = Tensor(np.zeros(2)), Tensor(np.zeros(2), requires_grad=True)
    assert shifted(frozen).tolist() == [1, 1]
    with mg.no_grad():
        assert shifted(x).tolist() == [1, 1]
    assert rule.calls == ["infer", "infer"]


def test_forward_where_a_gradient_is_wanted(rule: Rule) -> None:
    x = Tensor(np.zeros(2), requires_grad=True)
    assert mg.grad(shifted(x).sum(), x).tolist() == [1, 1]
    assert rule.calls == ["forward"]


def test_the_textbook_runs_where_it_is_asked_for(rule: Rule) -> None:
    with mg.textbook():
        assert shifted(Tensor(np.zeros(2))).tolist() == [1, 1]
    assert rule.calls == []
