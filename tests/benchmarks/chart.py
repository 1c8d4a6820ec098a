"""Draw the records of `train_step` as one chart.

python -m tests.benchmarks.chart OUT.png seed.json medium.json large.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

OURS, PEER = "#2b6cb0", "#c9c9c9"
PANELS = (("ms", "training step (ms)"), ("forward_ms", "forward only (ms)"), ("mb", "memory (MB)"))


def main(argv: list[str]) -> None:
    """Run the command."""
    out, *paths = argv
    records = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    figure = Figure(figsize=(9, 1.1 + 0.75 * len(records)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (key, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for row, record in enumerate(reversed(records)):
            peer, ours = record[f"peer_{key}"], record[f"ours_{key}"]
            axes.barh(row + 0.18, 1.0, 0.32, color=PEER)
            axes.barh(row - 0.18, ours / peer, 0.32, color=OURS)
            axes.text(0.02, row + 0.18, f"{record['against']} {peer:.0f}", va="center", fontsize=8)
            label, inside = f"minigrad {ours:.0f}", ours / peer > 0.55
            place, colour = (0.02, "white") if inside else (ours / peer + 0.02, OURS)
            axes.text(place, row - 0.18, label, va="center", fontsize=8, color=colour)
            axes.text(
                max(1.0, ours / peer) + 0.03, row, f"{peer / ours:.2f}x", va="center", fontsize=9
            )
        axes.set_yticks(range(len(records)), [r["workload"] for r in reversed(records)])
        axes.set_xlim(0, 1.3 * max(1.0, *(r[f"ours_{key}"] / r[f"peer_{key}"] for r in records)))
        axes.set_xticks([])
        axes.set_title(f"{title}, shorter is better", fontsize=9)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    machine = records[0]["machine"]
    figure.supxlabel(
        f"{machine['cores']} cores of {machine['cpu']}, {machine['date']}", fontsize=8, color="#666"
    )
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main(sys.argv[1:])
