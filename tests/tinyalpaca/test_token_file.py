import dataclasses
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tinyalpaca import text_files
from tinyalpaca.data import SEPARATOR, Corpus, TokenFile, load_corpus
from tinyalpaca.data.corpora import Document
from tinyalpaca.data.token_file import MAGIC
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer

TEXT = "the cat sat on the mat, naïve 🦙\r\n" * 20
TOKENIZER = BPETokenizer.train(TEXT, num_merges=20, special_tokens=[SEPARATOR])
ROOT = Path(__file__).parents[2]


def corpus_of(*texts: str, source: str = "a test") -> Corpus:
    return Corpus("test", source, tuple(Document(str(i), text) for i, text in enumerate(texts)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens"


def test_the_tokens_of_a_text_are_mapped(path):
    built = TokenFile.build(path, corpus_of(TEXT, source="Ünïcode"), TOKENIZER)
    opened = TokenFile.open(path, TOKENIZER)
    for file in (built, opened):
        assert file.tokens.tolist() == TOKENIZER.encode(TEXT)
        assert len(file) == len(file.tokens)
        assert file.tokens.dtype == np.dtype("<u2")
        assert not file.tokens.flags.writeable
        assert isinstance(file.tokens.base, np.memmap)
    assert opened.header.source == "Ünïcode"
    assert opened.header.tokenizer == TOKENIZER.fingerprint
    assert opened.header.vocab_size == TOKENIZER.vocab_size


def test_the_layout_is_as_described(path):
    TokenFile.build(path, corpus_of(TEXT), TOKENIZER)
    data = path.read_bytes()
    assert data[:8] == b"TOKENS1\n"
    start = 12 + struct.unpack("<I", data[8:12])[0]
    assert start % 64 == 0
    header = json.loads(data[12:start])
    assert header["count"] == len(TOKENIZER.encode(TEXT))
    assert np.frombuffer(data[start:], "<u2").tolist() == TOKENIZER.encode(TEXT)


def test_large_vocabularies_take_four_bytes(path):
    text = "".join(chr(0x1000 + index) for index in range(0xC000))
    text += "".join(chr(0x20000 + index) for index in range(0x5000))
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.vocab_size > 1 << 16
    file = TokenFile.build(path, corpus_of(text), tokenizer)
    assert file.tokens.dtype == np.dtype("<u4")
    assert tokenizer.decode(file.tokens) == text


def test_documents_are_told_apart_by_the_separator(path):
    file = TokenFile.build(path, corpus_of("the cat", f"mat{SEPARATOR}", "sat"), TOKENIZER)
    separator = TOKENIZER.special_tokens[SEPARATOR]
    assert file.tokens.tolist() == [
        *(*TOKENIZER.encode("the cat"), separator),
        *(*TOKENIZER.encode(f"mat{SEPARATOR}"), separator),
        *TOKENIZER.encode("sat"),
    ]
    assert TOKENIZER.encode(f"mat{SEPARATOR}")[-1] != separator  # in a text it is text


def test_a_file_is_used_again_only_where_nothing_changed(path):
    def build(corpus, tokenizer=TOKENIZER):
        TokenFile.build(path, corpus, tokenizer)
        return path.stat().st_ino

    first = build(corpus_of(TEXT))
    assert build(corpus_of(TEXT, source="found elsewhere")) == first
    changed = build(corpus_of(TEXT + "!"))
    assert changed != first
    parted = build(corpus_of(TEXT, "!"))
    assert parted != changed
    other = BPETokenizer.train(TEXT, num_merges=19)
    assert build(corpus_of(TEXT, "!"), other) != parted
    assert TokenFile.open(path, other).tokens.tolist() == other.encode(TEXT) + other.encode("!")


def test_a_damaged_file_is_built_anew(path):
    path.write_bytes(b"something else")
    assert len(TokenFile.build(path, corpus_of(TEXT), TOKENIZER)) > 0


def test_another_tokenizer_is_refused(path):
    TokenFile.build(path, corpus_of(TEXT), TOKENIZER)
    other = BPETokenizer.train(TEXT, num_merges=19)
    with pytest.raises(ValueError, match=r"was made by another tokenizer .*vocabulary of 277\)"):
        TokenFile.open(path, other)
    TokenFile.open(path)


def test_a_file_cut_short_anywhere_is_refused(path):
    TokenFile.build(path, corpus_of(TEXT), TOKENIZER)
    data = path.read_bytes()
    for length in [0, 5, 8, 10, 12, 40, *range(300, len(data), 101), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"tokens is (not a token file|damaged)"):
            TokenFile.open(path)
    path.write_bytes(data + b"\0\0")
    with pytest.raises(ValueError, match=r"is damaged: its header promises \d+ tokens, \d+ bytes"):
        TokenFile.open(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "<f4"}, "its header holds values that make no sense"),
        ({"dtype": "|O"}, "its header holds values that make no sense"),
        ({"count": -3}, "its header holds values that make no sense"),
        ({"count": "3"}, "its header holds values that make no sense"),
        ({"tokenizer": None}, "its header holds values that make no sense"),
        ({"count": 3}, "its header promises 3 tokens"),
        ({"dtype": "<u4"}, "its header promises"),
        ({"extra": 1}, "its header cannot be read"),
    ],
)
def test_wrong_headers_are_refused(path, change, message):
    file = TokenFile.build(path, corpus_of(TEXT), TOKENIZER)
    header = json.dumps({**dataclasses.asdict(file.header), **change}).encode()
    data = MAGIC + struct.pack("<I", len(header)) + header + file.tokens.tobytes()
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        TokenFile.open(path)


