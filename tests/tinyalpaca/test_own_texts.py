"""A user's own texts: encodings, folders, pipes; and training on them."""

import codecs
import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.tinyalpaca.runs import final_weights, resume, train, write_text
from tests.tinyalpaca.test_main_job import SMALL, TEXT
from tinyalpaca.cli import example, main
from tinyalpaca.config import ConfigError
from tinyalpaca.data import load_corpus, sources
from tinyalpaca.runs import RunFolder
from tinyalpaca.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
SAID = "Zürich, naïve 🦙\r\nstraße\n"
posix = pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, monkeypatch, mark, encoding, block):
    monkeypatch.setattr("tinyalpaca.text_files.BLOCK_BYTES", block)
    path = tmp_path / "text.txt"
    path.write_bytes(mark + SAID.encode(encoding))
    assert load_corpus(path).text == SAID
    path.write_bytes(mark)
    with pytest.raises(ValueError, match="the text is empty"):
        load_corpus(path)
    if encoding != "utf-8":
        path.write_bytes(mark + SAID.encode(encoding)[:-1])
        with pytest.raises(ValueError, match=f"is not {encoding.upper()} text"):
            assert load_corpus(path).text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SAID.encode("utf-16-le"), "NUL byte, as character 1.*iconv -f UTF-16LE"),
        ("plain ascii".encode("utf-16-le"), "NUL byte, as character 1.*iconv -f UTF-16LE"),
        ("plain ascii".encode("utf-16-be"), "NUL byte, as character 0"),
        ("Привет".encode("utf-16-le"), "control characters|is not UTF-8"),
        (SAID.replace("🦙", "").encode("latin-1"), "0xfc at byte offset 1.*WINDOWS-1252"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "0x89 at byte offset 0"),
        (b"text, and then a NUL \0.", "NUL byte, as character 21"),
        (bytes(range(1, 32)) * 4, "control characters"),
    ],
)
def test_what_is_no_text_is_never_trained_on(tmp_path, capsys, data, message):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        assert load_corpus(path).text
    assert example("train", ["--data", str(path), "--out", str(tmp_path / "out"), *SMALL]) == 1
    assert str(path) in capsys.readouterr().err


