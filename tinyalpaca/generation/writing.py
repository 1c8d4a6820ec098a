"""The loop that writes text: compute logits, choose a token, decode it, repeat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tinyalpaca.generation.decoder import CachedDecoder
from tinyalpaca.generation.device_inference import DeviceDecoder
from tinyalpaca.generation.readable import BETWEEN, Readable
from tinyalpaca.generation.sampling import (
    Choose,
    Sampler,
    Sampling,
    likeliest_of,
    log_probabilities,
)
from tinyalpaca.generation.text_stream import TextStream
from tinyalpaca.generation.uncached import UncachedDecoder

Decoder = CachedDecoder | DeviceDecoder | UncachedDecoder


class Continuation(NamedTuple):
    """A continuation with its tokens and their probabilities.

    Attributes:
        text: without the prompt, and without the stop string or end token if one ended it.
        tokens: all tokens that were chosen, with the end token and those of a stop string.
        logprobs: for each token, the logarithm of the model's own probability, before penalty,
            temperature and filters.
    """

    text: str
    tokens: list[int]
    logprobs: list[float]


class Step(NamedTuple):
    """One chosen token.

    Attributes:
        token: its id.
        text: the characters that it completes; may be empty.
        logprob: as in `Continuation`.
        alternatives: the most probable tokens in its place with the model's own probabilities, best
            first.
    """

    token: int
    text: str
    logprob: float
    alternatives: list[tuple[int, float]]


@dataclass
class Writing:
    """A sequence that is being continued: all its tokens, and the text since the prompt."""

    tokens: list[int]
    rng: np.random.Generator
    stream: TextStream
    prompt_length: int
    pieces: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def new_tokens(self) -> list[int]:
        """The tokens since the prompt."""
        return self.tokens[self.prompt_length :]

    @property
    def text(self) -> str:
        """The text since the prompt."""
        return "".join(self.pieces)

    def continuation(self) -> Continuation:
        """The result, as a `Continuation`."""
        return Continuation(self.text, self.new_tokens, self.logprobs)


def sampler_for(
    writings: Sequence[Writing],
    sampling: Sampling | Choose,
    vocab_size: int,
    readable: Readable | None = None,
    left: int = 0,
) -> Sampler:
    """A sampler with the random generator and the tokens of each sequence."""
    rngs, tokens = [w.rng for w in writings], [w.tokens for w in writings]
    return Sampler(sampling, rngs, vocab_size, tokens, readable, left)


@np.errstate(all="ignore")  # once for all tokens, because it takes as long as a small matmul
def write_together(
    writings: Sequence[Writing],
    decoder: Decoder,
    sampler: Sampler,
    max_new_tokens: int,
    with_logprobs: bool,
) -> None:
    """Continue some sequences, one token each at a time; finished ones are removed."""
    active = list(writings)
    watching = any(w.stream.stops for w in writings)
    left = max_new_tokens
    while left and active:
        rounds, logits = next_tokens(decoder, sampler, left, with_logprobs)
        left -= len(rounds)
        for writing, tokens in zip(active, zip(*rounds, strict=True), strict=True):
            writing.tokens.extend(tokens)
        if with_logprobs:
            chosen = log_probabilities(logits)[np.arange(len(active)), rounds[0]].tolist()
            for writing, logprob in zip(active, chosen, strict=True):
                writing.logprobs.append(logprob)
        for row in reversed(range(len(active))):
            if watching:
                _read(active[row], [tokens[row] for tokens in rounds])
            else:
                _read_to_end(active[row], [tokens[row] for tokens in rounds])
            if active[row].stream.stopped:
                active[row] = active[-1]
                del active[-1]
                decoder.remove(row)
                sampler.remove(row)
    for writing, state in zip(active, sampler.states, strict=True):
        if not watching:  # all tokens can be decoded at once
            writing.pieces.append(writing.stream.feed(*writing.new_tokens))
        writing.pieces.append(writing.stream.finish(drop=state != BETWEEN))


def next_tokens(
    decoder: Decoder, sampler: Sampler, most: int, with_logits: bool
) -> tuple[list[list[int]], Any]:
    """One round of tokens, or several, at most `most`. A round has one token for each sequence.

    Returns:
        The rounds, and the logits (B, V) if they are wanted; then there is one round.
    """
    if isinstance(decoder, DeviceDecoder) and sampler.plain:
        return decoder.next_tokens(sampler, most, with_logits)
    logits = decoder.next_logits()
    return [sampler.pick(logits)], logits


def _read(writing: Writing, tokens: list[int]) -> None:
    """Decode the sequence's last tokens, and drop those after a stop string."""
    for number, token in enumerate(tokens, 1):
        writing.pieces.append(writing.stream.feed(token))
        if writing.stream.stopped:
            del writing.tokens[len(writing.tokens) - len(tokens) + number :]
            return


def _read_to_end(writing: Writing, tokens: list[int]) -> None:
    """If one of the sequence's last tokens ends it, drop the tokens after it and decode all."""
    end = writing.stream.first_end(tokens)
    if end is None:
        return
    del writing.tokens[len(writing.tokens) - len(tokens) + end + 1 :]
    writing.pieces.append(writing.stream.feed(*writing.new_tokens))


def write_steps(
    writing: Writing,
    decoder: Decoder,
    sampler: Sampler,
    max_new_tokens: int,
    alternatives: int | None,
    limit: AbstractContextManager[None],
) -> Iterator[Step]:
    """Continue one sequence, one token at a time.

    Args:
        alternatives: how many to list with each token; with None its probability is left out too.
        limit: a context manager that is entered while computing, but not while the caller runs.
    """
    logprob, likeliest = 0.0, []
    for number in range(1, max_new_tokens + 1):
        allowed = None
        if alternatives is not None and sampler.readable is not None:
            allowed = sampler.readable.may_come(sampler.states[0], sampler.left)
        with limit, np.errstate(all="ignore"):
            [[token]], logits = next_tokens(decoder, sampler, 1, alternatives is not None)
        if alternatives is not None:
            logprobs = log_probabilities(logits[0])
            logprob = float(logprobs[token])
            likeliest = likeliest_of(logprobs, alternatives, allowed)
        writing.tokens.append(token)
        piece = writing.stream.feed(token)
        last = writing.stream.stopped or number == max_new_tokens
        if last:
            piece += writing.stream.finish(drop=sampler.states[0] != BETWEEN)
        yield Step(token, piece, logprob, likeliest)
        if last:
            return
