"""The command line: the installed `tinyalpaca`, and what the scripts in `examples/` call.

A command is a module with a DESCRIPTION, `add_arguments(parser)` and `run(args) -> exit status`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

import minigrad
from tinyalpaca import console
from tinyalpaca.commands import (
    convert_command,
    evaluate_command,
    generate_command,
    play_command,
    sweep_command,
    tokenize_command,
    train_command,
)
from tinyalpaca.settings import nearest

COMMANDS: dict[str, ModuleType] = {
    "train": train_command,
    "generate": generate_command,
    "play": play_command,
    "tokenize": tokenize_command,
    "sweep": sweep_command,
    "evaluate": evaluate_command,
    "convert": convert_command,
}


# The flag that is meant by an argument without one, and texts that have none.
UNNAMED = {"train": "--data", "sweep": "--data", "generate": "--prompt", "play": "--checkpoint"}
WITHOUT_FLAG = {("evaluate", "data"), ("tokenize", "data")}

ABOUT = "The command line: train, generate, play, tokenize, sweep, evaluate, convert."


def guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; a user's mistake is one line on standard error and exit status 1.

    `tinyalpaca.console` says what happens if output cannot be written.
    """
    try:
        return run(args)
    except BrokenPipeError as error:  # the reader of our output has gone, as `| head` does
        return console.status_of(error)
    except console.AlreadyTold:
        return 1
    except KeyboardInterrupt:
        console.warn("")
        return 130
    except MemoryError as error:
        console.warn(
            f"error: out of memory ({str(error) or 'no more is to be had'}). Make the model, the "
            "batch or the text smaller."
        )
        return 1
    except (ValueError, OSError, RuntimeError, OverflowError) as error:
        if isinstance(error, OSError) and error.filename:
            console.warn(f"error: {error.filename}: {error.strerror}")
        else:
            console.warn(f"error: {error}")
        return 1


class Parser(argparse.ArgumentParser):
    """argparse's parser, but help that cannot be written is an error."""

    command = ""  # which it parses, if it is not the first argument that says so

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, and remembers the command for `error`."""
        given = list(sys.argv[1:] if args is None else args)
        self._asked = self.command or next((name for name in given[:1] if name in COMMANDS), "")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """As argparse's, with a suggestion for an argument that is not known."""
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown:
            message += self._meant(unknown[1]) + " --help after a command lists its flags."
        super().error(message)

    def _meant(self, word: str) -> str:
        """What an argument that is not known may mean, as the end of a sentence."""
        if not word.startswith("-"):
            flag = UNNAMED.get(self._asked)
            return f"; did you mean {flag} {word}?" if flag else "."
        name = word.lstrip("-").partition("=")[0]
        if name == "version":
            return "; it stands before the command, as in tinyalpaca --version."
        commands = dict(self._commands())
        of = [command for command, flags in commands.items() if f"--{name}" in flags]
        if self._asked in of or self.prog in of:
            return f"; did you mean --{name}?"
        if of:
            here = "; here the text has no flag" if (self._asked, name) in WITHOUT_FLAG else ""
            return f"; it is a flag of {', '.join(of)}{here}."
        flags = [flag[2:] for some in commands.values() for flag in some if flag[:2] == "--"]
        return nearest(name, flags).replace("mean ", "mean --") or "."

    def _commands(self) -> Iterator[tuple[str, list[str]]]:
        """The flags of this parser, and of its commands, by name."""
        yield self.prog, [flag for action in self._actions for flag in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, parser in action.choices.items():
                    yield name, [flag for one in parser._actions for flag in one.option_strings]

    def print_help(self, file: Any = None) -> None:
        if file is None:
            console.deliver(self.format_help(), end="")
        else:
            super().print_help(file)


class ShowVersion(argparse.Action):
    """What `--version` does. As for help, not being able to write it is an error."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        console.deliver(f"tinyalpaca {minigrad.__version__}")
        parser.exit()


def started(
    make_parser: Callable[[], argparse.ArgumentParser],
    argv: Sequence[str] | None,
    run: Any = None,
) -> int:
    """Parse arguments and run what they ask for, between opening and closing the streams."""

    def parse_and_run(args: argparse.Namespace) -> int:
        make_parser().parse_args(argv, args)
        return (run or args.run)(args)

    console.open_streams()
    try:
        status = guarded(parse_and_run, argparse.Namespace())
    except SystemExit as ended:  # after --help, or a complaint
        status = ended.code if isinstance(ended.code, int) else 1
        raise SystemExit(console.close_streams(status)) from None
    return console.close_streams(status)


def example(name: str, argv: Sequence[str] | None = None) -> int:
    """What a script in `examples/` calls: one command under the script's own name."""
    command = COMMANDS[name]

    def make_parser() -> argparse.ArgumentParser:
        parser = Parser(
            description=command.DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_arguments(parser)
        parser.command = name
        return parser

    return started(make_parser, argv, command.run)


def main(argv: Sequence[str] | None = None) -> int:
    """The installed command `tinyalpaca`."""
    return started(_parser, argv)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tinyalpaca", description=ABOUT)
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print the version")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=command.DESCRIPTION.split("\n")[0],
            description=command.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser
