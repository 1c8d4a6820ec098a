"""`examples/generate.py` as a user runs it: on a terminal, in a pipe, with each of its flags."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tinyalpaca.tiny_models import tiny_generator
from tinyalpaca import cli
from tinyalpaca.runs import save_model

ROOT = Path(__file__).parents[2]
SPEED = r"\d+ tokens in [\d.]+ s: [\d,]+ tokens/s\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    generator = tiny_generator()
    save_model(folder, generator.model, generator.tokenizer)
    return folder


@pytest.fixture
def generate(folder, capsys, monkeypatch):
    """Run the command in this process: (status, stdout, stderr)."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*arguments):
        status = cli.example("generate", ["--checkpoint", str(folder), *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def expected(folder, prompt, count, **setting):
    return tiny_generator().generate(prompt, count, **setting)


def test_text_goes_out_and_the_speed_beside_it(generate, folder):
    flags = ["--prompt", "the cat", "--max-new-tokens", 30, "--seed", 3, "--top-k", 40]
    status, out, err = generate(*flags, "--min-p", 0.01, "--repetition-penalty", 1.2)
    setting = {"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.2, "seed": 3}
    assert status == 0
    assert out == "the cat" + expected(folder, "the cat", 30, **setting) + "\n"
    assert re.fullmatch(SPEED, err)


def test_in_a_pipe_through_the_script(folder):
    """The output is only the text, and a reader that stops early is not an error."""
    script = [sys.executable, str(ROOT / "examples" / "generate.py"), "--checkpoint", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    flags = ["--prompt", "-", "--max-new-tokens", "30", "--seed", "3"]
    done = subprocess.run(
        [*script, *flags],
        input=b"the cat",
        capture_output=True,
        env=environment,
        check=True,
    )
    text = "the cat" + expected(folder, "the cat", 30, seed=3) + "\n"
    assert done.stdout.decode() == text.replace("\n", os.linesep)
    assert re.fullmatch(SPEED, done.stderr.decode())
    left = subprocess.run(
        ["sh", "-c", '"$@" | head -c 5', "sh", *script, "--max-new-tokens", "3000"],
        capture_output=True,
        env=environment,
        check=True,
    )
    assert left.stdout == b"To be"
    assert b"Traceback" not in left.stderr


def test_stop_strings(generate, folder):
    text = expected(folder, "the", 60, seed=1)
    stop = text[20:22]
    status, out, _ = generate(
        *("--prompt", "the", "--max-new-tokens", 60, "--seed", 1),
        *("--stop", stop.replace("\n", "\\n"), "--stop", "never in there"),
    )
    assert status == 0
    assert out == "the" + text[: text.find(stop)] + "\n"


def test_samples(generate, folder):
    flags = ["--prompt", "the", "--max-new-tokens", 9, "--seed", 1, "--num-samples", 3]
    status, out, err = generate(*flags)
    texts = expected(folder, "the", 9, seed=1, num_samples=3)
    assert status == 0
    assert out == "".join(f"=== {i} of 3\nthe{text}\n\n" for i, text in enumerate(texts, 1))
    assert err.startswith("27 tokens in ")


def test_json(generate, folder):
    flags = ["--prompt", "the", "--max-new-tokens", 9, "--seed", 1, "--json"]
    status, out, err = generate(*flags, "--num-samples", 2, "--stop", "zz")
    record = json.loads(out)
    results = expected(folder, "the", 9, seed=1, num_samples=2, stop="zz", return_logprobs=True)
    assert (status, err) == (0, "")
    assert record["prompt"] == "the"
    assert record["settings"]["seed"] == 1
    assert record["tokens_per_second"] > 0
    for sample, result in zip(record["samples"], results, strict=True):
        assert sample["text"] == result.text
        assert sample["tokens"] == result.tokens
        assert sample["logprobs"] == pytest.approx(result.logprobs, abs=1e-5)
    _, out, _ = generate(*flags, "--temperature", 0, "--show-alternatives")
    [sample] = json.loads(out)["samples"]
    assert [best[0]["token"] for best in sample["alternatives"]] == sample["tokens"]
    assert {len(best) for best in sample["alternatives"]} == {5}


def test_alternatives_are_listed_and_coloured_where_there_are_colours(generate, monkeypatch):
    flags = ["--prompt", "the", "--max-new-tokens", 6, "--temperature", 0, "--show-alternatives"]
    _, plain, _ = generate(*flags)
    assert "\x1b" not in plain
    lines = plain.split("\n\n")[-1].splitlines()
    assert len(lines) == 6
    for line in lines:
        chosen, best = line.split(" | ")
        assert re.fullmatch(r'".*" [\d.]+% *', chosen)
        assert best.startswith(chosen.strip())  # greedy sampling takes the most probable token
        assert len(re.findall(r"[\d.]+%", best)) == 5
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, coloured, _ = generate(*flags)
    assert "50% and more" in coloured
    without = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert [line for line in without.splitlines() if "and more" not in line] == plain.splitlines()
    assert coloured.count("\x1b[38") >= 12


def test_the_page(generate, tmp_path):
    page = tmp_path / "page.html"
    status, out, err = generate("--prompt", "the", "--max-new-tokens", 6, "--html", page)
    assert status == 0
    assert out.startswith("the")
    assert f"wrote {page}" in err
    [data] = re.findall(r'json">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert len(json.loads(data)["tokens"]) == 6 + len(tiny_generator().tokenizer.encode("the"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--temperature", "-1"], "temperature must be a number and not negative, it is -1.0"),
        (["--max-new-tokens", "-1"], "max_new_tokens must not be negative"),
        (["--num-samples", "0"], "num_samples must be at least 1"),
        (["--num-samples", "2", "--html", "x.html"], "--html shows one text"),
        (["--json", "--interactive"], "--interactive and --json do not go together"),
        (["--html", "x.html", "--interactive"], "--interactive and --html do not go together"),
        (["--checkpoint", "nowhere"], "nowhere holds no trained model"),
    ],
)
def test_mistakes_are_one_message_and_no_text(generate, flags, message):
    status, out, err = generate(*flags)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err


def test_no_new_tokens_is_the_prompt_alone(generate):
    assert generate("--prompt", "the", "--max-new-tokens", 0)[1] == "the\n"


def test_interactive_from_a_pipe_takes_a_line_at_a_time(folder):
    command = [sys.executable, "-m", "tinyalpaca", "generate", "--checkpoint", str(folder)]
    done = subprocess.run(
        [*command, "--interactive", "--max-new-tokens", "5", "--seed", "1"],
        input=b"the\n\na cat\n",
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    texts = [prompt + expected(folder, prompt, 5, seed=1) for prompt in ("the", "a cat")]
    assert done.stdout.decode() == "".join(text + "\n" for text in texts)


TAKE_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """`tinyalpaca generate` on its own terminal, where Ctrl-C is a key."""

    def __init__(self, *flags):
        self.seen = ""
        self.terminal, theirs = pty.openpty()
        command = [sys.executable, "-m", "tinyalpaca", "generate", *map(str, flags)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_THE_TERMINAL, *command],
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            cwd=ROOT,
            env={**os.environ, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def until(self, pattern, seconds=60):
        """Read until the new output matches; returns it."""
        text, end = "", time.monotonic() + seconds
        while not re.search(pattern, text):
            assert time.monotonic() < end, f"{pattern!r} does not come; there is {text!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                text += os.read(self.terminal, 4096).decode(errors="replace")
        self.seen += text
        return text

    def type(self, text):
        os.write(self.terminal, text.encode())

    def status(self):
        """Wait for the end; returns the exit status."""
        return self.process.wait(60)


def test_interactive_on_a_terminal(folder):
    """Ctrl-C stops the text, not the program; arrow up shows the last line; Ctrl-D ends."""
    flags = ["--checkpoint", folder, "--max-new-tokens", 1000000, "--stop", "zzz", "--seed", 1]
    with Terminal(*flags, "--interactive") as program:
        assert "Ctrl-D ends" in program.until("> ")
        program.type("the cat\n")
        program.until(r"the cat\r\nthe cat[^>]{50}")
        program.type("\x03")
        program.until(r"\(stopped\)[^>]*> ")
        program.type("half a line")
        program.until("half a line")
        time.sleep(0.2)  # readline misses a signal that arrives just before it waits for a key
        program.type("\x03")
        program.until("> $")
        program.type("\x1b[A\n")  # the arrow up
        program.until(r"the cat[^>]{50}")
        program.type("\x03")
        program.until(r"\(stopped\)[^>]*> ")
        program.type("\x04")
        assert program.status() == 0
    assert "Traceback" not in program.seen


def test_ctrl_c_ends_a_single_text(folder):
    with Terminal("--checkpoint", folder, "--max-new-tokens", 1000000) as program:
        program.until("that is the question:.{20}")
        program.type("\x03")
        assert program.status() == 130
