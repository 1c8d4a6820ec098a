"""`tinyalpaca tokenize`: tokenizers and token files from the command line."""

import argparse
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from tinyalpaca.console import deliver, deliver_bytes, require_output, say, warn
from tinyalpaca.data import SEPARATOR, Corpus, TokenFile, load_corpus
from tinyalpaca.data.token_file import unmarked_joins
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, load_tokenizer
from tinyalpaca.tokenizer.pretokenize import PATTERNS
from tinyalpaca.tokenizer.tokenizer_files import readable_token

DESCRIPTION = """Train a tokenizer, encode and decode text, look at tokens.

  tinyalpaca tokenize train tinyshakespeare --vocab-size 1000 --out tokenizer.json
  tinyalpaca tokenize encode tinyshakespeare --tokenizer tokenizer.json --out shakespeare.tokens
  tinyalpaca tokenize decode shakespeare.tokens --tokenizer tokenizer.json --count 100
  tinyalpaca tokenize inspect --tokenizer tokenizer.json "To be, or not to be"
"""
SOURCE_HELP = (
    "tinyshakespeare, shakespeare, a text file, a folder of .txt files, or - for standard input"
)
DECODE_BLOCK = 1 << 16
COLOURS = (44, 42, 45, 46, 41)  # backgrounds: blue, green, magenta, cyan, red


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the four actions and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    train = actions.add_parser("train", help="learn a vocabulary from text")
    train.add_argument("source", nargs="+", help=SOURCE_HELP)
    train.add_argument("--out", type=Path, default=Path("tokenizer.json"), help="%(default)s")
    train.add_argument(
        "--kind", choices=("bpe", "characters"), default="bpe", help="default: %(default)s"
    )
    size = train.add_mutually_exclusive_group()
    size.add_argument("--vocab-size", type=int, help="256 bytes + merges + special tokens")
    size.add_argument("--merges", type=int, help="default: 100")
    train.add_argument(
        "--min-frequency", type=int, default=2, help="merge no rarer pair; default: %(default)s"
    )
    train.add_argument(
        "--special", action="append", metavar="TOKEN", help=f"may be repeated; default: {SEPARATOR}"
    )
    train.add_argument(
        "--splitter",
        choices=tuple(PATTERNS),
        default="gpt2",
        help="what merges may not cross; default: %(default)s",
    )

    encode = actions.add_parser("encode", help="write the tokens of a corpus to a token file")
    encode.add_argument("source", help=SOURCE_HELP)
    encode.add_argument("--out", type=Path, required=True, help="the token file")

    decode = actions.add_parser("decode", help="print the text of a token file")
    decode.add_argument("file", type=Path, help="a token file")
    decode.add_argument("--start", type=int, default=0, help="the first token; default: 0")
    decode.add_argument("--count", type=int, help="how many tokens; default: all")

    inspect = actions.add_parser("inspect", help="print a text with its tokens coloured")
    inspect.add_argument("text", nargs="?", help="the text; default: standard input")
    inspect.add_argument("--file", type=Path, help="take the text from a file")
    inspect.add_argument("--ids", action="store_true", help="list each token and its id as well")
    inspect.add_argument(
        "--colour",
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="%(default)s",
    )
    for action in (encode, decode, inspect):
        action.add_argument(
            "--tokenizer",
            type=Path,
            required=True,
            help="a tokenizer.json, ours or Hugging Face's, or the folder that holds it",
        )


def run(args: argparse.Namespace) -> int:
    """Do what the arguments say. Raises `ValueError` or `OSError` for a user's mistake."""
    actions = {"train": _train, "encode": _encode, "decode": _decode, "inspect": _inspect}
    actions[args.action](args)
    return 0


