"""The command `convert`: models of other formats to ours, and ours to others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinyalpaca.console import read_line, say, warn

DESCRIPTION = """Convert models: the PyTorch original's and Hugging Face's to ours, and back.

  tinyalpaca convert tinyalpaca.pth training_vocab.json OUT --num-heads 4
  tinyalpaca convert GPT2_OR_LLAMA_FOLDER OUT
  tinyalpaca convert runs/shakespeare tinyalpaca.safetensors --to torch
  tinyalpaca convert runs/book GPT2_FOLDER --to gpt2      (or llama)

The first two make a checkpoint folder OUT, to generate from; so does the folder of a run, with
adapters (LoRA) merged into the weights. The last writes what Hugging Face's transformers load (of
models that GPT-2 or Llama can compute), and the one before what the original's classes
load with model.load_state_dict(safetensors.torch.load_file("tinyalpaca.safetensors"))."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files, and what they cannot say."""
    parser.add_argument(
        "source",
        nargs="+",
        type=Path,
        help="weights (.pth, .pt, .safetensors) and vocabulary of the original; a folder of "
        "Hugging Face's with GPT-2, Llama, Mistral or Qwen2; with --to, a checkpoint",
    )
    parser.add_argument("out", type=Path, help="the folder (with --to torch, the file) to write")
    parser.add_argument(
        "--num-heads",
        type=int,
        metavar="N",
        help="attention heads of the original's model, which its file does not say; asked for if "
        "not given",
    )
    parser.add_argument(
        "--to",
        choices=("checkpoint", "torch", "gpt2", "llama"),
        default="checkpoint",
        help="what to write (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Read, write, and say what it was."""
    from tinyalpaca.converting.huggingface import is_huggingface, load_huggingface
    from tinyalpaca.converting.huggingface_export import save_for_huggingface
    from tinyalpaca.converting.original_weights import load_original, save_for_original
    from tinyalpaca.runs import find_model, load_model, save_model
    from tinyalpaca.runs.layout import CONFIG

    def is_run(folder: Path) -> bool:
        return folder.is_dir() and (find_model(folder) / CONFIG).is_file()

    if args.to != "checkpoint":
        if len(args.source) != 1:
            raise ValueError(f"--to {args.to} takes one checkpoint folder and what to write")
        if args.to == "torch":
            files = save_for_original(args.source[0], args.out)
        else:
            files = save_for_huggingface(args.source[0], args.out, args.to)
        say(f"wrote {', '.join(map(str, files))}")
        return 0
    if (args.out / CONFIG).exists():
        raise ValueError(f"{args.out} already holds a model; name another folder")
    if len(args.source) == 2:
        weights, vocabulary = args.source
        heads = args.num_heads or _ask_for_heads(weights)
        model, tokenizer = load_original(weights, vocabulary, heads)
    elif len(args.source) == 1 and is_huggingface(args.source[0]):
        model, tokenizer = load_huggingface(args.source[0], warn)
    elif len(args.source) == 1 and is_run(args.source[0]):
        model, tokenizer, _ = load_model(args.source[0])
    else:
        raise ValueError(
            "give the original's weights and its training_vocab.json, or a folder of Hugging "
            "Face's (with config.json), and then the folder to write"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    save_model(args.out, model, tokenizer)
    c = model.config
    say(
        f"{args.out}: {model.num_parameters():,} parameters, {c.num_layers} layers, d_model "
        f"{c.d_model}, d_ff {c.d_ff}, {c.num_heads} heads, context {c.max_seq_len}, "
        f"{c.vocab_size} tokens"
    )
    return 0


def _ask_for_heads(weights: Path) -> int:
    """Ask on a terminal.

    Raises:
        ValueError: there is no terminal, or the answer is not one of the possible numbers.
    """
    from tinyalpaca.converting.original_weights import possible_heads, read_weights, sizes

    tensors = read_weights(weights)
    width = sizes(weights, tensors)["d_model"]
    possible = ", ".join(map(str, possible_heads(tensors)))
    if not sys.stdin.isatty():
        raise ValueError(
            f"{weights} does not say how many attention heads the model has (d_model {width} "
            f"allows {possible}): give --num-heads; the original's default is 4"
        )
    say(f"How many attention heads has the model? ({possible}; default 4)")
    try:
        answer = read_line().strip()
    except EOFError:
        raise ValueError(f"{weights} was not converted: give --num-heads") from None
    if answer and not answer.isdecimal():
        raise ValueError(f"{answer!r} is not a number of heads")
    return int(answer or 4)
