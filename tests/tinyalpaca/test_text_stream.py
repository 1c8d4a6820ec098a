import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tinyalpaca.tiny_models import tiny_tokenizer
from tinyalpaca.generation.text_stream import TextStream

TOKENIZER = tiny_tokenizer(num_merges=5)


def stream(text, stop):
    """The pieces of a text whose tokens are fed one by one."""
    texts = TextStream(TOKENIZER, stop)
    pieces = []
    for token in TOKENIZER.encode(text):
        pieces.append(texts.feed(token))
        if texts.stopped:
            break
    return [*pieces, texts.finish()]


def before_first(text, stops):
    """The text before the first stop string, found character by character."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(
    text=st.text(st.sampled_from("ab\né🦙"), max_size=12),
    stops=st.lists(st.text(st.sampled_from("ab\né🦙"), min_size=1, max_size=4), max_size=3),
)
def test_the_text_ends_before_the_first_stop_string(text, stops):
    assert "".join(stream(text, stops)) == before_first(text, stops)


def test_no_piece_holds_half_a_character():
    assert stream("é🦙", None) == ["", "é", "", "", "", "🦙", ""]


def test_what_may_become_a_stop_string_is_held_back_until_that_is_decided():
    assert stream("x\ny\n\nz", "\n\n") == ["x", "", "\ny", "", "", ""]
    assert stream("x\n", "\n\n")[-1] == "\n"


def test_of_two_stop_strings_the_one_that_is_complete_first_counts():
    assert "".join(stream("abcd", ["abcd", "bc"])) == "a"
    assert "".join(stream("abcd", ["d", "bcd"])) == "a"


def test_a_text_that_ends_inside_a_character_says_so():
    llama = TOKENIZER.encode("🦙")
    texts = TextStream(TOKENIZER)
    assert "".join(texts.feed(token) for token in llama[:-1]) == ""
    assert texts.finish() == "\ufffd"


def test_an_empty_stop_string_is_an_error():
    with pytest.raises(ValueError, match="a stop string is empty"):
        TextStream(TOKENIZER, ["x", ""])
