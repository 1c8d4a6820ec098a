"""Pre-tokenizers of `tokenizer.json` files: chains of steps that split a text into words.

`PreSplitter` has the rules of our own tokenizers. Files of other models may chain several steps
(`Split`, `Digits`, `Punctuation`, ...) before the last one, `ByteLevel`; such a chain is a
`ChainSplitter`. Steps that cannot be done exactly are refused by name.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tinyalpaca.tokenizer.pattern_dialect import translated
from tinyalpaca.tokenizer.pretokenize import PATTERNS, PreSplitter
from tinyalpaca.tokenizer.split_patterns import Pattern

Step = Callable[[str], list[str]]
# As theirs: ASCII's punctuation and Unicode's, and one character that has since become a symbol.
_PUNCTUATION = {"Regex": r"[!-/:-@\[-`{-~\p{P}\u166d]"}
BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")


class ChainSplitter(PreSplitter):
    """A chain of steps, given by the JSON of a `pre_tokenizer`.

    Raises:
        ValueError: a step is not supported exactly; names it.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self._steps = [_step(part) for part in flattened(content)]
        self.name = "custom"
        self.pattern: str = json.dumps(content, sort_keys=True)
        self.split: Callable[[str], list[str]] = self._split

    def _split(self, text: str) -> list[str]:
        pieces = [text] if text else []
        for step in self._steps:
            pieces = [part for piece in pieces for part in step(piece) if part]
        return pieces

    def __reduce__(self) -> tuple[Any, ...]:
        return ChainSplitter, (self.content,)


def flattened(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps of a pre-tokenizer, which may be a Sequence of Sequences."""
    if content.get("type") != "Sequence":
        return [content]
    return [step for part in content["pretokenizers"] for step in flattened(part)]


def _step(content: Mapping[str, Any]) -> Step:
    kind = content.get("type")
    if kind == "Split":
        return _cutting(content["pattern"], content["behavior"], bool(content.get("invert")))
    if kind == "Digits":
        behavior = "Isolated" if content.get("individual_digits") else "Contiguous"
        return _cutting({"Regex": r"\p{N}"}, behavior)
    if kind == "Punctuation":
        return _cutting(_PUNCTUATION, content.get("behavior", "Isolated"))
    if kind == "WhitespaceSplit":
        return _cutting({"Regex": r"\s"}, "Removed")
    if kind == "CharDelimiterSplit":
        return _cutting({"String": content["delimiter"]}, "Removed")
    if kind == "ByteLevel":
        return _byte_level(content)
    raise ValueError(f"its pre_tokenizer {kind} is not supported")


def _cutting(pattern: Mapping[str, Any], behavior: str, invert: bool = False) -> Step:
    if behavior not in BEHAVIORS:
        raise ValueError(f"the behavior {behavior!r} of a pre_tokenizer is not supported")
    compiled = Pattern(pattern)

    def cut(text: str) -> list[str]:
        spans = [(a, b, hit != invert) for a, b, hit in compiled.spans(text)]
        return [text[start:end] for start, end in together(spans, behavior)]

    return cut


def together(spans: Iterable[tuple[int, int, bool]], behavior: str) -> list[tuple[int, int]]:
    """The pieces that a behavior makes of matches and what lies between them, in their order.

    As the library does it, a match joins its neighbour only if what came before it, in the
    direction of travel, was no match.
    """
    if behavior == "Isolated":
        return [(start, end) for start, end, _ in spans]
    if behavior == "Removed":
        return [(start, end) for start, end, hit in spans if not hit]
    backwards = behavior == "MergedWithNext"
    pieces: list[tuple[int, int]] = []
    previous = False
    for start, end, hit in reversed(list(spans)) if backwards else spans:
        joins = hit == previous if behavior == "Contiguous" else hit and not previous
        previous = hit
        if not joins or not pieces:
            pieces.append((start, end))
        elif backwards:
            pieces[-1] = (start, pieces[-1][1])
        else:
            pieces[-1] = (pieces[-1][0], end)
    return pieces[::-1] if backwards else pieces


def _byte_level(content: Mapping[str, Any]) -> Step:
    splitter = PreSplitter("gpt2") if content.get("use_regex", True) else None
    prefix = bool(content.get("add_prefix_space", True))

    def cut(text: str) -> list[str]:
        text = f" {text}" if prefix and not text.startswith(" ") else text
        return splitter.split(text) if splitter else [text]

    return cut


def splitter_from_json(content: Mapping[str, Any] | None) -> tuple[PreSplitter, bool]:
    """The splitter that an entry `pre_tokenizer` describes, and whether a space goes first.

    Raises:
        ValueError: it is not byte-level, or has a step that is not supported exactly.
    """
    steps = flattened(content) if content else []
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" not in kinds or kinds.index("ByteLevel") != len(kinds) - 1:
        raise ValueError(
            "is not a byte-level BPE: its pre_tokenizer must be ByteLevel, or a Sequence that ends "
            "with it"
        )
    *splits, byte_level = steps
    prefix = bool(byte_level.get("add_prefix_space", True))
    if not splits:
        return PreSplitter("gpt2" if byte_level.get("use_regex", True) else "none"), prefix
    if len(splits) == 1 and not prefix and not byte_level.get("use_regex", True):
        [split] = splits
        pattern = (split.get("pattern") or {}).get("Regex")
        isolated = split.get("behavior") == "Isolated" and not split.get("invert")
        if split.get("type") == "Split" and pattern and isolated:
            known = {text: rule for rule, text in PATTERNS.items()}
            if pattern in known:
                return PreSplitter(known[pattern]), False
            chain = ChainSplitter(content or {})  # which looks whether we can do it
            same = translated(pattern) == pattern
            return (PreSplitter("custom", pattern) if same else chain), False
    return ChainSplitter(content or {}), False
