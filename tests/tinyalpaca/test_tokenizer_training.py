import random
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tinyalpaca.real_text import tiny_shakespeare
from tinyalpaca import text_files
from tinyalpaca.data.corpora import Document
from tinyalpaca.tokenizer import BPETokenizer, pretokenize
from tinyalpaca.tokenizer.bpe_training import count_words, learn_merges, learn_merges_naively
from tinyalpaca.tokenizer.pretokenize import PreSplitter

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom\r\n" * 3
QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=80)


def spelled(tokenizer: BPETokenizer) -> list[tuple[bytes, bytes]]:
    return [tuple(tokenizer.vocabulary[token] for token in pair) for pair in tokenizer.merges]


@QUICK
@given(
    words=st.dictionaries(st.text("ab", max_size=24) | st.text(max_size=8), st.integers(1, 5)),
    min_frequency=st.integers(1, 4),
)
def test_the_fast_trainer_agrees_with_the_specification(words, min_frequency):
    fast = learn_merges(words, 40, min_frequency)
    assert fast == learn_merges_naively(words, 40, min_frequency)


def test_the_fast_trainer_agrees_where_tokens_repeat_and_are_spelled_twice():
    rng = random.Random(0)
    for _ in range(300):
        letters = rng.choice(["a", "ab", "abc"])
        words = {
            "".join(rng.choices(letters, k=rng.randrange(40))): rng.randint(1, 4) for _ in range(4)
        }
        assert learn_merges(words, 30) == learn_merges_naively(words, 30), words


def test_the_fast_trainer_agrees_on_tiny_shakespeare():
    words = count_words([[tiny_shakespeare()]], PreSplitter("gpt2"))
    assert learn_merges(words, 15, 2) == learn_merges_naively(words, 15, 2)
    some = dict(list(words.items())[:1500])
    assert learn_merges(some, 150, 2) == learn_merges_naively(some, 150, 2)


def test_the_first_merges_are_the_most_frequent_pairs():
    tokenizer = BPETokenizer.train("low low low lower lowest", num_merges=4, min_frequency=1)
    assert spelled(tokenizer) == [(b"l", b"o"), (b"lo", b"w"), (b" ", b"low"), (b" low", b"e")]


def test_ties_go_to_the_smaller_token_ids():
    assert spelled(BPETokenizer.train("zy ba", num_merges=1, min_frequency=1)) == [(b"b", b"a")]
    # A space is byte 32, but tokens are ordered so that it comes after the letters.
    assert spelled(BPETokenizer.train("z b", num_merges=1, min_frequency=1)) == [(b" ", b"b")]


def test_newlines_are_learned():
    tokenizer = BPETokenizer.train("one\n\n\ntwo\n\n\nthree", num_merges=1)
    assert spelled(tokenizer) == [(b"\n", b"\n")]


def test_all_kinds_of_source_are_the_same_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    expected = BPETokenizer.train(TEXT, num_merges=30).fingerprint
    document = Document("cut out", f"not this{TEXT}nor this", 8, 8 + len(TEXT))
    for source in (TEXT.encode(), path, [TEXT], iter([path]), document, (document,)):
        assert BPETokenizer.train(source, num_merges=30).fingerprint == expected
    half = len(TEXT) // 3
    parts = [TEXT[:half].encode(), path]
    joined = count_words([[TEXT[:half]], [TEXT]], PreSplitter("gpt2"))
    assert BPETokenizer.train(parts, num_merges=30).merges == learn_merges(joined, 30, 2)


def test_no_merge_reaches_from_one_text_to_the_next():
    assert count_words([["ab"], ["cd"]], PreSplitter("none")) == Counter(["ab", "cd"])


