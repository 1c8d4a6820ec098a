"""Pictures of a run. They need matplotlib (`pip install -e ".[plots]"`)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from minigrad.storage import atomic_write


def plots_available() -> bool:
    """True if matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def save_loss_curve(
    path: str | os.PathLike[str],
    step_losses: Sequence[tuple[int, float]],
    epochs: Sequence[dict[str, Any]],
) -> None:
    """Draw training loss by step and validation loss by epoch, in nats per token, as a PNG.

    Args:
        path: the file; a link there is replaced, not followed.
        step_losses: (step, training loss) of every step.
        epochs: records with `step`, `val_loss` and `val_nats_per_char`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [step for step, _ in step_losses]
    losses = [loss for _, loss in step_losses]
    axes.plot(steps, losses, color="#b9cde4", linewidth=0.8, label="training, each step")
    axes.plot(steps, smoothed(losses), color="#2b6cb0", linewidth=1.6, label="training, smoothed")
    axes.plot(
        [e["step"] for e in epochs],
        [e["val_loss"] for e in epochs],
        "o-",
        color="#c05621",
        label="validation, each epoch",
    )
    if epochs:
        last = epochs[-1]
        axes.annotate(
            f"{last['val_loss']:.3f}\n({last['val_nats_per_char']:.3f} nats per character)",
            (last["step"], last["val_loss"]),
            xytext=(-6, 10),
            textcoords="offset points",
            ha="right",
            color="#c05621",
        )
    axes.set(xlabel="step", ylabel="loss (nats per token)", title="Learning curve")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper right")  # looking for the best place takes long
    with atomic_write(path, follow_links=False) as file:
        figure.savefig(file, format="png", dpi=130)


def smoothed(values: Sequence[float], share: float = 0.01) -> list[float]:
    """Exponential average over about `share` of all values, free of the pull of its start."""
    keep = 1 - 1 / max(1.0, share * len(values))
    result, average, weight = [], 0.0, 0.0
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        result.append(average / weight)
    return result
