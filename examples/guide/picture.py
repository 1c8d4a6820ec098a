"""The README's picture: a text that a model wrote, each token coloured by how much it surprised it.

`surprise.json` is the record: what was run, and every token with its bits. `surprise.svg` is drawn
from it alone, so that a test can draw it again and compare.
"""

from __future__ import annotations

import json
from html import escape
from math import log
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD, PICTURE = HERE / "surprise.json", HERE / "surprise.svg"
LINE, LETTER, MARGIN = 26, 9.03, 24  # pixels; a letter of a 15 px monospace font
MOST_LINES = 18  # of the text; it ends with a whole speech
MOST_BITS = 8.0


def record(checkpoint: str, prompt: str, count: int, seed: int) -> dict[str, Any]:
    """A text and its surprise, by the model itself."""
    from tinyalpaca import Generator
    from tinyalpaca.generation.reading import read_back

    generator = Generator.from_checkpoint(checkpoint)
    tokens = generator.prompt_tokens(prompt)
    begun = len(tokens)
    tokens += [step.token for step in generator.steps(prompt, count, seed=seed, alternatives=None)]
    decoder = generator.tokenizer.decoder()
    shown: list[list[Any]] = [[decoder.feed(tokens[0]), None]]
    for reading in read_back(generator, tokens):
        token = tokens[reading.place]
        bits = max(0.0, -float(reading.logprobs[token]) / log(2))
        shown.append([decoder.feed(token), round(bits, 2)])
    return {
        "command": f"python -m examples.guide picture --seed {seed}",
        "parameters": generator.model.num_parameters(),
        "prompt_tokens": begun,
        "tokens": shown,
    }


def drawn(found: dict[str, Any]) -> str:
    """The picture of a record, as SVG."""
    parts, letters = [], []
    x, y, widest = float(MARGIN), MARGIN + LINE, 0.0
    for place, (text, bits) in enumerate(whole_speeches(found["tokens"])):
        for number, piece in enumerate(text.split("\n")):
            if number:
                x, y = float(MARGIN), y + LINE
            if not piece:
                continue
            wide = LETTER * len(piece)
            strength = min(1.0, (bits or 0.0) / MOST_BITS) * 0.8
            if strength > 0.02:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y - 17}" width="{wide:.1f}" height="22" rx="3" '
                    f'fill="rgb(214,84,20)" fill-opacity="{strength:.2f}"/>'
                )
            if place < found["prompt_tokens"]:
                parts.append(f'<path d="M{x:.1f} {y + 6}h{wide:.1f}" stroke="#888"/>')
            letters.append(
                f'<text x="{x:.1f}" y="{y}" textLength="{wide:.1f}" '
                f'xml:space="preserve">{escape(piece)}</text>'
            )
            x += wide
            widest = max(widest, x)
    width, height = round(widest) + MARGIN, y + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="monospace" font-size="15" fill="#222">\n'
        "<title>A text, each token coloured by how much it surprised the model</title>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#fffdf8"/>\n'
        + "\n".join(parts + letters)
        + "\n</svg>\n"
    )


def whole_speeches(tokens: list[Any]) -> list[Any]:
    """The tokens up to the last empty line that fits, without it."""
    text, end = "", len(tokens)
    for place, (piece, _) in enumerate(tokens):
        text += piece
        if text.count("\n") > MOST_LINES:
            break
        if text.endswith("\n\n"):
            end = place - 1 if piece == "\n" else place
    return tokens[:end]


def make(checkpoint: str, prompt: str, count: int, seed: int) -> None:
    """Write the record and the picture."""
    found = record(checkpoint, prompt, count, seed)
    RECORD.write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")
    PICTURE.write_text(drawn(found), encoding="utf-8")
