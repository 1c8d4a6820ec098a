"""Lines on standard output and standard error, and progress bars.

One rule for output that cannot be written: **work is saved first, and never lost for a line.**

- A character that a stream's encoding does not have is printed as "?".
- `say` and `warn` print what happens. If their stream cannot be written (a pipe whose reader has
  gone, a full disk, a closed terminal), it is not used any more. The other stream gets one warning,
  and the work continues to its end. The exit status is that of the work.
- `deliver` is for the result that a command was called for, such as a generated text. If it cannot
  be written the command ends: silently and with status 0 if the reader of a pipe has gone, as with
  `| head`; with an error and status 1 otherwise.
- If standard input, output or error is closed at the start, a command opens an empty one instead.
  Otherwise the next file that is opened would get its number.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tqdm.auto import tqdm

Say = Callable[[str], None]  # a function that prints a line, such as `say` and `warn`
_lost: list[Any] = []  # streams that cannot be written any more
_muted: list[bool] = []  # not empty: nothing is printed
_closed: list[Any] = []  # stand-ins for streams that were closed from the start


class Bar(tqdm):
    """A progress bar without tqdm's monitor thread: workers are forked where no thread runs."""

    monitor_interval = 0

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        file = settings.pop("file", None) or sys.stderr
        super().__init__(*arguments, file=Tolerant(file), **settings)


class Tolerant:
    """A stream that is not used any more once it fails. Equal to the one that it wraps."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or do nothing if the stream has been given up."""
        if self._stream is not None and not _is_in(self._stream, _lost):
            try:
                _write(self._stream, text)
            except (OSError, ValueError) as error:
                _give_up(self._stream, error)
        return len(text)

    def flush(self) -> None:
        """Write has done it already."""

    def isatty(self) -> bool:
        """Whether this is a terminal that has not been closed."""
        if self._stream is None or _is_in(self._stream, _lost):
            return False
        try:
            return bool(self._stream.isatty())
        except (OSError, ValueError, AttributeError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:  # tqdm asks which bars a line would be mixed with
        return self._stream is (other._stream if isinstance(other, Tolerant) else other)

    def __hash__(self) -> int:
        return hash(id(self._stream))


def say(text: str = "") -> None:
    """Print a line on standard output at once, above the bars; see the rule above."""
    _tell(text, sys.stdout)


def warn(text: str) -> None:
    """Print a line on standard error at once, above the bars; see the rule above."""
    _tell(text, sys.stderr)


class AlreadyTold(RuntimeError):
    """Ends a command whose error another process prints."""


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Context manager: `say` and `warn` do nothing, as another process prints the same."""
    _muted.append(True)
    try:
        yield
    finally:
        _muted.pop()


def deliver(text: str, end: str = "\n") -> None:
    """Write to standard output what the command was asked for.

    Raises:
        OSError: it cannot be written; `BrokenPipeError` if its reader has gone.
    """
    with _wanted_output() as stream:
        _write(stream, text + end)


def deliver_bytes(data: bytes) -> None:
    """As `deliver`, for bytes as they are."""
    with _wanted_output() as stream:
        stream.buffer.write(data)
        stream.buffer.flush()


def require_output() -> None:
    """Raise `OSError` if standard output has been closed, before work is done for it."""
    _open_output()


def read_input() -> str:
    """All of standard input, as text.

    Raises:
        ValueError: it is not text in its encoding.
    """
    with _told_as_input():
        return utf8_argument("standard input", sys.stdin.read())


def read_line(prompt: str = "") -> str:
    """The next line of standard input, as `input` gives it.

    Raises:
        EOFError: there is no more.
        ValueError: it is not text in its encoding.
    """
    with _told_as_input():
        return input(prompt)


@contextlib.contextmanager
def _told_as_input() -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not {error.encoding} text: {error}") from None


def utf8_argument(name: str, argument: str) -> str:
    """An argument decoded as UTF-8, whatever the locale is.

    Raises:
        ValueError: they are not UTF-8; names the argument.
    """
    try:
        argument.encode("utf-8")
        return argument
    except UnicodeEncodeError:  # bytes that the locale's encoding does not have
        try:
            return os.fsencode(argument).decode("utf-8")
        except UnicodeError:
            raise ValueError(f"{name} is not valid UTF-8 text: {argument!r}") from None


def open_streams() -> None:
    """Make the standard streams fit to be used by a command, whatever they were."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:  # a file that is opened later would get this number
                _stand_in(number)
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - for good
            setattr(sys, name, stream)
            _closed.append(stream)
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if getattr(stream, "errors", None) in ("strict", "surrogateescape"):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.reconfigure(errors="replace")


def close_streams(status: int) -> int:
    """Write out what the streams still hold. Returns the exit status, which is not 0 if that fails.

    The interpreter would complain about a stream that it cannot flush, and change the status.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            if not _is_in(stream, _lost):
                _mark_lost(stream)
                status = status or status_of(error)
        if _is_in(stream, _lost):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                _stand_in(stream.fileno())
                stream.flush()
    return status


def status_of(error: Exception) -> int:
    """The exit status for output that could not be written; a reader may have seen enough."""
    return 0 if isinstance(error, BrokenPipeError) else 1


def _tell(text: str, stream: Any) -> None:
    if _muted:
        return
    stream = Tolerant(stream)
    with Bar.external_write_mode(file=stream):
        stream.write(text + "\n")


def _write(stream: Any, text: str) -> None:
    """Write and flush; what the encoding does not have becomes "?"."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


@contextlib.contextmanager
def _wanted_output() -> Iterator[Any]:
    """Standard output for what has been asked for; that it cannot be written is an error."""
    stream = _open_output()
    try:
        yield stream
    except OSError as error:
        _mark_lost(stream)
        raise _explained(error) from error


def _open_output() -> Any:
    if sys.stdout is None or _is_in(sys.stdout, _closed):
        raise OSError("standard output is closed, and this is all that was wanted")
    return sys.stdout


def _explained(error: OSError) -> OSError:
    if isinstance(error, BrokenPipeError):
        return error
    return OSError(f"standard output cannot be written ({error.strerror or error})")


def _give_up(stream: Any, error: Exception) -> None:
    _mark_lost(stream)
    if stream is sys.stdout and not _is_in(sys.stderr, _lost):
        reason = getattr(error, "strerror", None) or error
        warn(f"Warning: standard output cannot be written ({reason}); going on without it")


def _mark_lost(stream: Any) -> None:
    if not _is_in(stream, _lost):
        _lost.append(stream)


def _is_in(stream: Any, streams: list[Any]) -> bool:
    return any(stream is other for other in streams)


def _stand_in(number: int) -> None:
    """Let a file descriptor lead nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
