"""The command line: the installed `tinyalpaca`, and what the scripts in `examples/` call.

A command is a module with a DESCRIPTION, `add_arguments(parser)` and `run(args) -> exit status`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from tinyalpaca.commands import (
    convert_command,
    evaluate_command,
    generate_command,
    tokenize_command,
    train_command,
)

COMMANDS: dict[str, ModuleType] = {
    "train": train_command,
    "generate": generate_command,
    "tokenize": tokenize_command,
    "evaluate": evaluate_command,
    "convert": convert_command,
}


def guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; a user's mistake is one line on standard error and exit status 1."""
    try:
        return run(args)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.filename:
            print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        else:
            print(f"error: {error}", file=sys.stderr)
        return 1


def example(name: str, argv: Sequence[str] | None = None) -> int:
    """What a script in `examples/` calls: one command under the script's own name."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        description=command.DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_arguments(parser)
    return guarded(command.run, parser.parse_args(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """The installed command `tinyalpaca`."""
    parser = argparse.ArgumentParser(prog="tinyalpaca", description=__doc__.split("\n")[0])
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
    args = parser.parse_args(argv)
    return guarded(args.run, args)
