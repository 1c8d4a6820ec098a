"""The parts of a `BPETokenizer`, as files hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tinyalpaca.tokenizer.bpe_training import Pair
from tinyalpaca.tokenizer.foreign import Foreign
from tinyalpaca.tokenizer.pretokenize import PreSplitter


class BPEParts(NamedTuple):
    """The arguments of `BPETokenizer`, by their names."""

    vocabulary: Sequence[bytes]
    merges: Sequence[Pair]
    special_tokens: dict[str, int]
    splitter: PreSplitter
    add_prefix_space: bool
    foreign: Foreign
