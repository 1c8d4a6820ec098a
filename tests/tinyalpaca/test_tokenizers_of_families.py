"""Tokenizers in folders of the Llama family give the same ids as `transformers`."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tinyalpaca.llama_models import tokenizer_of
from tests.tinyalpaca.test_tokenizer_foreign_stored import TEXTS, UNICODE
from tests.tinyalpaca.tiny_models import TEXT
from tinyalpaca.tokenizer import load_tokenizer

pytest.importorskip("tokenizers", reason="the reference library is not installed")
QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=40)
AWKWARD = st.text(st.sampled_from(list("aAbB stſ'12½ \t\n\r\u3000.,<|>Σİe\u0301é字🦙_-'LlRrEe")))
NAMES = ["<|begin_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>"]
MARKED = st.lists(st.one_of(AWKWARD, st.sampled_from([*NAMES, "[INST]"]))).map("".join)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "smollm"])
def test_equal_ids(transformers, tmp_path, kind):
    theirs = tokenizer_of(transformers, kind)
    theirs.save_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)

    @QUICK
    @given(text=st.one_of(AWKWARD, UNICODE, MARKED))
    @example(TEXT + " I'LL we're 1234567 12\n\n\n  x\r\n")
    @example("".join(TEXTS))
    def same(text):
        alone = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text, allowed_special="all") == alone
        framed = ours.encode(text, allowed_special="all", add_special_tokens=True)
        assert framed == theirs(text)["input_ids"]
        assert ours.decode(alone) == theirs.decode(alone, clean_up_tokenization_spaces=False)

    same()
    assert ours.vocab_size == len(theirs)
    assert len(theirs(TEXT)["input_ids"]) < len(TEXT)  # merges were used


def test_qwen2s_two_files_need_the_third(transformers, tmp_path):
    """The two files do not say how text is split into words, which differs from GPT-2's way."""
    theirs = tokenizer_of(transformers, "qwen2")
    content = json.loads(theirs.backend_tokenizer.to_str())["model"]
    merges = "\n".join(" ".join(pair) for pair in content["merges"])
    (tmp_path / "vocab.json").write_text(json.dumps(content["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    settings = {"tokenizer_class": "Qwen2Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer_class is 'Qwen2Tokenizer'.*tokenizer\.json"):
        load_tokenizer(tmp_path)
    settings["tokenizer_class"] = "GPT2Tokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert load_tokenizer(tmp_path).decode(load_tokenizer(tmp_path).encode("a b")) == "a b"
