"""Runs some tests of each kernel under NVIDIA's compute-sanitizer, which finds memory errors and
races in shared memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.gpu.proving.processes import ROOT, Clock, Save
from tests.gpu.proving.pytest_runs import TestRun

PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/cuda/bin")
# One or two tests of each kernel, because the tool makes kernels at least ten times slower. Each
# entry is a test function and words; the first test whose parameters have all these words is run.
TESTS: tuple[tuple[str, ...], ...] = (
    ("test_adamw_kernel.py::test_three_steps", "True", "1000", "float32"),
    ("test_step_kernels.py::test_windows_beyond_the_end_are_no_tokens",),
    ("test_step_kernels.py::test_ordered_steps_are_the_textbooks", "float32"),
    ("test_attention_kernel.py::test_causal_attention", "shape4", "float32"),
    ("test_attention_kernel.py::test_causal_attention", "shape9", "float64"),
    ("test_attention_mma.py::test_causal_attention", "(1, 65, 1, 64)", "tf32"),
    ("test_attention_mma.py::test_causal_attention", "(2, 33, 3, 5)", "bf16"),
    ("test_norm_kernels.py::test_layer_norm", "shape4", "float32"),
    ("test_norm_kernels.py::test_sums_go_where_they_are_wanted",),
    ("test_row_kernels.py::test_embedding", "65", "float32"),
    ("test_row_kernels.py::test_cross_entropy", "mean", "215", "float32"),
    ("test_row_kernels.py::test_activations", "shape1", "float32"),
    ("test_row_kernels.py::test_dropout", "float32"),
    ("test_row_kernels.py::test_masks_are_a_function_of_seed_step_stream_and_place", "shape1"),
    ("test_gemm_kernel.py::test_linear", "own", "relu", "127", "float32"),
    ("test_gemm_kernel.py::test_linear_in_fewer_bits", "own", "tf32"),
    ("test_gemm_kernel.py::test_linear_in_fewer_bits", "own", "bf16"),
    ("test_gemm_kernel.py::test_linear_in_fewer_bits", "cublaslt", "bf16"),
    ("test_decode_kernels.py::test_attend", "300", "float32"),
    ("test_decode_kernels.py::test_linear", "65", "float32"),
    ("test_draw_kernel.py::test_tokens_are_the_samplers", "0.7", "257", "float32"),
)
TOOLS = {
    "memcheck": re.compile(r"ERROR SUMMARY: (\d+) error"),
    "racecheck": re.compile(r"RACECHECK SUMMARY: (\d+) hazard"),
}
# CUDA calls that fail and are then tried in another way are not errors of kernels.
OPTIONS = ("--report-api-errors", "no", "--error-exitcode", "77")
MISSING = "compute-sanitizer is not there: it is part of the CUDA toolkit"


def find() -> str | None:
    """The path of compute-sanitizer."""
    places = [os.environ.get("PATH", "")]
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variable in os.environ:
            places.append(str(Path(os.environ[variable], "bin")))
    return shutil.which("compute-sanitizer", path=os.pathsep.join([*places, *PLACES]))


def chosen(collected: Sequence[str]) -> list[str | None]:
    """The names of the tests that `TESTS` asks for; None where there is no such test."""
    found: list[str | None] = []
    for function, *words in TESTS:
        of_function = (
            name.removeprefix("tests/gpu/")
            for name in collected
            if name.removeprefix("tests/gpu/").partition("[")[0] == function
        )
        fitting = (name for name in of_function if all(w in name.partition("[")[2] for w in words))
        found.append(next(fitting, None))
    return found


def collected() -> list[str]:
    """The names of all tests in the files of `TESTS`.

    Raises:
        RuntimeError: pytest is not installed, or fails.
    """
    files = sorted({f"tests/gpu/{function.partition('::')[0]}" for function, *_ in TESTS})
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--collect-only",
        "-p",
        "no:cacheprovider",
        "-m",
        "",
    ]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pytest finds no tests:\n{done.stdout[-800:]}{done.stderr[-800:]}")
    return [line for line in done.stdout.splitlines() if "::" in line]


def prove(save: Save, clock: Clock) -> dict[str, Any]:
    """Run this section of the proof."""
    tool = find()
    if tool is None:
        return {"left out": MISSING}
    tests = [f"tests/gpu/{test}" for test in chosen(collected()) if test is not None]
    if clock.toy:
        return {"left out": f"a rehearsal; it would watch {len(tests)} tests"}
    result: dict[str, Any] = {"path": tool, "tests": len(tests)}
    for number, name in enumerate(TOOLS):
        run = TestRun(
            tests,
            clock.folder / f"sanitizer-{name}.jsonl",
            before=(tool, "--tool", name, *OPTIONS),
            patience=90,
            extra={"MINIGRAD_NO_POOL": "1"} if name == "memcheck" else {},
        )
        run.run(time.monotonic() + clock.left / (len(TOOLS) - number))
        result[name] = {**run.summary(), **findings(name, run.output)}
        save(result)
    return result


def findings(tool: str, output: Path) -> dict[str, Any]:
    """The tool's count of findings, None if it did not finish, and its first lines of output."""
    text = output.read_text(encoding="utf-8", errors="replace")
    lines = [line.removeprefix("=========").strip() for line in text.splitlines() if "====" in line]
    lines = [line for line in lines if line and "COMPUTE-SANITIZER" not in line]
    counts = [int(number) for number in TOOLS[tool].findall(text)]
    return {"findings": sum(counts) if counts else None, "first lines": lines[:20]}
