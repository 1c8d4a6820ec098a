"""Normalizers of `tokenizer.json` files, which change a text before it is split into words.

A tokenizer with a normalizer is not lossless: `decode` gives the normalized text. Here are those
that can be done exactly as in Hugging Face's library; the others are refused by name.
"""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from tinyalpaca.tokenizer.split_patterns import Pattern

Normalize = Callable[[str], str]
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def normalizer_from_json(content: Mapping[str, Any]) -> Normalize:
    """The function that an entry `normalizer` describes.

    Raises:
        ValueError: it is not supported exactly; names it.
    """
    kind = content.get("type")
    if kind in FORMS:
        return lambda text: unicodedata.normalize(kind, text)
    if kind == "Lowercase":
        # Character by character, so a capital sigma at the end of a word becomes σ and not ς.
        return lambda text: "".join(map(str.lower, text))
    if kind == "Prepend":
        prefix = content["prepend"]
        return lambda text: prefix + text if text else text
    if kind == "Replace":
        pattern, replacement = Pattern(content["pattern"]), content["content"]
        return lambda text: pattern.replaced(text, replacement)
    if kind == "Strip":
        left, right = content["strip_left"], content["strip_right"]
        return lambda text: _stripped(text, left, right)
    if kind == "Sequence":
        steps = [normalizer_from_json(step) for step in content["normalizers"]]

        def all_of_them(text: str) -> str:
            for step in steps:
                text = step(text)
            return text

        return all_of_them
    raise ValueError(f"the normalizer {kind} is not supported")


# White space as Unicode defines it; Python's `str.strip` takes four control characters as well.
_SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def _stripped(text: str, left: bool, right: bool) -> str:
    text = text.lstrip(_SPACES) if left else text
    return text.rstrip(_SPACES) if right else text
