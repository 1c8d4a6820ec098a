"""SHA-256 checksums of the files of a folder, so that a changed byte is noticed.

The list, `SHA256SUMS`, has the format of `sha256sum`: `sha256sum -c SHA256SUMS` checks it as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from minigrad.storage import FileFormatError, write_text_atomically

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\n]+)\n")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Write the list for these files of a folder, atomically."""
    write_list(folder, {name: sha256_of(Path(folder) / name) for name in names})


def write_list(folder: str | os.PathLike[str], sums: Mapping[str, str]) -> None:
    """Write the list from known checksums by name, atomically."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    write_text_atomically(Path(folder) / SUMS, "".join(lines), follow_links=False)


def forget_sums(folder: str | os.PathLike[str]) -> None:
    """Remove the list, before files that it names are replaced."""
    with contextlib.suppress(FileNotFoundError):
        (Path(folder) / SUMS).unlink()


def check_sums(
    folder: str | os.PathLike[str], required: Iterable[str] = (), *, complete: bool = True
) -> dict[str, str]:
    """Compare the files of a folder with its list, which is returned: checksums by name.

    Args:
        required: names that the list must have.
        complete: whether all files of the list must be there; otherwise missing ones are skipped.

    Raises:
        FileFormatError: the list or a file is missing or damaged; names it.
    """
    path = Path(folder)
    try:
        text = (path / SUMS).read_bytes().decode("ascii")
    except FileNotFoundError:
        raise FileFormatError(
            path, f"{SUMS} is missing, so nothing vouches for the files"
        ) from None
    except UnicodeDecodeError:
        raise FileFormatError(path / SUMS, "damaged: it is not a list of checksums") from None
    sums = {name: digest for digest, name in _LINE.findall(text)}
    if "".join(f"{digest}  {name}\n" for name, digest in sums.items()) != text or not sums:
        raise FileFormatError(path / SUMS, "damaged: it is not a list of checksums")
    for name in required:
        if name not in sums:
            raise FileFormatError(path / SUMS, f"damaged: it does not name {name}")
    for name, digest in sums.items():
        if not (path / name).exists() and not complete:
            continue
        if not (path / name).is_file():
            raise FileFormatError(path / name, "missing, though the checksums name it")
        if sha256_of(path / name) != digest:
            raise FileFormatError(
                path / name,
                "damaged: its content does not match its checksum. Use another copy; if the change "
                f"was made on purpose, delete {SUMS} beside it",
            )
    return sums
