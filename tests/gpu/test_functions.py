"""The public functions on a GPU use nothing that CuPy lacks, and their results stay on the GPU."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tensor
from tests.minigrad.functions.table import CALLS
from tests.minigrad.functions.test_values import operands, parts


@pytest.mark.parametrize("call", CALLS, ids=[f"{i}-{c.name}" for i, c in enumerate(CALLS)])
def test_functions_give_on_a_gpu_what_they_give_on_a_cpu(gpu: Any, call: Any) -> None:
    arrays = operands(call, "float32" if "f" in call.kinds else "int32")
    with mg.textbook(), mg.default_device("gpu"):
        there = parts(call.function(mg, *[Tensor(a, device="gpu") for a in arrays]))
    here = parts(call.function(mg, *map(Tensor, arrays)))
    for got, want in zip(there, here, strict=True):
        assert got.device == mg.Device("gpu")
        np.testing.assert_allclose(got.numpy(), want.numpy(), 1e-5, 1e-5)
