"""Tokenizer files of other models, and the ids of Hugging Face's library (0.23.3) for them."""

import hashlib
import json
import unicodedata
from functools import cache
from typing import Any

import pytest
from hypothesis import strategies as st

from tinyalpaca.tokenizer import BPETokenizer
from tinyalpaca.tokenizer.tokenizer_files import to_json

# Characters that have been in Unicode since version 3.2, with the same category ever since.
KNOWN = st.characters(exclude_categories=["Cs"]).filter(
    lambda character: unicodedata.ucd_3_2_0.category(character) != "Cn" and character != "\u0295"
)
UNICODE = st.text(KNOWN)
TRAINED_ON = (
    "a foo bar foobar 12 120 2024 naïve éé it's IT'S the THE cat, cats...\n\n  x\t字字 🦙" * 3
)
TEXTS = (
    "",
    " ",
    "a foo  bar<|end|>foobar foo\tfoo",
    "foo foofoo afoo foob _foo foo1 (foo) éfoo\u0301 foo",
    "<|end|> <|end|>\n<|end|><|e nd|><|end|>",
    "  <mask>  <mask>a <mask>\n\n",
    "IT'S it's we'LL 'ſ don't 12345 1²3½4 ٣٤٥ Ⅷ",
    "  two  spaces\r\n\r\n \n tabs\t\tend   ",
    "École e\u0301cole ÉCOLE ﬁn ① Σίσυφος ΟΔΟΣ İI",
    "hello, world!!! ...(a) [b] {c} «d» a_b-c ᙭",
    "字字字 かな カナ 한글 ไทย हिन्दी 🏳️‍🌈🦙",
    "\x00\x1c\x85\u200b\u3000\ufeff",
)
CLITICS = "'s|'t|'re|'ve|'m|'ll|'d"
LLAMA = (
    rf"(?i:{CLITICS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CAPITALS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
SMALL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT_4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}*{SMALL}+(?i:{CLITICS})?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}+{SMALL}*(?i:{CLITICS})?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
WORDS = {**BYTES, "use_regex": True}


def split(pattern: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    regex = {"Regex": pattern}
    return {"type": "Split", "pattern": regex, "behavior": behavior, "invert": invert}


def chain(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


CHAINS = {
    "Llama 3": chain(split(LLAMA), BYTES),
    "GPT-4": chain(split(LLAMA, "Removed", True), BYTES),
    "Qwen": chain(split(LLAMA.replace("{1,3}", "")), BYTES),
    "GPT-4o": chain(split(GPT_4O), BYTES),
    "DeepSeek": chain(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), BYTES),
    "StarCoder": chain({"type": "Digits", "individual_digits": True}, WORDS),
    "digits together": chain({"type": "Digits", "individual_digits": False}, BYTES),
    "punctuation": chain({"type": "Punctuation", "behavior": "Contiguous"}, WORDS),
    "prefix spaces": chain(split(r"\w+|-"), {**BYTES, "add_prefix_space": True}),
    "white space goes": chain({"type": "WhitespaceSplit"}, BYTES),
    "a delimiter goes": chain({"type": "CharDelimiterSplit", "delimiter": "o"}, WORDS),
    "nested": chain(chain(split(r"[\w']+", "MergedWithNext")), chain(chain(WORDS))),
    "possessive": chain(split(r"[^\r\n\p{L}]?+\p{L}++|\p{N}{2}|(?<=a)\S|(?=b)."), BYTES),
}
NORMALIZERS: dict[str, dict[str, Any]] = {
    **{form: {"type": form} for form in ("NFC", "NFD", "NFKC", "NFKD")},
    "Lowercase": {"type": "Lowercase"},
    "Prepend": {"type": "Prepend", "prepend": "_"},
    "Replace a string": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "Replace a pattern": {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    "Strip": {"type": "Strip", "strip_left": True, "strip_right": False},
    "Sequence": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]},
}


def token(content: str, special: bool = False, **flags: bool) -> dict[str, Any]:
    known = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"content": content, **known, "special": special, **flags}


END = token("<|end|>", special=True)
ADDED = {
    "none special": [token("foo")],
    "several": [END, token("foo"), token("foobar"), token("<|e"), token(" bar", normalized=True)],
    "single words": [END, token("foo", single_word=True), token("é", single_word=True)],
    "white space before": [END, token("<mask>", special=True, lstrip=True), token("\n")],
    "white space after": [token("<|end|>", special=True, rstrip=True), token(" "), token("foo")],
    "white space around": [END, token("foo", lstrip=True, rstrip=True), token("\t", rstrip=True)],
    "tokens that there were": [END, token("the"), token("Ġfoo"), token("a"), token("éé")],
    "normalized": [
        END,
        token("Foo", normalized=True),
        token("École", normalized=True, lstrip=True),
        token("ﬁ"),
        token("bar", normalized=True, single_word=True),
    ],
}


@cache
def base() -> str:
    """One of our own files, for tests to change."""
    return json.dumps(to_json(BPETokenizer.train(TRAINED_ON, num_merges=60).parts))


def file_content(
    pre_tokenizer: dict[str, Any] = WORDS,
    normalizer: dict[str, Any] | None = None,
    added: list[dict[str, Any]] = ADDED["several"],
) -> dict[str, Any]:
    """A small `tokenizer.json` with these parts, and a token that is put before every text."""
    content = json.loads(base())
    vocabulary = content["model"]["vocab"]
    entries, following = [], len(vocabulary)
    for entry in added:
        index = vocabulary.get(entry["content"], following)
        following += index == following
        entries.append({"id": index, **entry})
    first = entries[0]
    name, index = first["content"], first["id"]
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": name, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]}},
    }
    parts = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": template}
    return {**content, "added_tokens": entries, **parts}


