"""`report.html`: a run on one page, without other files and without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import write_text_atomically
from tinyalpaca.config import TrainConfig
from tinyalpaca.console import Say
from tinyalpaca.generation.attention import attention_maps
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.training.hooks.charts import Line, heat_map, line_chart, loss_lines
from tinyalpaca.training.hooks.curve import decoration
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.hooks.metrics import Metrics
from tinyalpaca.training.state import Record, TrainingState
from tinyalpaca.versions import versions

REPORT = "report.html"
ATTENTION_TOKENS = 40

# Nothing may be loaded, from anywhere: the page is complete.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root{color-scheme:light dark;--ink:#1a202c;--soft:#5a6577;--line:#d9dfe7;--page:#f6f7f9;
--card:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#a3aebf;--line:#38414f;--page:#14181f;
--card:#1d232d}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1220px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:34px 0 12px}h3{font-size:14px;margin:0 0 8px}
.soft,.none{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin-top:18px}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:12px 14px}
.tile b{display:block;font-size:22px;font-weight:650;font-variant-numeric:tabular-nums}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:14px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
.grid{stroke:var(--line);stroke-width:1}
.legend{margin:6px 0 0;display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--soft);font-size:13px}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:13px/1.5 ui-monospace,monospace}
details{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px;
margin-bottom:8px}
summary{cursor:pointer;font-weight:600}details pre{margin-top:8px}
.maps{overflow-x:auto}.maps table{border-collapse:collapse;font-size:13px}
.maps th{font-weight:500;color:var(--soft);padding:2px 8px}.maps td{padding:3px}
.maps img{width:132px;height:132px;image-rendering:pixelated;display:block;border-radius:4px}
.settings{width:100%;border-collapse:collapse;font-size:13px}
.settings td{padding:2px 10px 2px 0;border-top:1px solid var(--line);overflow-wrap:anywhere}
.settings td:first-child{color:var(--soft);white-space:nowrap}
"""


class Report(Hook):
    """Writes the report of a run into its folder.

    It does so if a run is stopped. At the end of a run `save` is called, with the score of the best
    weights.

    Args:
        folder: of the run.
        model, tokenizer: that are trained.
        config: the settings.
        validation: the tokens of the validation text.
        metrics: has the records.
        source: where the text is from.
        warn: called with a message if there can be no report; nothing depends on it.
    """

    folder: Path
    model: Any
    tokenizer: Any
    config: TrainConfig
    validation: np.ndarray
    metrics: Metrics
    source: str

    def __init__(
        self,
        folder: Path,
        model: Any,
        tokenizer: Any,
        config: TrainConfig,
        validation: np.ndarray,
        metrics: Metrics,
        source: str,
        warn: Say,
    ) -> None:
        self.folder, self.model, self.tokenizer, self.config = folder, model, tokenizer, config
        self.validation, self.metrics, self.source = validation, metrics, source
        self.warn = warn

    def on_stop(self, state: TrainingState, reason: str | None) -> None:
        if reason is not None:
            self.save(state, stopped=True)

    def save(
        self, state: TrainingState, *, stopped: bool = False, sample: str = "", score: float = 0.0
    ) -> None:
        """Write `report.html`.

        Args:
            stopped: whether the run was stopped before its end.
            sample: the text that the model has written at the end.
            score: the last validation in nats per character, with windows that overlap; 0 for none.
        """
        with decoration(REPORT, self.warn):
            page = self.render(state, stopped, sample, score)
            page = page.encode("utf-8", "replace").decode("utf-8")  # a file's name need not be
            write_text_atomically(self.folder / REPORT, page, follow_links=False)

    def render(
        self, state: TrainingState, stopped: bool = False, sample: str = "", score: float = 0.0
    ) -> str:
        """The page."""
        title = f"TinyAlpaca in {self.folder.resolve().name}"
        sections = [
            tiles(state, self.model.num_parameters(), score),
            "<h2>Curves</h2>" + charts(state.records, self.metrics),
            "<h2>Samples</h2>" + samples(state.records, sample),
            "<h2>Attention of the final model</h2>" + self._attention(),
            "<h2>Settings</h2>" + settings(self.model, self.config),
        ]
        done = f"stopped at step {state.step:,}" if stopped else f"{state.step:,} steps"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
            f'<h1>{escape(title)}</h1><p class="soft">{escape(self.source)} · {done}</p>'
            + "\n".join(sections)
            + "</main></body></html>\n"
        )

    def _attention(self) -> str:
        if type(self.model) is not TinyAlpaca:
            return f'<p class="none">Not drawn for {escape(type(self.model).__name__)}.</p>'
        try:
            ids = np.asarray(self.tokenizer.encode(self.config.prompt), np.int64)
        except ValueError:  # characters that no token stands for
            ids = np.zeros(0, np.int64)
        if not len(ids):
            ids = self.validation.astype(np.int64)
        ids = ids[: min(ATTENTION_TOKENS, self.model.config.max_seq_len)]
        return attention(self.model, ids, self.tokenizer)


