import json

import pytest

from tinyalpaca.tokenizer import BPETokenizer, load_tokenizer

TEXT = "the cat sat on the mat, the hat, the naïve llama\n" * 2


@pytest.fixture
def content(tmp_path):
    """The JSON object of a good file; `write` writes it again."""
    tokenizer = BPETokenizer.train(TEXT, num_merges=20, special_tokens=["<|end|>"])
    return json.loads(tokenizer.save(tmp_path / "good.json").read_text(encoding="utf-8"))


@pytest.fixture
def load(tmp_path):
    def write_and_load(content):
        path = tmp_path / "changed.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return BPETokenizer.load(path)

    return write_and_load


@pytest.mark.parametrize("splitter", ["gpt2", "whitespace", "none"])
def test_a_saved_tokenizer_is_the_same_when_loaded(tmp_path, splitter):
    tokenizer = BPETokenizer.train(
        TEXT, num_merges=30, special_tokens=["<|end|>", "ünï"], splitter=splitter
    )
    path = tokenizer.save(tmp_path / "new folder" / "tokenizer.json")
    for name in (path, path.parent, str(path)):
        twin = load_tokenizer(name)
        assert isinstance(twin, BPETokenizer)
        assert twin.fingerprint == tokenizer.fingerprint
        assert twin.encode(TEXT) == tokenizer.encode(TEXT)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "tokenizer.json",
        "tokenizer.vocab",
    ]


def test_the_vocab_file_shows_how_each_token_was_merged(tmp_path):
    tokenizer = BPETokenizer.train(
        "a\n\n\n\n", num_merges=2, min_frequency=1, special_tokens=["<|end|>"]
    )
    tokenizer.save(tmp_path)
    lines = (tmp_path / "tokenizer.vocab").read_text(encoding="utf-8").splitlines()
    assert len(lines) == tokenizer.vocab_size
    assert lines[0].split() == ["0", '"!"']
    assert lines[187].split() == ["187", r'"\xff"']
    newline = tokenizer.encode("\n")[0]
    assert lines[newline].split(maxsplit=1) == [str(newline), r'"\n"']
    assert lines[256].split(maxsplit=1)[1] == rf'"\n\n"  = "\n" ({newline}) + "\n" ({newline})'
    assert lines[257].split(maxsplit=1)[1] == r'"\n\n\n\n"  = "\n\n" (256) + "\n\n" (256)'
    assert lines[258].split(maxsplit=1)[1] == '"<|end|>"  special token'


def test_a_file_cut_short_anywhere_is_refused(content, load):
    text = json.dumps(content)
    load(text)
    for length in [0, 1, *range(10, len(text), 997), len(text) - 1]:
        with pytest.raises(ValueError, match="it was cut short, or is another kind of file"):
            load(text[:length])


@pytest.mark.parametrize("foreign", ["[]", "3", '{"a": 1}', '{"model": {}}', "{}", '{"model": 3}'])
def test_foreign_json_is_refused(load, foreign):
    with pytest.raises(ValueError, match=r"changed\.json.*(not a.*tokenizer file|BPE tokenizer)"):
        load(foreign)


def test_a_foreign_file_is_refused_with_the_place(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"{\xff\x00")
    with pytest.raises(ValueError, match=r"weights.bin is not UTF-8 text.*byte offset 1"):
        BPETokenizer.load(path)
    with pytest.raises(FileNotFoundError):
        BPETokenizer.load(tmp_path / "missing.json")
    with pytest.raises(FileNotFoundError, match=r"has neither tokenizer.json nor vocab.json"):
        BPETokenizer.load(tmp_path)


def test_merges_out_of_order_are_named(content, load):
    merges = content["model"]["merges"]
    late = next(number for number, pair in enumerate(merges) if len("".join(pair)) > 2)
    merges.insert(0, merges.pop(late))
    left, right = merges[0]
    with pytest.raises(
        ValueError, match=rf"merges are out of order: number 0 \({left} \+ {right}\)"
    ):
        load(content)


