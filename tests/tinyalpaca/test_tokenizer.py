import copy
import pickle
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tinyalpaca.real_text import tiny_shakespeare
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer, load_tokenizer
from tinyalpaca.tokenizer.bpe_encoding import WordCache, merge_long_word, merge_word

QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=80)
END = "<|endoftext|>"
TEXT = (
    "the cat sat on the mat, the naïve llama 🦙🦙 said: ¡hola! 字字字\r\n\r\n  the end\x00\x00" * 3
)
TOKENIZERS = {
    splitter: BPETokenizer.train(
        TEXT, num_merges=60, special_tokens=[END, "<|end|>"], splitter=splitter
    )
    for splitter in ("gpt2", "whitespace", "none")
}
TOKENIZER = TOKENIZERS["gpt2"]


@pytest.mark.parametrize("splitter", TOKENIZERS)
@QUICK
@given(text=st.text())
@example("")
@example("👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200d\ufe0f")
@example("line\r\nline\n\rline\r")
@example("\x00\x00a\x00")
@example(f"{END} is text")
def test_every_text_comes_back(splitter, text):
    tokenizer = TOKENIZERS[splitter]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(type(token) is int and 0 <= token < tokenizer.vocab_size for token in ids)


@pytest.mark.parametrize("splitter", TOKENIZERS)
@QUICK
@given(data=st.binary())
@example(b"\xff\xfe\x00")
@example("naïve".encode()[:3])
@example("\ud800".encode("utf-8", "surrogatepass"))
def test_every_byte_string_comes_back(splitter, data):
    tokenizer = TOKENIZERS[splitter]
    assert tokenizer.decode_bytes(tokenizer.encode(data)) == data


@QUICK
@given(text=st.text())
def test_text_and_its_utf8_have_the_same_tokens(text):
    assert TOKENIZER.encode(text) == TOKENIZER.encode(text.encode())


def test_a_string_that_is_not_unicode_is_refused_with_its_place():
    with pytest.raises(ValueError, match="position 3"):
        TOKENIZER.encode("abc\ud800")


def test_merges_apply_in_the_order_learned_not_the_longest_first():
    tokenizer = BPETokenizer.from_merges([(65, 66), (66, 67), (257, 68)])
    b, bc_d = tokenizer.vocabulary[65], tokenizer.vocabulary[258]
    assert (b, bc_d) == (b"b", b"cde")
    # The longest match in "bcde" would be b + cde; but b + c was learned first.
    assert [tokenizer.vocabulary[token] for token in tokenizer.encode("bcde")] == [
        b"bc",
        b"d",
        b"e",
    ]


def test_both_ways_to_merge_a_word_agree():
    rng = random.Random(0)
    cache = TOKENIZER._cache
    for length in range(80):
        tokens = [rng.choice([64, 67, 68, 71, 83, 220]) for _ in range(length)]
        expected = merge_word(tokens, cache.ranks, cache.merged)
        assert merge_long_word(tokens, cache.ranks, cache.merged) == expected


def test_the_word_cache_stays_within_its_bounds_and_changes_nothing():
    dtype = np.dtype(np.uint16)
    cache = WordCache(range(256), {}, [], dtype, max_words=3, max_length=2)
    words = ["a", "bb", "ccc", "d", "e", "a", "é", "bb"]
    for word in words:
        assert np.frombuffer(cache[word], dtype).tolist() == list(word.encode())
        assert len(cache) <= 3
    assert "ccc" not in cache


def test_special_tokens_are_text_unless_they_are_allowed():
    text = f"the end{END}the cat<|end|>"
    plain = TOKENIZER.encode(text)
    assert not set(plain) & set(TOKENIZER.special_tokens.values())
    one = TOKENIZER.encode(text, allowed_special={END})
    assert one == [
        *TOKENIZER.encode("the end"),
        TOKENIZER.special_tokens[END],
        *TOKENIZER.encode("the cat<|end|>"),
    ]
    both = TOKENIZER.encode(text, allowed_special="all")
    assert both[-1] == TOKENIZER.special_tokens["<|end|>"]
    assert [TOKENIZER.decode(ids) for ids in (plain, one, both)] == [text] * 3
    with pytest.raises(ValueError, match=r"'<pad>' is not a special token.*'<\|endoftext\|>'"):
        TOKENIZER.encode(text, allowed_special=["<pad>"])


def test_the_longer_of_two_special_tokens_wins():
    tokenizer = BPETokenizer.train(TEXT, num_merges=0, special_tokens=["<a>", "<a><b>"])
    assert tokenizer.encode("<a><b>", allowed_special="all") == [257]


@QUICK
@given(text=st.text(), cut=st.integers(1, 5))
def test_streaming_never_shows_half_a_character(text, cut):
    ids = TOKENIZER.encode(text)
    decoder = TOKENIZER.decoder()
    shown = ""
    for start in range(0, len(ids), cut):
        shown += decoder.feed(*ids[start : start + cut])
        assert text.startswith(shown)
    assert decoder.finish() == ""
    assert shown == text


def test_streaming_holds_a_character_until_it_is_complete():
    tokenizer = BPETokenizer.from_merges([])
    decoder = tokenizer.decoder()
    assert [decoder.feed(token) for token in tokenizer.encode("é🦙")] == ["", "é", "", "", "", "🦙"]
    decoder.feed(tokenizer.encode("é")[0])
    assert decoder.finish() == "\N{REPLACEMENT CHARACTER}"
    assert decoder.feed(*tokenizer.encode("ok")) == "ok"


