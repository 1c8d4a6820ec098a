"""The examples in docstrings of tokenizers and data are right."""

import doctest

import pytest

from tinyalpaca.data import windows
from tinyalpaca.tokenizer import bpe, char_tokenizer, pretokenize


@pytest.mark.parametrize("module", [bpe, char_tokenizer, pretokenize, windows])
def test_examples(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
