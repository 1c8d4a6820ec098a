"""Compares every kernel with the textbook on the GPU: runs the tests of tests/gpu with CuPy."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.gpu.proving.processes import Clock, Save
from tests.gpu.proving.pytest_runs import TestRun, cores
from tests.gpu.sources import SOURCES

TESTS = Path(__file__).parents[1]
# These test the stand-in for CuPy, compilers, or this program itself.
LEFT_OUT = {"test_shim", "test_stand_in", "test_mutants", "test_decode_mutants", "test_compile"}
LEFT_OUT |= {"test_prove", "test_prove_report"}
TOY = {"test_step_kernels"}
# Tests of single kernels run before those that train.
LATER = ("training", "generation", "inference", "textbook")


def files_of_tests(toy: bool = False) -> list[Path]:
    """The test files for a GPU, in the order in which they are run."""
    files = [p for p in sorted(TESTS.glob("test_*.py")) if p.stem not in LEFT_OUT]
    if toy:
        files = [p for p in files if p.stem in TOY]
    return sorted(files, key=lambda p: p.stem.endswith(LATER))


def prove(save: Save, clock: Clock) -> dict[str, Any]:
    """Run this section, several files at a time, because it mostly waits for the compiler."""
    runs = [
        TestRun([str(path)], clock.folder / f"kernels-{path.stem}.jsonl")
        for path in files_of_tests(clock.toy)
    ]
    with ThreadPoolExecutor(max(1, min(6, cores() // 2))) as pool:
        for _ in pool.map(lambda run: run.run(clock.deadline), runs):
            save(gathered(runs))
    return gathered(runs)


def gathered(runs: list[TestRun]) -> dict[str, Any]:
    """The results of all runs, added up."""
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    failures, launched = [], set()
    for run in runs:
        if run.status is None and not run.record.exists():
            counts["files not run"] += 1
            continue
        summary = run.summary()
        counts.update(summary["counts"])
        skipped.update(summary["skipped"])
        failures += summary["failures"]
        launched |= run.launched()
    every = list(dict.fromkeys(e for kernels in SOURCES for e in kernels.expressions()))
    return {
        "counts": {name: counts[name] for name in sorted(counts)},
        "failures": failures,
        "skipped": dict(skipped),
        "kernels launched": len(launched),
        "kernels never launched": [name for name in every if name not in launched],
    }
