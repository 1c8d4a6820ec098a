"""A quick check of what usually goes wrong, before a long training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from minigrad import optim
from minigrad.parallel import Engine
from tinyalpaca.console import Say
from tinyalpaca.training.hooks.hook import Hook
from tinyalpaca.training.records import memory_mb
from tinyalpaca.training.state import Part, TrainingState

START_TOLERANCE = 0.1  # of ln V: an untrained model knows nothing, and is not sure of it
LEARNED_TOKENS = 512  # few enough to be learned by heart in a few steps
LEARNING_STEPS, LEARNING_RATE = 12, 3e-3
MUST_FALL_BY = 0.1  # of ln V, in these steps on one small batch


class PreflightError(ValueError):
    """The run would fail. The message says why."""


@dataclass
class Findings:
    """The results of a pre-flight: losses in nats per token, seconds, megabytes."""

    start_loss: float
    expected_loss: float | None
    learned_loss: float = 0.0
    step_seconds: float = 0.0
    run_seconds: float = 0.0
    memory_mb: float | None = None
    without_graph: bool = False  # a GPU's steps are quicker as a graph than what was measured
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        bound = "at most " if self.without_graph else ""
        memory = "" if self.memory_mb is None else f", about {self.memory_mb:,.0f} MB a process"
        expected = self.expected_loss
        about = "" if expected is None else f" (expected about ln V = {expected:.2f})"
        return [
            f"Pre-flight: loss {self.start_loss:.2f} at the start{about}, gradients of all "
            f"parameters are finite and not zero, one batch is learned to {self.learned_loss:.2f} "
            f"in {LEARNING_STEPS} steps",
            f"Estimate: {bound}{self.step_seconds:.3f} s a step, {bound}"
            f"{duration(self.run_seconds)} in all{memory}",
        ]


class Preflight(Hook):
    """Checks model, gradients and memory before the first step, and prints the results.

    It comes before the hooks that write: a run that is refused leaves its folder as it was.

    Args:
        engine: computes losses and gradients.
        names: of the engine's parameters.
        first_batch: what training begins with.
        batches: of a step.
        steps, validated: of the whole run, and the tokens of all its validations.
        expected_loss: of an untrained model; None if that is not known.
        quicker_later: a GPU's steps, as a graph, will be faster than measured here.
        say, warn: called with the results.
    """

    first_batch: Callable[[], Part]
    say: Say
    warn: Say
    engine: Engine
    names: Sequence[str]
    batches: int
    steps: int
    validated: int
    expected_loss: float | None
    quicker_later: bool

    def __init__(
        self,
        engine: Engine,
        names: Sequence[str],
        first_batch: Callable[[], Part],
        *,
        batches: int,
        steps: int,
        validated: int,
        expected_loss: float | None,
        quicker_later: bool,
        say: Say,
        warn: Say,
    ) -> None:
        self.engine, self.names, self.first_batch = engine, names, first_batch
        self.batches, self.steps, self.validated = batches, steps, validated
        self.expected_loss, self.quicker_later = expected_loss, quicker_later
        self.say, self.warn = say, warn

    def on_start(self, state: TrainingState) -> None:
        findings = self.look()
        for line in findings.lines():
            self.say(line)
        for line in findings.warnings:
            self.warn(line)

    def look(self) -> Findings:
        """Make all checks. Afterwards the weights are the same as before.

        Raises:
            PreflightError: the loss is not finite, a parameter's gradient is not finite or zero, or
                the model cannot learn one batch.
        """
        engine, batch = self.engine, self.first_batch()
        rows = max(1, LEARNED_TOKENS // batch[0].shape[1])
        small = (batch[0][:rows], batch[1][:rows])
        kept = engine.flat.array.copy()
        try:
            with np.errstate(all="ignore"):
                start = engine.gradients(small, scale=1 / small[1].size, key=0)
                findings = Findings(start, self.expected_loss)
                check_start(engine, self.names, findings)
                findings.learned_loss = learn(engine, small)
                check_learning(findings)
                began = time.perf_counter()
                engine.gradients(batch, scale=1 / batch[1].size, key=0)
                findings.step_seconds = (time.perf_counter() - began) * self.batches
        finally:
            engine.flat.array[...] = kept
            engine.flat.changed()
            engine.flat.zero_grad()
        # A validation is a forward for all its tokens, which is a third of a step.
        more = self.validated / (batch[1].size * self.batches) / 3
        findings.run_seconds = findings.step_seconds * (self.steps + more)
        findings.memory_mb = memory_mb()
        findings.without_graph = self.quicker_later
        return findings


def check_start(engine: Engine, names: Sequence[str], findings: Findings) -> None:
    """The first loss and every parameter's first gradient."""
    if not isfinite(findings.start_loss):
        raise PreflightError(
            f"the first loss is {findings.start_loss}: the initial weights overflow already"
        )
    start, expected = findings.start_loss, findings.expected_loss
    if expected is not None and abs(start - expected) > START_TOLERANCE * expected:
        findings.warnings.append(
            f"the loss starts at {start:.2f}, an untrained model should be near "
            f"ln V = {expected:.2f}; look at the initial weights"
        )
    problems = []
    flat = engine.flat
    for name, gradient in zip(names, flat.views(flat.grad), strict=True):
        largest = float(abs(gradient).max())
        if not isfinite(largest):
            problems.append(f"{name}: its gradient is not finite")
        elif largest == 0 and not name.endswith(".lora_a"):  # whose partner begins at 0
            problems.append(f"{name}: its gradient is zero everywhere, so it would never learn")
    if problems:
        raise PreflightError("the first gradients are wrong:\n  " + "\n  ".join(problems))


def learn(engine: Engine, batch: Part) -> float:
    """The loss of one small batch after a few steps on it."""
    optimizer = optim.AdamW(engine.flat.parameters, lr=LEARNING_RATE, weight_decay=0.0)
    for _ in range(LEARNING_STEPS):
        engine.gradients(batch, scale=1 / batch[1].size, key=0)
        engine.update(optimizer, 1.0)
    return float(engine.evaluate(batch)) / batch[1].size


def check_learning(findings: Findings) -> None:
    """One small batch must have been learned, at least a little; a trained model knows it."""
    fallen = findings.start_loss - findings.learned_loss
    if not fallen > MUST_FALL_BY * (findings.expected_loss or 0.0):
        raise PreflightError(
            f"one small batch cannot be learned: its loss went from {findings.start_loss:.2f} to "
            f"{findings.learned_loss:.2f} in {LEARNING_STEPS} steps. Something is wrong with the "
            "model or the data; --no-preflight trains all the same"
        )


def duration(seconds: float) -> str:
    """For people: "about 40 s", "about 12 min", "about 3.5 h"."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