def _train(args: argparse.Namespace) -> None:
    corpora = [load_corpus(source) for source in args.source]
    _refuse_to_overwrite([args.out, args.out.with_suffix(".vocab")], corpora)
    for corpus in corpora:
        say(f"training on {corpus.source}")
    documents = [document for corpus in corpora for document in corpus.documents]
    special = args.special or [SEPARATOR]
    if args.kind == "characters":
        blocks = (block for document in documents for block in document.blocks())
        tokenizer: Tokenizer = CharTokenizer.train(blocks, special)
    else:
        tokenizer = BPETokenizer.train(
            documents,
            args.vocab_size,
            args.merges,
            min_frequency=args.min_frequency,
            special_tokens=special,
            splitter=args.splitter,
        )
    path = tokenizer.save(args.out)
    say(f"{tokenizer.vocab_size} tokens, written to {path}")


def _refuse_to_overwrite(written: list[Path], corpora: list[Corpus], *others: Path) -> None:
    """Raise `ValueError` if the output would replace the input."""
    contents = [document.content for corpus in corpora for document in corpus.documents]
    read = [path for path in (*contents, *others) if isinstance(path, Path)]
    for out in written:
        if out.exists() and any(out.samefile(path) for path in read):
            raise ValueError(f"{out} is read and would be overwritten: give --out another name")


def _encode(args: argparse.Namespace) -> None:
    tokenizer = load_tokenizer(args.tokenizer)
    corpus = load_corpus(args.source)
    _refuse_to_overwrite([args.out], [corpus], args.tokenizer)
    if problem := unmarked_joins(corpus, tokenizer):
        warn(f"Warning: {problem}")
    tokens = TokenFile.build(args.out, corpus, tokenizer)
    characters = corpus.count_characters()
    say(
        f"{corpus.source}: {characters} characters, {len(tokens)} tokens, "
        f"{characters / max(1, len(tokens)):.3f} characters a token, in {args.out}"
    )


def _decode(args: argparse.Namespace) -> None:
    tokenizer = load_tokenizer(args.tokenizer)
    require_output()
    tokens = TokenFile.open(args.file, tokenizer).tokens
    if args.start < 0 or (args.count or 0) < 0:
        raise ValueError("--start and --count must not be negative")
    if args.start >= len(tokens):
        raise ValueError(f"--start is {args.start}, and {args.file} has {len(tokens)} tokens")
    stop = len(tokens) if args.count is None else args.start + args.count
    for start in range(args.start, min(stop, len(tokens)), DECODE_BLOCK):
        block = tokens[start : min(start + DECODE_BLOCK, stop)]
        deliver_bytes(tokenizer.decode_bytes(block.tolist()))


def _inspect(args: argparse.Namespace) -> None:
    tokenizer = load_tokenizer(args.tokenizer)
    if args.file is not None:
        data = args.file.read_bytes()
    elif args.text is not None:
        data = os.fsencode(args.text)
    else:
        data = sys.stdin.buffer.read()
    ids = tokenizer.encode(data, allowed_special=tokenizer.special_tokens)
    out = io.StringIO()
    colour = args.colour == "always" or (
        args.colour == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    )
    write_tokens(tokenizer, ids, out, colour)
    if args.ids:
        for token in ids:
            out.write(f"{token:>8}  {readable_token(tokenizer.token_bytes(token))}\n")
    characters = len(data.decode("utf-8", "replace"))
    out.write(
        f"{characters} characters, {len(data)} bytes, {len(ids)} tokens: "
        f"{characters / max(1, len(ids)):.3f} characters a token"
    )
    deliver(out.getvalue())


def write_tokens(tokenizer: Tokenizer, ids: Iterable[int], out: TextIO, colour: bool) -> None:
    """Write the text with its tokens on alternating backgrounds, or with `|` between them."""
    pieces = []
    for number, piece in enumerate(_visible_pieces(tokenizer, ids)):
        if colour:
            mark = f"\x1b[30;{COLOURS[number % len(COLOURS)]}m"
            # A background that crosses the end of a line would fill the rest of the screen's line.
            piece = "\n".join(f"{mark}{line}\x1b[0m" if line else "" for line in piece.split("\n"))
        pieces.append(piece)
    out.write(("" if colour else "|").join(pieces) + "\n")


def _visible_pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Each token as text; parts of characters and control characters as escapes."""
    for token in ids:
        data = tokenizer.token_bytes(token)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            yield "".join(f"\\x{byte:02x}" for byte in data)
            continue
        yield "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
