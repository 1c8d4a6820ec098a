"""A run folder from an unknown source: nothing is written through links in it."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigrad.storage import atomic_write, own_folder, remove_link
from tests.tinyalpaca.runs import WITHOUT_PICTURES, results, resume, train, write_text
from tinyalpaca.cli import example
from tinyalpaca.data import TokenFile
from tinyalpaca.runs import FolderInUse, RunFolder, save_model
from tinyalpaca.runs.run_lock import RunLock
from tinyalpaca.training.hooks import curve
from tinyalpaca.training.hooks.bad_steps import save_report

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links are Unix's")
ROOT = Path(__file__).parents[2]
SECRET = b"export PATH=/usr/bin\n"


def begin(folder: Path, text: Path) -> None:
    """Make a short run with all the files that a run can have."""
    run = train(folder, text, epoch_sample_tokens=3, max_steps=4)
    batch = np.zeros((1, 3), np.int64)
    save_report(folder, {"step": run.state.step}, [(batch, batch)], ["a"])
    curve.save_loss_curve(folder / "loss.png", [(1, 1.0)], [])


def copied(source: Path, target: Path) -> Path:
    """A copy without shared files, with the same pointers and checkpoints."""
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    begin(folder / "run", write_text(folder))
    return folder


def state_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with their contents."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def every_name(run: Path) -> tuple[list[Path], list[Path]]:
    """All files and folders of a run, as relative paths."""
    paths = sorted(path.relative_to(run) for path in run.rglob("*"))
    files = [path for path in paths if (run / path).is_file()]
    return files, [path for path in paths if (run / path).is_dir()]


def go_on(run: Path, text: Path, how: str) -> str:
    """Resume a run, or begin another one in its folder. Returns the error, or ""."""
    try:
        if how == "resume":
            resume(run, max_steps=7)
        else:
            train(run, text, max_steps=2, epoch_sample_tokens=3)
        curve.save_loss_curve(run / "loss.png", [(1, 1.0)], [])
        batch = np.zeros((1, 3), np.int64)
        save_report(run, {"step": 4}, [(batch, batch)], ["a"])
    except (ValueError, OSError, RuntimeError) as error:
        return f"{getattr(error, 'filename', '')} {error}"
    return ""


@pytest.mark.parametrize("how", ["resume", "train"])
@pytest.mark.parametrize("link", ["symbolic", "hard", "dangling"])
def test_no_file_is_written_through_a_link(begun, tmp_path, how, link):
    """All files of a run and its checkpoints at once, so that future files are covered too."""
    run, outside = copied(begun / "run", tmp_path / "run"), tmp_path / "outside"
    files, _ = every_name(run)
    names = {path.name for path in files}
    assert names >= {
        *("tokenizer.vocab", ".lock", "metrics.jsonl", "report.html", "loss.png", "latest", "best"),
        *("training.tokens", "validation.tokens", "SHA256SUMS", "config.json", "report.json"),
        *("model.safetensors", "tokenizer.json", "batch.safetensors"),
    }
    for path in files:
        target = outside / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (run / path).rename(target)
        if link == "hard":
            os.link(target, run / path)
        elif link == "symbolic" or path.parts[0] == "checkpoints":
            (run / path).symlink_to(target)
        else:
            target.unlink()
            (run / path).symlink_to(target)
    before = state_of(outside)
    error = go_on(run, begun / "text.txt", how)
    assert state_of(outside) == before
    assert error == ""  # files are read through links, and the links are replaced
    for path in (".lock", "metrics.jsonl", "report.html", "loss.png", "checkpoints/latest"):
        state = os.lstat(run / path)
        assert stat.S_ISREG(state.st_mode) and state.st_nlink == 1, path


@pytest.mark.parametrize("how", ["resume", "train"])
def test_no_folder_is_written_through_a_link(begun, tmp_path, how):
    """Each folder that a run has or could have, one after the other."""
    _, folders = every_name(begun / "run")
    assert {Path("checkpoints"), Path("tokens"), Path("bad-steps/step-00000004")} <= {*folders}
    extra = ("earlier", "tensorboard", "earlier/1", "checkpoints/step-00000007")
    for number, path in enumerate([*folders, *map(Path, extra)]):
        run = copied(begun / "run", tmp_path / f"run-{number}")
        outside = tmp_path / f"outside-{number}"
        if (run / path).exists():
            (run / path).rename(outside)
        else:
            outside.mkdir()
            (run / path).parent.mkdir(exist_ok=True)
        (run / path).symlink_to(outside)
        before = state_of(outside)
        error = go_on(run, begun / "text.txt", how)
        assert state_of(outside) == before, path
        if len(path.parts) == 1:
            assert str(run / path) in error and "is a link" in error, path


def test_a_run_folder_that_is_a_link_is_its_owners_choice(begun, tmp_path):
    real = copied(begun / "run", tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    assert go_on(tmp_path / "link", begun / "text.txt", "resume") == ""
    assert RunFolder(real).latest().name > RunFolder(begun / "run").latest().name


def test_a_lock_with_another_name_is_replaced_but_respected(tmp_path):
    """A copy made of hard links shares the lock with its original."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "run").mkdir()
    os.link(tmp_path / "secret", tmp_path / "run/.lock")
    lock = RunLock(tmp_path / "run")
    lock.acquire()
    lock.release()
    assert (tmp_path / "secret").read_bytes() == SECRET
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    (tmp_path / "run/.lock").unlink()
    os.link(tmp_path / "secret", tmp_path / "run/.lock")
    command = [sys.executable, "-c", code, str(tmp_path / "secret")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(FolderInUse):
            RunLock(tmp_path / "run").acquire()
        holder.stdin.close()
    assert (tmp_path / "secret").read_bytes() == SECRET


def test_a_model_saved_over_links_replaces_them(begun, tmp_path):
    from tinyalpaca.runs import load_model

    loaded = load_model(begun / "run")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "out").mkdir()
    names = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer.vocab", "SHA256SUMS")
    for name in names:
        (tmp_path / "out" / name).symlink_to(tmp_path / "secret")
    save_model(tmp_path / "out", loaded.model, loaded.tokenizer)
    assert (tmp_path / "secret").read_bytes() == SECRET
    assert not any((tmp_path / "out" / name).is_symlink() for name in names)


