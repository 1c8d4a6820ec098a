"""The precision of matmuls: how it is set, and which ones a device supports."""

import threading
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import PrecisionError
from minigrad.nn import functional as F
from minigrad.precision import (
    check_precision,
    get_precision,
    precision,
    set_precision,
    supported_precisions,
)
from tests.gpu.stand_in import array


@pytest.fixture
def old_gpu(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A device of compute capability 7.5."""
    monkeypatch.setattr(array, "CAPABILITY", "75")
    return gpu


def test_blocks_are_of_a_thread_and_the_default_of_all(gpu: Any) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(get_precision()))
    set_precision("bf16")
    with precision("fp32"):
        thread.start()
        thread.join()
        with precision("tf32"):
            assert get_precision() == "tf32"
        assert get_precision() == "fp32"
        with precision(None):
            assert get_precision() == "bf16"
    assert get_precision("gpu:0") == "bf16"
    assert found == ["bf16"]


def test_a_block_ends_with_an_error_as_well(gpu: Any) -> None:
    with pytest.raises(KeyError), precision("bf16"):
        raise KeyError
    assert get_precision() == "fp32"


def test_tf32_is_the_default_where_it_is_to_be_had(gpu: Any) -> None:
    set_precision(None)
    assert get_precision() == "tf32"
    assert supported_precisions() == ("fp32", "tf32", "bf16")
    x = mg.ones((2, 2), dtype=np.float32, device="gpu")
    F.linear(x, x)
    assert gpu.counts["gemm_tf32"] == 1


@pytest.mark.stand_in
def test_an_older_gpu(old_gpu: Any) -> None:
    set_precision(None)
    assert get_precision() == "fp32"
    assert supported_precisions("gpu") == ("fp32",)
    x = mg.ones((2, 2), dtype=np.float32, device="gpu")
    y = F.linear(x, x)
    with precision("bf16"):
        with pytest.raises(PrecisionError, match=r"bf16 need .* 8\.0, and GPU 0 has 7\.5"):
            F.linear(x, x)
        F.linear(x.astype(np.float64), y.astype(np.float64))  # float64 is never rounded
    with pytest.raises(PrecisionError, match="tf32 need"):
        check_precision("tf32")
    check_precision("fp32")


def test_the_cpu_is_exact_whatever_is_asked_for() -> None:
    with precision("bf16"):
        assert get_precision("cpu") == "fp32"
    assert supported_precisions("cpu") == ("fp32",)
    with pytest.raises(PrecisionError, match="needs a GPU"):
        check_precision("tf32", "cpu")


def test_unknown_names() -> None:
    with pytest.raises(PrecisionError, match="'half': choose from 'fp32', 'tf32', 'bf16'"):
        set_precision("half")
    with pytest.raises(PrecisionError, match="no precision 'fp16'"), precision("fp16"):
        pass


@pytest.mark.parametrize("name", ["tf32", "bf16"])
def test_a_gradient_in_fewer_bits_is_close_to_the_exact_one(
    gpu: Any, rng: np.random.Generator, name: str
) -> None:
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((64, 32), (48, 32))]

    def gradients(name: str) -> list[np.ndarray]:
        x, w = (mg.Tensor(a, requires_grad=True, device="gpu") for a in arrays)
        with precision(name):
            loss = (F.linear(x, w) ** 2).mean()
        return [g.numpy() for g in mg.grad(loss, [x, w])]

    for rounded, exact in zip(gradients(name), gradients("fp32"), strict=True):
        error = np.abs(rounded - exact).max() / np.abs(exact).max()
        assert 1e-7 < error < 1e-2
    assert gpu.counts[f"gemm_{name}"] == gpu.counts[f"linear_backward_{name}"] == 1