def test_a_terminals_colours_and_form_feeds_are_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\x1b[1mbold\x1b[0m\x0c\x0b\t\x07 bell " * 9)
    assert load_corpus(path).count_characters() == 22 * 9


def test_folders(tmp_path):
    inner = tmp_path / "inner"
    (inner / "deeper").mkdir(parents=True)
    for name in ("b.txt", "A.TXT", "inner/c.Txt", "inner/deeper/d.txt", ".hidden.txt", "e.md"):
        (tmp_path / name).write_text(f"[{name}]", encoding="utf-8")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "f.txt").write_text("hidden", encoding="utf-8")
    corpus = load_corpus(tmp_path)
    texts = ["[A.TXT]", "[b.txt]", "[inner/c.Txt]", "[inner/deeper/d.txt]"]
    assert [document.text for document in corpus.documents] == texts
    assert corpus.source == f"4 text files in {tmp_path}, 2 of them in folders there"


@posix
def test_folders_with_links_and_pipes(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("first", encoding="utf-8")
    (folder / "round").symlink_to(folder, target_is_directory=True)
    (folder / "b.txt").symlink_to(folder / "a.txt")
    assert [d.text for d in load_corpus(folder).documents] == ["first", "first"]
    (folder / "c.txt").symlink_to(tmp_path / "missing.txt")
    with pytest.raises(
        OSError, match=r"a link to .*missing\.txt, which cannot be followed"
    ) as error:
        load_corpus(folder)
    assert error.value.filename == str(folder / "c.txt")
    with pytest.raises(FileNotFoundError, match=r"c\.txt is a link to .*missing\.txt"):
        load_corpus(folder / "c.txt")
    (folder / "c.txt").unlink()
    (folder / "c.txt").symlink_to(folder / "c.txt")
    with pytest.raises(OSError, match="cannot be followed"):
        load_corpus(folder)
    (folder / "c.txt").unlink()
    os.mkfifo(folder / "c.txt")
    with pytest.raises(ValueError, match=r"c\.txt is no ordinary file"):
        load_corpus(folder)


@posix
def test_a_named_pipe_is_read_to_its_end(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write():
        with open(pipe, "wb") as file:
            for part in (SAID[:5], SAID[5:]):
                file.write(part.encode())
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    corpus = load_corpus(pipe)
    writer.join()
    assert [corpus.text, corpus.text] == [SAID, SAID]
    monkeypatch.setattr(sources, "WAIT_SECONDS", 0.05)
    with pytest.raises(ValueError, match="a named pipe to which nobody has written"):
        load_corpus(pipe)


@posix
@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("/dev/zero", "/dev/zero is no text: it holds a NUL byte"),
        ("/dev/urandom", "/dev/urandom is no"),
        ("/dev/null", "/dev/null: the text is empty"),
    ],
)
def test_devices(device, message):
    with pytest.raises(ValueError, match=message):
        load_corpus(device)


@posix
def test_a_socket_is_no_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(ValueError, match="s is a socket, not a file"):
            load_corpus("s")


@posix
def test_an_endless_stream_does_not_fill_the_disk(monkeypatch):
    monkeypatch.setattr(sources, "SPARE_BYTES", 1 << 62)
    code = "import sys\nwhile True: sys.stdout.write('yes\\n' * 10000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as endless:
        with pytest.raises(ValueError, match=r"after [\d,]+ bytes there is no end"):
            sources.Spool(endless.stdout, "the stream")
        endless.kill()


@posix
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_read_as_a_file(name):
    code = f"from tinyalpaca.data.corpora import load_corpus; c = load_corpus({name!r}); "
    code += "print(ascii(c.text), c.text == c.text)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    data = codecs.BOM_UTF16_LE + SAID.encode("utf-16-le")
    done = subprocess.run(command, input=data, env=environment, capture_output=True, check=True)
    assert done.stdout.decode() == f"{SAID!a} True\n"


# Training on them.


def argv(text, out, *more):
    return ["--data", str(text), "--out", str(out), *SMALL, "--max-steps", "2", *more]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_character_that_only_the_end_has_does_not_stop_characters(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text(TEXT + "ÿ", encoding="utf-8")
    assert example("train", argv(path, tmp_path / "out", "--tokenizer", "char")) == 0
    output = capsys.readouterr().out
    assert "1 more in the validation text have tokens too, which are never trained: 'ÿ'" in output
    assert load_tokenizer(tmp_path / "out").vocab_size == len({*TEXT, "ÿ"})


@pytest.mark.parametrize("end", ["Q", "QZ🦙", "\t\x85", "é" * 40, ""])
def test_characters_of_a_validation_text_of_its_own(tmp_path, end):
    validation = tmp_path / "validation.txt"
    validation.write_text("to be or not " * 5 + end, encoding="utf-8")
    text = write_text(tmp_path)
    run = train(tmp_path / "out", text, tokenizer="char", validation=str(validation), max_steps=1)
    assert set(end) <= set(run.tokenizer.characters)
    assert run.tokenizer.decode(run.task.data.validation) == validation.read_text("utf-8")


def test_a_text_whose_characters_are_all_in_its_beginning_has_the_tokens_it_had(tmp_path, capsys):
    text = write_text(tmp_path)
    run = train(tmp_path / "out", text, tokenizer="char", max_steps=1, quiet=False)
    assert run.tokenizer.characters == "".join(sorted(set(text.read_text("utf-8"))))
    assert "never trained" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "windows"),
    [
        (["--max-seq-len", "20"], 20),
        (["--max-seq-len", "20", "--preset", "small-cpu"], 21),
        (["--max-seq-len", "20", "--seq-len", "9"], 9),
    ],
)
def test_windows_follow_the_models_length(tmp_path, text_file, capsys, flags, windows):
    out = tmp_path / "out"
    small = ["--d-model", "8", "--d-ff", "8", "--num-heads", "2", "--num-layers", "1"]
    small += ["--data", str(text_file), "--out", str(out), "--max-steps", "1", "--workers", "1"]
    small += ["--sample-tokens", "0", "--epoch-sample-tokens", "0", "--no-preflight"]
    assert example("train", [*small, *flags]) == 0
    settings = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert settings["training"]["seq_len"] == windows
    captured = capsys.readouterr()
    assert (f"Windows: {windows} tokens each" in captured.out) == (windows != 9)
    assert ("train 8 positions only" in captured.err) == (windows == 9)


