import numpy as np
import pytest

from minigrad.kernels.cpu import cross_entropy
from tests.minigrad.kernels.twins import assert_close, check_twins, layouts

SHAPES = [(2, 127, 65), (1, 1), (5, 1), (7, 3), (2, 3, 4, 5), (3,)]


def _inputs(rng, shape, dtype, size=1.0):
    logits = (rng.standard_normal(shape) * size).astype(dtype)
    return logits, rng.integers(0, shape[-1], shape[:-1])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_textbook(shape, dtype, reduction, label_smoothing):
    rng = np.random.default_rng(0)
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    terms = 1.0 if shape[-1] < 4 else 1e-3  # with one class p - q is 0, both being 1
    check_twins("cross_entropy", _inputs(rng, shape, dtype), rng, terms=terms, **options)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_targets(reduction):
    rng = np.random.default_rng(1)
    logits, targets = _inputs(rng, (4, 9, 11), np.float64)
    targets[1, 2:5] = targets[3] = -7
    options = {"ignore_index": -7, "reduction": reduction, "label_smoothing": 0.2}
    check_twins("cross_entropy", (logits, targets), rng, **options)
    _, saved = cross_entropy.forward(logits, targets, **options)
    dy = np.ones(targets.shape) if reduction == "none" else np.float64(1)
    dlogits, none = cross_entropy.backward(dy, saved, (True, False), **options)
    assert none is None
    assert not dlogits[3].any()
    assert dlogits[0].any()


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
def test_any_memory_order(layout):
    rng = np.random.default_rng(2)
    logits, targets = _inputs(rng, (3, 5, 6), np.float64)
    check_twins("cross_entropy", (layouts(logits)[layout], layouts(targets)[layout]), rng)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("size", [1.0, 40.0, 1e3])
def test_large_logits(size, shift):
    rng = np.random.default_rng(3)
    logits, targets = _inputs(rng, (2, 50, 9), np.float64, size)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        check_twins("cross_entropy", (logits + shift, targets), rng)


def test_one_row_far_below_the_others():
    """exp(-500) is 0 in float32. The loss is right, because each row subtracts its maximum."""
    rng = np.random.default_rng(4)
    logits, targets = _inputs(rng, (6, 5), np.float32)
    loss, _ = cross_entropy.forward(logits, targets, reduction="none")
    logits[2] -= 500
    shifted, _ = cross_entropy.forward(logits, targets, reduction="none")
    # logits near -500 have rounding errors of 3e-5
    np.testing.assert_allclose(shifted, loss, atol=1e-4)


def test_backward_twice_gives_the_same():
    rng = np.random.default_rng(5)
    _, saved = cross_entropy.forward(*_inputs(rng, (4, 7), np.float64))
    first, second = (cross_entropy.backward(np.float64(2), saved, (True, False)) for _ in range(2))
    assert_close(second[0], first[0], "second backward")


def test_target_outside_of_the_vocabulary():
    with pytest.raises(IndexError, match="vocabulary of 3"):
        cross_entropy.forward(np.zeros((2, 3)), np.array([0, 3]))
