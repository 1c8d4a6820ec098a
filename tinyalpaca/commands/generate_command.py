"""The command `generate`: continue a text with a trained model."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from tinyalpaca.console import deliver, read_input, require_output, utf8_argument, warn

if TYPE_CHECKING:
    from tinyalpaca.generation import Generator, Prompt, Step

DESCRIPTION = """Continue a text with a trained model.

Text goes to standard output as it comes, everything else to standard error, so the output can be
piped. `--interactive` asks for beginnings, again and again; Ctrl-C stops a text, Ctrl-D ends."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of generation."""
    parser.add_argument(
        "--checkpoint",
        default="runs/shakespeare",
        metavar="DIR",
        help="folder of a trained model, or one of Hugging Face's (default: %(default)s)",
    )
    parser.add_argument(
        "--prompt",
        default="To be or not to be, that is the question:",
        metavar="TEXT",
        help="what to continue, - for standard input; may be empty if the tokenizer has an "
        "<|endoftext|> (default: %(default)s)",
    )
    parser.add_argument(
        "--prompt-tokens",
        metavar="IDS",
        help='token ids to continue instead, such as "50256 464"',
    )
    parser.add_argument(
        "--chat",
        action="store_true",
        help="the prompt is said to the model, which answers, by its maker's chat template",
    )
    parser.add_argument(
        "--system", metavar="TEXT", help="with --chat, what the model is told before that"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=100, metavar="N", help="tokens to add (default: 100)"
    )
    parser.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help="end before this text comes; may be repeated; \\n is a new line",
    )
    parser.add_argument(
        "--ignore-end",
        action="store_true",
        help="go on after <|endoftext|>, which otherwise ends a text",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "gpu", "auto"), help="where to compute"
    )
    parser.add_argument(
        "--no-graph",
        action="store_true",
        help="on a GPU, launch every kernel instead of one CUDA graph a token",
    )
    _add_sampling(parser.add_argument_group("how tokens are chosen"))
    _add_output(parser.add_argument_group("what is shown"))


def _add_sampling(group: Any) -> None:
    group.add_argument(
        "--temperature",
        type=float,
        default=0.7,
        metavar="X",
        help="below 1 keeps to likely tokens, 0 always takes the likeliest (default: 0.7)",
    )
    group.add_argument("--top-k", type=int, metavar="N", help="draw from the N likeliest tokens")
    group.add_argument(
        "--top-p", type=float, metavar="X", help="draw from the likeliest with probability X in all"
    )
    group.add_argument(
        "--min-p",
        type=float,
        metavar="X",
        help="leave out what is X times less likely than the best",
    )
    group.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="above 1 makes tokens that have occurred less likely (default: 1)",
    )
    group.add_argument(
        "--allow-all-tokens",
        action="store_true",
        help="draw from the whole vocabulary; otherwise text stays valid UTF-8, and is of tokens "
        "that training has seen",
    )


