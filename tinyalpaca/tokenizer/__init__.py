"""Text to tokens and back: byte pairs, characters, and others' tokenizers from their files.

`bpe.py` is where to begin: how a text is cut, and what merges are.
"""

from tinyalpaca.tokenizer.bpe import BPETokenizer, load_tokenizer
from tinyalpaca.tokenizer.char_tokenizer import CharTokenizer
from tinyalpaca.tokenizer.tokenizer_base import END_OF_TEXT, Tokenizer

__all__ = ["END_OF_TEXT", "BPETokenizer", "CharTokenizer", "Tokenizer", "load_tokenizer"]
