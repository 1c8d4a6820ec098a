"""Continuing a text: one token at a time, drawn from the model's distribution."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from minigrad import no_grad
from minigrad.device import Device
from tinyalpaca.checkpoint import load_model
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer_base import Tokenizer


class Generator:
    """Writes text with a model.

    Args:
        model: in evaluation mode.
        tokenizer: the one that it was trained with.
    """

    def __init__(self, model: TinyAlpaca, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def from_checkpoint(
        cls, folder: str | os.PathLike[str], device: Device | str = "cpu"
    ) -> Generator:
        """A generator from a folder that training wrote."""
        loaded = load_model(folder, device)
        return cls(loaded.model, loaded.tokenizer)

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 100,
        temperature: float = 0.7,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """The continuation of `prompt`, without the prompt. See `stream`."""
        return "".join(self.stream(prompt, max_new_tokens, temperature, top_k, top_p, seed))

    def stream(
        self,
        prompt: str,
        max_new_tokens: int = 100,
        temperature: float = 0.7,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Pieces of the continuation as they come, never half a character.

        Args:
            prompt: may be longer than the context, of which the model then sees the end.
            max_new_tokens: how many tokens to add.
            temperature: below 1 keeps to likely tokens; 0 always takes the likeliest.
            top_k: draw from the k likeliest tokens only.
            top_p: draw from the likeliest tokens that together have at least this probability.
            seed: the same seed gives the same text; None draws a new one.

        Raises:
            ValueError: the prompt is empty, or a setting is out of range.
        """
        check_sampling(max_new_tokens, temperature, top_k, top_p)
        ids = self.tokenizer.encode(prompt)
        if not ids:
            raise ValueError(
                "the prompt is empty: the model needs at least one token to go on from"
            )
        rng = np.random.default_rng(seed)
        decoder = self.tokenizer.decoder()
        context = self.model.config.max_seq_len
        device = self.model.final_linear.weight.device
        for _ in range(max_new_tokens):
            window = device.asarray(np.array([ids[-context:]]))  # (1, T)
            with no_grad():
                logits = self.model(window)[0, -1].numpy()  # (V,)
            logits = logits[: self.tokenizer.vocab_size]
            token = sample(logits.astype(np.float64), temperature, top_k, top_p, rng)
            ids.append(token)
            piece = decoder.feed(token)
            if piece:
                yield piece
        rest = decoder.finish()
        if rest:
            yield rest


def sample(
    logits: np.ndarray,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    rng: np.random.Generator,
) -> int:
    """Draw a token: divide by the temperature, keep the top k, then the top p, then draw.

    Args:
        logits: (V,) float64.
    """
    if temperature == 0:
        return int(logits.argmax())
    logits = logits / temperature
    if top_k is not None and top_k < logits.size:
        lowest_kept = np.partition(logits, -top_k)[-top_k]
        logits = np.where(logits >= lowest_kept, logits, -np.inf)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    if top_p is not None and top_p < 1:
        order = np.argsort(-probabilities, kind="stable")
        before = np.cumsum(probabilities[order]) - probabilities[order]
        dropped = order[before >= top_p]
        dropped = dropped[dropped != order[0]]  # the likeliest always stays
        probabilities[dropped] = 0
        probabilities /= probabilities.sum()
    return int(rng.choice(probabilities.size, p=probabilities))


def check_sampling(
    max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    """Raise ValueError for a sampling setting that makes no sense, naming it."""
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, it is {max_new_tokens}")
    if not temperature >= 0:
        raise ValueError(f"temperature must not be negative, it is {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, it is {top_k}")
    if top_p is not None and not 0 <= top_p <= 1:
        raise ValueError(f"top_p must be between 0 and 1, it is {top_p}")
