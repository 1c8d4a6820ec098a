"""A quick look at everything that usually goes wrong, before hours are spent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import isfinite, log
from typing import TYPE_CHECKING

import numpy as np

from minigrad import optim
from minigrad.device import gpu_name
from minigrad.parallel import Workers
from minigrad.precision import get_precision
from tinyalpaca.evaluation import Part
from tinyalpaca.training.device_loop import why_not
from tinyalpaca.training.metrics import memory_mb

if TYPE_CHECKING:
    from tinyalpaca.trainer import Trainer

START_TOLERANCE = 0.1  # of ln V: an untrained model knows nothing, and is not sure of it
LEARNED_TOKENS = 512  # few enough to be learned by heart in a few steps
LEARNING_STEPS, LEARNING_RATE = 12, 3e-3
MUST_FALL_BY = 0.1  # of ln V, in these steps on one small batch


class PreflightError(ValueError):
    """The run would come to nothing. The message says what is wrong."""


@dataclass
class Findings:
    """What the pre-flight saw: losses in nats per token, seconds, megabytes."""

    start_loss: float
    expected_loss: float
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
        return [
            f"Pre-flight: loss {self.start_loss:.2f} at the start (expected about ln V = "
            f"{self.expected_loss:.2f}), gradients of all parameters are finite and not zero, one "
            f"batch is learned to {self.learned_loss:.2f} in {LEARNING_STEPS} steps",
            f"Estimate: {bound}{self.step_seconds:.3f} s a step, {bound}"
            f"{duration(self.run_seconds)} in all{memory}",
        ]


def preflight(trainer: Trainer) -> Findings:
    """Check a trainer before its first step. The weights are afterwards what they were.

    Raises:
        PreflightError: the loss is not finite, a parameter's gradient is not finite or zero, or
            the model cannot learn one batch.
    """
    batch = trainer.dataset.batch_at(next(iter(trainer.sampler)))
    trainer.sampler.load_state_dict({"seed": trainer.config.seed, "epoch": 0, "position": 0})
    rows = max(1, LEARNED_TOKENS // batch[0].shape[1])
    small = (batch[0][:rows], batch[1][:rows])
    vocab_size = trainer.model.config.vocab_size
    kept = trainer.engine.flat.array.copy()
    try:
        with np.errstate(all="ignore"):
            start = trainer.engine.gradients(small, scale=1 / small[1].size, key=0)
            findings = Findings(start, log(vocab_size))
            check_start(trainer, findings)
            findings.learned_loss = learn(trainer, small)
            check_learning(findings)
            began = time.perf_counter()
            trainer.engine.gradients(batch, scale=1 / batch[1].size, key=0)
            findings.step_seconds = (time.perf_counter() - began) * trainer.config.accumulate
    finally:
        trainer.engine.flat.array[...] = kept
        trainer.engine.flat.changed()
        trainer.engine.flat.zero_grad()
    validation = validation_seconds(trainer, batch, findings.step_seconds)
    epochs = max(1, round(trainer.total_steps / trainer.steps_per_epoch))
    findings.run_seconds = trainer.total_steps * findings.step_seconds + epochs * validation
    findings.memory_mb = memory_mb()
    findings.without_graph = trainer.config.graph and why_not(trainer) is None
    return findings


def check_start(trainer: Trainer, findings: Findings) -> None:
    """The first loss and every parameter's first gradient."""
    if not isfinite(findings.start_loss):
        raise PreflightError(
            f"the first loss is {findings.start_loss}: the initial weights overflow already"
        )
    if abs(findings.start_loss - findings.expected_loss) > START_TOLERANCE * findings.expected_loss:
        findings.warnings.append(
            f"the loss starts at {findings.start_loss:.2f}, an untrained model should be near "
            f"ln V = {findings.expected_loss:.2f}; look at the initial weights"
        )
    problems = []
    flat = trainer.engine.flat
    for name, gradient in zip(trainer.names, flat.views(flat.grad), strict=True):
        largest = float(abs(gradient).max())
        if not isfinite(largest):
            problems.append(f"{name}: its gradient is not finite")
        elif largest == 0:
            problems.append(f"{name}: its gradient is zero everywhere, so it would never learn")
    if problems:
        raise PreflightError("the first gradients are wrong:\n  " + "\n  ".join(problems))


def learn(trainer: Trainer, batch: Part) -> float:
    """The loss of one small batch after a few steps on it."""
    optimizer = optim.AdamW(trainer.parameters, lr=LEARNING_RATE, weight_decay=0.0)
    for _ in range(LEARNING_STEPS):
        trainer.engine.gradients(batch, scale=1 / batch[1].size, key=0)
        trainer.engine.update(optimizer, 1.0)
    return float(trainer.engine.evaluate(batch)) / batch[1].size


def check_learning(findings: Findings) -> None:
    """One small batch must have been learned, at least a little."""
    fallen = findings.start_loss - findings.learned_loss
    if not fallen > MUST_FALL_BY * findings.expected_loss:
        raise PreflightError(
            f"one small batch cannot be learned: its loss went from {findings.start_loss:.2f} to "
            f"{findings.learned_loss:.2f} in {LEARNING_STEPS} steps. Something is wrong with the "
            "model or the data; --no-preflight trains all the same"
        )


def validation_seconds(trainer: Trainer, batch: Part, step_seconds: float) -> float:
    """About how long a validation takes: a forward is a third of a step."""
    share = len(trainer.data.validation) / (batch[1].size * trainer.config.accumulate)
    return share * step_seconds / 3


def duration(seconds: float) -> str:
    """For people: "about 40 s", "about 12 min", "about 3.5 h"."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def engine_of(trainer: Trainer) -> str:
    """What computes and how the work is shared, for people."""
    if isinstance(trainer.engine, Workers):
        engine = trainer.engine
        team = f"{engine.workers} {engine.backend}" if engine.workers > 1 else "1 process"
        return f"{team}, {engine.micro_batch_size} sequence(s) at a time"
    device = trainer.parameters[0].device
    products = {"fp32": "float32", "tf32": "TF32", "bf16": "bfloat16"}[get_precision(device)]
    if not trainer.config.graph:
        steps = "kernels launched one by one"
    elif why_not(trainer):
        steps = "steps made by the host"
    else:
        steps = "one CUDA graph a step"
    return f"{gpu_name(device)}, products in {products}, {steps}"