def _add_output(group: Any) -> None:
    group.add_argument(
        "--num-samples", type=int, default=1, metavar="N", help="texts to write (default: 1)"
    )
    group.add_argument(
        "--interactive", action="store_true", help="ask for a beginning, write, ask again"
    )
    group.add_argument(
        "--show-alternatives",
        action="store_true",
        help="colour tokens by their probability and list the five likeliest for each",
    )
    group.add_argument(
        "--html",
        metavar="FILE",
        help="also write a page: surprise as colour, alternatives, attention",
    )
    group.add_argument("--json", action="store_true", help="print a JSON object instead of text")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Generator.generate` that the flags stand for."""
    return {
        "max_new_tokens": args.max_new_tokens,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "min_p": args.min_p,
        "repetition_penalty": args.repetition_penalty,
        "stop": [text.replace("\\n", "\n") for text in args.stop or ()],
        "seed": args.seed,
        **({"stop_at_end": False} if args.ignore_end else {}),
        "allow_all_tokens": args.allow_all_tokens,
    }


def run(args: argparse.Namespace) -> int:
    """Write as the flags say."""
    from minigrad.device import choose_device
    from tinyalpaca.converting.loading import load
    from tinyalpaca.generation import Generator
    from tinyalpaca.generation.interactive import converse

    _check_flags(args)
    args.prompt = utf8_argument("--prompt", args.prompt)
    args.system = utf8_argument("--system", args.system) if args.system else args.system
    args.stop = [utf8_argument("--stop", text) for text in args.stop or ()]
    require_output()
    model, tokenizer, training = load(args.checkpoint, choose_device(args.device))
    generator = Generator(model, tokenizer, graph=not args.no_graph)
    if training is not None and model.seen_tokens is None and not args.allow_all_tokens:
        warn(
            f"{args.checkpoint} does not say which tokens training has seen: all may be written "
            "that are valid text."
        )
    generator.prepare()
    if args.interactive:
        conversation = Conversation(generator, args)
        return converse(
            conversation.answer if args.chat else lambda prompt: write(generator, prompt, args)
        )
    prompt: Prompt = read_input() if args.prompt == "-" else args.prompt
    if args.prompt_tokens is not None:
        prompt = token_ids(args.prompt_tokens)
    if args.chat:
        args.prompt = str(prompt)
        prompt = Conversation(generator, args).prompt_after(args.prompt)
    if args.json or args.num_samples != 1:
        write_samples(generator, prompt, args)
    else:
        write(generator, prompt, args)
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Raise ValueError for flags that cannot be combined."""
    one_text = {"--interactive": args.interactive, "--html": args.html}
    one_text["--show-alternatives"] = args.show_alternatives and not args.json
    for flag, given in one_text.items():
        if given and args.num_samples != 1:
            raise ValueError(f"{flag} shows one text; leave out --num-samples")
        if given and args.json:
            raise ValueError(f"{flag} and --json do not go together")
    if args.interactive and args.html:
        raise ValueError("--interactive and --html do not go together")
    if args.chat and args.prompt_tokens is not None:
        raise ValueError("--chat and --prompt-tokens do not go together")
    if args.system is not None and not args.chat:
        raise ValueError("--system is for --chat")


class Conversation:
    """The conversation so far: first `--system`, then user and model in turns."""

    generator: Generator
    args: argparse.Namespace

    def __init__(self, generator: Generator, args: argparse.Namespace) -> None:
        self.generator, self.args = generator, args
        self.messages: list[dict[str, str]] = []
        if args.system is not None:
            self.messages.append({"role": "system", "content": args.system})

    def prompt_after(self, text: str) -> list[int]:
        """The tokens of the prompt for the next message of the user."""
        return self.generator.chat_prompt([*self.messages, {"role": "user", "content": text}])

    def answer(self, text: str) -> None:
        """Write the answer to a message, and remember both."""
        said = write(self.generator, self.prompt_after(text), self.args)
        self.messages += [
            {"role": "user", "content": text},
            {"role": "assistant", "content": said},
        ]


def token_ids(text: str) -> list[int]:
    """Numbers between spaces or commas. Raises ValueError for anything else."""
    parts = text.replace(",", " ").split()
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise ValueError(f"--prompt-tokens takes token ids, such as 50256 464, not {text!r}")
    return [int(part) for part in parts]


def as_text(generator: Generator, prompt: Prompt, args: argparse.Namespace) -> str:
    """A prompt as it is shown: its text, or nothing before an answer."""
    if args.chat:
        return ""
    return prompt if isinstance(prompt, str) else generator.tokenizer.decode(prompt)


def write(generator: Generator, prompt: Prompt, args: argparse.Namespace) -> str:
    """Stream one text with its statistics; returns it, without the prompt."""
    from tinyalpaca.generation.colours import Palette, alternatives_table
    from tinyalpaca.generation.token_page import token_page

    wanted = 5 if args.show_alternatives else None
    palette = Palette(sys.stdout) if args.show_alternatives else None
    steps = generator.steps(prompt, **settings(args), alternatives=wanted)
    shown = as_text(generator, prompt, args)
    written: list[Step] = []
    seconds, began = 0.0, time.perf_counter()
    for step in steps:  # a setting that makes no sense is an error before anything is printed
        seconds += time.perf_counter() - began
        if not written:
            deliver(shown, end="")
        written.append(step)
        text = palette.painted(step.text, step.logprob) if palette else step.text
        deliver(text, end="")
        began = time.perf_counter()
    deliver(shown if not written else "")
    if palette is not None:
        deliver(alternatives_table(generator.tokenizer, written, palette))
    if args.html:
        tokens = generator.prompt_tokens(prompt)
        page = token_page(generator, tokens + [step.token for step in written], len(tokens))
        try:
            with open(args.html, "w", encoding="utf-8", newline="\n") as file:
                file.write(page)
        except OSError as error:  # a full disk does not say which file it was
            raise type(error)(error.errno, error.strerror, args.html) from error
        warn(f"wrote {args.html}")
    report_speed(len(written), seconds)
    return "".join(step.text for step in written)


def write_samples(generator: Generator, prompt: Prompt, args: argparse.Namespace) -> None:
    """Write all samples at once, as text or as JSON."""
    began = time.perf_counter()
    results = generator.generate(
        prompt, **settings(args), num_samples=args.num_samples, return_logprobs=True
    )
    seconds = time.perf_counter() - began
    samples = [results] if args.num_samples == 1 else results
    count = sum(len(sample.tokens) for sample in samples)
    shown = as_text(generator, prompt, args)
    if args.json:
        record = {
            "prompt": args.prompt if args.chat else shown,
            **({} if isinstance(prompt, str) else {"prompt_tokens": prompt}),
            "settings": settings(args),
            "samples": [_as_json(generator, prompt, sample, args) for sample in samples],
            "seconds": seconds,
            "tokens_per_second": count / seconds,
        }
        deliver(json.dumps(record))
        return
    for number, sample in enumerate(samples, 1):
        deliver(f"=== {number} of {len(samples)}\n{shown}{sample.text}\n")
    report_speed(count, seconds)


def _as_json(generator: Generator, prompt: Prompt, sample: Any, args: argparse.Namespace) -> Any:
    """A sample as a JSON object, with the alternatives of each token if they are wanted."""
    from tinyalpaca.generation.reading import read_back

    record = sample._asdict()
    if args.show_alternatives:
        tokenizer, before = generator.tokenizer, generator.prompt_tokens(prompt)
        tokens = before + sample.tokens
        readings = list(read_back(generator, tokens))
        readable = None if args.allow_all_tokens else generator.readable()
        record["alternatives"] = []
        for number, reading in enumerate(readings[len(before) - 1 :]):
            allowed = None
            if readable is not None:
                state = readable.state_after(tokens[: reading.place])
                allowed = readable.may_come(state, args.max_new_tokens - number)
            record["alternatives"].append(
                [
                    {"token": token, "text": tokenizer.decode([token]), "probability": probability}
                    for token, probability in reading.likeliest(5, allowed)
                ]
            )
    return record


def report_speed(tokens: int, seconds: float) -> None:
    """A line on standard error, which does not spoil a pipe, after what was written before."""
    sys.stdout.flush()
    rate = tokens / seconds if seconds else 0.0
    warn(f"{tokens} tokens in {seconds:.2f} s: {rate:,.0f} tokens/s")