@QUICK
@given(data=st.binary(max_size=12))
def test_streaming_equals_decoding_at_once_for_any_bytes(data):
    ids = TOKENIZER.encode(data)
    decoder = TOKENIZER.decoder()
    assert "".join(map(decoder.feed, ids)) + decoder.finish() == TOKENIZER.decode(ids)


def test_ids_outside_the_vocabulary_are_named():
    size = TOKENIZER.vocab_size
    for token in (-1, size):
        with pytest.raises(
            ValueError, match=rf"token id {token} is out of range.*has {size} tokens"
        ):
            TOKENIZER.decode([5, token])


def test_decode_takes_arrays_and_says_what_to_do_with_bytes_that_are_no_text():
    assert TOKENIZER.decode(TOKENIZER.encode_array("the cat")) == "the cat"
    ids = TOKENIZER.encode(b"a\xff")
    assert TOKENIZER.decode(ids) == "a\N{REPLACEMENT CHARACTER}"
    with pytest.raises(UnicodeDecodeError):
        TOKENIZER.decode(ids, errors="strict")


def test_arrays_use_the_smallest_type():
    array = TOKENIZER.encode_array("the cat")
    assert array.dtype == np.uint16
    array[0] = 1  # a new array, not a view of the cache
    assert TOKENIZER.encode("the cat")[0] != 1
    vocabulary = [*TOKENIZER.vocabulary[:256], *(b"x%d" % i for i in range(1 << 16))]
    assert BPETokenizer(vocabulary, []).encode_array("a").dtype == np.uint32


def test_encode_batch_is_encode_of_each():
    texts = ["the cat", "", "naïve 🦙", b"\xff"]
    expected = [TOKENIZER.encode(text) for text in texts]
    assert TOKENIZER.encode_batch(iter(texts)) == expected


def test_encode_batch_in_processes_gives_the_same():
    texts = [f"the cat {number}{END}" for number in range(20)]
    expected = [TOKENIZER.encode(text, allowed_special="all") for text in texts]
    assert TOKENIZER.encode_batch(texts, processes=2, allowed_special="all") == expected


@pytest.mark.parametrize("splitter", TOKENIZERS)
@QUICK
@given(blocks=st.lists(st.text(max_size=6)))
def test_text_in_blocks_has_the_tokens_of_the_whole(splitter, blocks):
    tokenizer = TOKENIZERS[splitter]
    parts = [*tokenizer.encode_blocks(blocks)]
    assert np.concatenate([[], *parts]).tolist() == tokenizer.encode("".join(blocks))


def test_a_prefix_space_is_added_once_in_blocks_too():
    tokenizer = BPETokenizer(
        TOKENIZER.vocabulary, TOKENIZER.merges, {}, "gpt2", add_prefix_space=True
    )
    assert tokenizer.encode("the cat") == TOKENIZER.encode(" the cat")
    assert tokenizer.encode(" the cat") == TOKENIZER.encode(" the cat")
    for blocks in (["the", " cat"], ["", "th", "e cat"], [" the cat"], ["", " the cat"]):
        ids = np.concatenate(list(tokenizer.encode_blocks(blocks)))
        assert ids.tolist() == TOKENIZER.encode(" the cat")


def test_fingerprints_tell_tokenizers_apart():
    def train(text=TEXT, **settings):
        return BPETokenizer.train(text, **{"num_merges": 20, **settings}).fingerprint

    different = {
        train(),
        train(num_merges=19),
        train(splitter="none"),
        train(special_tokens=[END]),
        train("other words and other words"),
    }
    assert len(different) == 5
    assert train() == train()
    assert len(train()) == 64


def test_copies_and_pickles_encode_the_same():
    for twin in (copy.deepcopy(TOKENIZER), pickle.loads(pickle.dumps(TOKENIZER))):
        assert twin.fingerprint == TOKENIZER.fingerprint
        assert twin.encode(TEXT) == TOKENIZER.encode(TEXT)


def test_tiny_shakespeare_comes_back():
    text = tiny_shakespeare()
    tokenizer = BPETokenizer.train(text, num_merges=200)
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) < 0.7 * len(text)


def test_characters_come_back_and_unknown_ones_are_named():
    tokenizer = CharTokenizer.train(["hello, ", "wörld\n🦙"], special_tokens=[END])
    assert tokenizer.vocab_size == len(set("hello, wörld\n🦙")) + 1
    for text in ("", "hell\n", "🦙ö"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("ö".encode()) == tokenizer.encode("ö")
    assert tokenizer.encode(f"h{END}", allowed_special="all")[1] == tokenizer.special_tokens[END]
    with pytest.raises(ValueError, match=r"character 'x' at position 14 was not in the text"):
        tokenizer.encode(f"h{END}x", allowed_special="all")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        tokenizer.encode(b"\xff")
    with pytest.raises(ValueError, match="there is no text"):
        CharTokenizer.train([])


def test_a_character_tokenizer_is_saved_and_loaded(tmp_path):
    tokenizer = CharTokenizer.train("héllo\r\n\x00", special_tokens=[END])
    path = tokenizer.save(tmp_path)
    assert path == tmp_path / "tokenizer.json"
    twin = load_tokenizer(tmp_path)
    assert isinstance(twin, CharTokenizer)
    assert twin.fingerprint == tokenizer.fingerprint
    assert twin.encode("\r\nhé") == tokenizer.encode("\r\nhé")
    path.write_text('{"format": "tinyalpaca.CharTokenizer", "version": 2}')
    with pytest.raises(ValueError, match="is not a CharTokenizer file of version 1"):
        load_tokenizer(path)
