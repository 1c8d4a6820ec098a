"""A text as a web page: coloured by surprise, alternatives on hover, attention on click.

The page is a single file, `token_page.html` with the data filled in, and needs no network. The
parts that it shares with the page of `tinyalpaca play` are in `token_view.css` and `token_view.js`.
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

MAX_ATTENTION = 8 << 20  # bytes; if there are more, heads are averaged, then layers


def token_page(
    generator: Generator, tokens: Sequence[int], prompt_length: int, alternatives: int = 5
) -> str:
    """The page, as HTML.

    Args:
        generator: has the model that wrote the text.
        tokens: the whole text, with the prompt.
        prompt_length: the number of tokens of the prompt.
        alternatives: the number of probable tokens to list for each token.
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
    # "<" could end the script element; JSON allows this way of writing it.
    written = json.dumps(data).replace("<", "\\u003c")
    return with_view("tinyalpaca.generation", "token_page.html").replace("@DATA@", written)


def with_view(package: str, name: str) -> str:
    """One of our pages, with the shared CSS and JavaScript put in."""
    page = resources.files(package).joinpath(name).read_text("utf-8")
    for part in ("token_view.css", "token_view.js"):
        common = resources.files("tinyalpaca.generation").joinpath(part).read_text("utf-8")
        page = page.replace(f"/* {part} */\n", common)
    return page


class TokensShown:
    """Builds the data that a page shows for each token, in order."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._decoder = tokenizer, tokenizer.decoder()

    def next(self, token: int) -> dict[str, Any]:
        """A token's text and name. If several tokens form one character, the last one shows it."""
        piece = self._decoder.feed(token)
        return {"text": piece or "∙", "part": not piece, "name": self._name(token)}

    def chosen(
        self, token: int, logprob: float, best: Sequence[tuple[int, float]]
    ) -> dict[str, Any]:
        """The same, with its surprise and the most probable tokens in its place."""
        names = [[self._name(other), _short(p), other == token] for other, p in best]
        bits = _short(max(0.0, -logprob / log(2)))
        return {**self.next(token), "bits": bits, "best": names}

    def read(self, token: int, reading: Reading, alternatives: int) -> dict[str, Any]:
        """The same, for a token whose prediction was computed again."""
        return self.chosen(token, float(reading.logprobs[token]), reading.likeliest(alternatives))

    def _name(self, token: int) -> str:
        return readable_token(self._tokenizer.token_bytes(token))


def packed_attention(readings: Sequence[Reading]) -> tuple[bytes, int, int]:
    """The attention of all tokens, one after the other, and its numbers of layers and heads.

    A weight p is stored as the byte 255·√p, rounded, so that small ones keep some precision.
    """
    rows = [reading.attention for reading in readings]
    for axis in (1, 0):  # average heads first, then layers
        if sum(row.size for row in rows) > MAX_ATTENTION:
            rows = [row.mean(axis=axis, keepdims=True) for row in rows]
    layers, heads = rows[0].shape[:2] if rows else (0, 0)
    packed = [np.rint(255 * np.sqrt(row)).astype(np.uint8).tobytes() for row in rows]
    return b"".join(packed), layers, heads


def _short(number: float) -> float:
    return float(f"{number:.5g}")
