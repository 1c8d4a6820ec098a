import itertools
from math import e, log2

import numpy as np
import pytest

from minigrad.kernels.cpu import KERNELS, attention
from minigrad.ops import TEXTBOOK
from tests.minigrad.kernels.twins import assert_close, check_twins, layouts

# (batch, heads, time, head size): all 1, odd, and below, at and above the size of a block of keys
# and of the rows that are transposed at once
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 1, 4),
    (2, 2, 33, 5),
    (1, 4, 127, 16),
    (2, 1, 128, 8),
    (1, 2, 200, 3),
    (2, 1, 70, 33),
]


@pytest.fixture(params=["fast", "plain"], autouse=True)
def either_exponential(request, monkeypatch):
    """Both exponentials are tested, whichever is faster on this machine."""
    if request.param == "plain":
        monkeypatch.setattr(attention, "exponential", lambda dtype: (np.exp, 1.0))
    else:
        monkeypatch.setattr(attention, "exponential", lambda dtype: (np.exp2, log2(e)))


def _packed(rng, shape, dtype):
    batch, heads, time, size = shape
    return rng.standard_normal((batch, time, 3 * heads * size)).astype(dtype)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_multi_head_equals_textbook(shape, dtype, causal):
    rng = np.random.default_rng(0)
    qkv = _packed(rng, shape, dtype)
    check_twins("multi_head_attention", (qkv,), rng, num_heads=shape[1], causal=causal)


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
def test_multi_head_any_memory_order(layout):
    rng = np.random.default_rng(1)
    qkv = layouts(_packed(rng, (2, 3, 70, 4), np.float64))[layout]
    check_twins("multi_head_attention", (qkv,), rng, num_heads=3, causal=True)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shared", [1, 2, 3, 6])
@pytest.mark.parametrize(("time", "size"), [(1, 4), (33, 5), (127, 3)])
def test_shared_keys_and_values_equal_textbook(time, size, shared, dtype, causal):
    rng = np.random.default_rng(9)
    qkv = rng.standard_normal((2, time, (6 + 2 * shared) * size)).astype(dtype)
    options = {"num_heads": 6, "num_kv_heads": shared, "causal": causal}
    terms = 1.0 if time == 1 else 1e-3
    check_twins("grouped_query_attention", (qkv,), rng, terms=terms, **options)


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
def test_shared_keys_and_values_any_memory_order(layout):
    rng = np.random.default_rng(10)
    qkv = layouts(rng.standard_normal((3, 70, 8 * 4)))[layout]
    options = {"num_heads": 4, "num_kv_heads": 2, "causal": True}
    check_twins("grouped_query_attention", (qkv,), rng, **options)


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_textbook(shape, dtype, scale):
    rng = np.random.default_rng(2)
    qkv = [rng.standard_normal(shape).astype(dtype) for _ in range(3)]
    terms = 1.0 if shape[2] == 1 else 1e-3  # with a single key dP - δ is 0, both being about 1
    for causal in (True, False):
        options = {"causal": causal, "scale": scale, "terms": terms}
        check_twins("scaled_dot_product_attention", qkv, rng, **options)


@pytest.mark.parametrize("lead", [(), (3,), (2, 1, 3)])
@pytest.mark.parametrize(("queries", "keys"), [(1, 9), (5, 9), (70, 150), (130, 131)])
def test_fewer_queries_than_keys(queries, keys, lead):
    rng = np.random.default_rng(3)
    q = rng.standard_normal((*lead, queries, 4))
    k = rng.standard_normal((*lead, keys, 4))
    v = rng.standard_normal((*lead, keys, 6))
    for causal in (True, False):
        check_twins("scaled_dot_product_attention", (q, k, v), rng, causal=causal)


@pytest.mark.parametrize("layout", list(layouts(np.zeros((1, 1)))))
def test_any_memory_order(layout):
    rng = np.random.default_rng(4)
    qkv = [layouts(rng.standard_normal((2, 3, 66, 4)))[layout] for _ in range(3)]
    check_twins("scaled_dot_product_attention", qkv, rng, causal=True)


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)))
def test_only_what_is_needed(needs):
    rng = np.random.default_rng(5)
    qkv = [rng.standard_normal((1, 2, 70, 4)) for _ in range(3)]
    check_twins("scaled_dot_product_attention", qkv, rng, needs=needs, causal=True)
    y, saved = attention.forward(*qkv, causal=True)
    gradients = attention.backward(y, saved, needs, causal=True)
    assert tuple(g is not None for g in gradients) == needs


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("size", [30.0, 1e3])
def test_large_scores(size, causal):
    """For scores beyond exp's range the softmax must subtract their maximum."""
    rng = np.random.default_rng(6)
    qkv = _packed(rng, (1, 2, 150, 8), np.float64) * size
    assert np.abs(qkv).max() ** 2 > np.log(attention.SAFE_SUM)
    options = {"num_heads": 2, "causal": causal}
    with np.errstate(over="raise", invalid="raise"):
        # A score S has a rounding error of S·eps, which becomes a relative error of exp(S).
        check_twins("multi_head_attention", (qkv,), rng, condition=size**2, **options)


def test_a_later_key_cannot_spoil_an_earlier_query():
    """A huge masked score must not move the others out of exp's range."""
    rng = np.random.default_rng(7)
    qkv = _packed(rng, (1, 1, 20, 2), np.float32)
    qkv[0, -1] = 1e6
    qkv[0, :, 0] = 1.0
    y, _ = KERNELS[TEXTBOOK["multi_head_attention"]].forward(qkv, num_heads=1, causal=True)
    wanted, _ = TEXTBOOK["multi_head_attention"].forward(np, qkv, num_heads=1, causal=True)
    assert_close(y[:, :-1], wanted[:, :-1], "queries before the huge key")


def test_nan_stays_with_its_batch_entry():
    rng = np.random.default_rng(8)
    qkv = _packed(rng, (2, 2, 9, 4), np.float64)
    qkv[0, 3, 2] = np.nan
    y, _ = KERNELS[TEXTBOOK["multi_head_attention"]].forward(qkv, num_heads=2, causal=True)
    assert np.isnan(y[0, 3]).any()
    assert np.isfinite(y[1]).all()


def test_errors():
    x = np.zeros((1, 5, 2))
    with pytest.raises(ValueError, match="5 queries over 4 keys"):
        attention.forward(x, x[:, :4], x[:, :4], causal=True)
    with pytest.raises(ValueError, match="4 channels are not 3 times 2 heads"):
        attention.multi_head_attention.forward(np.zeros((1, 2, 4)), num_heads=2, causal=True)