STORED = {
    "chain: Llama 3": "b2888aff534f3de8",
    "chain: GPT-4": "b2888aff534f3de8",
    "chain: Qwen": "7b04ee10873e9eb8",
    "chain: GPT-4o": "b2888aff534f3de8",
    "chain: DeepSeek": "b2888aff534f3de8",
    "chain: StarCoder": "7b04ee10873e9eb8",
    "chain: digits together": "b2888aff534f3de8",
    "chain: punctuation": "3b3c9105a64ff307",
    "chain: prefix spaces": "bcc98e9c7a834576",
    "chain: white space goes": "cb3d0f701bc36622",
    "chain: a delimiter goes": "80d256e4115a6729",
    "chain: nested": "1ed007179235f1ab",
    "chain: possessive": "b2888aff534f3de8",
    "normalizer: NFC": "1bed7176cb71659f",
    "normalizer: NFD": "274db065c5c3cc8c",
    "normalizer: NFKC": "e11475019171eb0a",
    "normalizer: NFKD": "9ae487ab6d3630c7",
    "normalizer: Lowercase": "d3a9362968b85c9d",
    "normalizer: Prepend": "a9ec4e0cb1bf8226",
    "normalizer: Replace a string": "6311a30d0179db57",
    "normalizer: Replace a pattern": "820d45f23ea2546c",
    "normalizer: Strip": "e62cc255cbdc3578",
    "normalizer: Sequence": "d5b1f7b783218beb",
    "added: none special": "a42866ce1ce7d165",
    "added: several": "a61ec4c7e654ba01",
    "added: single words": "e1e1d915e85e00e4",
    "added: white space before": "f276e14c68527c33",
    "added: white space after": "c279d228b26674cd",
    "added: white space around": "b7c776950fc433de",
    "added: tokens that there were": "ec9c329253fb5e31",
    "added: normalized": "eb410a36eb66f348",
}


@cache
def cases() -> dict[str, dict[str, Any]]:
    """All files, by name."""
    several = {f"chain: {name}": file_content(CHAINS[name]) for name in CHAINS}
    several |= {
        f"normalizer: {name}": file_content(normalizer=NORMALIZERS[name], added=ADDED["normalized"])
        for name in NORMALIZERS
    }
    spaced = {**WORDS, "add_prefix_space": True}
    return several | {f"added: {name}": file_content(spaced, added=ADDED[name]) for name in ADDED}


def digest(ids: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps(ids).encode("ascii")).hexdigest()[:16]


@pytest.mark.parametrize("name", STORED)
def test_ids_are_those_of_the_library(tmp_path, name):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(cases()[name]), encoding="utf-8")
    ours = BPETokenizer.load(path)
    ids = [ours.encode(t, allowed_special="all", add_special_tokens=True) for t in TEXTS]
    assert digest(ids) == STORED[name]


def test_a_handful_that_can_be_checked_by_eye(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file_content(added=ADDED["several"])), encoding="utf-8")
    ours = BPETokenizer.load(path)
    names = {index: name for name, index in ours.special_tokens.items()}
    shown = [names.get(i) or ours.decode([i]) for i in ours.encode("x<|e<|end|>foobarfoo bar")]
    assert "<|end|>" not in shown
    assert [text for text in shown if text in ("<|e", "foobar", "foo", " bar")] == (
        ["<|e", "foobar", "foo", " bar"]
    )
    assert ours.frame == ((ours.special_tokens["<|end|>"],), ())
    assert "".join(ours.encode_blocks(["x fo", "ob"]).__next__().astype(str)) == "".join(
        map(str, ours.encode("x foob"))
    )
    merged = ours.encode_batch(["foo", "foobar"])
    assert [len(ids) for ids in merged] == [1, 1]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("^a", "beginning of every line"),
        ("a$", "end of every line"),
        (r"\ba", r"'\\\\b'"),
        ("[a&&b]", "an intersection"),
        ("[a[b]]", "a class within a class"),
        (r"\p{N}{1,3}+", "not possessive or lazy"),
        ("(?i:straße)", "where case is ignored"),
        ("(?i:less)", "'ss' where case is ignored"),
        ("(?i:[a-z])", "in a class where case is ignored"),
        ("(?P<name>a)", r"'\(\?P<'"),
        (r"\h", r"'\\\\h'"),
        ("a)", r"'\)' without"),
        ("(a", r"'\(' without"),
        ("[a", r"'\[' without"),
        ("*a", "nothing to repeat"),
    ],
)
def test_patterns_that_mean_something_else_are_refused(tmp_path, pattern, reason):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file_content(chain(split(pattern), BYTES))), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"tokenizer\.json: its pattern .* of .*{reason}"):
        BPETokenizer.load(path)


@pytest.mark.parametrize("behavior", ["Isolated", "Removed"])
def test_a_pattern_that_backtracks_for_ever_is_given_up(tmp_path, monkeypatch, behavior):
    monkeypatch.setattr("tinyalpaca.tokenizer.split_patterns.SECONDS", 0.05)
    path = tmp_path / "tokenizer.json"
    forever = chain(split("(?:a|aa)+!", behavior), BYTES)
    path.write_text(json.dumps(file_content(forever)), encoding="utf-8")
    ours = BPETokenizer.load(path)
    assert ours.encode("?aa!")
    with pytest.raises(
        ValueError, match=r"did not come to an end within .* 'aaaaaaaaaaaaaaaaaaaa'"
    ):
        ours.encode("a" * 60 + "?!")


def test_added_tokens_that_would_be_told_apart_by_chance_are_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    added = [token("Foo", normalized=True), token("foo", normalized=True)]
    content = file_content(normalizer={"type": "Lowercase"}, added=added)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json: the added tokens 'Foo' and 'foo' are"):
        BPETokenizer.load(path)
