"""The command `generate`: continue a text with a trained model."""

from __future__ import annotations

import argparse

DESCRIPTION = "Continue a text with a trained model."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of generation."""
    parser.add_argument(
        "--checkpoint",
        default="runs/shakespeare",
        metavar="DIR",
        help="folder of a trained model (default: %(default)s)",
    )
    parser.add_argument(
        "--prompt",
        default="To be or not to be, that is the question:",
        metavar="TEXT",
        help="what to continue (default: %(default)s)",
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=100, metavar="N", help="tokens to add (default: 100)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.7,
        metavar="X",
        help="below 1 keeps to likely tokens, 0 always takes the likeliest (default: 0.7)",
    )
    parser.add_argument("--top-k", type=int, metavar="N", help="draw from the N likeliest tokens")
    parser.add_argument(
        "--top-p", type=float, metavar="X", help="draw from the likeliest with probability X in all"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "gpu", "auto"), help="where to compute"
    )


def run(args: argparse.Namespace) -> int:
    """Continue the prompt, piece by piece."""
    from tinyalpaca.generation import Generator
    from tinyalpaca.training_run import choose_device

    generator = Generator.from_checkpoint(args.checkpoint, choose_device(args.device))
    pieces = generator.stream(
        args.prompt, args.max_new_tokens, args.temperature, args.top_k, args.top_p, args.seed
    )
    first = next(pieces, "")  # a setting that makes no sense is an error before anything is printed
    print(args.prompt + first, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0
