"""Attention in which heads of queries share keys and values (Ainslie et al., arXiv:2305.13245).

There are H heads of queries and K heads of keys and values. Each of the latter is shared by a group
of G = H/K heads of queries. The maths is that of `minigrad.ops.attention`; keys and values
broadcast along their group.
"""

from minigrad.op import Array, Gradients, Needs, Op, Result, Saved, Xp
from minigrad.ops.attention import merge_heads, scaled_dot_product_attention
from minigrad.ops.summation import sum_of


class grouped_query_attention(Op):
    """Self-attention in which several heads of queries share one of keys and values.

    (Ainslie et al., arXiv:2305.13245.) There are H heads of queries and K of keys and values. Each
    of the latter is shared by G = H/K adjacent heads of queries; K = H is `multi_head_attention`.

    Shapes: qkv (B, T, (H + 2K)·D) -> (B, T, H·D). The last axis holds all queries, then all keys,
    then all values, each ordered by head. Keys and values broadcast along their group, so that
    their gradients are sums over it.
    """

    @staticmethod
    def forward(xp: Xp, qkv: Array, *, num_heads: int, num_kv_heads: int, causal: bool) -> Result:
        q, k, v = split_groups(xp, qkv, num_heads, num_kv_heads)
        y, saved = scaled_dot_product_attention.forward(xp, q, k, v, causal=causal)
        batch, _, _, time, head_size = y.shape
        return merge_heads(xp, xp.reshape(y, (batch, num_heads, time, head_size))), saved

    @staticmethod
    def backward(
        xp: Xp,
        dy: Array,
        saved: Saved,
        needs: Needs,
        *,
        num_heads: int,
        num_kv_heads: int,
        causal: bool,
    ) -> Gradients:
        batch, time, channels = dy.shape
        groups = (batch, time, num_kv_heads, num_heads // num_kv_heads, channels // num_heads)
        dy_heads = xp.transpose(xp.reshape(dy, groups), (0, 2, 3, 1, 4))  # (B, K, G, T, D)
        dq, dk, dv = scaled_dot_product_attention.backward(
            xp, dy_heads, saved, (True, True, True), causal=causal
        )
        dq = xp.reshape(dq, (batch, num_heads, time, channels // num_heads))
        parts = [dq, sum_of(xp, dk, 2), sum_of(xp, dv, 2)]
        return (xp.concatenate([merge_heads(xp, part) for part in parts], axis=-1),)


def split_groups(
    xp: Xp, qkv: Array, num_heads: int, num_kv_heads: int
) -> tuple[Array, Array, Array]:
    """(B, T, (H + 2K)·D) -> queries (B, K, G, T, D), keys and values (B, K, 1, T, D)"""
    batch, time, channels = qkv.shape
    head_size = grouped_head_size(channels, num_heads, num_kv_heads)
    heads = xp.reshape(qkv, (batch, time, num_heads + 2 * num_kv_heads, head_size))
    heads = xp.swapaxes(heads, 1, 2)  # (B, H + 2K, T, D)
    group = num_heads // num_kv_heads
    q = xp.reshape(heads[:, :num_heads], (batch, num_kv_heads, group, time, head_size))
    k = heads[:, num_heads : num_heads + num_kv_heads]
    v = heads[:, num_heads + num_kv_heads :]
    return q, xp.expand_dims(k, 2), xp.expand_dims(v, 2)


def grouped_head_size(channels: int, num_heads: int, num_kv_heads: int) -> int:
    """D of packed queries, keys and values, `channels` in all.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if num_heads % num_kv_heads:
        raise ValueError(
            f"{num_heads} heads of queries cannot share {num_kv_heads} heads of keys and values "
            "evenly"
        )
    heads = num_heads + 2 * num_kv_heads
    if channels % heads:
        wanted = f"3 times {num_heads} heads"
        if num_kv_heads != num_heads:
            wanted = f"{num_heads} heads of queries and 2 times {num_kv_heads} of keys and values,"
        raise ValueError(f"{channels} channels are not {wanted} of equal size")
    return channels // heads
