"""A text as a web page: coloured by surprise, alternatives on hover, attention on click.

The page is one file and needs nothing else, no network either. Its parts are in `token_page.html`;
here is what is filled in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from math import log
from typing import Any

import numpy as np

from tinyalpaca.generation.reading import Reading, Writer, read_back
from tinyalpaca.tokenizer import Tokenizer
from tinyalpaca.tokenizer.tokenizer_files import readable_token

MAX_ATTENTION = 8 << 20  # bytes; of larger models the heads, then the layers, are averaged


def token_page(
    generator: Writer, tokens: Sequence[int], prompt_length: int, alternatives: int = 5
) -> str:
    """The page, as HTML.

    Args:
        generator: whose model wrote the text.
        tokens: the whole text, prompt included.
        prompt_length: how many of them are the prompt.
        alternatives: how many likely tokens to list for each.
    """
    tokenizer = generator.tokenizer
    readings = list(read_back(generator, tokens))
    shown = shown_tokens(tokenizer, tokens)
    for reading in readings:
        token = tokens[reading.place]
        shown[reading.place] |= {
            "start": reading.start,
            "bits": round(max(0.0, -float(reading.logprobs[token]) / log(2)), 4),
            "best": [
                [_name(tokenizer, other), round(probability, 4), other == token]
                for other, probability in reading.likeliest(alternatives)
            ],
        }
    attention, layers, heads = packed_attention(readings)
    data = {
        "tokens": shown,
        "prompt": prompt_length,
        "layers": layers,
        "heads": heads,
        "attention": base64.b64encode(attention).decode("ascii"),
    }
    template = (
        resources.files("tinyalpaca.generation").joinpath("token_page.html").read_text("utf-8")
    )
    # In a script element "<" could end it; in JSON it may be written like this.
    return template.replace("@DATA@", json.dumps(data).replace("<", "\\u003c"))


def shown_tokens(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[dict[str, Any]]:
    """The text of each token: of several that are one character, the last one shows it."""
    decoder = tokenizer.decoder()
    shown = []
    for token in tokens:
        piece = decoder.feed(token)
        shown.append({"text": piece or "∙", "part": not piece, "name": _name(tokenizer, token)})
    return shown


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


def _name(tokenizer: Tokenizer, token: int) -> str:
    return readable_token(tokenizer.token_bytes(token))
