"""What is installed, and the install commands in messages.

The distribution called minigrad on the public index belongs to another project: nothing may name
it.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import minigrad
from minigrad.device import how_to_install_cupy
from minigrad.installing import install_line

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOLDERS = ("minigrad", "tinyalpaca", "examples", "tests")
# All texts that users see; lines that end within a command are joined.
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *(p for f in FOLDERS for p in (ROOT / f).rglob("*"))]
    if path.suffix in (".py", ".md", ".html")
}


@pytest.mark.parametrize(("cuda", "suffix"), [("12", "-cu12"), ("13", "")])
def test_a_gpu_needs_no_cuda_toolkit(cuda: str, suffix: str) -> None:
    """CuPy's wheel requires NumPy and cuda.pathfinder; compiler and cuBLAS are other packages."""
    cupy, *rest = EXTRAS[f"cuda{cuda}"]
    assert cupy == f"cupy-cuda{cuda}x>=14.2"
    parts = ("cuda-nvrtc", "cuda-runtime", "cublas")
    assert rest == [f"nvidia-{part}{suffix}=={cuda}.*" for part in parts]


def test_no_text_names_the_package_of_somebody_else() -> None:
    for path, text in TEXTS.items():
        if path not in ("tests/test_install.py", "minigrad/installing.py"):
            assert not re.search(r"pip install[^\n`]*\bminigrad\b(?!/)", text), path
            assert not re.search(r"minigrad\[\w", text), path


def test_extras_that_are_named_are_there() -> None:
    named = {e for text in TEXTS.values() for e in re.findall(r'-e\s+"?\.\[([\w,]+)\]', text)}
    assert {"test", "cuda13", "cuda12", "plots"} <= {x for e in named for x in e.split(",")}
    for extras in named:
        assert set(extras.split(",")) <= set(EXTRAS), extras
    for extra in re.findall(r"install_line\(['\"](\w+)['\"]", "\n".join(TEXTS.values())):
        assert extra in EXTRAS, extra
    found = re.findall(r'pip install -e "\.\[(\w+)\]"', how_to_install_cupy())
    assert found == ["cuda13", "cuda12"]


def test_one_distribution_brings_both_packages() -> None:
    """It is not called minigrad, which is another project's name."""
    assert PROJECT["name"] == "tinyalpaca"
    assert PROJECT["version"] == minigrad.__version__
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["citation"]["version"] == PROJECT["version"]
    changes = (ROOT / "tinyalpaca/CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.M)[1] == PROJECT["version"]


def test_a_checkout_is_added_to_in_its_folder_and_a_wheel_by_name(tmp_path: Path) -> None:
    assert install_line() == 'pip install -e "."'
    assert install_line("plots", "test") == 'pip install -e ".[plots,test]"'
    # As a wheel installs it: the package, and a folder that lists the distribution's files.
    package, info = tmp_path / "minigrad", tmp_path / "tinyalpaca-0.2.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(ROOT / "minigrad/installing.py", package)
    (info / "METADATA").write_text("Name: tinyalpaca\nVersion: 0.2.0\n", encoding="utf-8")
    (info / "RECORD").write_text("minigrad/installing.py,,\n", encoding="utf-8")
    program = "from minigrad.installing import install_line; print(install_line('plots'))"
    assert python(program, tmp_path).stdout == 'pip install "tinyalpaca[plots]"\n'


def python(program: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that searches packages in these folders first, and not in the current one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-P", "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_other_minigrad_in_front_of_ours_is_named(tmp_path: Path) -> None:
    """This happens if it is in site-packages, beside an editable install of this project."""
    stranger = tmp_path / "minigrad"
    stranger.mkdir()
    (stranger / "__init__.py").write_text("Value = None\n", encoding="utf-8")
    said = python("import tinyalpaca", tmp_path, ROOT).stderr.splitlines()[-1]
    assert said.startswith(f"ImportError: the package minigrad that Python finds ({stranger})")
    assert "pip uninstall minigrad, then install this project again: pip install -e ." in said


@pytest.mark.parametrize("package", ["minigrad", "tinyalpaca"])
@pytest.mark.parametrize("first", ["ours", "the stranger's"])
def test_two_projects_in_one_folder_are_named(tmp_path: Path, package: str, first: str) -> None:
    """Both were installed from wheels; the later one has overwritten `__init__.py`."""
    both = tmp_path / "minigrad"
    both.mkdir()
    for path in (ROOT / "minigrad").iterdir():
        (both / path.name).symlink_to(path)
    (tmp_path / "tinyalpaca").symlink_to(ROOT / "tinyalpaca")
    (both / "nn.py").touch()
    (both / "engine.cpython-311-x86_64-linux-gnu.so").touch()
    if first == "ours":
        (both / "__init__.py").unlink()
        (both / "__init__.py").write_text("Value = None\n", encoding="utf-8")
        package = "tinyalpaca"  # importing minigrad runs no code of ours
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {package}"
    said = python(program, tmp_path).stderr.splitlines()[-1]
    assert said.startswith("ImportError") and "pip uninstall minigrad, then install this" in said


def tracked(*folders: str) -> set[str]:
    """The repository's files in some folders, with new ones that are not committed yet."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", *folders]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line for line in listed.splitlines() if (ROOT / line).is_file()}


def test_a_wheel_and_an_sdist_hold_what_they_should(tmp_path: Path) -> None:
    for needed in ("build", "hatchling"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no repository")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [wheel], [sdist] = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert wheel.name == f"tinyalpaca-{minigrad.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == tracked("minigrad", "tinyalpaca")
    ends = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE")
    assert {name.rpartition("/")[2] for name in about} == set(ends)
    with tarfile.open(sdist) as archive:
        files = {file.name.partition("/")[2] for file in archive.getmembers() if file.isfile()}
    more = {"README.md", "LICENSE", "pyproject.toml", ".gitignore", "PKG-INFO"}
    assert files == tracked("minigrad", "tinyalpaca", "examples", "tests") | more
