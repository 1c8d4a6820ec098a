import numpy as np
import pytest

from minigrad.kernels.cpu import exponential as module
from minigrad.kernels.cpu.exponential import exponential


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_e_to_the_x(dtype):
    function, factor = exponential(np.dtype(dtype))
    x = np.linspace(-20, 20, 1001)
    got = function((x * factor).astype(dtype))
    # x·factor has a rounding error of up to 20·log₂e·eps/2
    np.testing.assert_allclose(got, np.exp(x), rtol=25 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("code", "chosen"),
    [
        (None, np.exp),
        ("baseline(X86_V2)", np.exp),
        ("X86_V4", np.exp2),
        ("AVX512_SKX", np.exp2),
    ],
)
def test_exp2_only_where_it_has_vector_code(monkeypatch, code, chosen):
    known = {"exp2": {"ff": {"current": code, "available": code}}} if code else {}
    monkeypatch.setattr(module, "opt_func_info", lambda **_: known)
    choose = exponential.__wrapped__
    assert choose(np.dtype(np.float32))[0] is chosen
    assert choose(np.dtype(np.float64)) == (np.exp, 1.0)
