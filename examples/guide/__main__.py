"""python -m examples.guide build | picture"""

from __future__ import annotations

import argparse
import sys

from examples.guide import picture


def main(argv: list[str] | None = None) -> int:
    """The guide's two commands."""
    parser = argparse.ArgumentParser(prog="python -m examples.guide", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    build = commands.add_parser("build", help="make the pages: pip install -e '.[docs]' first")
    build.add_argument("--out", default="runs/guide", help="folder (default: %(default)s)")
    draw = commands.add_parser("picture", help="make the README's picture anew from a trained run")
    draw.add_argument("--checkpoint", default="runs/shakespeare", help="default: %(default)s")
    draw.add_argument("--prompt", default="ROMEO:\n")
    draw.add_argument("--tokens", type=int, default=200)
    draw.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    if args.command == "picture":
        picture.make(args.checkpoint, args.prompt, args.tokens, args.seed)
        return 0
    from examples.guide.pages import build_pages

    return build_pages(args.out)


if __name__ == "__main__":
    sys.exit(main())
