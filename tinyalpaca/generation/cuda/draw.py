"""Draws the next tokens on the device, so that one step can follow another: draw.cu.

    w_v = e^(z_v/τ - max z/τ),   token = the first t with Σ_{v ≤ t} w_v > u·Σ_v w_v

for logits z (V,), a temperature τ and a uniform number u from the host. With τ = 0 it chooses the
highest logit, among equals the first. Sums are in float64. A token of -1 means that the logits are
not numbers.

Tokens can be excluded, depending on the state of each row's text. The states form an automaton,
which the host copies to the device as tables. Sum and maximum then run over the other tokens.

The token becomes the row's id at the next place, so the next step needs nothing from the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minigrad.kernels.cuda.compile import Source, real_of

SOURCE = Source("draw", "draw_tokens<{real}>", package=__package__)
THREADS = 256


class Rules(NamedTuple):
    """Which tokens may be chosen.

    Attributes:
        allowed: (4, 8, V) int32, not 0 for tokens that may be chosen, by the number of tokens left
            after this one (0, 1, 2, more) and by the state of the text.
        following: (8, V) int32, the state after a token.
        guide: (2, N) int32: the state of each row, which `draw` updates, and the value of `taken`
            at which no token is left.
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
        ids: (N,) int32, set to the tokens.
        places: (N,) int32, increased by one. Rows at a negative place are skipped.
        taken: (N,) int32, the number of draws so far, increased by one. Round `taken` mod `rounds`
            is drawn.
        chosen: (rounds, N) int32, gets the tokens of that round.
        rules: which tokens may be chosen; None for all.
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
