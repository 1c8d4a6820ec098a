"""Which ops run CUDA kernels, and what happens if a kernel does not support the inputs."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import KernelFallbackWarning, ShapeError, Tensor, grad
from minigrad.engine import apply
from minigrad.kernels.cuda.support import LARGEST, of_floats, of_ids, of_rows
from minigrad.nn import functional as F
from minigrad.ops import TEXTBOOK
from tests.minigrad.kernels.tables import kernels_of
from tests.minigrad.ops.test_shape_errors import BAD


def ones(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.ones(shape, dtype), device="gpu")


def ids(*shape: int, dtype: Any = np.int64) -> Tensor:
    return Tensor(np.zeros(shape, dtype), device="gpu")


def many_heads(batch: int, heads: int, size: int) -> Tensor:
    return F.multi_head_attention(ones(batch, 1, 3 * heads * size), num_heads=heads)


# For each op: inputs that its kernel does not accept, and the reason that it gives.
REFUSED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "linear of two dtypes": (
        lambda: F.linear(ones(2, 3), ones(4, 3, dtype=np.float64)),
        "one dtype, not of float32 and float64",
    ),
    "relu of integers": (lambda: apply(TEXTBOOK["relu"], ids(3)), "not in int64"),
    "embedding of short ids": (
        lambda: F.embedding(ones(3, 2), ids(2, dtype=np.uint16)),
        "not of uint16",
    ),
    "embedding_with_positions of short ids": (
        lambda: F.embedding(ones(3, 2), ids(1, 2, dtype=np.uint16), ones(2, 2)),
        "not of uint16",
    ),
    "linear_norm of two dtypes": (
        lambda: F.linear_norm(
            *(ones(2, 3), ones(4, 3, dtype=np.float64), None, ones(2, 4), None, None)
        ),
        "one dtype, not of float32 and float64",
    ),
    "layer_norm of two dtypes": (
        lambda: F.layer_norm(ones(2, 3), ones(3, dtype=np.float64), None),
        "one dtype, not of float32 and float64",
    ),
    "add_layer_norm of two dtypes": (
        lambda: F.add_layer_norm(ones(2, 3), ones(2, 3, dtype=np.float64), None, None),
        "one dtype, not of float32 and float64",
    ),
    "multi_head_attention of wide heads": (lambda: many_heads(1, 2, 129), "up to 128 channels"),
    "multi_head_attention of many sequences": (
        lambda: many_heads(65_536, 1, 1),
        "65,535 sequences",
    ),
    "cross_entropy of short targets": (
        lambda: F.cross_entropy(ones(2, 3), ids(2, dtype=np.int16)),
        "not of int16",
    ),
    "cross_entropy with a far ignore_index": (
        lambda: F.cross_entropy(ones(2, 3), ids(2), ignore_index=2**40),
        "32 bits, not 1099511627776",
    ),
    "dropout by numbers": (
        lambda: apply(TEXTBOOK["dropout"], ones(3), ones(3), p=0.5),
        "not of float32",
    ),
    "dropout of a row by many": (
        lambda: apply(TEXTBOOK["dropout"], ones(3), ones(2, 3).astype(bool), p=0.5),
        "no larger than x",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_textbook_takes_over_and_says_so_once(gpu: Any, name: str) -> None:
    function, reason = REFUSED[name]
    op = name.split()[0]
    message = rf"^{op}: the textbook runs in place of the CUDA kernel, because .*{reason}"
    with pytest.warns(KernelFallbackWarning, match=message):
        y = function()
    with mg.textbook():
        assert y.dtype == function().dtype
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(function().numpy(), y.numpy())


def test_every_kernel_but_one_refuses_something() -> None:
    """`gelu` accepts all floats, because the engine widens float16 before any op runs."""
    assert {name.split()[0] for name in REFUSED} == set(kernels_of("gpu")) - {"gelu"}


def test_a_warning_that_is_an_error_comes_every_time(gpu: Any) -> None:
    for _ in range(2):
        with pytest.raises(KernelFallbackWarning):
            apply(TEXTBOOK["relu"], ids(3))


def test_the_gradient_of_a_refused_op_is_the_textbooks(gpu: Any) -> None:
    x = Tensor(np.array([1, -2, 3], np.float32), requires_grad=True, device="gpu")
    w = Tensor(np.ones((2, 3)), device="gpu")
    with pytest.warns(KernelFallbackWarning, match="linear"):
        y = F.linear(x, w)
    np.testing.assert_array_equal(grad(y.sum(), x).numpy(), [2, 2, 2])


def test_the_textbook_is_asked_for_without_a_warning(gpu: Any) -> None:
    with mg.textbook():
        mg.gelu(ones(3))
    assert gpu.counts["gelu_forward"] == 0
    mg.gelu(ones(3))
    assert gpu.counts["gelu_forward"] == 1


class Sizes:
    """An object with the shape and dtype of an array that would be too large for a test."""

    def __init__(self, *shape: int, dtype: Any = np.float32) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self.size = int(np.prod(shape, dtype=object))


def test_sizes_beyond_what_kernels_count() -> None:
    assert of_floats(Sizes(LARGEST, 8), None) is None
    assert "along an axis" in str(of_floats(Sizes(LARGEST + 1)))
    assert of_rows(Sizes(2**15, 2**15, 768)) is None
    assert "rows" in str(of_rows(Sizes(2**16, 2**15, 2)))
    assert "ids" in str(of_ids(Sizes(2**16, 2**15, dtype=np.int32)))
    # GPT-2: logits for 64 x 1,024 positions and 50,257 tokens are 3.3e9 numbers.
    logits, targets = Sizes(64, 1024, 50_257), Sizes(64, 1024, dtype=np.int64)
    assert kernels_of("gpu")["cross_entropy"].supports(logits, targets) is None


@pytest.mark.parametrize("name", sorted(set(kernels_of("gpu")) & set(BAD)))
def test_shapes_that_do_not_fit_are_errors_and_no_reason_for_the_textbook(
    gpu: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are checked on the host. On a device an id that is out of range gives NaN."""
    if name == "embedding":
        bad = lambda: apply(TEXTBOOK["embedding"], ones(4), ids(1))  # noqa: E731
    elif name == "embedding_with_positions":
        bad = lambda: apply(TEXTBOOK[name], ones(4, 2), ones(2, 2), ids(1, 3))  # noqa: E731
    elif name == "cross_entropy":
        bad = lambda: apply(TEXTBOOK["cross_entropy"], ones(2, 3), ids(3))  # noqa: E731
    elif name == "dropout":
        bad = lambda: apply(TEXTBOOK["dropout"], ones(2, 3), ids(2).astype(bool), p=0.5)  # noqa: E731
    else:
        monkeypatch.setattr(mg, "ones", ones_of)
        bad = BAD[name]
    with pytest.raises(ShapeError) as error:
        bad()
    assert str(error.value).startswith(f"{name} of shapes (")


def ones_of(shape: Any) -> Tensor:
    shape = (shape,) if isinstance(shape, int) else shape
    return ones(*shape)


def test_a_bias_of_another_size_is_an_error(gpu: Any) -> None:
    with pytest.raises(ShapeError, match=r"a bias of shape \(1,\)"):
        apply(TEXTBOOK["linear"], ones(2, 3), ones(4, 3), ones(1))