def test_merges_that_name_no_token_are_refused(content, load):
    merges = content["model"]["merges"]
    for merge, message in [
        (["q", "qq"], r"merge number 3 \(q \+ qq\) needs token 'qq', which is not in the voc"),
        (["q", "z"], r"merge number 3 \(q \+ z\) needs token 'qz', which is not in the vocab"),
        (["q"], r"merge number 3, \['q'\], is not a pair"),
        ("q z x", r"merge number 3, 'q z x', is not a pair"),
        (7, "does not have the form of a tokenizer file"),
    ]:
        content["model"]["merges"] = [*merges[:3], merge, *merges[3:]]
        with pytest.raises(ValueError, match=message):
            load(content)


def test_vocabularies_that_cannot_be_are_refused(content, load):
    vocabulary = content["model"]["vocab"]
    for change, message in [
        ({"a": vocabulary["b"]}, r"id \d+ of token 'b' is not one of 0 to 276, each used once"),
        ({"a": 999}, r"id 999 of token 'a' is not one of 0 to 276"),
        ({"a": "1"}, r"id '1' of token 'a' is not one of 0 to 276"),
        ({"▁the": 277}, r"is not a byte-level BPE: token '▁the' holds characters"),
    ]:
        content["model"]["vocab"] = {**vocabulary, **change}
        with pytest.raises(ValueError, match=message):
            load(content)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", {"type": "Nmt"}, r"changed\.json: the normalizer Nmt is not supported"),
        ("pre_tokenizer", None, "is not a byte-level BPE: its pre_tokenizer must be"),
        ("pre_tokenizer", {"type": "Metaspace"}, "is not a byte-level BPE"),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Metaspace"}]},
            "is not a byte-level BPE",
        ),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [{"type": "Metaspace"}, {"type": "ByteLevel"}]},
            r"changed\.json: its pre_tokenizer Metaspace is not supported",
        ),
        ("post_processor", {"type": "Other"}, "the post_processor Other is not supported"),
        ("decoder", {"type": "Metaspace"}, "its decoder Metaspace changes text"),
        (
            "added_tokens",
            [{"id": 277, "content": "<|end|>", "special": True}],
            r"added token '<\|end\|>' has id 277, where Hugging Face's library would give it 276",
        ),
        (
            "added_tokens",
            [{"id": 276, "content": "<|end|>"}, {"id": 277, "content": ""}],
            "added token '' has id 277",
        ),
    ],
)
def test_what_would_be_done_differently_is_refused(content, load, part, value, message):
    content[part] = value
    with pytest.raises(ValueError, match=message):
        load(content)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("type", "Unigram"),
        ("dropout", 0.1),
        ("unk_token", "[UNK]"),
        ("continuing_subword_prefix", "##"),
        ("end_of_word_suffix", "</w>"),
        ("byte_fallback", True),
        ("fuse_unk", True),
    ],
)
def test_models_that_work_differently_are_refused(content, load, setting, value):
    content["model"][setting] = value
    if setting in ("unk_token", "byte_fallback", "fuse_unk"):  # these matter if bytes are missing
        expected = load(content).encode("any text")
        del content["model"]["vocab"]["ÿ"]
        assert "ÿ" not in "".join(map("".join, content["model"]["merges"]))
        assert expected
    with pytest.raises(ValueError, match=f"{value}.*(is not supported|only BPE can be loaded)"):
        load(content)


def test_a_tokenizer_of_another_kind_is_named(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text('{"0": "▁", "1": "[UNK]"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds a OriginalTokenizer, not a BPE tokenizer"):
        BPETokenizer.load(path)


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    old = BPETokenizer.train(TEXT, num_merges=3)
    path = old.save(tmp_path)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            BPETokenizer.train(TEXT, num_merges=9).save(path)
    assert BPETokenizer.load(path).fingerprint == old.fingerprint
    assert len(list(tmp_path.iterdir())) == 2
