"""Text to tokens and back: byte pairs, characters, and tokenizers of other models.

Begin with `bpe.py`: how a text is split, and what merges are.
"""

from tinyalpaca.tokenizer.bpe import BPETokenizer, load_tokenizer
from tinyalpaca.tokenizer.char_tokenizer import CharTokenizer
from tinyalpaca.tokenizer.tokenizer_base import END_OF_TEXT, Tokenizer

__all__ = ["END_OF_TEXT", "BPETokenizer", "CharTokenizer", "Tokenizer", "load_tokenizer"]
