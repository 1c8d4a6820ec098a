"""Files are replaced atomically, and errors say what went wrong."""

import copy
import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from minigrad.storage import (
    FileFormatError,
    atomic_write,
    write_bytes_atomically,
    write_text_atomically,
)


def test_creates_and_replaces(tmp_path):
    path = tmp_path / "a.json"
    write_text_atomically(path, "old\r\n")
    assert path.read_bytes() == b"old\r\n"
    write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_old_content_stays_readable_until_the_end(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_data_is_flushed_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    sync, rename = os.fsync, os.replace

    def record_sync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("sync folder" if is_folder else "sync file")
        sync(descriptor)

    def record_rename(source, target):
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    write_bytes_atomically(tmp_path / "a", b"x")
    assert events == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, failing, existing):
    path = tmp_path / "model.bin"
    if existing:
        path.write_bytes(b"old")

    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, fail)
    state = "previous file is unchanged" if existing else "nothing was written"
    with pytest.raises(OSError, match=rf"model\.bin: No space left.*{state}.*Free some") as caught:
        write_bytes_atomically(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert os.listdir(tmp_path) == (["model.bin"] if existing else [])
    assert not existing or path.read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="limits on file sizes are Unix's")
def test_file_larger_than_the_system_allows(tmp_path):
    """A write fails in a process that may write only 64 KiB per file."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")
    program = (
        "import resource, sys\n"
        "from minigrad.storage import write_bytes_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    write_bytes_atomically(sys.argv[1], bytes(1 << 20))\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, cwd=root
    )
    assert "previous file is unchanged" in run.stdout, run.stderr
    assert str(path) in run.stdout
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.bin"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_read_only_folder():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.bin")
        path.write_bytes(b"old")
        os.chmod(folder, 0o555)
        user = os.geteuid()
        try:
            if user == 0:  # permissions do not apply to root
                os.seteuid(65534)
            with pytest.raises(PermissionError, match=r"model\.bin.*unchanged.*writable"):
                write_bytes_atomically(path, b"new")
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o755)
        assert path.read_bytes() == b"old"
        assert os.listdir(folder) == ["model.bin"]


def test_missing_folder_and_folder_in_the_way(tmp_path):
    with pytest.raises(FileNotFoundError, match="Create the folder first"):
        write_bytes_atomically(tmp_path / "missing" / "a", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="could not write"):
        write_bytes_atomically(tmp_path / "folder", b"x")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, FileNotFoundError(2, "x", "y")])
def test_failure_of_the_block_is_passed_on_and_leaves_nothing(tmp_path, error):
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind) as caught, atomic_write(tmp_path / "a") as file:
        file.write(b"half")
        raise error
    assert "could not write" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="links and permissions are Unix's")
def test_links_are_followed_and_permissions_kept(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"old")
    os.chmod(path, 0o640)
    link.symlink_to("a")
    write_bytes_atomically(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt", reason="Unix permissions")
def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_bytes_atomically(tmp_path / "a", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_long_names(tmp_path):
    path = tmp_path / ("n" * 255)
    write_bytes_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_format_error_names_the_file_and_can_be_copied():
    error = copy.copy(FileFormatError(Path("a.bin"), "cut short"))
    assert isinstance(error, ValueError)
    assert str(error) == "a.bin: cut short"
    assert (error.path, error.cause) == ("a.bin", "cut short")


def test_what_a_killed_writer_left_is_removed_later(tmp_path):
    names = (".a.bin.01ab.tmp", ".a.bin.02cd.tmp", ".b.bin.03ef.tmp", ".a.bin", "a.bin.tmp")
    abandoned, fresh, *others = (tmp_path / name for name in names)
    for left in (abandoned, fresh, *others):
        left.write_bytes(b"")
    for old in (abandoned, *others):
        os.utime(old, (0, 0))
    write_bytes_atomically(tmp_path / "a.bin", b"x")
    assert not abandoned.exists()
    assert fresh.exists() and all(other.exists() for other in others)


def test_missing_folders_are_made_on_demand(tmp_path):
    path = tmp_path / "some" / "where" / "a.json"
    write_text_atomically(path, "x", make_folders=True)
    assert path.read_text(encoding="utf-8") == "x"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="whose parent is a folder"):
        write_text_atomically(tmp_path / "file" / "a", "x", make_folders=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on POSIX")
def test_a_pipe_or_device_is_not_replaced_unless_the_folder_is_ones_own(tmp_path):
    path, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(path)
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(OSError, match=f"could not write {name}: it is a device, a pipe"):
            write_bytes_atomically(name, b"new")
    assert path.is_fifo() and link.is_symlink() and len(os.listdir(tmp_path)) == 2
    write_bytes_atomically(path, b"new", follow_links=False)
    assert path.read_bytes() == b"new"