def test_a_vocabulary_that_is_not_the_tokenizers(tmp_path, text_file, capsys):
    out = tmp_path / "out"
    assert example("train", argv(text_file, out, "--vocab-size", "100")) == 1
    assert "vocab_size is 100, but the tokenizer has 266 tokens" in capsys.readouterr().err
    assert example("train", argv(text_file, out, "--vocab-size", "270")) == 0
    assert "4 rows of the embedding stand for nothing" in capsys.readouterr().err
    assert example("generate", ["--checkpoint", str(out), "--max-new-tokens", "4"]) == 0


@pytest.mark.parametrize(
    ("schedule", "jumps"), [("cosine", True), ("linear", True), ("constant", False)]
)
def test_a_finished_run_that_goes_on_says_what_its_rates_will_do(tmp_path, capsys, schedule, jumps):
    text = write_text(tmp_path)
    train(tmp_path / "out", text, schedule=schedule)
    capsys.readouterr()
    run = resume(tmp_path / "out", epochs=4, quiet=False)
    captured = capsys.readouterr()
    line = f"Learning rate: the {schedule} schedule is now for {run.task.total_steps} steps"
    assert line in (captured.err if jumps else captured.out)
    if jumps:
        following = next(
            r for r in run.metrics.history if r["step"] == run.task.total_steps // 2 + 1
        )
        assert f"is {following['learning_rate']:.2e} in the next" in captured.err
    resume(tmp_path / "out", quiet=False)
    assert "Learning rate:" not in "".join(capsys.readouterr())


def test_a_run_is_resumed_from_another_folder(tmp_path, monkeypatch, capsys):
    text = write_text(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "out", Path("text.txt"), epochs=1)
    monkeypatch.chdir(elsewhere)
    assert resume(tmp_path / "out", epochs=2).state.step
    text.rename(elsewhere / "moved.txt")
    with pytest.raises(FileNotFoundError, match=r"not where it was .*text\.txt.*with --data"):
        resume(tmp_path / "out", epochs=3)
    resume(tmp_path / "out", epochs=3, data="moved.txt")


