"""Choosing the next tokens on the device, so that one step can follow another: draw.cu.

    w_v = e^(z_v/τ - max z/τ),   token = the first t with Σ_{v ≤ t} w_v > u·Σ_v w_v

for logits z (V,), a temperature τ and a uniform number u of the host; τ = 0 takes the highest
logit, of equals the first. Sums are in float64. A token of -1 says that the logits are no numbers.

Tokens can be left out, by the state of each row's text: an automaton that the host has put into
tables, so that one step can follow another here too. Sum and maximum are then those of the rest.

The token becomes the row's id, at the next place: what comes next needs nothing from the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minigrad.kernels.cuda.compile import Source, real_of

SOURCE = Source("draw", "draw_tokens<{real}>", package=__package__)
THREADS = 256


class Rules(NamedTuple):
    """Which tokens may be chosen.

    Attributes:
        allowed: (4, 8, V) int32, not 0 for a token that may be, by how many are left after it (0,
            1, 2, more) and by the state of the text.
        following: (8, V) int32, the state after a token.
        guide: (2, N) int32: the state of each row, which becomes the next one, and what `taken`
            will be when no token is left.
    """

    allowed: Any
    following: Any
    guide: Any


def draw(
    logits: Any,
    settings: Any,
    *,
    ids: Any,
    places: Any,
    taken: Any,
    chosen: Any,
    rules: Rules | None = None,
) -> None:
    """Choose a token for each of N rows.

    Args:
        logits: (N, V).
        settings: (rounds + 1, N) float64: uniform numbers, round after round; then 1/τ, or 0
            for the highest logit.
        ids: (N,) int32, become the tokens.
        places: (N,) int32, become one more; where negative, nothing is done.
        taken: (N,) int32, how often this was done, becomes one more: round `taken` mod `rounds`.
        chosen: (rounds, N) int32, gets the tokens of that round.
        rules: what may be chosen; None for everything.
    """
    rows, vocabulary = logits.shape
    SOURCE.launch(
        f"draw_tokens<{real_of(logits.dtype)}>",
        (rows,),
        (THREADS,),
        *(logits, settings, ids, places, taken, chosen),
        *(rules or (None, None, None)),
        *(len(chosen), vocabulary),
        dtype=logits.dtype,
    )
