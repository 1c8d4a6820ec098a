"""Which programs made a run."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path

import numpy as np

import minigrad


@cache
def versions() -> dict[str, str | None]:
    """Of the package, NumPy and Python, and the git commit of the source if it has one."""
    return {
        "minigrad": minigrad.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "git_commit": git_commit(Path(__file__).resolve().parents[1]),
    }


def git_commit(source: Path) -> str | None:
    """The commit that is checked out in a folder, or None if it is no repository."""
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
