"""The folder of a run, and the promise that a good checkpoint in it is never lost.

    model.safetensors config.json tokenizer.json   the best weights so far, ready to use
    metrics.jsonl loss.png report.html             what happened
    checkpoints/step-00000254/                     all that is needed to go on
    checkpoints/latest, checkpoints/best           files that name a checkpoint
    earlier/1/                                     what a run before this one left here

A checkpoint is written under a temporary name, flushed to disk and renamed; then the pointers are
replaced; then old ones are removed. Order comes from step numbers, never from clocks.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from minigrad.files import FileFormatError, sync_directory, write_bytes_atomically
from tinyalpaca.training.checksums import SUMS, check_sums, forget_sums, write_sums
from tinyalpaca.training.run_lock import RunLock

CHECKPOINTS, LATEST, BEST, EARLIER = "checkpoints", "latest", "best", "earlier"
PUBLISHED = ("model.safetensors", "config.json", "tokenizer.json")
REQUIRED = (*PUBLISHED, "optimizer.safetensors", "trainer.json")
OWN = (  # what a run writes; anything else in the folder is left alone
    *PUBLISHED,
    "tokenizer.vocab",
    SUMS,
    "metrics.jsonl",
    "loss.png",
    "report.html",
    "tensorboard",
    "bad-steps",
    CHECKPOINTS,
)
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder and prove that files can be written there, before hours are spent.

    Raises:
        OSError: it cannot be made or written; says what to do.
    """
    path = Path(folder)
    probe = path / f".write-test-{secrets.token_hex(4)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise type(error)(
            error.errno,
            f"the output folder cannot be written ({error.strerror}); choose another with --out",
            str(path),
        ) from error
    return path


def read_pointer(pointer: Path) -> Path | None:
    """The checkpoint that a pointer file names, or None if there is none such."""
    try:
        name = pointer.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    target = pointer.parent / name
    return target if _NAME.fullmatch(name) and target.is_dir() else None


class RunFolder:
    """The checkpoints of a run and the files beside them.

    Args:
        path: the folder; `open` makes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / CHECKPOINTS
        self._open = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[RunFolder]:
        """Context manager: the folder exists, is writable, and is this run's alone.

        Raises:
            OSError: it cannot be written.
            FolderInUse: another run writes to it.
        """
        if self._open:  # the trainer opens what the command has opened already
            yield self
            return
        lock = RunLock(prepare_folder(self.path))
        lock.acquire()
        self._open += 1
        try:
            self.checkpoints.mkdir(exist_ok=True)
            for abandoned in self.checkpoints.glob(".*.tmp"):
                _remove(abandoned)
            yield self
        finally:
            self._open -= 1
            lock.release()

    def all(self) -> list[Path]:
        """The checkpoints, good or not, oldest step first."""
        if not self.checkpoints.is_dir():
            return []
        found = [(_NAME.fullmatch(p.name), p) for p in self.checkpoints.iterdir() if p.is_dir()]
        order = [(int(m[1]), int(m[2] or 0), p) for m, p in found if m]
        return [path for _, _, path in sorted(order)]

    def latest(self) -> Path | None:
        """The checkpoint that `latest` names."""
        return read_pointer(self.checkpoints / LATEST)

    def best(self) -> Path | None:
        """The checkpoint that `best` names."""
        return read_pointer(self.checkpoints / BEST)

    def newest_good(self, say: Callable[[str], None]) -> Path:
        """The newest checkpoint that is whole; what is damaged is told and passed over.

        Raises:
            FileNotFoundError: there is no checkpoint.
            FileFormatError: all of them are damaged.
        """
        candidates = self.all()[::-1]
        latest = self.latest()
        if latest is not None:
            candidates = [latest] + [path for path in candidates if path != latest]
        if not candidates:
            raise FileNotFoundError(
                f"{self.path} holds no checkpoint to go on from. Start a run with "
                f"--out {self.path}, or name another folder."
            )
        for path in candidates:
            try:
                check_sums(path, REQUIRED)
            except (FileFormatError, OSError) as error:
                say(f"Warning: {error}. Looking for an earlier checkpoint.")
            else:
                return path
        raise FileFormatError(
            self.checkpoints, f"all {len(candidates)} checkpoint(s) are damaged; start a new run"
        )

    def name_for(self, step: int) -> str:
        """A name that no checkpoint has: a folder is never replaced by another."""
        name, revision = f"step-{step:08d}", 0
        while (self.checkpoints / name).exists():
            revision += 1
            name = f"step-{step:08d}.{revision}"
        return name

    def add(self, name: str, write: Callable[[Path], None], *, best: bool, keep: int) -> Path:
        """Write a checkpoint, point at it, and remove old ones.

        Args:
            name: from `name_for`.
            write: writes the files into the folder that it is given.
            best: whether `best` shall name it too.
            keep: how many of the newest to keep, besides those that are pointed at.

        Raises:
            OSError: it could not be written; everything that was there still is.
        """
        temporary = self.checkpoints / f".{name}.{secrets.token_hex(4)}.tmp"
        try:
            temporary.mkdir()
            write(temporary)
            write_sums(temporary, [p.name for p in temporary.iterdir() if p.name != SUMS])
            sync_directory(temporary)
            path = temporary.rename(self.checkpoints / name)
        except BaseException:
            _remove(temporary)
            raise
        sync_directory(self.checkpoints)
        if best:
            self.point(BEST, name)
        self.point(LATEST, name)
        self.prune(keep)
        return path

    def point(self, pointer: str, name: str) -> None:
        """Make `latest` or `best` name a checkpoint."""
        write_bytes_atomically(self.checkpoints / pointer, f"{name}\n".encode("ascii"))

    def prune(self, keep: int) -> None:
        """Remove all but the newest checkpoints and those that are pointed at."""
        kept = {self.latest(), self.best()}
        for path in self.all()[:-keep]:
            if path not in kept:
                with contextlib.suppress(OSError):  # one too many does no harm
                    _remove(path)

    def publish(self) -> None:
        """Copy the best weights (the latest if none is best) to the top of the folder."""
        source = self.best() or self.latest()
        if source is None:
            return
        forget_sums(self.path)
        names = [name for name in (*PUBLISHED, "tokenizer.vocab") if (source / name).is_file()]
        for name in names:
            write_bytes_atomically(self.path / name, (source / name).read_bytes())
        write_sums(self.path, names)

    def set_earlier_aside(self) -> Path | None:
        """Move what a run before this one left here into a folder of its own, which is returned."""
        there = [self.path / name for name in OWN if (self.path / name).exists()]
        if all(p == self.checkpoints and not any(p.iterdir()) for p in there):
            return None
        number = 1
        while (self.path / EARLIER / str(number)).exists():
            number += 1
        target = self.path / EARLIER / str(number)
        target.mkdir(parents=True)
        for path in there:
            path.rename(target / path.name)
        self.checkpoints.mkdir(exist_ok=True)
        return target


def _remove(folder: Path) -> None:
    """Delete a folder, under a name that no reader takes for a checkpoint while it happens."""
    if not folder.name.startswith("."):
        folder = folder.rename(folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp"))
    shutil.rmtree(folder, ignore_errors=True)
