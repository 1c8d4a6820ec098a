import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyalpaca.tokenizer import load_tokenizer
from tinyalpaca.tokenizer.original_vocab import OriginalTokenizer

TOKENS = ["▁", "[UNK]", "\n", "a", "b", "c", "d", "e", "▁a", "ab", "abc", "cd", "bcde", "ab", "é"]


def greedy(tokens: list[str], text: str) -> list[int]:
    """The rule: the longest token that fits; among equals the lowest id."""
    text = text.replace(" ", "▁")
    ids, place = [], 0
    while place < len(text):
        fits = [i for i, token in enumerate(tokens) if text.startswith(token, place)]
        best = max(fits, key=lambda i: (len(tokens[i]), -i), default=tokens.index("[UNK]"))
        ids.append(best)
        place += len(tokens[best]) if fits else 1
    return ids


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "training_vocab.json"
    content = {str(index): token for index, token in enumerate(TOKENS)}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    return load_tokenizer(path)


def test_the_vocabulary_file_loads(tokenizer):
    assert isinstance(tokenizer, OriginalTokenizer)
    assert tokenizer.vocab_size == len(TOKENS)


def test_text_is_cut_by_longest_match_and_spaces_are_marked(tokenizer):
    assert tokenizer.encode("abcde") == [10, 6, 7]  # abc d e, though a + bcde would be fewer
    assert tokenizer.encode("ab a\n") == [9, 8, 2]
    assert tokenizer.encode("axbé▁") == [3, 1, 4, 14, 0]
    assert tokenizer.encode("a[UNK]b") == [3, 1, 4]
    assert tokenizer.encode("") == []
    assert tokenizer.encode(b"ab") == [9]


@settings(deadline=None, derandomize=True, database=None, max_examples=80)
@given(text=st.text(st.sampled_from("abcde \n[UNK]é🦙▁.")))
def test_it_encodes_as_the_rule_reads(text):
    assert OriginalTokenizer(TOKENS).encode(text) == greedy(TOKENS, text)


def test_decoding_drops_unknown_and_puts_spaces_back(tokenizer):
    assert tokenizer.decode([9, 8, 1, 2, 14]) == "ab a\né"
    assert tokenizer.decode(tokenizer.encode("a zoo")) == "a "
    decoder = tokenizer.decoder()
    assert [decoder.feed(token) for token in (9, 8, 1)] == ["ab", " a", ""]


def test_every_known_text_comes_back(tokenizer):
    rng = random.Random(0)
    text = "".join(rng.choices("abcde \né", k=2000))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_it_is_saved_as_it_was(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path / "copy.json")
    assert path.read_text(encoding="utf-8") == (tmp_path / "training_vocab.json").read_text("utf-8")
    assert load_tokenizer(path).fingerprint == tokenizer.fingerprint


def test_what_cannot_be_encoded_or_loaded_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no token for 'x', and no \[UNK\]"):
        OriginalTokenizer(["a"]).encode("ax")
    path = tmp_path / "vocab.json"
    for content in ({"0": "a", "2": "b"}, {"0": "a", "1": 7}):
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ValueError, match="has no text for id 1"):
            load_tokenizer(path)
