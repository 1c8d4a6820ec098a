"""Which tokens may come next, so that the output is valid UTF-8 and of tokens seen in training.

A byte-level vocabulary can produce any bytes, including half characters, and has tokens that did
not occur in the training text. A model still gives each some probability. Two rules exclude them:

- **UTF-8.** A token's bytes must continue the text validly. The text is in one of eight states
  (Unicode Standard, table 3-7). It is between characters, or inside one with one, two or three
  bytes to come, or after a lead byte that allows only some next bytes (no overlong forms, no
  surrogates, nothing above U+10FFFF). If a token ends inside a character, and allowed tokens could
  not complete it in the number of tokens left, the token is excluded too.
- **Seen.** A token that was never a target in training is excluded, if that is known.

Together the rules may exclude all tokens, for example if a prompt of token ids ends inside a
character that no seen token completes. Then the second rule is dropped for that one token. If too
few tokens are left to complete the character, its first bytes are written but not shown.

V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyalpaca.tokenizer import Tokenizer

# The states. The first is between characters. The others are named after the bytes that may come.
BETWEEN, ONE, TWO, THREE, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4, NEVER = range(9)
STATES = 8  # without NEVER
LEVELS = 4  # cases of how many tokens are left after this one: 0, 1, 2, or more
_CONTINUATION = (0x80, 0xBF)
_ARCS = (  # state, first byte, last byte, next state
    (BETWEEN, 0x00, 0x7F, BETWEEN),
    (BETWEEN, 0xC2, 0xDF, ONE),
    (BETWEEN, 0xE0, 0xE0, AFTER_E0),
    (BETWEEN, 0xE1, 0xEC, TWO),
    (BETWEEN, 0xED, 0xED, AFTER_ED),
    (BETWEEN, 0xEE, 0xEF, TWO),
    (BETWEEN, 0xF0, 0xF0, AFTER_F0),
    (BETWEEN, 0xF1, 0xF3, THREE),
    (BETWEEN, 0xF4, 0xF4, AFTER_F4),
    (ONE, *_CONTINUATION, BETWEEN),
    (TWO, *_CONTINUATION, ONE),
    (THREE, *_CONTINUATION, TWO),
    (AFTER_E0, 0xA0, 0xBF, ONE),
    (AFTER_ED, 0x80, 0x9F, ONE),
    (AFTER_F0, 0x90, 0xBF, TWO),
    (AFTER_F4, 0x80, 0x8F, TWO),
)


def _automaton() -> np.ndarray:
    """The next state for each state and byte, (9, 256)."""
    table = np.full((STATES + 1, 256), NEVER, np.uint8)
    for state, first, last, following in _ARCS:
        table[state, first : last + 1] = following
    return table


AUTOMATON = _automaton()


def states_after(tokens: Sequence[bytes]) -> np.ndarray:
    """The state after each token from each state, (8, V) uint8; `NEVER` if it is invalid there."""
    lengths = np.array([len(token) for token in tokens], np.int64)
    joined = np.frombuffer(b"".join(tokens), np.uint8)
    starts = np.cumsum(lengths) - lengths
    states = np.repeat(np.arange(STATES, dtype=np.uint8)[:, None], len(tokens), axis=1)  # (8, V)
    for place in range(lengths.max(initial=0)):
        longer = np.flatnonzero(lengths > place)
        states[:, longer] = AUTOMATON[states[:, longer], joined[starts[longer] + place]]
    return states


class Readable:
    """The rules for one tokenizer, as tables.

    Args:
        tokenizer: the tokenizer of the text.
        seen: (V,) whether a token was ever a target in training; None if that is not known.

    Attributes:
        seen: as given.
        allowed: (4, 8, V) whether a token may come, for each number of tokens left after it (0, 1,
            2, more) and each state.
        following: (8, V) uint8, the state after a token, by state and token.
        everything: whether no token is ever excluded.
        closed: whether no token that is allowed between characters ends inside one.
    """

    seen: np.ndarray | None

    def __init__(self, tokenizer: Tokenizer, seen: np.ndarray | None = None) -> None:
        self._tokenizer, self.seen = tokenizer, seen
        vocabulary = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self.following: np.ndarray = states_after(vocabulary)
        valid = self.following != NEVER
        tables = [_allowed(valid, self.following)]
        if seen is not None:
            tables.insert(0, _allowed(valid & seen, self.following))
        self.allowed: np.ndarray = tables[0].copy()
        unfinished = [np.broadcast_to(table[-1], table.shape) for table in tables]
        for fallback in (*tables[1:], *unfinished, np.ones_like(self.allowed)):
            nothing = ~self.allowed.any(axis=2)
            self.allowed[nothing] = fallback[nothing]
        self.following[~valid] = BETWEEN  # after an invalid token that had to be chosen
        self.everything: bool = bool(self.allowed.all())
        self.closed: bool = not self.following[BETWEEN, self.allowed[:, BETWEEN].any(axis=0)].any()
        # Tables that are read for every token, without NumPy: the allowed ids by level and state,
        # as a list and as an array (None for all tokens), and the next states by state and token.
        self.bias: np.ndarray = np.where(self.allowed, np.float32(0), np.float32(-np.inf))
        everything = range(len(vocabulary))
        self.choices: list[list[tuple[Any, np.ndarray | None]]] = [
            [(everything if ids is None else ids.tolist(), ids) for ids in map(_ids, level)]
            for level in self.allowed
        ]
        self.next_state: list[Any] = [row.tobytes() for row in self.following]

    def may_come(self, state: int, left: int) -> np.ndarray:
        """(V,) whether each token may come in a state, the `left`-th from the end."""
        return self.allowed[min(max(left - 1, 0), LEVELS - 1), state]

    def state_after(self, tokens: Sequence[int]) -> int:
        """The state of a text after these tokens.

        Invalid bytes are skipped, as a decoder does. So this depends on the last character alone.
        """
        tail = b""
        for token in reversed(tokens):
            tail = self._tokenizer.token_bytes(token) + tail
            if len(tail) >= 3:
                break
        for length in range(1, min(len(tail), 3) + 1):
            if tail[-length] & 0xC0 != 0x80:  # the last character begins here
                state = BETWEEN
                for byte in tail[-length:]:
                    state = int(AUTOMATON[state, byte])
                return BETWEEN if state == NEVER else state
        return BETWEEN


def _allowed(valid: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Of the tokens that are valid in each state (8, V), those after which a character can end.

    Returns:
        (4, 8, V), by the number of tokens that are left.
    """
    # The smallest number of tokens from each state to the end of a character.
    needed = np.full(STATES + 1, LEVELS + 1)
    needed[BETWEEN] = 0
    for _ in range(LEVELS):
        for state in range(1, STATES):
            after = following[state, valid[state]]
            needed[state] = min(needed[state], 1 + needed[after].min(initial=LEVELS))
    levels = np.arange(LEVELS)[:, None, None]
    return valid & (needed[following] <= levels)


def _ids(allowed: np.ndarray) -> np.ndarray | None:
    return None if allowed.all() else np.flatnonzero(allowed)
