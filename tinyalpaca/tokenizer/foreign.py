"""What a `tokenizer.json` of another model may have that our own never have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyalpaca.tokenizer.added_tokens import AddedToken

Frame = tuple[tuple[int, ...], tuple[int, ...]]  # ids before a text, ids after it


@dataclass(frozen=True)
class Foreign:
    """The parts of such a file, beside vocabulary, merges and splitter.

    Attributes:
        added_tokens: all, special ones included, in the order of the file.
        normalizer: the JSON of what changes a text before it is split, or None.
        ignore_merges: whether a word that is a token becomes that token, whatever the merges give.
        post_processor: the JSON of what is added around the ids of a text, or None.
    """

    added_tokens: tuple[AddedToken, ...] = ()
    normalizer: Mapping[str, Any] | None = None
    ignore_merges: bool = False
    post_processor: Mapping[str, Any] | None = None

    @property
    def plain(self) -> bool:
        """Whether there is nothing that our own tokenizers do not have."""
        return (
            all(token.plain for token in self.added_tokens)
            and self.normalizer is None
            and not self.ignore_merges
            and frame_of(self.post_processor) == ((), ())
        )

    def parts(self) -> list[Any]:
        """All that decides about ids, for a fingerprint."""
        return [
            [list(token) for token in self.added_tokens],
            self.normalizer,
            self.ignore_merges,
            frame_of(self.post_processor),
        ]


def frame_of(content: Mapping[str, Any] | None) -> Frame:
    """The ids that a post-processor puts before and after those of a single text.

    Raises:
        ValueError: it is not supported; names it.
    """
    kind = (content or {}).get("type")
    if content is None or kind == "ByteLevel":  # which moves offsets only
        return (), ()
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (content["cls"][1],), (content["sep"][1],)
    if kind == "TemplateProcessing":
        return _frame_of_template(content)
    if kind == "Sequence":
        before: tuple[int, ...] = ()
        after: tuple[int, ...] = ()
        for part in content["processors"]:
            first, last = frame_of(part)
            before, after = first + before, after + last
        return before, after
    raise ValueError(f"the post_processor {kind} is not supported")


def _frame_of_template(content: Mapping[str, Any]) -> Frame:
    sides: list[list[int]] = [[]]
    for item in content["single"]:
        if "Sequence" in item:
            sides.append([])
        else:
            sides[-1] += content["special_tokens"][item["SpecialToken"]["id"]]["ids"]
    if len(sides) != 2:
        raise ValueError("a post_processor that does not take the text exactly once")
    return tuple(sides[0]), tuple(sides[1])
