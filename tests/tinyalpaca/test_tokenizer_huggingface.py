"""Compares tokenizers with Hugging Face's `tokenizers`: merges, ids, and each other's files."""

import json
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tinyalpaca.real_text import tiny_shakespeare
from tinyalpaca.tokenizer import BPETokenizer, load_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="the reference library is not installed")

END = "<|endoftext|>"
TEXT = "The naïve llama's 12 hats: ¡hola! 字字字 ½ 🦙🦙\r\n\r\n  we'll sit, they've sat\t\x00\n" * 3
AWKWARD = "x" + END + " naïve 🏳️‍🌈 e\u0301 \r\n\r\n  \t٣½ 字\x00\x85\x1c\u200b\u3000we'LL we'll\n"
# Characters that have been in Unicode since version 3.2. Later ones are letters for one library,
# but not yet for the other.
KNOWN = st.characters(exclude_categories=["Cs"]).filter(
    lambda character: unicodedata.ucd_3_2_0.category(character) != "Cn"
)
UNICODE = st.text(KNOWN)
QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=80)


def train_theirs(texts, vocab_size, min_frequency=2, splitter=None):
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = splitter or byte_level
    theirs.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        show_progress=False,
        initial_alphabet=byte_level.alphabet(),
    )
    theirs.train_from_iterator(texts, trainer)
    return theirs


def their_ids(theirs, text):
    return theirs.encode(text, add_special_tokens=False).ids


def test_training_on_tiny_shakespeare_gives_their_vocabulary_merges_and_ids(tmp_path):
    text = tiny_shakespeare()
    theirs = train_theirs([text], 1256)
    theirs.save(str(tmp_path / "theirs.json"))
    ours = BPETokenizer.train(text, vocab_size=1256)
    assert ours.fingerprint == BPETokenizer.load(tmp_path / "theirs.json").fingerprint
    assert ours.encode(text) == their_ids(theirs, text)


@QUICK
@given(texts=st.lists(UNICODE, min_size=1, max_size=5), min_frequency=st.integers(1, 3))
@example(texts=["\x1c\x85 \u2028a"] * 2, min_frequency=1)
def test_training_on_random_unicode_gives_their_merges(texts, min_frequency):
    if not any(texts):
        texts = ["a"]
    ours = BPETokenizer.train(texts, vocab_size=300, min_frequency=min_frequency)
    theirs = json.loads(train_theirs(texts, 300, min_frequency).to_str())
    vocabulary = theirs["model"]["vocab"]
    merges = [tuple(vocabulary[part] for part in pair) for pair in theirs["model"]["merges"]]
    assert ours.merges == merges
    assert ours.vocab_size == len(vocabulary)


@pytest.fixture(scope="module", params=["gpt2", "whitespace", "none"])
def both(request, tmp_path_factory):
    """Our tokenizer, and theirs, loaded from the file that ours wrote."""
    ours = BPETokenizer.train(
        TEXT, num_merges=120, special_tokens=[END, "[PAD]"], splitter=request.param
    )
    path = ours.save(tmp_path_factory.mktemp("ours"))
    return ours, tokenizers.Tokenizer.from_file(str(path))


@QUICK
@given(text=UNICODE)
@example("")
@example(AWKWARD)
@example("a" * 1000)
@example(TEXT.replace(" ", ""))
def test_their_library_loads_our_file_and_gives_our_ids(both, text):
    ours, theirs = both
    assert their_ids(theirs, text) == ours.encode(text, allowed_special="all")
    assert theirs.decode(their_ids(theirs, text), skip_special_tokens=False) == text


def test_our_file_survives_their_library(both, tmp_path):
    ours, theirs = both
    theirs.save(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert again.encode(AWKWARD, allowed_special="all") == their_ids(theirs, AWKWARD)


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_a_file_of_theirs_with_special_tokens_first_and_a_prefix_space(tmp_path, add_prefix_space):
    theirs = tokenizers.ByteLevelBPETokenizer(add_prefix_space=add_prefix_space)
    theirs.train_from_iterator(
        [TEXT], vocab_size=320, special_tokens=[END, "<pad>"], show_progress=False
    )
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert ours.special_tokens == {END: 0, "<pad>": 1}
    for text in (TEXT, AWKWARD, "", "a", f"{END}a b{END}"):
        assert ours.encode(text, allowed_special="all") == theirs.encode(text).ids
    path = ours.save(tmp_path / "ours.json")
    again = tokenizers.Tokenizer.from_file(str(path))
    assert again.encode(AWKWARD).ids == theirs.encode(AWKWARD).ids


def test_a_pattern_of_theirs(tmp_path):
    pattern = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
    pre = tokenizers.pre_tokenizers
    splitter = pre.Sequence(
        [
            pre.Split(tokenizers.Regex(pattern), "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    theirs = train_theirs([TEXT], 330, splitter=splitter)
    theirs.save(str(tmp_path / "theirs.json"))
    ours = BPETokenizer.load(tmp_path / "theirs.json")
    assert ours.splitter.pattern == pattern
    for text in (TEXT, AWKWARD, "12345 WE'S"):
        assert ours.encode(text) == their_ids(theirs, text)
    ours.save(tmp_path / "ours.json")
    assert BPETokenizer.load(tmp_path / "ours.json").fingerprint == ours.fingerprint


def test_gpt2s_layout_of_two_files(tmp_path):
    theirs = train_theirs([TEXT], 320)
    theirs.add_special_tokens([END])
    theirs.model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    vocabulary[END] = len(vocabulary)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").startswith("#version")
    for path in (tmp_path, tmp_path / "vocab.json", tmp_path / "merges.txt"):
        ours = BPETokenizer.load(path)
        assert ours.special_tokens == {END: len(vocabulary) - 1}
        assert ours.encode(AWKWARD, allowed_special="all") == their_ids(theirs, AWKWARD)


def test_merges_written_as_one_string_each(tmp_path):
    theirs = train_theirs([TEXT], 320)
    content = json.loads(theirs.to_str())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert BPETokenizer.load(path).encode(AWKWARD) == their_ids(theirs, AWKWARD)


def test_a_vocabulary_without_every_byte_loads_and_names_the_byte_it_lacks(tmp_path):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.train_from_iterator(
        ["abc abd"], tokenizers.trainers.BpeTrainer(vocab_size=20, show_progress=False)
    )
    theirs.save(str(tmp_path / "small.json"))
    ours = BPETokenizer.load(tmp_path / "small.json")
    assert ours.encode("dab cab") == their_ids(theirs, "dab cab")
    with pytest.raises(ValueError, match=r"no token for byte 0x7a, which ' zoo' needs"):
        ours.encode("a zoo")