def test_the_vocabulary_beside_a_tokenizer_is_not_written_through_a_link(tmp_path, begun):
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "t.vocab").symlink_to(tmp_path / "secret")
    argv = ["train", str(begun / "text.txt"), "--out", str(tmp_path / "t.json")]
    from tinyalpaca.cli import main

    assert main(["tokenize", *argv]) == 0
    assert (tmp_path / "secret").read_bytes() == SECRET


def test_replacing_a_link_and_making_folders(tmp_path):
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with atomic_write(tmp_path / "link", follow_links=False) as file:
        file.write(b"new")
    assert (tmp_path / "secret").read_bytes() == SECRET
    assert (tmp_path / "link").read_bytes() == b"new" and not (tmp_path / "link").is_symlink()
    assert own_folder(tmp_path, "a", "b").is_dir() and own_folder(tmp_path, "a", "b").is_dir()
    (tmp_path / "a/link").symlink_to(tmp_path / "a/b")
    with pytest.raises(OSError, match="is a link"):
        own_folder(tmp_path, "a", "link", "c")
    with pytest.raises(NotADirectoryError):
        own_folder(tmp_path, "secret")
    remove_link(tmp_path / "secret")
    assert (tmp_path / "secret").exists()


@pytest.mark.parametrize("name", ["training.tokens", "validation.tokens"])
def test_a_text_among_the_tokens_is_never_overwritten(begun, tmp_path, capsys, name):
    """Not even if it is the training text."""
    run = tmp_path / "run"
    (run / "tokens").mkdir(parents=True)
    mine = run / "tokens" / name
    mine.write_bytes((begun / "text.txt").read_bytes())
    for data in (begun / "text.txt", mine):
        argv = ["--data", str(data), "--out", str(run), "--max-steps", "1", "--num-merges", "5"]
        assert example("train", argv) == 1
        error = capsys.readouterr().err
        assert name in error and error.count("error: ") == 1
        assert mine.read_bytes() == (begun / "text.txt").read_bytes()


def test_damaged_ids_are_made_anew_and_that_is_said(begun, tmp_path, capsys):
    run = copied(begun / "run", tmp_path / "run")
    path = run / "tokens/training.tokens"
    good = TokenFile.open(path).tokens.tolist()
    data = bytearray(path.read_bytes())
    for place, bit in ((-20, 1), (-1, 0x80), (-101, 7)):
        damaged = data.copy()
        damaged[place] ^= bit
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"training\.tokens is damaged: its ids"):
            TokenFile.open(path)
        train(run, begun / "text.txt", max_steps=1)
        assert "training.tokens is damaged" in capsys.readouterr().err
        assert TokenFile.open(path).tokens.tolist() == good


def test_ids_out_of_range_are_an_error_without_a_checksum_too(begun, tmp_path):
    """Files of older versions have no checksum."""
    path = tmp_path / "old.tokens"
    data = (begun / "run/tokens/training.tokens").read_bytes()
    start = 12 + int.from_bytes(data[8:12], "little")
    header = json.loads(data[12:start])
    del header["ids"]
    text = json.dumps(header).encode().ljust(start - 12)
    path.write_bytes(data[:12] + text + data[start:])
    assert len(TokenFile.open(path)) == header["count"]
    path.write_bytes(data[:12] + text + data[start:-2] + b"\xff\xff")
    with pytest.raises(ValueError, match="has id 65535, its vocabulary"):
        TokenFile.open(path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_text_is_read_stops_at_once(tmp_path, number):
    """The text is so long that only the signal can end the command."""
    text = tmp_path / "text.txt"
    with open(text, "wb") as file:
        file.truncate(1 << 36)  # zeros that use no disk space
    argv = ["--data", str(text), "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        [sys.executable, "examples/train_shakespeare.py", *argv],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": WITHOUT_PICTURES, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (tmp_path / "run/.lock").exists() or not (tmp_path / "run/.lock").read_text():
            assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "before training began" in err and "Traceback" not in err
    assert "--resume" not in out + err
    assert results(train(tmp_path / "run", write_text(tmp_path), max_steps=1))
