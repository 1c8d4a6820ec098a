"""The examples in the documentation of tokenizers and data are true."""

import doctest

import pytest

from tinyalpaca import data, tokenizer
from tinyalpaca.tokenizing import char_tokenizer, pretokenize


@pytest.mark.parametrize("module", [char_tokenizer, data, pretokenize, tokenizer])
def test_examples(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
