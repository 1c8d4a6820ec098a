"""One more token for each of some sequences, in one launch: whole_token.cu.

    embed, then for every layer linear (qkv), attend, linear (out), linear (fc1), linear (fc2),
    and at last linear (head), as in `tinyalpaca.generation.cuda.decode`

A block is a sequence, and goes through all layers alone. So nothing waits for a launch, but each
block reads all weights: for small models. Scratch, cache and rows are those of `decode`, letters
too, and so are the results, up to rounding: its functions are what this one is held against.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minigrad.kernels.cuda.compile import Source, real_of
from tinyalpaca.generation.cuda.decode import ACTIVATIONS, Rows

SOURCE = Source("whole_token", "decode_whole<{real}>", package=__package__)
THREADS = 512


class Model(NamedTuple):
    """A model as one kernel wants it; L layers.

    Attributes:
        tokens, positions, rotation: as in `decode.embed` and `decode.Cache`.
        layers: the layers' weights, one after another; of each qkv (3C, C), out (C, C + C'), fc1
            (F, C) and fc2 (C, F + C'), each followed by its bias, with C' = 0 for pre-norm models
            and C for the others, whose residual connections are part of the products.
        head: (V, C), and its bias.
        pre_norm, activation, eps: as in the configuration.
    """

    tokens: Any
    positions: Any
    rotation: Any
    layers: Any
    head: Any
    pre_norm: bool
    activation: str
    eps: float


class Memory(NamedTuple):
    """Scratch of a token: x and other (N, C), qkv, mixed (N, C), hidden (N, F), scores."""

    x: Any
    other: Any
    qkv: Any
    mixed: Any
    hidden: Any
    scores: Any


def run(model: Model, keys: Any, values: Any, rows: Rows, memory: Memory, logits: Any) -> None:
    """Write the logits (N, V) of one more token: keys (L, B, H, D, S), values (L, B, H, S, D)."""
    layers, slots, heads, size, room = keys.shape
    hidden = memory.hidden.shape[1]
    SOURCE.launch(
        f"decode_whole<{real_of(logits.dtype)}>",
        (len(logits),),
        (THREADS,),
        *(model.tokens, model.positions, model.rotation, model.layers, model.head, keys, values),
        *(rows.ids, rows.places, rows.slots, *memory, logits, layers, heads, size, hidden),
        *(logits.shape[1], room, slots, model.pre_norm, ACTIVATIONS.index(model.activation)),
        float(model.eps),
        dtype=logits.dtype,
    )
