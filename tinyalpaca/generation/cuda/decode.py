"""One more token for each of some sequences, in five launches per layer: decode.cu.

Rows are sequences, or positions of a prompt. Each has an id, a place (its position; negative for an
unused row) and a slot (its sequence's part of the cache). These are int32 on the device, so that a
captured graph can change them itself. Results are written to given arrays; nothing is allocated.

    embed:   x = tokens[id] + positions[place]
    linear:  y = activation(W [x̂ | more] + b) + residual,   x̂ = x or x/√(mean(x²) + ε)
    append:  rotates q and k by the place's angles; writes k and v to the cache
    attend:  out = Σ_t P_t v_t,   P = softmax_t(q·k_t),   t = 0 ... place, after `append` if wanted

Shapes: x (N, C), W (outputs, C + C'), more (N, C'), qkv (N, 3HD), out (N, HD), a layer's keys
(B, H, D, S) and values (B, H, S, D), rotation (L, D): cosine and sine of each pair as neighbours. N
rows (up to 500,000), B slots, H heads, D head size, S capacity, L context, V vocabulary.

The mean square is summed in the same pass as the matmul, so a norm needs no launch. A row's result
does not depend on the other rows: sums have the same order for one row as for many.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minigrad.kernels.cuda.compile import Source, blocks, real_of

SOURCE = Source(
    "decode",
    "decode_embed<{real}>",
    "decode_linear<{real}, 1>",
    "decode_linear<{real}, 8>",
    "decode_append<{real}>",
    "decode_attend<{real}>",
    package=__package__,
)
THREADS = 256
WARPS = THREADS // 32
ROWS = 8  # rows that share one load of the weights
ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu")


class Rows(NamedTuple):
    """Id, place and slot of each row, (N,) int32 on the device."""

    ids: Any
    places: Any
    slots: Any


class Cache(NamedTuple):
    """A layer's keys (B, H, D, S) and values (B, H, S, D), and the angles (L, D) or None."""

    keys: Any
    values: Any
    rotation: Any


def embed(tokens: Any, positions: Any, rows: Rows, x: Any) -> None:
    """Write embeddings to x (N, C); tokens (V, C), positions (L, C) or None."""
    vocabulary, channels = tokens.shape
    SOURCE.launch(
        f"decode_embed<{real_of(x.dtype)}>",
        (len(x), blocks(channels, THREADS)),
        (THREADS,),
        *(tokens, positions, rows.ids, rows.places, x, channels, vocabulary),
        dtype=x.dtype,
    )


def linear(
    x: Any,
    weight: Any,
    bias: Any,
    y: Any,
    *,
    more: Any = None,
    residual: Any = None,
    eps: float | None = None,
    activation: str = "none",
) -> None:
    """Write `linear` (see the module) to y (N, outputs), which must not overlap the inputs.

    Args:
        x: (N, C), or None if there is only `more`.
        weight: (outputs, C + C').
        bias: (outputs,).
        more: (N, C') or None.
        residual: (N, outputs) or None.
        eps: divide x by √(mean(x²) + eps); with None x is not normalized.
        activation: one of `ACTIVATIONS`.
    """
    count, outputs = y.shape
    width = 0 if x is None else x.shape[1]
    together = 1 if count == 1 else ROWS
    SOURCE.launch(
        f"decode_linear<{real_of(y.dtype)}, {together}>",
        (blocks(outputs, WARPS), blocks(count, together)),
        (THREADS,),
        *(x, more, weight, bias, residual, y, count, width, weight.shape[1] - width, outputs),
        *(eps is not None, ACTIVATIONS.index(activation), float(eps or 0)),
        dtype=y.dtype,
    )


def append(qkv: Any, cache: Cache, rows: Rows) -> None:
    """Cache keys and values of all rows. Queries (and keys) in qkv are rotated in place."""
    _, heads, size, room = cache.keys.shape
    SOURCE.launch(
        f"decode_append<{real_of(qkv.dtype)}>",
        (len(qkv), heads),
        (THREADS,),
        *(qkv, cache.rotation, cache.keys, cache.values, rows.slots, rows.places, room, size),
        dtype=qkv.dtype,
    )


def attend(qkv: Any, cache: Cache, rows: Rows, scores: Any, out: Any, *, append: bool) -> None:
    """Write attention's output to out (N, HD).

    Args:
        qkv: with `append` queries are rotated in place, and each slot may be in one row only.
        scores: (N, H, S), a workspace.
        append: cache the rows' own keys and values first.
    """
    _, heads, size, room = cache.keys.shape
    SOURCE.launch(
        f"decode_attend<{real_of(qkv.dtype)}>",
        (len(qkv), heads),
        (THREADS,),
        *(qkv, cache.rotation, cache.keys, cache.values, rows.slots, rows.places, scores, out),
        *(room, size, append),
        dtype=qkv.dtype,
    )
