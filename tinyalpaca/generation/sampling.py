"""From logits to a token: penalty, temperature, filters, draw.

Order and rules are Hugging Face's, except for rule 2, which a flag turns off. From the logits of
one position, V numbers:

1. `repetition_penalty` θ: of tokens seen before, in the prompt or since, a positive logit is
   divided by θ and a negative one multiplied (Keskar et al., CTRL, arXiv:1909.05858).
2. Unless all tokens are allowed: exclude tokens that would not continue the text as UTF-8, and
   those that training has never seen as a target (`tinyalpaca.generation.readable`). The rules
   below then work as if the vocabulary had only the other tokens.
3. `temperature` 0: choose the highest logit, of equal ones the one with the lowest id, and stop.
4. `temperature` τ: divide by τ. From then on, the logit of an excluded token is -∞.
5. `top_k` k: exclude tokens whose logit is less than the k-th highest; all equal to it stay
   (Fan et al., arXiv:1805.04833).
6. `top_p` p: go from the most probable token down, of equal ones from the lowest id up, and exclude
   a token if those before it have probability p or more together; the first always stays (nucleus
   sampling, Holtzman et al., arXiv:1904.09751).
7. `min_p` m: exclude tokens whose probability is less than m times the highest (Nguyen et al.,
   arXiv:2407.01082).
8. Draw from the softmax of the others.

A sampler of your own is a function, which replaces all rules but the second:

    def choose(logits, tokens, rng):     # (V,), -inf for excluded tokens; the text so far
        return int(logits.argmax())      # a token; take random numbers from rng

B rows, V vocabulary.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np

from tinyalpaca.generation.readable import BETWEEN, LEVELS, Readable
from tinyalpaca.settings import nearest

ALMOST_1 = 1 - 2.0**-53
Choose = Callable[[np.ndarray, Sequence[int], np.random.Generator], int]
COLDEST = 1e-30  # at this temperature and below, only the highest logits have any probability


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The module's docstring says what each setting does.

    Raises:
        TypeError: a setting is no number; names it.
        ValueError: a setting is out of range; names it.
    """

    temperature: float = 0.7
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), Integral if field.name == "top_k" else Real
            if not isinstance(value, kind) and (value is not None or field.default is not None):
                word = "an integer" if kind is Integral else "a number"
                raise TypeError(f"{field.name} must be {word}, not {value!r}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature must be a number and not negative, it is {self.temperature}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, it is {self.top_k}")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, it is {value}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty must be positive, it is {self.repetition_penalty}"
            )

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    @property
    def plain(self) -> bool:
        """Whether there is neither a penalty nor a filter."""
        filters = (self.top_k, self.top_p, self.min_p)
        return self.repetition_penalty == 1 and all(value is None for value in filters)


# Other arguments of `Generator.generate`, for messages.
ARGUMENTS = ("max_new_tokens", "stop", "seed", "num_samples", "return_logprobs")


def as_sampling(
    sampling: Sampling | Choose | float | None, settings: dict[str, Any]
) -> Sampling | Choose:
    """A `Sampling` or function as given, or a `Sampling` from settings; a number is a temperature.

    Raises:
        TypeError: there are settings besides a `Sampling` or a function, or unknown ones.
        ValueError: a setting is out of range.
    """
    known = [field.name for field in fields(Sampling)]
    for name in settings:
        if name not in known:
            meant = nearest(name, [*known, *ARGUMENTS])
            raise TypeError(f"generation has no setting {name!r}{meant}; it has {known}")
    if isinstance(sampling, Real):
        return Sampling(float(sampling), **settings)
    if sampling is None:
        return Sampling(**settings)
    if settings:
        raise TypeError(f"{', '.join(settings)}: belongs into the Sampling, or is of no use beside")
    if not (isinstance(sampling, Sampling) or callable(sampling)):
        raise TypeError(f"sampling must be a Sampling or a function, not {sampling!r}")
    return sampling


