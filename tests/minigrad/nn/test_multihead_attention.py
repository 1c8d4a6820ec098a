"""Attention with masks, and the layer with projections."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn.attention import masked_attention
from minigrad.nn.functional import scaled_dot_product_attention
from tests.minigrad.compare import assert_close


def drawn(*shape: int, seed: int = 0) -> mg.Tensor:
    return mg.Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def by_definition(q: Any, k: Any, v: Any, allowed: np.ndarray) -> np.ndarray:
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    e = np.exp(scores) * allowed
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total) @ v


QKV = [drawn(2, 3, 4, 5), drawn(2, 3, 6, 5, seed=1), drawn(2, 3, 6, 2, seed=2)]
MASKS: dict[str, np.ndarray] = {
    "one for all": np.random.default_rng(3).random((4, 6)) < 0.6,
    "keys of each example": np.random.default_rng(4).random((2, 1, 1, 6)) < 0.6,
    "a query that sees nothing": np.arange(4)[:, None] + np.zeros(6, int) != 2,
    "everything": np.ones((4, 6), bool),
}


@pytest.mark.parametrize("label", MASKS)
def test_masks(label: str) -> None:
    mask = MASKS[label]
    y = masked_attention(*QKV, mask)
    assert_close(y.numpy(), by_definition(*(t.numpy() for t in QKV), mask), 1e-14)
    mg.gradcheck(lambda q, k, v: masked_attention(q, k, v, mask), QKV)


def test_numbers_are_added_to_the_scores() -> None:
    mask = MASKS["one for all"]
    added = np.where(mask, 0.0, -np.inf)
    assert_close(masked_attention(*QKV, added).numpy(), masked_attention(*QKV, mask).numpy(), 1e-14)
    bias = drawn(4, 6, seed=5)
    mg.gradcheck(lambda q, k, v, b: masked_attention(q, k, v, b), [*QKV, bias])


def test_without_a_mask_it_is_the_op() -> None:
    same = scaled_dot_product_attention(*QKV)
    assert_close(masked_attention(*QKV, np.ones(6, bool)).numpy(), same.numpy(), 1e-14)
    scaled = masked_attention(*QKV, np.ones(6, bool), scale=0.3)
    assert_close(scaled.numpy(), scaled_dot_product_attention(*QKV, scale=0.3).numpy(), 1e-14)


def layer(**settings: Any) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 4, rng=mg.Generator(0), dtype=np.float64, **settings)


@pytest.mark.parametrize("settings", [{}, {"num_kv_heads": 2}, {"num_kv_heads": 1, "bias": False}])
def test_heads_by_hand(settings: dict[str, Any]) -> None:
    """Each head uses its own slice of the projections; groups of heads share keys and values."""
    attention = layer(**settings)
    x, memory = drawn(2, 3, 8).detach(), drawn(2, 5, 8, seed=1).detach()
    project = lambda name, t: getattr(attention, name)(t).numpy()  # noqa: E731
    q, k, v = project("q_proj", x), project("k_proj", memory), project("v_proj", memory)
    group = 4 // settings.get("num_kv_heads", 4)
    heads = []
    for h in range(4):
        own, shared = slice(2 * h, 2 * h + 2), slice(2 * (h // group), 2 * (h // group) + 2)
        heads.append(by_definition(q[..., own], k[..., shared], v[..., shared], np.ones((3, 5))))
    wanted = attention.out_proj(mg.Tensor(np.concatenate(heads, -1)))
    assert_close(attention(x, memory).numpy(), wanted.numpy(), 1e-14)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_causal_and_masked(kv_heads: int) -> None:
    attention = layer(num_kv_heads=kv_heads)
    x = drawn(2, 5, 8).detach()
    causal = np.tril(np.ones((5, 5), bool))
    assert_close(attention(x, mask=causal).numpy(), attention(x, causal=True).numpy(), 1e-13)
    padding = (np.arange(5) < np.array([[5], [3]]))[:, None, None]  # (B, 1, 1, Tk)
    both = attention(x, mask=padding & causal).numpy()
    assert_close(attention(x, mask=padding, causal=True).numpy(), both, 1e-13)
    numbers = np.where(padding, 0.0, -1e30)
    assert_close(attention(x, mask=numbers, causal=True).numpy(), both, 1e-13)


def test_gradients() -> None:
    attention = layer(num_kv_heads=2)
    mg.gradcheck_module(attention, [drawn(1, 3, 8)])


def test_torchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not there to compare with")
    attention, other = layer(), torch.nn.MultiheadAttention(8, 4, batch_first=True).double()
    with torch.no_grad():
        rows = [attention.q_proj, attention.k_proj, attention.v_proj]
        weight = np.concatenate([p.weight.numpy() for p in rows])
        other.in_proj_weight.copy_(torch.tensor(weight))
        other.in_proj_bias.copy_(torch.tensor(np.concatenate([p.bias.numpy() for p in rows])))
        other.out_proj.weight.copy_(torch.tensor(attention.out_proj.weight.numpy()))
        other.out_proj.bias.copy_(torch.tensor(attention.out_proj.bias.numpy()))
    x, memory = drawn(2, 3, 8).detach().numpy(), drawn(2, 5, 8, seed=1).detach().numpy()
    mask = np.random.default_rng(3).random((3, 5)) < 0.7
    mask[:, 0] = True
    tensors = [torch.tensor(a) for a in (x, memory, memory)]
    wanted, _ = other(*tensors, attn_mask=~torch.tensor(mask))
    found = attention(mg.Tensor(x), mg.Tensor(memory), mask=mask)
    assert_close(found.numpy(), wanted.detach().numpy(), 1e-13)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: nn.MultiheadAttention(8, 3, rng=mg.Generator(0)),
            ValueError,
            "8 channels, 3 heads and 3 key/value heads do not fit",
        ),
        (lambda: layer(num_kv_heads=3), ValueError, "4 heads and 3 key/value heads do not fit"),
        (lambda: layer()(drawn(3, 8)), mg.ShapeError, r"inputs must be \(B, T, C\), not \(3, 8\)"),
        (
            lambda: masked_attention(*QKV, np.ones((5, 6), bool)),
            mg.ShapeError,
            r"a mask of shape \(5, 6\) does not fit scores of shape \(2, 3, 4, 6\)",
        ),
        (
            lambda: masked_attention(*QKV, np.ones((7, 2, 3, 4, 6), bool)),
            mg.ShapeError,
            "does not fit scores",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
