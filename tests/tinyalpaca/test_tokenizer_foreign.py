"""Tokenizers of other models give the same ids as Hugging Face's library."""

import itertools
import json
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tinyalpaca.test_tokenizer_foreign_stored import (
    ADDED,
    BYTES,
    CHAINS,
    END,
    NORMALIZERS,
    TEXTS,
    UNICODE,
    chain,
    file_content,
    split,
    token,
)
from tinyalpaca.tokenizer import BPETokenizer

tokenizers = pytest.importorskip("tokenizers", reason="the reference library is not installed")

QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=25)
AWKWARD = st.text(st.sampled_from(list("aAbB stſ'ß1²½ \t\n\r\x85\u3000.,<|>fobarΣİe\u0301é字🦙_-")))


def both(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return BPETokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))


def assert_same(ours, theirs, text):
    assert ours.encode(text, allowed_special="all") == (
        theirs.encode(text, add_special_tokens=False).ids
    )
    assert ours.encode(text, allowed_special="all", add_special_tokens=True) == (
        theirs.encode(text).ids
    )
    theirs.encode_special_tokens = True
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    theirs.encode_special_tokens = False


def check(tmp_path, content):
    ours, theirs = both(tmp_path, content)

    @QUICK
    @given(text=st.one_of(AWKWARD, UNICODE))
    @example("".join(TEXTS))
    def same(text):
        assert_same(ours, theirs, text)

    for text in TEXTS:
        assert_same(ours, theirs, text)
    same()
    saved = ours.save(tmp_path / "again.json")
    again, their_again = BPETokenizer.load(saved), tokenizers.Tokenizer.from_file(str(saved))
    assert again.fingerprint == ours.fingerprint
    copied = pickle.loads(pickle.dumps(ours))
    assert copied.fingerprint == ours.fingerprint
    for text in TEXTS:
        assert_same(again, their_again, text)
        assert copied.encode(text) == ours.encode(text)


@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_pre_tokenizers(tmp_path, name):
    check(tmp_path, file_content(pre_tokenizer=CHAINS[name]))


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers(tmp_path, name):
    check(tmp_path, file_content(normalizer=NORMALIZERS[name], added=ADDED["normalized"]))


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("prefix", [False, True])
def test_added_tokens(tmp_path, name, prefix):
    byte_level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True}
    check(tmp_path, file_content(added=ADDED[name], pre_tokenizer=byte_level))


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_words_that_are_tokens_and_yet_no_merges_make(tmp_path, ignore_merges):
    content = file_content(pre_tokenizer=CHAINS["Llama 3"], added=[END])
    vocabulary = content["model"]["vocab"]
    size = len(vocabulary)
    for entry in content["added_tokens"]:
        entry["id"] += 2 if entry["content"] not in vocabulary else 0
    vocabulary |= {"Ġbarn": size, "Ã©Ã©": size + 1}
    content["model"]["ignore_merges"] = ignore_merges
    ours, theirs = both(tmp_path, content)
    for text in (*TEXTS, "a barn", "éé", "barn barn"):
        assert_same(ours, theirs, text)
    assert (size in ours.encode("a barn")) == ignore_merges


def test_odd_cases_that_random_files_have_found(tmp_path):
    newline = token("\n", lstrip=True, rstrip=True)
    ours, theirs = both(tmp_path, file_content(added=[newline, token(" ", rstrip=True)]))
    for text in ("\n\n", "a \n \nb", "\n \n\n\n", "  a  ", "   \n"):
        assert_same(ours, theirs, text)
    for pattern in (r"[\w]+|\s*", r"\w+|", r"[^\w]", r"\W+"):
        ours, theirs = both(tmp_path, file_content(chain(split(pattern, "MergedWithNext"), BYTES)))
        for text in (*TEXTS, "a²b\u200dc½½ 1", "¹ ³\n²"):
            assert_same(ours, theirs, text)


BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")


@pytest.mark.parametrize(("behavior", "invert"), list(itertools.product(BEHAVIORS, [False, True])))
@pytest.mark.parametrize("pattern", [{"Regex": "a|bb"}, {"String": "a"}, {"Regex": "a*"}])
def test_behaviors_of_split(tmp_path, behavior, invert, pattern):
    split = {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": False,
    }
    chain = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    ours, theirs = both(tmp_path, file_content(pre_tokenizer=chain))
    for length in range(5):
        for letters in itertools.product("ab ", repeat=length):
            assert_same(ours, theirs, "".join(letters))


def test_of_a_merge_that_is_there_twice_the_last_counts(tmp_path):
    content = file_content(added=[END])
    content["added_tokens"], content["post_processor"] = [], None
    merges = content["model"]["merges"]
    content["model"]["merges"] = [*merges, merges[0], merges[3]]
    ours, theirs = both(tmp_path, content)
    for text in (*TEXTS, "foo oo of"):
        assert_same(ours, theirs, text)