def tiles(state: TrainingState, parameters: int, score: float) -> str:
    """The numbers that one looks for first."""
    found: list[tuple[str, str]] = []
    if score:
        found.append((f"{score:.4f}", "nats per character, windows overlap"))
    if state.best is not None:
        best = state.records[state.best["record"]]
        perplexity = best["val_perplexity"]
        found += [
            (f"{best['val_nats_per_char']:.4f}", f"nats per character, epoch {best['epoch']}"),
            (f"{best['val_bits_per_char']:.4f}", "bits per character"),
            ("∞" if perplexity is None else f"{perplexity:.2f}", "perplexity per token"),
        ]
    seconds = sum(record["seconds"] for record in state.records)
    speed = [r["tokens_per_second"] for r in state.records if r["tokens_per_second"]]
    found += [
        (f"{parameters:,}", "parameters"),
        (f"{seconds / 60:.1f} min", "of training and validation"),
    ]
    if speed:
        found.append((f"{np.median(speed):,.0f}", "tokens per second"))
    cells = (f'<div class="tile"><b>{v}</b><span class="soft">{t}</span></div>' for v, t in found)
    return f'<div class="tiles">{"".join(cells)}</div>'


def charts(records: Sequence[Record], metrics: Metrics) -> str:
    """Losses, learning rate, gradient norms, update ratios, speed."""
    steps = [r for r in metrics.history if r["kind"] == "step"]

    def column(name: str) -> list[tuple[float, float]]:
        return [(r["step"], r[name]) for r in steps]

    layers: dict[str, list[tuple[float, float]]] = {}
    for record in steps:
        for layer, ratio in record.get("update_ratio", {}).items():
            layers.setdefault(layer, []).append((record["step"], ratio))
    cards = {
        "Loss (nats per token)": line_chart(loss_lines(metrics.losses, records), "loss"),
        "Validation (nats per character)": line_chart(
            [
                Line(
                    "validation",
                    [(r["step"], r["val_nats_per_char"]) for r in records],
                    True,
                )
            ],
            "nats per character",
        ),
        "Learning rate": line_chart(
            [Line("learning rate", column("learning_rate"))], "learning rate"
        ),
        "Gradient norm, before clipping": line_chart(
            [Line("gradient norm", column("grad_norm"))], "gradient norm", logarithmic=True
        ),
        "Update over weight, each layer": line_chart(
            [Line(name, points) for name, points in layers.items()], "ratio", logarithmic=True
        ),
        "Tokens per second": line_chart(
            [Line("tokens per second", column("tokens_per_second"))], "tokens per second"
        ),
    }
    body = "".join(f'<div class="card"><h3>{name}</h3>{c}</div>' for name, c in cards.items())
    return f'<div class="grid2">{body}</div>'


def samples(records: Sequence[Record], last: str) -> str:
    """What the model wrote after each epoch, and at the end."""
    parts = [
        f"<details><summary>Epoch {r['epoch']} ({r['val_nats_per_char']:.3f} nats per character)"
        f"</summary><pre>{escape(r['sample'])}</pre></details>"
        for r in records
        if r["sample"]
    ]
    if last:
        parts.append(
            f"<details open><summary>At the end</summary><pre>{escape(last)}</pre></details>"
        )
    return "".join(parts) or '<p class="none">None were asked for.</p>'


def attention(model: TinyAlpaca, ids: np.ndarray, tokenizer: Any) -> str:
    """A picture for each layer and head: the attention of each token (row) to earlier ones."""
    maps = attention_maps(model.eval(), ids)  # (L, H, T, T)
    heads = "".join(f"<th>head {h + 1}</th>" for h in range(maps.shape[1]))
    rows = [f"<tr><th></th>{heads}</tr>"]
    for number, layer in enumerate(maps):
        pictures = "".join(
            f'<td><img src="{heat_map(np.sqrt(head))}" alt="layer {number + 1}, head {h + 1}"></td>'
            for h, head in enumerate(layer)
        )
        rows.append(f"<tr><th>layer {number + 1}</th>{pictures}</tr>")
    tokens = "|".join(tokenizer.decode([token]) for token in ids.tolist())
    return (
        f'<p class="soft">Each token (a row) looks at itself and those before it (columns, from '
        "the left). Dark is 0, yellow is 1, on a square-root scale. The tokens: "
        f"<code>{escape(tokens)}</code></p>"
        f'<div class="card maps"><table>{"".join(rows)}</table></div>'
    )


def settings(model: Any, config: TrainConfig) -> str:
    """Both configurations, and the versions that made the run."""
    tables = {
        "Model": dataclasses.asdict(model.config),
        "Training": dataclasses.asdict(config),
        "Versions": versions(),
    }
    cards = []
    for name, values in tables.items():
        rows = "".join(
            f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>"
            for key, value in values.items()
        )
        cards.append(
            f'<div class="card"><h3>{name}</h3><table class="settings">{rows}</table></div>'
        )
    return f'<div class="grid2">{"".join(cards)}</div>'
