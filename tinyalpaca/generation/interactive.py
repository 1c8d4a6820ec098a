"""A small prompt loop: asks for a prompt, writes a text, and so on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from tinyalpaca.console import deliver, read_line, utf8_argument, warn

BANNER = "Write a beginning and press Enter. Ctrl-C stops a text, Ctrl-D ends."
PROMPT = "\n> "


def converse(write: Callable[[str], object]) -> int:
    """Ask for prompts until the input ends, and write a text for each.

    On a terminal there are line editing and a history (the arrow keys), where Python has
    `readline`. Ctrl-C stops the text that is being written, or clears the line that is being typed.
    Input that is not a terminal is read line by line.

    Args:
        write: writes the continuation of a prompt. If it raises ValueError, the message is shown.

    Returns:
        The exit status.
    """
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):  # Windows has no readline
            import readline  # noqa: F401  importing it is what gives input() a history
        warn(BANNER)
    while True:
        try:
            prompt = read_line(PROMPT if terminal else "")
        except EOFError:
            if terminal:
                deliver("")
            return 0
        except KeyboardInterrupt:
            deliver("")
            continue
        if not prompt.strip():
            continue
        try:
            write(utf8_argument("this line", prompt))
        except KeyboardInterrupt:
            warn("\n(stopped)")
        except ValueError as error:
            warn(f"error: {error}")
        sys.stdout.flush()
