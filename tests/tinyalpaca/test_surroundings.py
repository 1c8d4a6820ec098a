"""Commands in unusual environments: streams that are closed, full or not UTF-8, signals, memory.

A command takes a second or two to start. So every kind is tried once, and the other combinations
are marked slow.
"""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minigrad.storage import load_safetensors
from tests.tinyalpaca.runs import WITHOUT_PICTURES, train, write_text
from tinyalpaca import console
from tinyalpaca.cli import main
from tinyalpaca.generation.interactive import converse

SIZES = (
    "--num-merges 5 --batch-size 8 --seq-len 17 --d-model 8 --d-ff 16 --num-heads 2 --num-layers 1 "
    "--max-seq-len 16 --workers 1 --no-preflight --log-every 1"
)
TRAIN = f"train --data text.txt --out run --epochs 1 --sample-tokens 8 {SIZES}"
posix = pytest.mark.skipif(os.name != "posix", reason="a shell's redirections, and signals")
linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")


@pytest.fixture
def folder(tmp_path):
    write_text(tmp_path)
    return tmp_path


def environment(**more):
    left_out = ("PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL", "LANG", "PYTHONOPTIMIZE")
    known = {k: v for k, v in os.environ.items() if k not in left_out}
    return {**known, "PYTHONPATH": WITHOUT_PICTURES, **more}


def shell(folder, line, options="", **more):
    """Run a line of bash with the command `tinyalpaca`; returns its output and exit statuses."""
    python = f"{shlex.quote(sys.executable)} {options}"
    program = f"""
        tinyalpaca() {{ {python} -m tinyalpaca "$@"; }}
        {line}
        echo "status ${{PIPESTATUS[*]}}" > status
    """
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        timeout=120,
    )
    status = (folder / "status").read_text().split()[1:]
    return done.stdout, done.stderr.decode(), [int(n) for n in status]


def last_step(folder):
    return int((folder / "run/checkpoints/latest").read_text().strip().removeprefix("step-"))


