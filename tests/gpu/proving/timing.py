"""Times a training step beside PyTorch's modes, in turns and at equal precision; measures memory.

Every contender has its own process. The models have the same weights and the same batch, so the
losses of the first step must be equal before anything is timed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from math import isclose
from typing import Any

from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.gpu.proving.processes import Clock, Save, environment
from tests.gpu.proving.rivals import Rival, Rivals, spread, take_turns

STEPS = {
    "seed": WORKLOADS["seed"],
    "baby-gpt": Workload(64, 256, 384, 1536, 6, 6, 65),
    "gpt2-small": Workload(8, 1024, 768, 3072, 12, 12, 50257),
}
TOY = {"toy": Workload(2, 8, 8, 16, 1, 2, 11)}
# The trainer's default comes first, in case there is not enough time for all.
PRECISIONS = ("tf32", "fp32", "bf16")
EQUAL = {"fp32": 1e-4, "tf32": 2e-3, "bf16": 1e-2}  # tolerances for first losses, near ln V
OURS: dict[str, dict[str, Any]] = {
    "minigrad, graph": {"graph": True},
    "minigrad, eager": {"graph": False},
    "minigrad, graph, cuBLASLt alone": {"graph": True, "library": "cublaslt"},
    "minigrad, graph, own products alone": {"graph": True, "library": "own"},
}
LARGEST = 2**20  # elements of an embedding; with more, the last two contenders need too much memory
TORCH = {
    "PyTorch, eager": "eager",
    "PyTorch, compiled": "compiled",
    "PyTorch, graph": "graph",
}
ROUNDS = 11
PARTS = "tests.gpu.proving"


def torch_has_cuda() -> str | None:
    """None, or why PyTorch cannot take part. Another process finds out, and then ends."""
    code = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode == 0:
        return None
    if done.returncode == 3:
        return "PyTorch is installed without CUDA, or finds no GPU"
    return "PyTorch is not installed" if "No module named" in done.stderr else done.stderr[-500:]


def contenders(workload: Workload, with_torch: bool) -> list[Rival]:
    """minigrad's contenders, and PyTorch's if it is there."""
    size = {"workload": tuple(workload)}
    found = [
        Rival(name, f"{PARTS}.our_steps:OurSteps", {**size, **options})
        for name, options in OURS.items()
        if "library" not in options or workload.d_model * workload.vocabulary < LARGEST
    ]
    if with_torch:
        found += [
            Rival(name, f"{PARTS}.torch_steps:TorchSteps", {**size, "mode": mode})
            for name, mode in TORCH.items()
        ]
    return found


def prove(save: Save, clock: Clock) -> dict[str, Any]:
    """Run this section of the proof."""
    reason = torch_has_cuda()
    result: dict[str, Any] = {"PyTorch": reason or "takes part", "steps": {}}
    workloads = TOY if clock.toy else STEPS
    for number, (name, workload) in enumerate(workloads.items()):
        result["steps"][name] = {"sizes": workload._asdict(), "precisions": {}}
        of_name = result["steps"][name]["precisions"]
        # Each workload gets a share of the time that is left; larger ones take longer.
        weights = [1.0, 1.0, 1.5][number : len(workloads)]
        deadline = clock.left * (1 - weights[0] / sum(weights))
        with Rivals(contenders(workload, reason is None)) as rivals:
            precisions = PRECISIONS[:2] if clock.toy else PRECISIONS
            for place, precision in enumerate(precisions):
                left = (clock.left - deadline) / (len(precisions) - place)
                if left < 2:
                    of_name[precision] = {"left out": "no time was left"}
                    continue
                of_name[precision] = compare(rivals, precision, left, clock.left)
                save(result)
            result["steps"][name]["out"] = dict(rivals.out)
            save(result)
    return result


def compare(rivals: Rivals, precision: str, seconds: float, most: float) -> dict[str, Any]:
    """One workload in one precision: facts, times, memory and ratios.

    Args:
        seconds: the time for this comparison. Starting processes and PyTorch's compiler may exceed
            it by up to a minute.
        most: all the time that is left.
    """
    facts = rivals.all("prepare", precision, seconds=min(max(60.0, seconds), most))
    unequal = different(facts, EQUAL[precision])
    names = [name for name in facts if name not in unequal]
    times = take_turns(rivals, names, ROUNDS, seconds * 0.4, MOST_STEPS)
    memory = rivals.all("memory")
    found = {
        name: {**facts[name], "ms": spread(times[name]), "rounds": len(times[name])}
        | {"MB": memory.get(name)}
        for name in times
    }
    medians = {name: fact["ms"]["median"] for name, fact in found.items()}
    return {"contenders": found, "not timed": unequal, **ratios(medians)}


MOST_STEPS = 400  # in a turn


def different(facts: dict[str, Any], tolerance: float) -> dict[str, str]:
    """The contenders whose first loss differs from minigrad's, with that loss."""
    ours = [facts[name]["loss"] for name in OURS if name in facts]
    if not ours:
        return {}
    return {
        name: f"its first loss is {fact['loss']:.6f} and ours {ours[0]:.6f}: nothing is timed"
        for name, fact in facts.items()
        if not isclose(fact["loss"], ours[0], rel_tol=tolerance)
    }


def ratios(medians: dict[str, float]) -> dict[str, Any]:
    """How many times as fast as each of PyTorch's modes minigrad is; {} where one is missing."""
    ours = medians.get("minigrad, graph")
    peers = {name: medians[name] for name in TORCH if name in medians}
    if ours is None or not peers:
        return {}
    best = min(peers, key=lambda name: peers[name])
    found: dict[str, Any] = {"best of PyTorch": best, "times the best": peers[best] / ours}
    if "PyTorch, eager" in peers:
        found["times eager"] = peers["PyTorch, eager"] / ours
    return found


def fill_compiler_cache(save: Save, clock: Clock) -> dict[str, Any]:
    """Compile PyTorch's models while tests run, so that the comparison need not wait for that.

    A few are compiled at a time, each in its own process.
    """
    if torch_has_cuda() is not None or clock.toy:
        return {}
    jobs = [(name, precision) for precision in PRECISIONS for name in STEPS]
    seconds: dict[str, float] = {}
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    most = max(1, (os.cpu_count() or 1) // 4)
    try:
        while (jobs or running) and clock.left > 0:
            while jobs and len(running) < most:
                name, precision = jobs.pop(0)
                code = (
                    f"from {PARTS}.torch_steps import TorchSteps; "
                    f"TorchSteps({tuple(STEPS[name])}, 'compiled').prepare({precision!r})"
                )
                process = subprocess.Popen([sys.executable, "-c", code], env=environment())
                running[f"{name}, {precision}"] = process, clock.left
            for job, (process, began) in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    seconds[job] = began - clock.left if process.returncode == 0 else -1.0
                    save({"seconds to compile, -1 if it failed": seconds})
            clock.pause()
    finally:
        for process, _ in running.values():
            process.kill()
    return {"seconds to compile, -1 if it failed": seconds}
