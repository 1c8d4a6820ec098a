"""`loss.png`: the losses of a run, drawn again while it continues."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from minigrad.storage import atomic_write
from tinyalpaca.console import Say
from tinyalpaca.training.hooks.charts import COLOURS, loss_lines
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.hooks.metrics import Metrics
from tinyalpaca.training.state import Record, TrainingState

LOSS_CURVE = "loss.png"
FAINT = "#b9cde4"  # the first colour, as if far away
CURVE_EVERY = 5.0  # seconds; a picture takes a third of one, which is longer than an epoch on a GPU


class LossCurve(Hook):
    """Draws the losses of all steps and validations, if matplotlib is installed.

    Args:
        folder: of the run.
        metrics: comes before this hook and has the losses.
        warn: called with a message if there can be no picture.
    """

    warn: Say
    path: Path
    metrics: Metrics

    def __init__(self, folder: Path, metrics: Metrics, warn: Say) -> None:
        self.path, self.metrics, self.warn = folder / LOSS_CURVE, metrics, warn
        self._drawn = time.monotonic()

    def on_epoch(self, state: TrainingState, record: Record) -> None:
        if time.monotonic() - self._drawn >= CURVE_EVERY:
            self.draw(state)

    def on_stop(self, state: TrainingState, reason: str | None) -> None:
        self.draw(state)

    def draw(self, state: TrainingState) -> None:
        """Draw it, if there has been a validation."""
        if state.records and plots_available():
            with decoration(LOSS_CURVE, self.warn):
                save_loss_curve(self.path, self.metrics.losses, state.records)
            self._drawn = time.monotonic()


def plots_available() -> bool:
    """True if matplotlib is installed (`pip install -e ".[plots]"`)."""
    return importlib.util.find_spec("matplotlib") is not None


def save_loss_curve(
    path: str | os.PathLike[str],
    step_losses: Sequence[tuple[int, float]],
    records: Sequence[Record],
) -> None:
    """Draw training loss by step and validation loss, in nats per token, as a PNG.

    Args:
        path: the file; a link there is replaced, not followed.
        step_losses: (step, training loss) of every step.
        records: of the validations.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for line, colour in zip(loss_lines(step_losses, records), COLOURS, strict=False):
        axes.plot(
            [x for x, _ in line.points],
            [y for _, y in line.points],
            "o-" if line.dots else "-",
            color=FAINT if line.faint else colour,
            linewidth=0.8 if line.faint else 1.6,
            zorder=1 if line.faint else 2,
            label=line.name,
        )
    if records:
        last = records[-1]
        axes.annotate(
            f"{last['val_loss']:.3f}\n({last['val_nats_per_char']:.3f} nats per character)",
            (last["step"], last["val_loss"]),
            xytext=(-6, 28),  # clear of the curve, which comes down from the left
            textcoords="offset points",
            ha="right",
            color=COLOURS[1],
        )
    axes.set(xlabel="step", ylabel="loss (nats per token)", title="Learning curve")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper right")  # looking for the best place takes long
    with atomic_write(path, follow_links=False) as file:
        figure.savefig(file, format="png", dpi=130)


@contextlib.contextmanager
def decoration(name: str, warn: Say) -> Iterator[None]:
    """Context manager: an error inside gives a warning, since it is no reason to stop a run."""
    try:
        yield
    except Exception as error:
        warn(f"{name} could not be written ({type(error).__name__}: {error})")
