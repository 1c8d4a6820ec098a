"""A text that the model writes at each validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinyalpaca.console import Say
from tinyalpaca.generation import Generator
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.state import TrainingState


class Samples(Hook):
    """Writes a "sample" down with each validation.

    Args:
        model, tokenizer: write it.
        prompt: how it begins.
        tokens: how many to write; 0 for no sample.
        seed: of the draws.
        ask: called between two tokens; an exception in it ends the sample.
        warn: called with a message if there can be no sample.
    """

    ask: Callable[[], None]
    warn: Say
    model: Any
    tokenizer: Any
    prompt: str
    tokens: int
    seed: int

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        prompt: str,
        tokens: int,
        seed: int,
        ask: Callable[[], None],
        warn: Say,
    ) -> None:
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.tokens, self.seed, self.ask, self.warn = tokens, seed, ask, warn

    def on_validation(self, state: TrainingState) -> Mapping[str, Any]:
        return {"sample": self.text(self.tokens)}

    def text(self, tokens: int) -> str:
        """Text that the model writes after the prompt, the prompt included."""
        if not tokens:
            return ""
        text = self.prompt
        generator = Generator(self.model.eval(), self.tokenizer)
        try:
            for piece in generator.stream(self.prompt, tokens, seed=self.seed):
                text += piece
                self.ask()
        except ValueError as error:  # a prompt that is empty, or has a character without a token
            self.warn(f"no sample: {error}")
            return ""
        return text
