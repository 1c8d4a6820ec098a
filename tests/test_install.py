"""What is installed, and what messages tell a reader to type.

The distribution called minigrad on the public index is somebody else's: nothing may name it.
"""

import re
import tomllib
from pathlib import Path

import pytest

from minigrad.device import INSTALL_CUPY

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOLDERS = ("minigrad", "tinyalpaca", "examples", "tests")
# What users are shown, with lines joined that end in the midst of a command.
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *(p for f in FOLDERS for p in (ROOT / f).rglob("*"))]
    if path.suffix in (".py", ".md", ".html")
}


@pytest.mark.parametrize(("cuda", "suffix"), [("12", "-cu12"), ("13", "")])
def test_a_gpu_needs_no_cuda_toolkit(cuda: str, suffix: str) -> None:
    """CuPy's wheel requires NumPy and a finder of libraries; compiler and cuBLAS are apart."""
    cupy, *rest = EXTRAS[f"cuda{cuda}"]
    assert cupy == f"cupy-cuda{cuda}x>=14.2"
    parts = ("cuda-nvrtc", "cuda-runtime", "cublas")
    assert rest == [f"nvidia-{part}{suffix}=={cuda}.*" for part in parts]


def test_no_text_names_the_package_of_somebody_else() -> None:
    name = "minigrad|tinyalpaca"
    for path, text in TEXTS.items():
        assert not re.search(rf"pip install[^\n`]*\b(?:{name})\b(?!/)", text), path
        assert not re.search(rf"(?:{name})\[\w", text) or path == "tests/test_install.py", path


def test_extras_that_are_named_are_there() -> None:
    named = {e for text in TEXTS.values() for e in re.findall(r'-e\s+"?\.\[([\w,]+)\]', text)}
    assert {"test", "cuda13", "cuda12", "plots"} <= {x for e in named for x in e.split(",")}
    for extras in named:
        assert set(extras.split(",")) <= set(EXTRAS), extras
    assert re.findall(r'pip install -e "\.\[(\w+)\]"', INSTALL_CUPY) == ["cuda13", "cuda12"]
