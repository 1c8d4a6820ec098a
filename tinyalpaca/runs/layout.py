"""The names of the files in a run's folder, and reading pointers to checkpoints."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from minigrad.storage import FileFormatError
from tinyalpaca.runs.checksums import SUMS

CHECKPOINTS, LATEST, BEST, EARLIER = "checkpoints", "latest", "best", "earlier"
FOLDERS = (CHECKPOINTS, EARLIER, "tokens", "tensorboard", "bad-steps")  # that a run writes into
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
TOKENIZER_VOCABULARY = "tokenizer.vocab"  # for people to read
OPTIMIZER, TRAINER = "optimizer.safetensors", "trainer.json"
PUBLISHED = (WEIGHTS, CONFIG, TOKENIZER)
REQUIRED = (*PUBLISHED, OPTIMIZER, TRAINER)
OWN = (  # what a run writes; anything else in the folder is left alone
    *PUBLISHED,
    TOKENIZER_VOCABULARY,
    SUMS,
    "metrics.jsonl",
    "loss.png",
    "report.html",
    "tensorboard",
    "bad-steps",
    CHECKPOINTS,
)
UNFINISHED = ".step-*.tmp"  # names of checkpoints that are being written or removed
LONGEST_NAME = 1000  # bytes of a pointer that are read
NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder and test that files can be written there, before a long training.

    Raises:
        OSError: it cannot be made or written; says what to do.
    """
    path = Path(folder)
    probe = path / f".write-test-{secrets.token_hex(4)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with open(probe, "xb") as file:
            file.write(b"x")
        probe.unlink()
    except OSError as error:
        raise type(error)(
            error.errno,
            f"the output folder cannot be written ({error.strerror}); choose another with --out",
            str(path),
        ) from error
    return path


def read_pointer(pointer: Path) -> Path | None:
    """The checkpoint that a pointer file names, or None if there is no such file.

    Raises:
        FileFormatError: the file is not a pointer, or names a checkpoint that does not exist.
    """
    if not pointer.is_file():
        return None
    try:
        with open(pointer, "rb") as file:
            name = file.read(LONGEST_NAME).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(pointer, f"damaged: it cannot be read ({error})") from None
    target = pointer.parent / name
    if pointer.name not in (LATEST, BEST):
        raise FileFormatError(pointer, "this is a file: give the folder of a run or a checkpoint")
    if not NAME.fullmatch(name) or not target.is_dir():
        raise FileFormatError(pointer, f"damaged: there is no checkpoint {name[:80]!r} beside it")
    return target