def penalised(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Step 1. logits (B, V); seen (B, V), True for tokens that occurred."""
    lowered = np.where(logits < 0, logits * penalty, logits / penalty)
    return np.where(seen, lowered, logits)


def filtered(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Steps 4 to 7: scores (B, V), whose softmax is drawn from; -inf for excluded tokens."""
    scores = logits / max(sampling.temperature, COLDEST)
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        lowest = np.partition(scores, -sampling.top_k, axis=-1)[:, -sampling.top_k, None]
        scores[scores < lowest] = -np.inf
    if sampling.top_p is not None and sampling.top_p < 1:
        order = (-scores).argsort(axis=-1, kind="stable")
        rows = np.arange(len(scores))[:, None]
        ranked = weights_of(scores)[rows, order].astype(np.float64)
        together = ranked.cumsum(axis=-1)
        dropped = together - ranked >= sampling.top_p * together[:, -1:]
        dropped[:, 0] = False
        row, rank = dropped.nonzero()
        scores[row, order[row, rank]] = -np.inf
    if sampling.min_p is not None:
        scores[weights_of(scores) < sampling.min_p] = -np.inf
    return scores


def weights_of(scores: np.ndarray) -> np.ndarray:
    """Probabilities relative to the highest one: exp(scores - max), (..., V)."""
    return np.exp(scores - scores.max(axis=-1, keepdims=True))


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the softmax, in float64, (..., V)."""
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def likeliest_of(
    logprobs: np.ndarray, count: int, allowed: np.ndarray | None = None
) -> list[tuple[int, float]]:
    """The most probable tokens with their probabilities; among equals the lowest id comes first.

    Args:
        logprobs: (V,) the model's log-probabilities.
        count: the number of tokens; fewer are returned if fewer are allowed.
        allowed: (V,) which tokens may be listed; None for all.
    """
    if allowed is None:
        best = np.argsort(-logprobs, kind="stable")
    else:
        ids = np.flatnonzero(allowed)
        best = ids[np.argsort(-logprobs[ids], kind="stable")]
    return [(int(token), float(np.exp(logprobs[token]))) for token in best[:count]]


class Sampler:
    """Picks the next token of each of B sequences, each with its own random numbers.

    Args:
        sampling: the settings, or a function that chooses, see the module's docstring.
        rngs: a random generator for each sequence; each draw takes one number from it.
        vocab_size: V.
        sequences: the tokens so far, for the repetition penalty and the states of `readable`.
        readable: which tokens may come; None allows all.
        left: how many tokens each sequence still gets.

    Attributes:
        sampling: as given.
        plain: whether there is neither a penalty nor a filter.
        readable: as given, or None if it excludes nothing.
        states: the state of each sequence's text, see `readable`.
        left: as given, reduced by one for each token drawn.
    """

    def __init__(
        self,
        sampling: Sampling | Choose,
        rngs: Sequence[np.random.Generator],
        vocab_size: int,
        sequences: Sequence[Sequence[int]],
        readable: Readable | None = None,
        left: int = 0,
    ) -> None:
        self._own = None if isinstance(sampling, Sampling) else sampling
        self._texts = [*zip(sequences, rngs, strict=True)]
        if not isinstance(sampling, Sampling):
            sampling = Sampling()
        self.sampling = sampling
        self.plain: bool = self._own is None and sampling.plain
        self._temperature = 0.0 if sampling.greedy else max(sampling.temperature, COLDEST)
        self.readable: Readable | None = (
            None if readable is None or readable.everything else readable
        )
        self.states: list[int] = [BETWEEN] * len(rngs)
        self.left: int = left
        if self.readable is not None:
            self.states = [self.readable.state_after(tokens) for tokens in sequences]
        self._draws = [rng.random for rng in rngs]
        self._seen: np.ndarray | None = None
        if sampling.repetition_penalty != 1:
            self._seen = np.zeros((len(rngs), vocab_size), bool)
            for row, tokens in zip(self._seen, sequences, strict=True):
                row[tokens] = True

    def remove(self, row: int) -> None:
        """Forget a sequence; the last one takes its place."""
        by_row: tuple[list[Any], ...] = (self._draws, self.states, self._texts)
        for each in by_row:
            each[row] = each[-1]
            del each[-1]
        if self._seen is not None:
            self._seen[row] = self._seen[-1]
            self._seen = self._seen[:-1]

    def uniforms(self, count: int) -> np.ndarray:
        """The random numbers of the next `count` draws, (count, B), for drawing elsewhere."""
        numbers = [random(count) for random in self._draws]
        return np.array(numbers).T

    def pick(self, logits: np.ndarray) -> list[int]:
        """Tokens, one for each row of logits (B, V).

        Raises:
            ValueError: the logits are not numbers, or a function chose an excluded token.
        """
        if self._own is not None:
            tokens = self._chosen_by_function(self._own, logits)
            self.follow(tokens)
            return tokens
        if self._seen is not None:
            logits = penalised(logits, self._seen, self.sampling.repetition_penalty)
        if self.readable is None:
            tokens = self._choose(logits)
        elif len(self._draws) == 1 and self.plain:
            return [self._choose_one_readable(logits[0], self.readable)]  # without a penalty
        else:
            tokens = self._choose_readable(logits)
            self.follow(tokens)
        if self._seen is not None:
            self._seen[np.arange(len(tokens)), tokens] = True
        return tokens

    def follow(self, tokens: Sequence[int]) -> None:
        """Record a chosen token for each sequence, also if it was not chosen here."""
        self.left -= 1
        if self.readable is not None and not (self.readable.closed and self._between()):
            following = self.readable.next_state
            self.states = [
                following[state][token] for state, token in zip(self.states, tokens, strict=True)
            ]

    def _choose_one_readable(self, logits: np.ndarray, readable: Readable) -> int:
        """`_choose_readable` and `follow` for one row (V,) without filters, in fewer calls."""
        self.left = left = self.left - 1
        state = self.states[0]
        names, ids = readable.choices[max(0, min(left, LEVELS - 1))][state]
        if ids is not None:
            logits = logits.take(ids)
        if self._temperature == 0:
            index = int(logits.argmax())
            _check(logits[index])
        else:
            index = _draw_one(logits / self._temperature, self._draws[0]())
        token = names[index]
        self.states[0] = readable.next_state[state][token]
        return token

    def _chosen_by_function(self, choose: Choose, logits: np.ndarray) -> list[int]:
        tokens = []
        for row, state, (text, rng) in zip(logits, self.states, self._texts, strict=True):
            given = row.copy()  # the function may write to it
            if self.readable is not None:
                given[~self.readable.may_come(state, self.left)] = -np.inf
            may_come = np.isfinite(given)
            token = operator.index(choose(given, text, rng))
            if not (0 <= token < len(row) and may_come[token]):
                raise ValueError(f"the function chose token {token}, which may not come here")
            tokens.append(token)
        return tokens

    def _between(self) -> bool:
        return not any(self.states)

    def _choose_readable(self, logits: np.ndarray) -> list[int]:
        """`_choose` among the tokens that may come."""
        assert self.readable is not None
        level, first = min(max(self.left - 1, 0), LEVELS - 1), self.states[0]
        if len(self.states) == 1 or all(state == first for state in self.states):
            _, ids = self.readable.choices[level][first]
            if ids is None:
                return self._choose(logits)
            return ids[self._choose(logits.take(ids, axis=1))].tolist()
        # Adding 0 or -∞ is twice as fast as selecting, and changes no logit of an allowed token.
        return self._choose(logits + self.readable.bias[level].take(self.states, axis=0))  # (B, V)

    def _choose(self, logits: np.ndarray) -> list[int]:
        """Steps 3 to 8 for each row of logits (B, V)."""
        if self.sampling.greedy:
            tokens = logits.argmax(axis=-1).tolist()
            _check(logits[np.arange(len(tokens)), tokens])
            return tokens
        scores = filtered(logits, self.sampling)
        if len(scores) == 1:
            return [_draw_one(scores[0], self._draws[0]())]
        uniform = np.array([random() for random in self._draws])
        return draw(weights_of(scores), uniform).tolist()


def _draw_one(scores: np.ndarray, uniform: float) -> int:
    """`draw` for one row of scores (V,), in fewer calls. Overwrites the scores."""
    scores -= np.maximum.reduce(scores)  # faster than scores.max()
    together = np.add.accumulate(np.exp(scores, out=scores).astype(np.float64))
    total = together[-1]
    if not math.isfinite(total):
        raise damaged_logits()
    return int(together.searchsorted(uniform * total, side="right"))


def draw(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A token for each row: the first whose cumulative weight exceeds `uniform` of the total.

    NumPy's cumulative sum is slow, so this takes two steps: it first finds a block of about √V
    tokens, then the token inside the block.

    Args:
        weights: (B, V), not negative.
        uniform: (B,) in [0, 1).

    Raises:
        ValueError: a weight is not a number.
    """
    rows, vocab_size = weights.shape
    size = math.isqrt(vocab_size - 1) + 1
    blocks = np.zeros((rows, -(-vocab_size // size), size), weights.dtype)
    blocks.reshape(rows, -1)[:, :vocab_size] = weights
    sums = np.einsum("bns->bn", blocks, dtype=np.float64)
    block, place = _first_above(sums, uniform)
    token, _ = _first_above(blocks[np.arange(rows), block], place)
    return block * size + token


def _first_above(weights: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the cumulative weight first exceeds `uniform` of the total, and how far into it, (B,).

    The second result is in [0, 1), so it can be used as a uniform number itself.
    """
    together = np.cumsum(weights, axis=-1, dtype=np.float64)
    _check(together[:, -1])
    target = uniform * together[:, -1]
    index = (together > target[:, None]).argmax(axis=-1)
    rows = np.arange(len(weights))
    weight = weights[rows, index].astype(np.float64)
    inside = (target - (together[rows, index] - weight)) / weight
    return index, np.clip(inside, 0, ALMOST_1)


def _check(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise damaged_logits()


def damaged_logits() -> ValueError:
    """The error for logits from which nothing can be drawn."""
    return ValueError(
        "the model's logits are not finite numbers, so there is nothing to draw from; its weights "
        "are damaged, or its training diverged"
    )
