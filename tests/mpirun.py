"""Starts several ranks of a program by `mpirun`, for tests."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def launcher() -> str:
    """The mpiexec beside this Python, or another one; the test is skipped if there is none."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")
    return found


def command(size: int, program: Sequence[str], *, cleanup: bool = True) -> list[str]:
    """The command that starts `size` ranks of a Python program.

    Args:
        cleanup: whether the launcher ends the other ranks when one has died; otherwise they end
            themselves.
    """
    alone = [] if cleanup else ["-disable-auto-cleanup"]
    return [launcher(), *alone, "-n", str(size), sys.executable, *program]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with our packages on Python's path and one BLAS thread."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **more}


def mpirun(
    size: int,
    program: Sequence[str],
    *,
    cleanup: bool = True,
    timeout: float = 300,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Run `size` ranks of a program to their end."""
    return subprocess.run(
        command(size, program, cleanup=cleanup),
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def answers(size: int, program: Sequence[str], folder: Path, **settings: Any) -> list[Any]:
    """Run a program; returns what each rank writes to the file in its last argument, as JSON."""
    done = mpirun(size, [*program, str(folder)], **settings)
    files = [folder / f"{rank}.json" for rank in range(size)]
    missing = [file.name for file in files if not file.exists()]
    assert not missing, f"{missing}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
