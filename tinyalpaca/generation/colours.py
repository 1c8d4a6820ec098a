"""Prints tokens on a terminal, coloured by probability, with their alternatives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import exp
from typing import TextIO

from tinyalpaca.generation.writing import Step
from tinyalpaca.tokenizer import Tokenizer
from tinyalpaca.tokenizer.tokenizer_files import readable_token

# (probability, colour): the colour, of 256, for probabilities from this one on; green to red.
COLOURS = ((0.5, 34), (0.2, 106), (0.1, 142), (0.05, 178), (0.01, 208), (0.0, 196))


class Palette:
    """Colours text by probability, if the stream supports colours.

    A terminal does, unless the environment variable NO_COLOR is set. With FORCE_COLOR any stream
    gets colours (https://no-color.org, https://force-color.org).

    Args:
        stream: where the text will go.
    """

    def __init__(self, stream: TextIO) -> None:
        forced = bool(os.environ.get("FORCE_COLOR"))
        self.on: bool = forced or (stream.isatty() and not os.environ.get("NO_COLOR"))

    def painted(self, text: str, logprob: float) -> str:
        """`text` in the colour of its probability. Each line is coloured separately, for pagers."""
        if not self.on or not text:
            return text
        probability = exp(logprob)
        colour = next(colour for limit, colour in COLOURS if probability >= limit)
        lines = text.split("\n")
        return "\n".join(f"\x1b[38;5;{colour}m{line}\x1b[0m" if line else "" for line in lines)

    def legend(self) -> str:
        """A line that explains the colours."""
        if not self.on:
            return ""
        parts = [
            f"\x1b[38;5;{colour}m{limit:.0%} and more\x1b[0m" for limit, colour in COLOURS[:-1]
        ]
        return ", ".join([*parts, f"\x1b[38;5;{COLOURS[-1][1]}mless\x1b[0m"]) + "\n"


def alternatives_table(tokenizer: Tokenizer, steps: Sequence[Step], palette: Palette) -> str:
    """One line for each token: its text and probability, then the most probable tokens."""

    def named(token: int, probability: float) -> str:
        return f"{readable_token(tokenizer.token_bytes(token))} {probability:.1%}"

    chosen = [named(step.token, exp(step.logprob)) for step in steps]
    width = max(map(len, chosen), default=0)
    lines = []
    for text, step in zip(chosen, steps, strict=True):
        best = "  ".join(named(*alternative) for alternative in step.alternatives)
        lines.append(f"{palette.painted(text, step.logprob)}{' ' * (width - len(text))} | {best}")
    return "\n" + palette.legend() + "\n".join(lines)