def test_a_run_on_standard_input_asks_for_its_text_again(tmp_path, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(write_text(tmp_path).read_bytes())

    monkeypatch.setattr("sys.stdin", Stdin)
    train(tmp_path / "out", "-", max_steps=1)
    with pytest.raises(ValueError, match=r"came by standard input: give it again, or a file"):
        resume(tmp_path / "out", max_steps=2)
    assert resume(tmp_path / "out", max_steps=2, data=str(tmp_path / "text.txt")).state.step == 2


def test_files_of_other_people_are_never_moved(tmp_path, text_file, capsys):
    for number, name in enumerate(("config.json", "report.html", "checkpoints/epoch1.pt")):
        out = tmp_path / f"theirs{number}"
        path = out / name
        path.parent.mkdir(parents=True)
        path.write_text('{"model_type": "gpt2"}', encoding="utf-8")
        assert example("train", argv(text_file, out)) == 1
        assert f"{out} holds {name.split('/')[0]}, which no run of ours" in capsys.readouterr().err
        assert [p for p in out.rglob("*") if p.is_file()] == [path]
        with pytest.raises(ConfigError, match="no run of ours"):
            RunFolder(out).set_earlier_aside()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept", encoding="utf-8")
    assert example("train", argv(text_file, tmp_path / "notes")) == 0
    assert (tmp_path / "notes" / "mine.txt").read_text(encoding="utf-8") == "kept"


def test_a_tokenizer_and_a_token_file_of_ones_own(tmp_path, text_file, capsys):
    tokenizer, tokens = tmp_path / "own" / "tokenizer.json", tmp_path / "text.tokens"
    tokenizer.parent.mkdir()
    make = ["tokenize", "train", str(text_file), "--merges", "10", "--out", str(tokenizer)]
    assert main(make) == 0
    encode = ["tokenize", "encode", str(text_file), "--tokenizer", str(tokenizer)]
    assert main([*encode, "--out", str(tokens)]) == 0
    a, b, c = (tmp_path / name for name in "abc")
    for out, data, name in ((a, text_file, tokenizer), (b, text_file, tokenizer.parent)):
        assert example("train", argv(data, out, "--tokenizer", str(name))) == 0
    assert load_tokenizer(a).fingerprint == load_tokenizer(tokenizer).fingerprint
    assert example("train", argv(tokens, c, "--tokenizer", str(tokenizer))) == 0
    output = capsys.readouterr().out
    assert f"Tokenizer: {tokenizer} (267 tokens)" in output
    assert f"Tokens: {tokens}, of {text_file}" in output
    for name, weights in final_weights(a).items():
        assert np.array_equal(weights, final_weights(b)[name])
        assert weights.shape == final_weights(c)[name].shape
    assert example("train", ["--resume", str(c), "--max-steps", "3"]) == 0
    capsys.readouterr()
    assert example("train", argv(tokens, tmp_path / "d")) == 1
    assert "name the tokenizer that made them with --tokenizer" in capsys.readouterr().err
    assert example("train", argv(text_file, tmp_path / "d", "--tokenizer", "nosuch")) == 1
    assert "tokenizer 'nosuch' is neither bpe nor char nor a file" in capsys.readouterr().err
    other = [
        "tokenize",
        "train",
        str(text_file),
        "--merges",
        "9",
        "--out",
        str(tmp_path / "o.json"),
    ]
    assert main(other) == 0
    assert example("train", argv(tokens, tmp_path / "d", "--tokenizer", str(tmp_path / "o.json")))
    assert "was made by another tokenizer" in capsys.readouterr().err


def test_texts_that_a_tokenizer_cannot_tell_apart(tmp_path, text_file, capsys):
    """Such texts are joined, with a message; an error about an unknown character names the file."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.txt").write_text(text_file.read_text("utf-8"), encoding="utf-8")
    own = tmp_path / "t.json"
    assert main(["tokenize", "train", str(text_file), "--out", str(own), "--special", "<x>"]) == 0
    assert example("train", argv(folder, tmp_path / "a", "--tokenizer", str(own))) == 0
    marks = "has no <|endoftext|>: the 2 texts of 2 text files in"
    assert marks in capsys.readouterr().err
    encode = ["tokenize", "encode", str(folder), "--out", str(tmp_path / "x.tokens")]
    assert main([*encode, "--tokenizer", str(own)]) == 0
    assert marks in capsys.readouterr().err
    assert example("train", argv(folder, tmp_path / "b")) == 0  # ours has the end token
    assert marks not in capsys.readouterr().err
    kind = ["--kind", "characters"]
    assert main(["tokenize", "train", str(text_file), "--out", str(own), *kind]) == 0
    (folder / "b.txt").write_text("Ω to be or not to be" * 9, encoding="utf-8")
    assert main([*encode, "--tokenizer", str(own)]) == 1
    assert f"error: {folder / 'b.txt'}: character 'Ω' at position 0" in capsys.readouterr().err


def test_too_few_steps_to_learn_from_a_short_text_are_told(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    argv = ["--data", str(path), *SMALL, "--no-preflight", "--sample-tokens", "0"]
    for steps, told in (("2", True), ("50", False)):
        out = str(tmp_path / steps)
        assert example("train", [*argv, "--out", out, "--epochs", "50", "--max-steps", steps]) == 0
        assert ("So few steps teach a model little" in capsys.readouterr().out) is told
