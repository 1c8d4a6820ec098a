"""The folder of a run. A good checkpoint in it is never lost.

    model.safetensors config.json tokenizer.json   the best weights so far, ready to use
    metrics.jsonl loss.png report.html             what happened
    checkpoints/step-00000254/                     all that is needed to resume
    checkpoints/latest, checkpoints/best           files that name a checkpoint
    earlier/1/                                     what a run before this one left here

A checkpoint is written atomically: under a temporary name, flushed to disk, then renamed. Then the
pointers are replaced, and then old checkpoints are removed. Their order comes from step numbers,
never from clocks.

A run folder may come from another person, with links that lead out of it. Nothing is ever written
through such a link. If a file is to be written, it replaces the link; if a folder is to be there, a
link is an error. The path of the run folder itself may contain links.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from minigrad.storage import (
    FileFormatError,
    own_folder,
    refuse_link,
    sync_directory,
    write_bytes_atomically,
)
from tinyalpaca.runs.checksums import SUMS, check_sums, forget_sums, write_list, write_sums
from tinyalpaca.runs.layout import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    EARLIER,
    FOLDERS,
    LATEST,
    NAME,
    OWN,
    PUBLISHED,
    REQUIRED,
    TOKENIZER_VOCABULARY,
    UNFINISHED,
    prepare_folder,
    read_pointer,
)
from tinyalpaca.runs.run_lock import RunLock
from tinyalpaca.settings import ConfigError


class RunFolder:
    """The checkpoints of a run and the files beside them.

    Args:
        path: the folder; `open` makes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self.checkpoints: Path = self.path / CHECKPOINTS
        self._open = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[RunFolder]:
        """Context manager: the folder exists, is writable, and is this run's alone.

        Raises:
            OSError: it cannot be written, or a folder in it is a link.
            FolderInUse: another run writes to it.
        """
        if self._open:  # the trainer opens what the command has opened already
            yield self
            return
        lock = RunLock(prepare_folder(self.path))
        lock.acquire()
        self._open += 1
        try:
            for name in FOLDERS:
                refuse_link(self.path / name)
            own_folder(self.path, CHECKPOINTS)
            for abandoned in self.checkpoints.glob(UNFINISHED):
                _remove(abandoned)
            yield self
        finally:
            self._open -= 1
            lock.release()

    def all(self) -> list[Path]:
        """The checkpoints, good or not, oldest step first."""
        if not self.checkpoints.is_dir():
            return []
        found = [(NAME.fullmatch(p.name), p) for p in self.checkpoints.iterdir() if p.is_dir()]
        order = [(int(m[1]), int(m[2] or 0), p) for m, p in found if m]
        return [path for _, _, path in sorted(order)]

    def latest(self) -> Path | None:
        """The checkpoint that `latest` names; if that is damaged, the newest."""
        try:
            return read_pointer(self.checkpoints / LATEST)
        except FileFormatError:
            checkpoints = self.all()
            return checkpoints[-1] if checkpoints else None

    def best(self) -> Path | None:
        """The checkpoint that `best` names, or None if there is no such file.

        Raises:
            FileFormatError: the file is damaged: which one is best is not known.
        """
        return read_pointer(self.checkpoints / BEST)

    def mend_best(self, step: int, say: Callable[[str], None]) -> None:
        """If `best` or its checkpoint is damaged or missing, point it at another good one.

        Args:
            step: of the best validation; no checkpoint of another step is used.
            say: called with messages about what was found and done.
        """
        problem = ""
        try:
            best = self.best()
            if best is not None:
                check_sums(best, REQUIRED)
                return
        except (FileFormatError, OSError) as error:
            problem = f"{error}. "
        for path in self.all()[::-1]:
            if path.name.split(".")[0] == f"step-{step:08d}" and _is_good(path):
                self.point(BEST, path.name)
                say(f"{problem}{self.checkpoints / BEST} names {path.name} again")
                return
        if problem:
            (self.checkpoints / BEST).unlink()
            say(
                f"{problem}There is no other checkpoint of the best validation (step {step:,}): "
                f"the weights in {self.path} stay as they are until a better one"
            )

    def newest_good(self, say: Callable[[str], None]) -> Path:
        """The newest undamaged checkpoint; damaged ones are reported and skipped.

        Raises:
            FileNotFoundError: there is no checkpoint.
            FileFormatError: all of them are damaged.
        """
        candidates = self.all()[::-1]
        try:
            latest = read_pointer(self.checkpoints / LATEST)
        except FileFormatError as error:
            say(f"Warning: {error}. Taking the newest checkpoint.")
            latest = None
        if latest is not None:
            candidates = [latest] + [path for path in candidates if path != latest]
        if not candidates:
            raise FileNotFoundError(
                f"{self.path} has no checkpoint to resume from. Start a run with "
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
        """An unused name for a checkpoint, since no folder is ever replaced."""
        name, revision = f"step-{step:08d}", 0
        while os.path.lexists(self.checkpoints / name):
            revision += 1
            name = f"step-{step:08d}.{revision}"
        return name

    def add(self, name: str, write: Callable[[Path], None], *, best: bool, keep: int) -> Path:
        """Write a checkpoint, point at it, and remove old ones.

        Args:
            name: from `name_for`.
            write: called with a folder, writes the files into it.
            best: whether to point `best` at it too.
            keep: how many of the newest to keep, besides those that are pointed at.

        Raises:
            OSError: it could not be written; everything that was there still is.
        """
        temporary = own_folder(self.path, CHECKPOINTS) / f".{name}.{secrets.token_hex(4)}.tmp"
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
        path, data = self.checkpoints / pointer, f"{name}\n".encode("ascii")
        write_bytes_atomically(path, data, follow_links=False)

    def prune(self, keep: int) -> None:
        """Remove all but the newest checkpoints and those that are pointed at.

        Nothing is removed if it is not known which one is best.
        """
        try:
            kept = {self.latest(), self.best()}
        except FileFormatError:
            return
        for path in self.all()[:-keep]:
            if path not in kept:
                with contextlib.suppress(OSError):  # one too many does no harm
                    _remove(path)

    def publish(self, pointer: str = BEST) -> None:
        """Copy the weights that a pointer names to the top of the folder, if it names any.

        Raises:
            FileFormatError: the pointer or its checkpoint is damaged; what was there is unchanged.
        """
        source = read_pointer(self.checkpoints / pointer)
        if source is None:
            return
        sums = check_sums(source, REQUIRED)
        forget_sums(self.path)
        names = [name for name in (*PUBLISHED, TOKENIZER_VOCABULARY) if name in sums]
        for name in names:
            data = (source / name).read_bytes()
            write_bytes_atomically(self.path / name, data, follow_links=False)
        write_list(self.path, {name: sums[name] for name in names})

    def refuse_strangers(self) -> None:
        """Raise `ConfigError` if there are files with the names of a run's that no run has written.

        They would be moved or replaced, although they belong to something else.
        """
        there = self._earlier()
        if there and not self._has_been_used():
            raise ConfigError(
                f"{self.path} holds {', '.join(path.name for path in there)}, which no run of ours "
                "has written and which would be in its way. Choose another folder with --out"
            )

    def _earlier(self) -> list[Path]:
        """What is here under the names of a run's files."""
        there = [self.path / name for name in OWN if os.path.lexists(self.path / name)]
        if there == [self.checkpoints] and self.checkpoints.is_dir():
            abandoned = set(self.checkpoints.glob(UNFINISHED))  # by a run killed at its beginning
            if abandoned.issuperset(self.checkpoints.iterdir()):
                return []
        return there

    def _has_been_used(self) -> bool:
        """Whether a run or a conversion of ours has written something here."""
        if self.all():
            return True
        try:
            content = json.loads((self.path / CONFIG).read_bytes())
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(content, dict) and {"format", "model"} <= content.keys()

    def set_earlier_aside(self) -> Path | None:
        """Move the files of an earlier run into a folder of their own, which is returned.

        Raises:
            ConfigError: it is not from a run.
        """
        there = self._earlier()
        if not there:
            return None
        self.refuse_strangers()
        number = 1
        while os.path.lexists(self.path / EARLIER / str(number)):
            number += 1
        target = own_folder(self.path, EARLIER, str(number))
        for path in there:
            path.rename(target / path.name)
        own_folder(self.path, CHECKPOINTS)
        return target


def _is_good(folder: Path) -> bool:
    """Whether a checkpoint is whole."""
    try:
        check_sums(folder, REQUIRED)
    except (FileFormatError, OSError):
        return False
    return True


def _remove(folder: Path) -> None:
    """Delete a folder; it is renamed first, so that it is not read as a checkpoint."""
    if folder.is_symlink():  # the folder that a link points to is not deleted
        folder.unlink()
        return
    if not folder.name.startswith("."):
        folder = folder.rename(folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp"))
    shutil.rmtree(folder, ignore_errors=True)
