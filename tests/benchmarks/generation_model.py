"""The model for timing generation, and minigrad's contender."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad import Generator as RandomGenerator
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation import Generator
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer import BPETokenizer

CONTEXT = 128
VOCABULARY = 356  # 256 bytes and the 100 merges of the default tokenizer
PROMPT_TEXT = "To be or n"
PAIRS = [(left, right) for left in range(150, 160) for right in range(150, 160)]
TOKENIZER = BPETokenizer.from_merges(PAIRS)  # of bytes that the prompt does not have
PROMPT = TOKENIZER.encode(PROMPT_TEXT)  # ten tokens


def make_model() -> TinyAlpaca:
    """The default model, with weights far enough from initial ones to write varied text."""
    model = TinyAlpaca(ModelConfig(vocab_size=VOCABULARY), RandomGenerator(0))
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        noise = 0.05 * rng.standard_normal(parameter.shape).astype(np.float32)
        parameter.assign(parameter.data + noise)
    return model.eval()


class Ours:
    """minigrad's contender, by the calls that a user makes.

    Args:
        batch: the number of sequences in `many`.
        tokens: the number of tokens in each.
    """

    def __init__(self, batch: int, tokens: int) -> None:
        self.generator = Generator(make_model(), TOKENIZER)
        self.batch, self.tokens = batch, tokens
        self.one()
        self.many()

    def greedy(self) -> list[int]:
        """The greedy continuation with all tokens allowed, for comparison."""
        options = {"return_logprobs": True, "allow_all_tokens": True}
        return self.generator.generate(PROMPT_TEXT, self.tokens, 0, **options).tokens

    def one(self) -> None:
        """Write a single text."""
        self.generator.generate(PROMPT_TEXT, self.tokens, 0.7, seed=0)

    def streamed(self) -> None:
        """Write a single text, piece by piece."""
        for _ in self.generator.stream(PROMPT_TEXT, self.tokens, 0.7, seed=0):
            pass

    def many(self) -> None:
        """Write a batch of texts."""
        self.generator.generate([PROMPT_TEXT] * self.batch, self.tokens, 0.7, seed=0)

    def facts(self) -> dict[str, Any]:
        """Facts for the record."""
        return {"version": np.__version__, "workers": self.generator.workers}
