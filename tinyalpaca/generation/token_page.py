"""A text as a web page: coloured by surprise, alternatives on hover, attention on click.

The page is one file and needs nothing else, no network either: `token_page.html`, with the data
filled in. What it has in common with the page of `tinyalpaca play` is in `token_view.css` and
`token_view.js`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from math import log
from typing import Any

import numpy as np

from tinyalpaca.generation.generator import Generator
from tinyalpaca.generation.reading import Reading, read_back
from tinyalpaca.tokenizer import Tokenizer
from tinyalpaca.tokenizer.tokenizer_files import readable_token

MAX_ATTENTION = 8 << 20  # bytes; of larger models the heads, then the layers, are averaged


def token_page(
    generator: Generator, tokens: Sequence[int], prompt_length: int, alternatives: int = 5
) -> str:
    """The page, as HTML.

    Args:
        generator: whose model wrote the text.
        tokens: the whole text, prompt included.
        prompt_length: how many of them are the prompt.
        alternatives: how many likely tokens to list for each.
    """
    shown = TokensShown(generator.tokenizer)
    readings = list(read_back(generator, tokens))
    attention, layers, heads = packed_attention(readings)
    data = {
        "tokens": [
            shown.next(tokens[0]),
            *(shown.read(tokens[r.place], r, alternatives) | {"start": r.start} for r in readings),
        ],
        "prompt": prompt_length,
        "layers": layers,
        "heads": heads,
        "attention": base64.b64encode(attention).decode("ascii"),
    }
    # In a script element "<" could end it; in JSON it may be written like this.
    written = json.dumps(data).replace("<", "\\u003c")
    return with_view("tinyalpaca.generation", "token_page.html").replace("@DATA@", written)


def with_view(package: str, name: str) -> str:
    """A page of ours, with what pages have in common."""
    page = resources.files(package).joinpath(name).read_text("utf-8")
    for part in ("token_view.css", "token_view.js"):
        common = resources.files("tinyalpaca.generation").joinpath(part).read_text("utf-8")
        page = page.replace(f"/* {part} */\n", common)
    return page


class TokensShown:
    """What a page shows of each token, one after another."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._decoder = tokenizer, tokenizer.decoder()

    def next(self, token: int) -> dict[str, Any]:
        """Its text and name: of several that are one character, the last one shows it."""
        piece = self._decoder.feed(token)
        return {"text": piece or "∙", "part": not piece, "name": self._name(token)}

    def chosen(
        self, token: int, logprob: float, best: Sequence[tuple[int, float]]
    ) -> dict[str, Any]:
        """The same, its surprise, and the likeliest that might have come."""
        names = [[self._name(other), _short(p), other == token] for other, p in best]
        bits = _short(max(0.0, -logprob / log(2)))
        return {**self.next(token), "bits": bits, "best": names}

    def read(self, token: int, reading: Reading, alternatives: int) -> dict[str, Any]:
        """The same, of one that is read again."""
        return self.chosen(token, float(reading.logprobs[token]), reading.likeliest(alternatives))

    def _name(self, token: int) -> str:
        return readable_token(self._tokenizer.token_bytes(token))


def packed_attention(readings: Sequence[Reading]) -> tuple[bytes, int, int]:
    """The attention of all tokens, one after the other, and the numbers of layers and heads in it.

    A probability p is the byte 255·√p, rounded: small ones keep some precision.
    """
    rows = [reading.attention for reading in readings]
    for axis in (1, 0):  # heads first
        if sum(row.size for row in rows) > MAX_ATTENTION:
            rows = [row.mean(axis=axis, keepdims=True) for row in rows]
    layers, heads = rows[0].shape[:2] if rows else (0, 0)
    packed = [np.rint(255 * np.sqrt(row)).astype(np.uint8).tobytes() for row in rows]
    return b"".join(packed), layers, heads


def _short(number: float) -> float:
    return float(f"{number:.5g}")
