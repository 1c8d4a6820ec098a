"""Scaled dot-product attention and its packed multi-head form."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import ShapeError, Tensor, grad
from minigrad.nn import functional as F
from tests.minigrad.compare import assert_close, assert_same_as_torch, float64

CONTEXTS = [mg.enable_grad, mg.textbook]
SHAPES = [
    ((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)),
    ((1, 4), (1, 4), (1, 2)),
    ((2, 7, 3), (2, 7, 3), (2, 7, 5)),
    ((2, 70, 8), (2, 70, 8), (2, 70, 8)),
    ((1, 1, 150, 4), (1, 1, 150, 4), (1, 1, 150, 4)),
]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shapes", SHAPES)
def test_attention_is_torchs(
    shapes: Any, causal: bool, context: Any, rng: np.random.Generator
) -> None:
    functional = pytest.importorskip("torch", reason="PyTorch is not there").nn.functional
    q, k, v = (rng.standard_normal(shape) * 2 for shape in shapes)
    with context():
        assert_same_as_torch(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, causal=causal),
            lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=causal),
            q,
            k,
            v,
        )


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_scale_of_its_own(context: Any, rng: np.random.Generator) -> None:
    functional = pytest.importorskip("torch", reason="PyTorch is not there").nn.functional
    q, k, v = (rng.standard_normal((2, 4, 3)) for _ in range(3))
    with context():
        assert_same_as_torch(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.2),
            lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, scale=0.2),
            q,
            k,
            v,
        )


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_packed_heads_are_heads_cut_out_by_hand(
    heads: int, context: Any, rng: np.random.Generator
) -> None:
    (qkv,) = float64(rng.standard_normal((2, 5, 24)))
    upstream = Tensor(rng.standard_normal((2, 5, 8)))

    def by_hand(qkv: Tensor) -> Tensor:
        outputs = []
        q, k, v = mg.split(qkv, 3, axis=2)
        for part in zip(*[mg.split(x, heads, axis=2) for x in (q, k, v)], strict=True):
            outputs.append(F.scaled_dot_product_attention(*part, causal=True))
        return mg.concatenate(outputs, axis=2)

    with context():
        y, other = F.multi_head_attention(qkv, num_heads=heads), by_hand(qkv)
        assert_close(y.numpy(), other.numpy())
        assert_close(grad(y, qkv, upstream).numpy(), grad(other, qkv, upstream).numpy())


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("heads", "shared"), [(4, 2), (6, 1), (3, 3)])
def test_shared_keys_and_values_are_repeated_ones(
    heads: int, shared: int, context: Any, rng: np.random.Generator
) -> None:
    """As in PyTorch: each head of keys and values serves the queries of its group."""
    functional = pytest.importorskip("torch", reason="PyTorch is not there").nn.functional
    size, kv = 5, shared

    def theirs(qkv: Any) -> Any:
        q, k, v = (
            part.unflatten(-1, (-1, size)).transpose(1, 2)
            for part in qkv.split([heads * size, kv * size, kv * size], dim=-1)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return y.transpose(1, 2).flatten(2)

    with context():
        assert_same_as_torch(
            lambda qkv: F.multi_head_attention(qkv, num_heads=heads, num_kv_heads=shared),
            theirs,
            rng.standard_normal((2, 37, (heads + 2 * kv) * size)),
        )


@pytest.mark.parametrize("context", CONTEXTS)
def test_no_query_sees_a_later_key(context: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 6, 12))
    changed = x.copy()
    changed[:, 4:] = 99
    with context():
        first, second = (
            F.multi_head_attention(Tensor(a), num_heads=2).numpy() for a in (x, changed)
        )
        assert_close(first[:, :4], second[:, :4])
        assert not np.allclose(first[:, 4:], second[:, 4:])
        (leaf,) = float64(x)
        dx = grad(F.multi_head_attention(leaf, num_heads=2)[:, 2].sum(), leaf).numpy()
    assert (dx[:, 3:] == 0).all() and (dx[:, :3] != 0).any()


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_queries_are_the_last_positions_of_the_keys(
    context: Any, rng: np.random.Generator
) -> None:
    """A cache of keys and values needs this: the last queries alone give the last rows."""
    q, k, v = (Tensor(rng.standard_normal((2, 9, 4))) for _ in range(3))
    with context():
        whole = F.scaled_dot_product_attention(q, k, v, causal=True).numpy()
        tail = F.scaled_dot_product_attention(q[:, 6:], k, v, causal=True).numpy()
    assert_close(tail, whole[:, 6:])


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_scores_do_not_overflow(context: Any, dtype: Any) -> None:
    q = Tensor(np.array([[300.0], [-300.0]], dtype), requires_grad=True)
    k = Tensor(np.array([[300.0], [-300.0]], dtype))
    v = Tensor(np.array([[1.0], [2.0]], dtype))
    with context():
        y = F.scaled_dot_product_attention(q, k, v)
        assert y.tolist() == [[1], [2]]
        assert np.isfinite(grad(y.sum(), q).numpy()).all()


def test_every_query_sees_every_key_unless_causal(rng: np.random.Generator) -> None:
    q, k, v = (rng.standard_normal((3, 4)) for _ in range(3))
    e = np.exp(q @ k.T / 2)
    found = F.scaled_dot_product_attention(*map(Tensor, (q, k, v)))
    assert_close(found.numpy(), e / e.sum(-1, keepdims=True) @ v, 1e-13)


@pytest.mark.parametrize(
    ("shapes", "causal"),
    [
        (((2, 3, 4), (2, 3, 5), (2, 3, 5)), False),
        (((2, 3, 4), (2, 5, 4), (2, 3, 4)), False),
        (((2, 3, 4), (3, 3, 4), (3, 3, 4)), False),
        (((4,), (4,), (4,)), False),
        (((2, 5, 4), (2, 3, 4), (2, 3, 4)), True),
    ],
)
@pytest.mark.parametrize("context", CONTEXTS)
def test_shapes_that_do_not_fit(shapes: Any, causal: bool, context: Any) -> None:
    with context(), pytest.raises(ShapeError, match="attention") as error:
        F.scaled_dot_product_attention(*[mg.ones(shape) for shape in shapes], causal=causal)
    assert all(str(shape) in str(error.value) for shape in shapes)


def test_packed_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"multi_head_attention: qkv must be .*, not \(3, 12\)"):
        F.multi_head_attention(mg.ones((3, 12)), num_heads=2)
    with pytest.raises(ShapeError, match=r"12 channels are not 3 times 3 heads"):
        F.multi_head_attention(mg.ones((1, 3, 12)), num_heads=3)
    with pytest.raises(ValueError, match="num_heads must be at least 1, not 0"):
        F.multi_head_attention(mg.ones((1, 3, 12)), num_heads=0)
    with pytest.raises(ValueError, match="num_kv_heads must be at least 1, not 0"):
        F.multi_head_attention(mg.ones((1, 3, 12)), num_heads=2, num_kv_heads=0)
    with pytest.raises(ShapeError, match="3 heads of queries cannot share 2 heads of keys"):
        F.multi_head_attention(mg.ones((1, 3, 14)), num_heads=3, num_kv_heads=2)
    with pytest.raises(ShapeError, match="12 channels are not 3 heads of queries and 2 times 1 of"):
        F.multi_head_attention(mg.ones((1, 3, 12)), num_heads=3, num_kv_heads=1)