def test_headers_that_are_no_header_are_refused(path):
    for header in (b"{", b"[]", b"3", b"{}", b"\xff"):
        path.write_bytes(MAGIC + struct.pack("<I", len(header)) + header)
        with pytest.raises(ValueError, match="is damaged: its header cannot be read"):
            TokenFile.open(path)
    path.write_bytes(MAGIC + struct.pack("<I", 2**31) + b"{}")
    with pytest.raises(ValueError, match="is damaged: it ends within its header"):
        TokenFile.open(path)


def test_text_that_turns_out_not_to_be_utf8_leaves_the_old_file(path, tmp_path):
    text = tmp_path / "text.txt"
    text.write_bytes(b"good")
    corpus = load_corpus(text)
    TokenFile.build(path, corpus, TOKENIZER)
    old = path.read_bytes()
    text.write_bytes(b"good \xff")
    with pytest.raises(ValueError, match="byte offset 5"):
        TokenFile.build(path, corpus, TOKENIZER)
    assert path.read_bytes() == old
    assert sorted(file.name for file in tmp_path.iterdir()) == ["text.txt", "tokens"]


def peak_memory(path: Path, megabytes: int, monkeypatch) -> int:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 1 << 15)
    text = path.with_suffix(".txt")
    line = "the cat sat on the mat and the llama sat on the cat\n"
    text.write_text(line * (megabytes * 250_000 // len(line)), encoding="utf-8")
    train, validation = load_corpus(text).split(0.1)
    tracemalloc.start()
    try:
        TokenFile.build(path, train, TOKENIZER)
        TokenFile.build(path.with_suffix(".validation"), validation, TOKENIZER)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    small = peak_memory(tmp_path / "small", 1, monkeypatch)
    large = peak_memory(tmp_path / "large", 4, monkeypatch)
    assert large < 1.1 * small
    assert large < 2_000_000


KILLED = """
import json, os, signal, sys
from minigrad.storage import files
from tinyalpaca.data import Corpus
from tinyalpaca.data.corpora import Document
from tinyalpaca.data import TokenFile
from tinyalpaca.tokenizer import BPETokenizer

path, tokenizer = sys.argv[1], BPETokenizer.load(sys.argv[2])
old = Corpus("old", "old", (Document("a", "the old llama"),))
new = Corpus("new", "new", (Document("a", "the new cat"), Document("b", "the new mat")))
real_open = open
passed = step = 0

def at(function):
    def wrapped(*arguments, **settings):
        global passed
        passed += 1
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)
    return wrapped

class File:
    def __init__(self, file):
        self.file = file
        for name in ("write", "seek", "flush", "fileno"):
            setattr(self, name, at(getattr(file, name)))
    def __enter__(self):
        return self
    def __exit__(self, *_):
        at(self.file.close)()

def build_and_be_killed():
    files.open = lambda name, mode: File(real_open(name, mode, buffering=0))
    os.replace = at(os.replace)
    TokenFile.build(path, new, tokenizer)
    at(lambda: None)()

for step in range(1, 40):
    if os.path.exists(path):
        os.unlink(path)
    if sys.argv[3] == "old":
        TokenFile.build(path, old, tokenizer)
    child = os.fork()
    if not child:
        build_and_be_killed()
        os._exit(0)
    killed = os.waitpid(child, 0)[1] != 0
    tokens = TokenFile.open(path, tokenizer).tokens.tolist() if os.path.exists(path) else None
    print(json.dumps([killed, tokens]))
    if not killed:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("before", ["old", "none"])
def test_killed_at_any_step_there_is_the_old_file_or_none(path, tmp_path, before):
    saved = TOKENIZER.save(tmp_path / "tokenizer.json")
    command = [sys.executable, "-c", KILLED, str(path), str(saved), before]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    killed, seen = zip(*map(json.loads, output.splitlines()), strict=True)
    separator = TOKENIZER.special_tokens[SEPARATOR]
    new = [*TOKENIZER.encode("the new cat"), separator, *TOKENIZER.encode("the new mat")]
    old = TOKENIZER.encode("the old llama") if before == "old" else None
    assert killed == (True,) * (len(killed) - 1) + (False,)
    assert len(killed) > 8
    # From the last step on the file has the new content, at all earlier steps the old one.
    assert seen == (old,) * (len(seen) - 2) + (new, new)


def test_an_unwritable_place_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        TokenFile.build(tmp_path / "file" / "tokens", corpus_of(TEXT), TOKENIZER)
