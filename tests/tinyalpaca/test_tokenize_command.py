import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyalpaca import cli
from tinyalpaca.commands import tokenize_command
from tinyalpaca.data import SEPARATOR, TokenFile
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer, load_tokenizer

TEXT = "the cat sat on the mat, naïve 🦙\r\n" * 20
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(capfdbinary, monkeypatch, tmp_path):
    """Run `tokenize ARGUMENTS` in a temporary folder; (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "text.txt").write_bytes(TEXT.encode())

    def run(*arguments: str, stdin: bytes = b""):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            status = cli.main(["tokenize", *arguments])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return status, out.decode("utf-8"), err.decode("utf-8")

    return run


@pytest.fixture
def trained(run):
    assert run("train", "text.txt", "--merges", "20")[0] == 0
    return run


def test_train_writes_a_tokenizer(run):
    status, out, _ = run("train", "text.txt", "--vocab-size", "280", "--splitter", "none")
    assert (status, out) == (0, "training on text.txt\n280 tokens, written to tokenizer.json\n")
    expected = BPETokenizer.train(TEXT, vocab_size=280, special_tokens=[SEPARATOR], splitter="none")
    assert load_tokenizer("tokenizer.json").fingerprint == expected.fingerprint
    assert Path("tokenizer.vocab").exists()


def test_train_takes_several_sources_and_special_tokens(run):
    Path("more.txt").write_text("more more more", encoding="utf-8")
    arguments = ("--merges", "9", "--min-frequency", "3", "--special", "<a>", "--special", "<b>")
    status, out, _ = run("train", "text.txt", "more.txt", *arguments, "--out", "new/t.json")
    assert status == 0
    assert out.startswith("training on text.txt\ntraining on more.txt\n")
    expected = BPETokenizer.train(
        [TEXT, "more more more"], num_merges=9, min_frequency=3, special_tokens=["<a>", "<b>"]
    )
    assert load_tokenizer("new/t.json").fingerprint == expected.fingerprint


def test_train_on_characters(run):
    assert run("train", "text.txt", "--kind", "characters")[0] == 0
    expected = CharTokenizer.train(TEXT, [SEPARATOR])
    assert load_tokenizer("tokenizer.json").fingerprint == expected.fingerprint


def test_encode_then_decode_gives_the_text(trained):
    status, out, _ = trained(
        "encode", "text.txt", "--tokenizer", "tokenizer.json", "--out", "t.tokens"
    )
    tokens = TokenFile.open("t.tokens").tokens
    ratio = len(TEXT) / len(tokens)
    assert (status, out) == (
        0,
        f"text.txt: {len(TEXT)} characters, {len(tokens)} tokens, {ratio:.3f} characters a token, "
        "in t.tokens\n",
    )
    arguments = ("decode", "t.tokens", "--tokenizer", "tokenizer.json")
    assert trained(*arguments)[:2] == (0, TEXT)
    tokenizer = load_tokenizer("tokenizer.json")
    part = trained(*arguments, "--start", "3", "--count", "4")[1]
    assert part == tokenizer.decode(tokens[3:7])
    assert trained(*arguments, "--count", "1000000")[1] == TEXT
    assert trained(*arguments, "--start", "1000000")[1] == ""


def test_decode_crosses_its_blocks_within_a_character(trained, monkeypatch):
    monkeypatch.setattr(tokenize_command, "DECODE_BLOCK", 1)
    trained("encode", "text.txt", "--tokenizer", ".", "--out", "t.tokens")
    assert trained("decode", "t.tokens", "--tokenizer", ".")[1] == TEXT


def test_standard_input_is_a_source(trained):
    status, out, _ = trained(
        "encode", "-", "--tokenizer", ".", "--out", "t.tokens", stdin=TEXT.encode()
    )
    assert status == 0
    assert out.startswith(f"standard input: {len(TEXT)} characters")
    assert trained("decode", "t.tokens", "--tokenizer", ".")[1] == TEXT


def test_inspect_shows_tokens_and_compression(run):
    BPETokenizer.train("the the the", num_merges=2, special_tokens=["<|end|>"]).save("t.json")
    text = "the é\nthe<|end|>\t"
    expected = r"the| |\xc3|\xa9|" + "\n" + r"|the|<|end|>|\t"
    summary = "17 characters, 18 bytes, 8 tokens: 2.125 characters a token\n"
    for arguments in ((text,), ("--colour", "never", text)):
        _, out, _ = run("inspect", "--tokenizer", "t.json", *arguments)
        assert out == f"{expected}\n{summary}"
    assert run("inspect", "--tokenizer", "t.json", stdin=text.encode())[1] == out
    Path("some.txt").write_bytes(text.encode())
    assert run("inspect", "--tokenizer", "t.json", "--file", "some.txt")[1] == out
    _, listed, _ = run("inspect", "--tokenizer", "t.json", "--ids", "the<|end|>")
    assert '     257  "the"\n     258  "<|end|>"\n' in listed


def test_inspect_colours_tokens_in_turn(trained):
    _, out, _ = trained("inspect", "--tokenizer", ".", "--color", "always", "q\r\nz")
    first, second, third, fourth = (f"\x1b[30;{colour}m" for colour in tokenize_command.COLOURS[:4])
    tokens = load_tokenizer("tokenizer.json").encode("q\r\nz")
    if len(tokens) == 4:
        expected = f"{first}q\x1b[0m{second}\\r\x1b[0m\n{fourth}z\x1b[0m\n"
    else:
        expected = f"{first}q\x1b[0m{second}\\r\x1b[0m\n{third}z\x1b[0m\n"
    assert out.startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "missing.txt"), "there is no file or folder missing.txt"),
        (("train", "text.txt", "--vocab-size", "9"), "vocab_size 9 is too small"),
        (("train", "latin1.txt"), "byte 0xe9 at byte offset 3"),
        (("encode", "text.txt", "--tokenizer", "text.txt", "--out", "x"), "is not complete JSON"),
        (("encode", "text.txt", "--tokenizer", "no", "--out", "x"), "No such file"),
        (("decode", "text.txt", "--tokenizer", "."), "text.txt is not a token file"),
        (("decode", "o.tokens", "--tokenizer", "."), "was made by another tokenizer"),
        (("decode", "t.tokens", "--tokenizer", ".", "--start", "-1"), "must not be negative"),
        (("inspect", "--tokenizer", ".", "--file", "missing"), "No such file"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_wrong(trained, arguments, message):
    Path("latin1.txt").write_bytes(b"caf\xe9")
    trained("encode", "text.txt", "--tokenizer", ".", "--out", "t.tokens")
    trained("train", "text.txt", "--merges", "3", "--out", "other.json")
    trained("encode", "text.txt", "--tokenizer", "other.json", "--out", "o.tokens")
    status, _, err = trained(*arguments)
    assert status == 1
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_help_says_what_there_is(run, capfdbinary):
    with pytest.raises(SystemExit):
        run("--help")
    out = capfdbinary.readouterr().out.decode()
    assert all(action in out for action in ("train", "encode", "decode", "inspect"))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
def test_a_reader_that_stops_early_is_no_error(trained):
    trained("train", "text.txt", "--merges", "20")
    Path("long.txt").write_text(TEXT * 500, encoding="utf-8", newline="")
    trained("encode", "long.txt", "--tokenizer", ".", "--out", "t.tokens")
    arguments = [sys.executable, "-m", "tinyalpaca", "tokenize", "decode", "t.tokens"]
    arguments += ["--tokenizer", "."]
    process = subprocess.Popen(
        arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(3) == b"the"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_what_is_read_is_never_overwritten(run):
    texts = Path("texts")
    texts.mkdir()
    for name in ("a.txt", "b.txt", "c.vocab"):
        (texts / name).write_text("to be or not to be", encoding="utf-8")
    run("train", "text.txt", "--out", "t.json", "--merges", "3")
    before = {path: path.read_bytes() for path in (*texts.iterdir(), Path("t.json"))}
    for arguments in (
        "train texts/a.txt --out texts/a.txt",
        "train texts/c.vocab --out texts/c.json",
        "train texts --out texts/b.txt --kind characters",
        "encode texts/a.txt --tokenizer t.json --out texts/a.txt",
        "encode texts --tokenizer t.json --out texts/b.txt",
        "encode texts/a.txt --tokenizer t.json --out t.json",
    ):
        status, _, error = run(*arguments.split())
        assert status == 1 and "is read and would be overwritten" in error
    assert {path: path.read_bytes() for path in before} == before
    assert run("train", "text.txt", "--out", "own.vocab", "--merges", "3")[0] == 0
    assert load_tokenizer("own.vocab").vocab_size == 260


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on POSIX")
def test_a_pipe_is_neither_waited_for_nor_replaced(trained):
    os.mkfifo("pipe")
    for arguments in ("encode text.txt --tokenizer . --out pipe", "train text.txt --out pipe"):
        status, _, error = trained(*arguments.split())
        assert status == 1 and error.startswith("error: ") and "pipe" in error
    assert Path("pipe").is_fifo() and not Path("pipe.vocab").exists()
