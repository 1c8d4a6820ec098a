"""Writing files atomically, and the error for a file that is damaged or of another format."""

import contextlib
import errno
import glob
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class FileFormatError(ValueError):
    """A file is truncated, damaged, of another format, or contains something that is refused.

    The message names the file, the cause and, where there is something to do, what to do.
    """

    def __init__(self, path: str | os.PathLike[str], cause: str) -> None:
        super().__init__(os.fspath(path), cause)
        self.path: str = os.fspath(path)
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
    errno.EINVAL: "Choose the name of a file.",
    errno.EISDIR: "Choose a path that is not a folder.",
    errno.ELOOP: "Remove the link, or put a folder of its own in its place.",
}


ABANDONED_SECONDS = 3600.0  # seconds after which an untouched temporary file is left over


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, make_folders: bool = False, follow_links: bool = True
) -> Iterator[BinaryIO]:
    """Open a binary file that replaces `path` when the block ends well, else leaves no trace.

    The bytes go to a temporary sibling, which is flushed to disk and renamed over `path`; then the
    folder is flushed too. At any moment, even after a power cut, `path` has the whole old content
    or the whole new one. The permissions of an existing file are kept, and another name of it (a
    hard link) keeps the old content. Temporary files of writers that were killed are removed after
    an hour.

    Args:
        path: the file.
        make_folders: create the folders above it that are missing.
        follow_links: if `path` is a symbolic link, replace the file that it leads to; else the link
            itself is replaced, so that nothing is ever written through it.

    Raises:
        OSError: the file could not be written (disk full, read-only or missing folder; a device or
            a pipe, unless `follow_links` is False). The class and `errno` are those of the cause,
            the message names `path` and what to do, and the previous file is untouched.
    """
    target = Path(os.path.realpath(path) if follow_links else os.path.abspath(path))
    stem = f".{target.name[:40]}."
    temporary = target.with_name(f"{stem}{secrets.token_hex(8)}.tmp")
    if follow_links:
        _refuse_device(path, target)
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
                before = os.lstat(target)
                if stat.S_ISREG(before.st_mode):
                    os.chmod(temporary, before.st_mode & 0o777)
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


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a device, a pipe or a socket. False if that cannot be found out."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _refuse_device(path: str | os.PathLike[str], target: Path) -> None:
    """Raise `OSError` for a device such as /dev/null, which a file would replace."""
    if is_special(target):
        error = OSError(errno.EINVAL, "it is a device, a pipe or a socket")
        raise _could_not_write(path, error, "nothing was written")


def _remove_abandoned(folder: Path, stem: str) -> None:
    """Delete the temporary files of writers that were killed."""
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

    It does nothing on systems that cannot (Windows, some network file systems).
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
    path: str | os.PathLike[str],
    data: bytes,
    *,
    make_folders: bool = False,
    follow_links: bool = True,
) -> None:
    """Replace the content of `path` by `data`, with `atomic_write`."""
    with atomic_write(path, make_folders=make_folders, follow_links=follow_links) as file:
        file.write(data)


def write_text_atomically(
    path: str | os.PathLike[str],
    text: str,
    *,
    make_folders: bool = False,
    follow_links: bool = True,
) -> None:
    """Replace the content of `path` by `text` in UTF-8, line ends as given, atomically."""
    data = text.encode("utf-8")
    write_bytes_atomically(path, data, make_folders=make_folders, follow_links=follow_links)


def own_folder(folder: str | os.PathLike[str], *names: str) -> Path:
    """The folder `folder/names[0]/names[1]/...`, made where it is missing, never through a link.

    So what is written there is inside `folder`. `folder` itself may be a link.

    Raises:
        OSError: below `folder` something on the way is a symbolic link or no folder, or it cannot
            be made; names it and says what to do.
    """
    path = Path(folder)
    for name in names:
        path = path / name
        try:
            path.mkdir()
        except FileExistsError:
            refuse_link(path)
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "this is not a folder", str(path)) from None
    return path


def refuse_link(path: str | os.PathLike[str]) -> None:
    """Raise `OSError` that names `path` and what to do if it is a symbolic link."""
    if os.path.islink(path):
        cause = "this is a link, and nothing is written through it. " + _ADVICE[errno.ELOOP]
        raise OSError(errno.ELOOP, cause, os.fspath(path))


def remove_link(path: str | os.PathLike[str]) -> None:
    """Remove `path` if it is a symbolic link, before a file is written under this name."""
    if os.path.islink(path):
        os.unlink(path)
