"""What the page shows, as values: a text while it is written, attention, curves.

Nothing here depends on a browser; `server.py` sends what these functions return.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from minigrad.device import Device
from tinyalpaca.converting.loading import load
from tinyalpaca.generation import Generator
from tinyalpaca.generation.reading import read_back
from tinyalpaca.generation.token_page import TokensShown, packed_attention
from tinyalpaca.runs.checkpoint import find_model
from tinyalpaca.runs.layout import WEIGHTS
from tinyalpaca.training.hooks.charts import line_chart, loss_lines
from tinyalpaca.training.metrics_file import METRICS, read_metrics

# What the page may set, and between which bounds.
SETTINGS: dict[str, tuple[type, float, float]] = {
    "temperature": (float, 0.0, 2.0),
    "top_k": (int, 0, 1000),
    "top_p": (float, 0.0, 1.0),
    "min_p": (float, 0.0, 1.0),
    "repetition_penalty": (float, 1.0, 2.0),
    "max_new_tokens": (int, 1, 1000),
    "seed": (int, 0, 2**31 - 1),
}
# A slider at its end leaves the filter out.
OFF: dict[str, float] = {"top_k": 0, "top_p": 0.0, "min_p": 0.0}
ALTERNATIVES = 8
LONGEST_PROMPT = 4096  # tokens; more would take long to read, and others wait meanwhile


class Session:
    """A folder that has a model, or will have one later in its training.

    The weights are read again when a run that is still training has saved better ones.

    Args:
        folder: of a run, or of a model, be it one of Hugging Face's.
        device: where to compute.
    """

    folder: Path
    device: Device | str

    def __init__(self, folder: str | Path, device: Device | str = "cpu") -> None:
        self.folder, self.device = Path(folder), device
        self._lock = Lock()  # one text at a time
        self._generator: Generator | None = None
        self._seen: tuple[str, int] | None = None

    def generator(self) -> Generator:
        """Of the weights that lie in the folder now.

        Raises:
            FileNotFoundError: there are none yet.
        """
        path = find_model(self.folder)
        weights = path / WEIGHTS
        now = (str(path), weights.stat().st_mtime_ns) if weights.is_file() else None
        if self._generator is None or now != self._seen:
            loaded = load(path, self.device)
            self._generator, self._seen = Generator(loaded.model, loaded.tokenizer), now
        return self._generator

    def write(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A text while it is written: the prompt's tokens, each new token, then the attention.

        Args:
            asked: "prompt", and any of SETTINGS.

        Raises:
            ValueError: a setting is not a number, or out of bounds; the prompt is empty or longer
                than LONGEST_PROMPT.
        """
        settings = checked_settings(asked)
        prompt = asked.get("prompt")
        if not isinstance(prompt, str):
            raise ValueError("the prompt must be a text")
        with self._lock:
            generator = self.generator()
            tokens = generator.prompt_tokens(prompt)
            if len(tokens) > LONGEST_PROMPT:
                raise ValueError(
                    f"the prompt has {len(tokens):,} tokens, and this page takes "
                    f"{LONGEST_PROMPT:,}: shorten it. The model looks back at the last "
                    f"{generator.model.config.max_seq_len:,} only."
                )
            shown = TokensShown(generator.tokenizer)
            readings = read_back(generator, tokens)
            first = [{**shown.next(tokens[0]), "bits": None, "best": []}]
            first += [shown.read(tokens[r.place], r, ALTERNATIVES) for r in readings]
            yield {"prompt": first}
            for step in generator.steps(prompt, **settings, alternatives=ALTERNATIVES):
                tokens.append(step.token)
                yield {"token": shown.chosen(step.token, step.logprob, step.alternatives)}
            yield {"attention": attention_of(generator, tokens)}

    def curves(self) -> dict[str, Any]:
        """The chart of the losses so far as SVG, and the last step; no chart if there are none."""
        records = read_metrics(self.folder / METRICS)
        steps = [r for r in records if r["kind"] == "step"]
        validations = [r for r in records if r.get("val_loss") is not None]
        if not steps:
            return {"step": 0, "chart": ""}
        losses = [(float(r["step"]), float(r["loss"])) for r in steps if r["loss"] is not None]
        return {
            "step": steps[-1]["step"],
            "loss": steps[-1]["loss"],
            "validation": validations[-1]["val_loss"] if validations else None,
            "chart": line_chart(loss_lines(losses, validations), "nats per token"),
        }


def attention_of(generator: Generator, tokens: list[int]) -> dict[str, Any]:
    """The attention of each token, packed as in `tinyalpaca.generation.token_page`."""
    readings = list(read_back(generator, tokens))
    packed, layers, heads = packed_attention(readings)
    starts = [0, *(reading.start for reading in readings)]
    data = base64.b64encode(packed).decode("ascii")
    return {"starts": starts, "layers": layers, "heads": heads, "data": data}


def checked_settings(asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of a request as those of `Generator.steps`.

    Raises:
        ValueError: one is not a number, or out of its bounds.
    """
    found: dict[str, Any] = {}
    for name, (kind, low, high) in SETTINGS.items():
        value = asked.get(name)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
        if name in OFF and value == OFF[name]:
            continue
        found[name] = kind(value)
    return found
