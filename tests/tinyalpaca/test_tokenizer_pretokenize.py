import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyalpaca.tokenizer import pretokenize
from tinyalpaca.tokenizer.pretokenize import PreSplitter, byte_alphabet, bytes_in_token_order

SPLITTERS = ["gpt2", "whitespace", "none"]
QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=80)
# Few different characters, so that white space and clitics are often neighbours.
TRICKY = st.text(st.sampled_from("ab'sl 1½٣\n\r\t\u3000\u0085\x1c.,é\u0301字🦙\x00"), max_size=60)


@pytest.mark.parametrize("name", SPLITTERS)
@QUICK
@given(text=st.text() | TRICKY)
def test_pieces_joined_are_the_text(name, text):
    pieces = PreSplitter(name).split(text)
    assert "".join(pieces) == text
    assert all(pieces)


def test_words_take_the_space_before_them_and_kinds_of_characters_part():
    split = PreSplitter("gpt2").split
    assert split("We'll go  to Rome, in 44bc!") == [
        *("We", "'ll", " go", " ", " to", " Rome", ",", " in", " 44", "bc", "!")
    ]
    assert split("a\r\n\r\n b \n") == ["a", "\r\n\r\n", " b", " \n"]
    assert split("naïve 字٣½_") == ["naïve", " 字", "٣½", "_"]
    assert split("x\u0301y") == ["x", "\u0301", "y"]  # a combining mark is not a letter
    assert PreSplitter("whitespace").split("a.b  c'd\n") == ["a.b", " ", " c'd", "\n"]


@pytest.mark.parametrize("name", [*SPLITTERS, "custom"])
@QUICK
@given(blocks=st.lists(TRICKY | st.text(max_size=3)))
def test_blocks_give_the_pieces_of_the_whole(name, blocks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretokenize, "BLOCK_CHARACTERS", 5)
        check_blocks(name, blocks)


def check_blocks(name, blocks):
    splitter = PreSplitter("custom", r"\w+") if name == "custom" else PreSplitter(name)
    pieces = [piece for part in splitter.split_blocks(blocks) for piece in part]
    assert pieces == splitter.split("".join(blocks))


def test_blocks_are_passed_on_as_they_come_where_a_cut_is_safe():
    def blocks():
        for number in range(100):
            read.append(number)
            yield "to be or not to be, " * 10

    read: list[int] = []
    parts = PreSplitter("gpt2").split_blocks(blocks())
    next(parts)
    next(parts)
    assert len(read) == 2


def test_what_a_pattern_leaves_out_is_a_piece_too():
    splitter = PreSplitter("custom", r"[a-z]+")
    assert splitter.split("--ab1cd!") == ["--", "ab", "1", "cd", "!"]


def test_a_splitter_survives_pickling():
    for splitter in (PreSplitter("gpt2"), PreSplitter("none"), PreSplitter("custom", r"\w+")):
        twin = pickle.loads(pickle.dumps(splitter))
        assert (twin.name, twin.pattern) == (splitter.name, splitter.pattern)
        assert twin.split("a b") == splitter.split("a b")


def test_an_unknown_name_and_a_broken_pattern_are_named():
    with pytest.raises(ValueError, match=r"unknown pre-splitter 'gpt3': choose from gpt2"):
        PreSplitter("gpt3")
    with pytest.raises(ValueError, match=r"pre-splitter pattern '\[a-'"):
        PreSplitter("custom", "[a-")


def test_every_byte_has_a_printable_character_of_its_own():
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256
    assert all(character.isprintable() and not character.isspace() for character in alphabet)
    assert (alphabet[ord("A")], alphabet[ord(" ")], alphabet[ord("\n")]) == ("A", "Ġ", "Ċ")
    assert sorted(bytes_in_token_order()) == list(range(256))
    assert bytes_in_token_order()[:2] == b'!"'
