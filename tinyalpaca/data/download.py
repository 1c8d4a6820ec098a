"""Downloading one file: time-out, progress bar, verified before it gets its name."""

import hashlib
import os
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

from minigrad.storage import atomic_write
from tinyalpaca.console import Bar, say

TIMEOUT_SECONDS = 10.0  # without an answer
TOTAL_SECONDS = 120.0  # for the whole file, however it trickles
BLOCK_BYTES = 1 << 16


class DownloadError(OSError):
    """The file could not be downloaded, or is not the expected one."""


def download(url: str, path: Path, sha256: str, size: int) -> bytes:
    """Fetch `url`, check its size and SHA-256, keep it as `path`, and return its bytes.

    `path` is written only if the file is right. If the cache cannot be written, the bytes are still
    returned. Raises `DownloadError`, also if the environment variable TINYALPACA_OFFLINE is set.
    """
    if os.environ.get("TINYALPACA_OFFLINE"):
        raise DownloadError("TINYALPACA_OFFLINE is set")
    data = bytearray()
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
            Bar(total=size, unit="B", unit_scale=True, desc=path.name, disable=None) as bar,
        ):
            while len(data) <= size and (block := response.read(BLOCK_BYTES)):
                data += block
                bar.update(len(block))
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {TOTAL_SECONDS:.0f} seconds")
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{url}: {error}") from error
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise DownloadError(f"{url}: the file that came is not the one expected")
    try:
        with atomic_write(path, make_folders=True) as file:
            file.write(data)
    except OSError as error:
        say(f"could not keep the download in the cache: {error}")
    return bytes(data)