def test_a_file_read_in_small_blocks_gives_the_same_words(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_bytes(("naïve 🦙  字\r\n" + TEXT).encode())
    expected = BPETokenizer.train(path, num_merges=30).fingerprint
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(text_files, "BLOCK_BYTES", size)
        assert BPETokenizer.train(path, num_merges=30).fingerprint == expected


def test_the_size_is_set_by_vocabulary_or_merges():
    assert BPETokenizer.train(TEXT * 40).vocab_size <= 256 + 100
    assert len(BPETokenizer.train(TEXT, num_merges=7).merges) == 7
    special = ["<|endoftext|>", "<|pad|>"]
    tokenizer = BPETokenizer.train(TEXT, vocab_size=270, special_tokens=special)
    assert tokenizer.vocab_size == 270
    assert len(tokenizer.merges) == 12
    assert tokenizer.special_tokens == {"<|endoftext|>": 268, "<|pad|>": 269}
    assert BPETokenizer.train(TEXT, vocab_size=256).merges == []


def test_training_stops_where_pairs_are_too_rare():
    assert BPETokenizer.train("abab cd", num_merges=50, min_frequency=3).merges == []
    assert spelled(BPETokenizer.train("abab cd", num_merges=50)) == [(b"a", b"b")]
    everything = BPETokenizer.train("abab cd", num_merges=50, min_frequency=1)
    assert everything.encode("abab cd") == [
        everything.vocabulary.index(b"abab"),
        everything.vocabulary.index(b" cd"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 300, "num_merges": 3}, "vocab_size or num_merges, not both"),
        ({"vocab_size": 255}, "vocab_size 255 is too small: 256 bytes and 0 special tokens"),
        ({"num_merges": -1}, "num_merges must not be negative: -1"),
        ({"special_tokens": ["x", "x"]}, "special tokens must be different and not empty"),
        ({"special_tokens": [""]}, "special tokens must be different and not empty"),
        ({"splitter": "gpt3"}, "unknown pre-splitter 'gpt3'"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer.train(TEXT, **settings)


def test_a_special_token_cannot_have_the_name_of_another_token():
    for name in ("a", "the", "é"):  # "é" is how files write the byte 0xe9
        with pytest.raises(ValueError, match=f"special token '{name}' would have the name"):
            BPETokenizer.train("the the the", special_tokens=["<|end|>", name])


def test_memory_is_bounded_for_texts_in_memory_too(monkeypatch):
    monkeypatch.setattr(pretokenize, "BLOCK_CHARACTERS", 1 << 12)
    text = "the cat sat on the mat\n" * 10_000
    tracemalloc.start()
    try:
        tokenizer = BPETokenizer.train(text, num_merges=20)
        assert tracemalloc.get_traced_memory()[1] < 500_000
        tracemalloc.reset_peak()
        ids = tokenizer.encode_array(text)
        assert tracemalloc.get_traced_memory()[1] < 4 * ids.nbytes + 500_000
    finally:
        tracemalloc.stop()
    assert tokenizer.decode(ids) == text


def test_sources_that_cannot_be(tmp_path):
    for nothing in ("", [], [""], b""):
        with pytest.raises(ValueError, match="there is no text to train a tokenizer on"):
            BPETokenizer.train(nothing)
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"caf\xe9 au lait")
    with pytest.raises(
        ValueError, match=r"latin1.txt is not UTF-8 text: byte 0xe9 at byte offset 3"
    ):
        BPETokenizer.train(path)
    with pytest.raises(ValueError, match=r"text number 1 is not UTF-8 text.*byte offset 0"):
        BPETokenizer.train(["good", b"\xff"])
    with pytest.raises(TypeError, match=r"text number 0 is a int: give str, bytes, pathlib.Path"):
        BPETokenizer.train([7])
    with pytest.raises(FileNotFoundError):
        BPETokenizer.train(tmp_path / "missing.txt")


@pytest.mark.slow
def test_a_megabyte_without_a_space():
    letters = random.Random(1).choices("abcdefgh", k=1_000_000)
    text = "".join(letters)
    tokenizer = BPETokenizer.train(text, num_merges=10)
    ids = tokenizer.encode_array(text)
    assert len(tokenizer.merges) == 10
    assert len(ids) < 900_000
    assert tokenizer.decode(ids) == text
