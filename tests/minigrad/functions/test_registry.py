"""Every public function has test cases for its values, and for its gradients if it has any."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from tests.minigrad.functions.table import CALLS
from tests.minigrad.functions.test_creation import CREATION
from tests.minigrad.ops.cases import CASES

PUBLIC = {*mg.functions.__all__, *(f"linalg.{name}" for name in mg.linalg.__all__)} - {"linalg"}
# Results are booleans, integers or dtypes, piecewise constant, or constants by definition.
WITHOUT_DERIVATIVE = {
    *mg.functions.comparisons.__all__,
    *mg.functions.data_types.__all__,
    *("all", "any", "argmax", "argmin", "argsort", "count_nonzero", "nonzero", "searchsorted"),
    *("ceil", "floor", "floor_divide", "nextafter", "round", "sign", "trunc", "stop_gradient"),
}

# Compared with mpmath in `ops.test_relative_accuracy`, as NumPy has no such functions.
ACTIVATIONS = {*mg.functions.activations.__all__, "softmax", "log_softmax", "logsumexp"}


# The sign of a determinant, power 0 of a matrix and the norm that counts have gradients of 0.
PARTLY = {"linalg.slogdet", "linalg.matrix_power", "linalg.vector_norm"}


def test_every_public_function_has_its_values_proved() -> None:
    named = {call.name for call in CALLS}
    tested_elsewhere = {*mg.functions.data_types.__all__, *CREATION, *ACTIVATIONS, "to_device"}
    assert PUBLIC - named - tested_elsewhere == set()
    assert named <= PUBLIC


def test_every_function_with_a_derivative_has_a_case() -> None:
    """A case tests gradient, second gradient, layouts and float16 (see `ops.test_gradients`)."""
    proved = {case.public for case in CASES}
    without = WITHOUT_DERIVATIVE | (set(CREATION) - {"full", "full_like", "asarray"})
    assert PUBLIC - proved - without == set()
    assert not proved & without


WITH_FLOATS = [(i, c) for i, c in enumerate(CALLS) if "f" in c.kinds and c.name != "nextafter"]


@pytest.mark.parametrize(
    "call", [c for _, c in WITH_FLOATS], ids=[f"{i}-{c.name}" for i, c in WITH_FLOATS]
)
def test_a_gradient_flows_where_there_is_a_derivative(call: Any) -> None:
    rng = np.random.default_rng(3)
    low, high = call.limits
    leaves = [Tensor(rng.uniform(low, high, s), requires_grad=True) for s in call.shapes]
    result = call.function(mg, *leaves)
    parts = result if isinstance(result, (list, tuple)) else [result]
    for part in parts:
        flows = part.dtype.kind == "f" and call.name not in WITHOUT_DERIVATIVE
        assert part.requires_grad == flows or call.name in PARTLY


TAKES_TENSORS = {"diff", "unstack"}  # their cases slice or transpose the operand


def test_a_number_or_a_list_is_taken_for_a_tensor() -> None:
    for call in CALLS:
        if call.shapes != ((3, 4),) or "f" not in call.kinds or call.name in TAKES_TENSORS:
            continue
        array = np.linspace(*call.limits, 12, dtype=np.float32).reshape(3, 4)
        from_list, from_tensor = (call.function(mg, x) for x in (array.tolist(), Tensor(array)))
        if isinstance(from_tensor, Tensor):
            np.testing.assert_array_equal(from_list.numpy(), from_tensor.numpy(), call.name)
