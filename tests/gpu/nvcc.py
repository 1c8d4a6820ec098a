"""nvcc's reports about all kernels, for the supported GPUs; cached by content."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from minigrad.storage import write_text_atomically
from tests.gpu.sources import SOURCES

ARCHITECTURES = ("sm_80", "sm_90")


class CompileError(RuntimeError):
    """nvcc rejects the kernels, or warns of something."""


def all_kernels() -> list[str]:
    return list(dict.fromkeys(e for kernels in SOURCES for e in kernels.expressions()))


def program() -> str:
    """One source that contains every kernel with every template argument."""
    headers = {name: text for kernels in SOURCES for name, text in kernels.headers().items()}
    parts = [*headers.values(), *(kernels.body() for kernels in SOURCES)]
    table = "\n".join(f"  (const void*){expression}," for expression in all_kernels())
    joined = "\n".join(parts)
    return f"{joined}\nconst void* kernels[] = {{\n{table}\n}};\n"


def why_unavailable() -> str | None:
    """Why nothing can be compiled, or None if it can."""
    return None if shutil.which("nvcc") else "there is no nvcc, the compiler of the CUDA toolkit"


def report(folder: Path) -> str:
    """The output of `ptxas -v`, cached in a folder.

    Raises:
        CompileError: nvcc fails or warns.
    """
    text = program()
    targets = [f"-gencode=arch=compute_{arch[3:]},code={arch}" for arch in ARCHITECTURES]
    command = [str(shutil.which("nvcc")), "-std=c++17", "-fatbin", *targets, "-Xptxas", "-v"]
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True).stdout
    key = hashlib.sha256("\n".join([text, version, *command]).encode()).hexdigest()[:24]
    kept = folder / f"{key}.ptxas"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as place:
            Path(place, "kernels.cu").write_text(text, encoding="utf-8")
            done = subprocess.run(
                [*command, "kernels.cu", "-o", "kernels.fatbin"],
                cwd=place,
                capture_output=True,
                text=True,
            )
        if done.returncode or "warning" in done.stderr:
            raise CompileError(done.stderr)
        write_text_atomically(kept, done.stderr)
    return kept.read_text(encoding="utf-8")
