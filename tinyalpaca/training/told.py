"""What is printed about a run: what computes, and where its files are at the end."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np

from minigrad.device import Device, gpu_name
from minigrad.installing import install_line
from minigrad.parallel import Engine, Workers, mpi
from minigrad.precision import get_precision
from tinyalpaca.console import Say, say
from tinyalpaca.training.gpu_steps import why_not
from tinyalpaca.training.hooks.curve import LOSS_CURVE, plots_available
from tinyalpaca.training.hooks.report import REPORT
from tinyalpaca.training.metrics_file import METRICS
from tinyalpaca.training.run import Run
from tinyalpaca.training.stopping import StopRequested


def describe_engine(run: Run) -> str:
    """What computes and how the work is shared, in words."""
    device, engine = run.task.parameters[0].device, run.task.engine
    if isinstance(engine, mpi.DataParallel):
        shared = ", averages shared out" if engine.sharding is not None else ""
        return f"{engine.ranks.size} ranks{shared}, each {describe_own(run, device, engine.own)}"
    return describe_own(run, device, engine)


def describe_own(run: Run, device: Device, engine: Engine) -> str:
    """What computes in this process, in words."""
    if isinstance(engine, Workers):
        team = f"{engine.workers} {engine.backend}" if engine.workers > 1 else "1 process"
        return f"{team}, {engine.micro_batch_size} sequence(s) at a time"
    precision = {"fp32": "float32", "tf32": "TF32", "bf16": "bfloat16"}[get_precision(device)]
    if not run.config.graph:
        steps = "kernels launched one by one"
    elif why_not(run.task):
        steps = "steps made by the host"
    else:
        steps = f"{'one CUDA graph' if run.ranks is None else 'two CUDA graphs'} a step"
    return f"{gpu_name(device)}, matmuls in {precision}, {steps}"


def finish(run: Run, tell: Say) -> None:
    """Print where the files of a run are, with a sample and a last validation."""
    folder, config, state = run.folder.path, run.config, run.state
    if run.stopped:
        say(
            f"Stopped at step {state.step:,} of {run.task.total_steps:,} ({run.stopped}). "
            f"Everything is saved in {folder}; resume with\n    {resume_command(folder, run.ranks)}"
        )
        return
    run.use_best()
    best = state.records[(state.best or {"record": -1})["record"]]["val_nats_per_char"]
    sliding, how = 0.0, ""
    try:
        if config.eval_stride:
            with np.errstate(all="ignore"):
                score = run.task.validate(run.stopping.check, config.eval_stride)
            sliding = score.nats_per_character
            how = f"; {sliding:.4f} with windows that move on by {config.eval_stride} tokens"
        text = run.samples.text(config.sample_tokens)
    except StopRequested:
        text = ""
    finally:
        run.task.engine.close()
    if text:
        tell(f"\nSample:\n{text}\n")
    run.report.save(state, sample=text, score=sliding)
    say(f"Best validation: {best:.4f} nats per character{how}")
    tell(f"In {folder}: model.safetensors, config.json, tokenizer.json, {METRICS}, {REPORT}")
    if plots_available():
        tell(f"Loss curve: {folder / LOSS_CURVE}")
    else:
        tell(f"No loss curve: it needs matplotlib, {install_line('plots')}")


def resume_command(folder: Path, ranks: mpi.Ranks | None = None) -> str:
    """The command that resumes this run."""
    program = Path(sys.argv[0])
    words = [] if ranks is None else ["mpirun", "-n", str(ranks.size)]
    if program.suffix == ".py" and program.name != "__main__.py":
        return shlex.join([*words, "python", str(program), "--resume", str(folder)])
    return shlex.join([*words, "tinyalpaca", "train", "--resume", str(folder)])
