"""The command `evaluate`: how well a model predicts a text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tinyalpaca.console import deliver, require_output, utf8_argument, warn

DESCRIPTION = """Score a text with a trained model: nats and bits per token and per character.

  tinyalpaca evaluate --part validation            the last tenth of Tiny Shakespeare
  tinyalpaca evaluate sonnets.txt --stride 32      a file; at least 3/4 of the context before tokens
  tinyalpaca evaluate --text "To be, or not to be"

Per character, models with different tokenizers can be compared. Lower is better."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which text, and how."""
    parser.add_argument(
        "data",
        nargs="?",
        default="tinyshakespeare",
        help="a name, a text file, a folder of .txt files, or - for standard input "
        "(default: %(default)s)",
    )
    parser.add_argument("--text", help="score this text instead")
    parser.add_argument(
        "--part",
        choices=("all", "training", "validation"),
        default="all",
        help="which part of the text, cut as training cuts it (default: all)",
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.1,
        metavar="X",
        help="share of the characters, at the end, that is the validation part (default: 0.1)",
    )
    parser.add_argument(
        "--checkpoint",
        default="runs/shakespeare",
        metavar="DIR",
        help="folder of a trained model, or one of Hugging Face's (default: %(default)s)",
    )
    parser.add_argument(
        "--stride",
        type=int,
        default=0,
        metavar="N",
        help="how far windows are apart, in tokens; fewer give each token more to go by and take "
        "longer (default: windows side by side, as in training)",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="windows at a time")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "gpu", "auto"), help="where to compute"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    from minigrad.device import choose_device
    from tinyalpaca.data import Corpus, load_corpus
    from tinyalpaca.data.token_file import unmarked_joins
    from tinyalpaca.generation import Generator

    require_output()
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, it is {args.batch_size}")
    given = Path(args.data)
    is_run = (given / "config.json").is_file() and not any(given.glob("*.txt"))
    if args.text is None and is_run:
        raise ValueError(
            f"{args.data} is the folder of a model: give it with --checkpoint {args.data}, and the "
            "text to score without a flag"
        )
    generator = Generator.from_checkpoint(args.checkpoint, choose_device(args.device))
    text: str | Corpus
    if args.text is not None:
        source, text = "the text given", utf8_argument("--text", args.text)
    else:
        corpus = load_corpus(args.data)
        if args.part != "all":
            corpus = corpus.split(args.validation_fraction)[args.part == "validation"]
        source, text = corpus.source, corpus
        if problem := unmarked_joins(corpus, generator.tokenizer):
            warn(f"Warning: {problem}")
    score = generator.score(text, stride=args.stride, batch_size=args.batch_size)
    figures = {
        "nats_per_token": score.nats_per_token,
        "bits_per_token": score.bits_per_token,
        "nats_per_character": score.nats_per_character,
        "bits_per_character": score.bits_per_character,
    }
    if args.json:
        counts = {"nats": score.nats, "tokens": score.tokens, "characters": score.characters}
        deliver(json.dumps({"source": source, **counts, **figures}))
        return 0
    deliver(f"{source}: {score.characters:,} characters, {score.tokens:,} tokens predicted")
    for name, value in figures.items():
        deliver(f"{name.replace('_', ' '):<20}{value:.4f}")
    return 0