def recorded(folder):
    lines = (folder / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_trained_to_its_end(folder):
    """The epoch is recorded and saved, and the weights can be used."""
    (epoch,) = (r for r in recorded(folder) if r["kind"] == "epoch")
    assert last_step(folder) == epoch["step"] == 8
    assert load_safetensors(folder / "run/model.safetensors")[0]


# Streams

NO_HOME = {"HOME": "/dev/null/home", "TINYALPACA_CACHE": "", "XDG_CACHE_HOME": ""}
C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
TOLERATED = {
    "cp1252, no docstrings": ("<&-", {"PYTHONIOENCODING": "cp1252", "PYTHONOPTIMIZE": "2"}),
    "latin-1": ("", {"PYTHONIOENCODING": "latin-1"}),
    "ascii": ("", {"PYTHONIOENCODING": "ascii"}),
    "C locale, no home": ("", {**C_LOCALE, **NO_HOME}),
    "reader gone at once": ("| head -1", {}),
    "reader gone later": ("| head -8", {}),
    "stdout closed": (">&-", {}),
    "stderr closed": ("2>&-", {}),
    "all closed": ("<&- >&- 2>&-", {}),
    "stdout full": ("> /dev/full", {}),
    "stderr full": ("2> /dev/full", {}),
    "both full": ("> /dev/full 2>&1", {}),
}
RARE = ("latin-1", "ascii", "stderr closed", "stderr full", "both full")


def some_slow(cases, slow):
    """Parameters, some of which are marked slow."""
    return [pytest.param(c, marks=pytest.mark.slow if c in slow else ()) for c in cases]


@posix
@linux
@pytest.mark.parametrize("situation", some_slow(TOLERATED, RARE))
def test_training_goes_on_to_its_end(folder, situation):
    redirection, variables = TOLERATED[situation]
    line = f"tinyalpaca {TRAIN} --prompt 'Ω naïve � the ' {redirection}"
    out, error, status = shell(folder, line, **variables)
    assert status[0] == 0, error
    assert "Traceback" not in error and "Exception ignored" not in error
    assert_trained_to_its_end(folder)
    if "PYTHONIOENCODING" in variables:
        assert b"? na" in out.replace(b"\xef", b"i")  # characters that the stream cannot encode
    if "gone" in situation or situation == "stdout full":
        assert error.count("standard output cannot be written") == 1, error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a text, its tokens, and a model in `run`."""
    folder = tmp_path_factory.mktemp("trained")
    text = write_text(folder)
    train(folder / "run", text, epochs=1, max_steps=2)
    tokenize = ["tokenize", "encode", str(text), "--tokenizer", str(folder / "run")]
    assert main([*tokenize, "--out", str(folder / "text.tokens")]) == 0
    return folder


GENERATE = "generate --checkpoint run --prompt 'the ' --seed 1 --max-new-tokens 300"
DELIVERING = {
    GENERATE: b"the ",
    f"{GENERATE} --json": b'{"prompt"',
    "evaluate text.txt --checkpoint run": b"text.txt: ",
    "tokenize decode text.tokens --tokenizer run": b"",
    "tokenize inspect --file text.txt --tokenizer run --ids": b"",
}


@posix
@linux
@pytest.mark.parametrize("command", DELIVERING)
def test_what_was_asked_for_and_cannot_be_written_ends_a_command(trained, command):
    _, error, status = shell(trained, f"tinyalpaca {command} > /dev/full")
    assert status == [1], error
    assert error.splitlines()[-1].startswith("error: ")
    assert "standard output cannot be written" in error


@pytest.mark.slow
@posix
@linux
@pytest.mark.parametrize("command", some_slow(DELIVERING, list(DELIVERING)[1:]))
def test_what_was_asked_for_and_nobody_takes(trained, command):
    _, error, status = shell(trained, f"tinyalpaca {command} >&-")
    assert status == [1] and error.startswith("error: ")
    assert "standard output is closed" in error
    _, error, status = shell(trained, f"tinyalpaca {command} | true")
    assert status == [0, 0], error
    assert "Traceback" not in error and "Exception ignored" not in error
    for redirection in ("2>&-", "2>/dev/full"):
        out, _, status = shell(trained, f"tinyalpaca {command} {redirection}")
        assert status == [0] and out.startswith(DELIVERING[command]) and out


@pytest.mark.slow
@posix
@linux
@pytest.mark.parametrize("argv", some_slow(["--help", "train --help"], ["train --help"]))
def test_help_in_surroundings(folder, argv):
    out, error, status = shell(folder, f"tinyalpaca {argv}", options="-OO")
    assert status == [0] and b"usage: " in out, error
    _, error, status = shell(folder, f"tinyalpaca {argv} | true")
    assert status == [0, 0] and error == ""
    _, error, status = shell(folder, f"tinyalpaca {argv} > /dev/full")
    assert status == [1] and "Traceback" not in error and "Exception" not in error
    _, error, status = shell(folder, f"tinyalpaca {argv}", PYTHONIOENCODING="ascii")
    assert status == [0], error


@posix
@pytest.mark.parametrize(
    "command",
    some_slow(
        [
            "generate --checkpoint run --prompt - --max-new-tokens 3",
            "evaluate - --checkpoint run",
            "tokenize train - --out t.json",
            "train --data - --out other",
            "generate --checkpoint run --interactive",
        ],
        ["evaluate - --checkpoint run", "tokenize train - --out t.json"],
    ),
)
def test_standard_input_that_is_closed_is_empty(trained, command):
    _, error, status = shell(trained, f"tinyalpaca {command} <&-")
    assert "Traceback" not in error, error
    assert status == [0] or (status == [1] and error.startswith("error: ")), error


# Signals


def started(folder, line, **options):
    """A training that does not end, after its first steps were recorded."""
    process = subprocess.Popen(
        shlex.split(
            f"{line} {shlex.quote(sys.executable)} -m tinyalpaca {TRAIN} --epochs 100000 "
            "--workers 2 --save-minutes 0"
        ),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        **options,
    )
    metrics = folder / "run/metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and metrics.read_bytes().count(b"\n") > 5:
            return process
        time.sleep(0.1)
    process.kill()
    pytest.fail(process.communicate()[1])


@posix
@pytest.mark.parametrize("name", some_slow(["SIGHUP", "SIGTERM", "SIGINT"], ["SIGTERM"]))
def test_a_signal_to_the_whole_group_loses_no_step(folder, name):
    """A terminal that closes, or the stop of a service, sends it to workers too."""
    number = getattr(signal, name)
    process = started(folder, "")
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert "Traceback" not in error
    steps = [r["step"] for r in recorded(folder) if r["kind"] == "step"]
    assert last_step(folder) == steps[-1] >= 5


@pytest.mark.slow
@posix
def test_what_nohup_ignores_stays_ignored(folder):
    process = started(folder, "nohup", stdin=subprocess.DEVNULL)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, error


# Memory, names


@posix
@pytest.mark.parametrize(
    "setting",
    some_slow(
        ["--d-model 200000", "--d-ff 9000000000", "--num-layers 10000000000"],
        ["--d-ff 9000000000", "--num-layers 10000000000"],
    ),
)
def test_a_model_that_cannot_fit_is_refused_before_anything_is_done(folder, setting):
    _, error, status = shell(folder, f"tinyalpaca {TRAIN} {setting}")
    assert status == [1]
    assert error.startswith("error: this model has ") and error.count("\n") == 1
    assert "GB" in error and not (folder / "run").exists()


@pytest.mark.slow
@posix
@pytest.mark.skipif(sys.platform != "linux", reason="file names are any bytes on Linux")
def test_names_and_prompts_that_are_not_utf8(folder):
    (folder / "text.txt").rename(os.fsdecode(os.fsencode(folder) + b"/t\xff.txt"))
    line = f"tinyalpaca {TRAIN}".replace("text.txt", "$'t\\xff.txt'").replace("run", "$'r\\xff'")
    out, error, status = shell(folder, line, LC_ALL="C.UTF-8")
    assert status == [0], error
    assert b"/t?.txt, training part" in out
    (Path(os.fsdecode(os.fsencode(folder) + b"/r\xff"))).rename(folder / "run")
    assert (folder / "run/report.html").exists()
    (folder / "text.txt").write_bytes(b"to be or not to be" * 9)
    for command in (
        f"{TRAIN} --prompt $'\\xff'",
        "generate --checkpoint run --prompt $'a\\xff'",
        "generate --checkpoint run --stop $'a\\xff'",
        "evaluate --checkpoint run --text $'a\\xff'",
    ):
        _, error, status = shell(folder, f"tinyalpaca {command}", LC_ALL="C.UTF-8")
        assert status == [1], (command, error)
        assert error.startswith("error: --") and "UTF-8" in error and error.count("\n") == 1
    _, error, status = shell(
        folder,
        "printf 'a\\xff' | tinyalpaca generate --checkpoint run --prompt -",
        LC_ALL="C.UTF-8",
        PYTHONIOENCODING="utf-8:strict",
    )
    assert status == [0, 1] and error.startswith("error: standard input is not utf-8 text")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_input_whose_odd_bytes_were_let_through(monkeypatch, encoding):
    """Python accepts such bytes in the C locale. UTF-8 is read; an error names other bytes."""

    def type_in(data):
        stream = io.TextIOWrapper(io.BytesIO(data), encoding, errors="surrogateescape")
        monkeypatch.setattr("sys.stdin", stream)

    type_in("naïve Ω\n".encode())
    assert console.read_input() == "naïve Ω\n"
    type_in(b"a\xff\n")
    with pytest.raises(ValueError, match="standard input is not valid UTF-8 text"):
        console.read_input()
    type_in("one\nnaïve\na\xff\ntwo\n".encode("latin-1").replace(b"na\xefve", "naïve".encode()))
    lines = []
    assert converse(lines.append) == 0
    assert lines == ["one", "naïve", "two"]
