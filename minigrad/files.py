"""Files that are never half written, and the error that says a file is not what it should be."""

import contextlib
import errno
import glob
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class FileFormatError(ValueError):
    """A file is truncated, damaged, of another format, or asks for something that is refused.

    The message names the file, the cause and, where there is something to do, what to do.
    """

    def __init__(self, path: str | os.PathLike[str], cause: str) -> None:
        super().__init__(os.fspath(path), cause)
        self.path = os.fspath(path)
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"


_ADVICE = {
    errno.ENOSPC: "Free some space or write to another disk.",
    errno.EDQUOT: "Free some of the disk quota or write to another disk.",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f) or write to another disk.",
    errno.EROFS: "Write to a folder on a disk that is not mounted read-only.",
    errno.EACCES: "Make the folder writable or write to another one.",
    errno.EPERM: "Make the folder writable or write to another one.",
    errno.ENOENT: "Create the folder first.",
    errno.ENOTDIR: "Choose a path whose parent is a folder.",
    errno.EEXIST: "Choose a path whose parent is a folder.",
    errno.EISDIR: "Choose a path that is not a folder.",
}


ABANDONED_SECONDS = 3600.0  # untouched for so long, a temporary file belongs to nobody


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, make_folders: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file that replaces `path` when the block ends well, else leaves no trace.

    The bytes go to a temporary sibling, which is flushed to disk and renamed over `path`; then the
    folder is flushed too. At any moment, a power cut included, `path` holds all of the old content
    or all of the new. A symbolic link is followed, and the permissions of an existing file are
    kept. What a writer of the same file that was killed has left is removed, after an hour.

    Args:
        path: the file.
        make_folders: create the folders above it that are missing.

    Raises:
        OSError: the file could not be written (disk full, read-only or missing folder, ...). The
            class and `errno` are those of the cause, the message names `path` and what to do, and
            the previous file is untouched.
    """
    target = Path(os.path.realpath(path))
    stem = f".{target.name[:40]}."
    temporary = target.with_name(f"{stem}{secrets.token_hex(8)}.tmp")
    if make_folders:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _could_not_write(path, error, "nothing was written") from error
    _remove_abandoned(target.parent, stem)
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
        )
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, os.stat(target).st_mode & 0o777)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise  # the caller's block failed on a file of its own
        state = "the previous file is unchanged" if target.exists() else "nothing was written"
        raise _could_not_write(path, error, state) from error
    try:
        sync_directory(target.parent)
    except OSError as error:
        state = "the new file is in place, but may not survive a power cut"
        raise _could_not_write(path, error, state) from error


def _remove_abandoned(folder: Path, stem: str) -> None:
    """Delete what writers that were killed have left behind."""
    for temporary in folder.glob(f"{glob.escape(stem)}*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - temporary.stat().st_mtime > ABANDONED_SECONDS:
                temporary.unlink()


def _could_not_write(path: str | os.PathLike[str], error: OSError, state: str) -> OSError:
    """The same kind of error, with a message that names the file, its state and what to do."""
    advice = _ADVICE.get(error.errno or 0, "")
    message = f"could not write {os.fspath(path)}: {error.strerror or error}; {state}. {advice}"
    return OSError(error.errno or errno.EIO, message.rstrip())


def sync_directory(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's list of names to disk: a rename in it then survives a power cut.

    Does nothing where the system has no such thing (Windows, some network file systems).
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_bytes_atomically(
    path: str | os.PathLike[str], data: bytes, *, make_folders: bool = False
) -> None:
    """Replace the content of `path` by `data`, all or nothing. As `atomic_write`."""
    with atomic_write(path, make_folders=make_folders) as file:
        file.write(data)


def write_text_atomically(
    path: str | os.PathLike[str], text: str, *, make_folders: bool = False
) -> None:
    """Replace the content of `path` by `text` in UTF-8, line ends as given, all or nothing."""
    write_bytes_atomically(path, text.encode("utf-8"), make_folders=make_folders)
