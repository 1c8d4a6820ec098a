"""Several runs that differ in some settings, and a table of them. The text is read once."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from minigrad.storage import write_text_atomically
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.console import say, warn
from tinyalpaca.runs import RunFolder
from tinyalpaca.training.job import resume_training, run_training
from tinyalpaca.training.resuming import given_again
from tinyalpaca.training.stopping import TrainingStopped
from tinyalpaca.training.texts import Texts, placed, read_tokens

TABLE = "sweep.csv"
# Settings of which the tokens are made; a run with others reads the text anew.
OF_TOKENS = ("data", "validation", "validation_fraction", "tokenizer", "num_merges", "init_from")
Row = dict[str, Any]


def sweep(
    config: TrainConfig, vary: Mapping[str, Sequence[Any]], model_config: ModelConfig | None = None
) -> list[Row]:
    """Train with every combination of some settings, each in a folder of its own in `config.out`.

    A run that exists already is resumed, so a sweep that was stopped can be called again.

    Args:
        config: the other settings.
        vary: values by name of a setting, of the training or of the model.
        model_config: the model's other sizes.

    Returns:
        For each run its varied settings, its best validation ("nats_per_char"), "step", "folder"
        and how it "ended", sorted from the best. They are in `sweep.csv` as well.

    Raises:
        ConfigError: there is no such setting, or a combination makes no sense; found at once.
    """
    sizes, parent = model_config or ModelConfig(), Path(config.out)
    runs = [
        (values, *settled(config, sizes, values, parent))
        for values in (dict(zip(vary, chosen, strict=True)) for chosen in product(*vary.values()))
    ]
    rows: list[Row] = []
    read: dict[tuple[Any, ...], Texts] = {}
    for number, (values, one, model) in enumerate(runs, 1):
        say(f"Run {number} of {len(runs)}: {named(values)}")
        tokens_of = tuple(getattr(one, name) for name in OF_TOKENS)
        if tokens_of not in read and not one.init_from:
            with RunFolder(parent / f"text-{len(read) + 1}").open() as folder:
                read[tokens_of] = read_tokens(placed(one), None, folder, say, warn)
        row, stopped = trained(one, model, read.get(tokens_of))
        rows.append(values | row)
        write_table(parent / TABLE, rows)
        if stopped:
            break
    return sorted(rows, key=lambda row: (row["nats_per_char"] is None, row["nats_per_char"]))


def trained(config: TrainConfig, model: ModelConfig, texts: Texts | None) -> tuple[Row, str | None]:
    """A run, or the rest of one: its row, and why it was stopped, if it was."""
    row: Row = {"nats_per_char": None, "step": 0, "folder": config.out, "ended": "at its end"}
    try:
        if RunFolder(config.out).all():
            run = resume_training(Path(config.out), {}, given_again(config), texts=texts)
        else:
            run = run_training(model, config, texts=texts)
    except TrainingStopped as error:
        return row | {"ended": str(error).split("\n")[0]}, None
    state = run.state
    if state.best is not None:
        row["nats_per_char"] = state.records[state.best["record"]]["val_nats_per_char"]
    ended = run.stopped or "at its end"
    return row | {"step": state.step, "ended": ended}, run.stopped


def settled(
    config: TrainConfig, model: ModelConfig, values: Mapping[str, Any], parent: Path
) -> tuple[TrainConfig, ModelConfig]:
    """The settings of one run."""
    of_model = {f.name for f in dataclasses.fields(model)}
    of_training = {f.name for f in dataclasses.fields(config)} - {"out"}
    unknown = values.keys() - of_model - of_training
    if unknown:
        raise ConfigError(f"there is no setting {', '.join(sorted(unknown))} to vary")
    training = {name: value for name, value in values.items() if name in of_training}
    sizes = {name: value for name, value in values.items() if name in of_model}
    out = str(parent / named(values).replace("/", "_").replace(" ", ""))
    return dataclasses.replace(config, out=out, **training), dataclasses.replace(model, **sizes)


def named(values: Mapping[str, Any]) -> str:
    """Settings in words."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def table(rows: Sequence[Row]) -> str:
    """The rows as a text in columns."""
    cells = [list(rows[0])]
    for row in rows:
        cells.append([f"{v:.4f}" if k == "nats_per_char" and v else str(v) for k, v in row.items()])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [map(str.ljust, line, widths) for line in cells]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """The rows as a file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomically(path, text.getvalue(), follow_links=False)
