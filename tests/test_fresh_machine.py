"""The README's test command works if only its own packages are installed.

A test may use more packages (PyTorch, psutil), but must be skipped where they are missing. If a
file that `pytest` collects, or a file that it imports, imported such a package at its top, the
whole command would stop.
"""

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COLLECTED = sorted(
    path for pattern in ("test_*.py", "conftest.py") for path in (ROOT / "tests").rglob(pattern)
)
OURS = ("minigrad", "tinyalpaca", "tests", "examples")


def declared() -> set[str]:
    """The packages of the test command, by their names in Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    return {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in wanted}


def is_skip(node: ast.stmt) -> bool:
    """True for `pytest.importorskip(...)`, which stops the import of a file."""
    calls = [found for found in ast.walk(node) if isinstance(found, ast.Call)]
    return any(ast.unparse(call.func) == "pytest.importorskip" for call in calls)


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a file is imported, up to a skip, without functions' bodies."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Expr | ast.Assign) and is_skip(node):
            return
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        for field in ("body", "orelse", "handlers", "finalbody"):
            yield from statements(getattr(node, field, []))


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """The modules that a file imports at its top, with `a.b.c` for `from a.b import c`."""
    found: list[str] = []
    for node in statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = path.relative_to(ROOT).parts[: -node.level]
                base = ".".join([*folder, *filter(None, [node.module])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return tuple(found)


@functools.cache
def files_of(module: str) -> list[Path]:
    """Our files that run when a module is imported: the packages above it, and itself."""
    parts, files = module.split("."), []
    for end in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:end])
        files += [file for file in (place / "__init__.py", place.with_suffix(".py"))]
    return [file for file in files if file.is_file()]


def foreign(path: Path) -> dict[str, str]:
    """Every package that is neither ours nor Python's, with the chain of files that imports it."""
    found: dict[str, str] = {}
    waiting, seen = [(path, path.name)], {path}
    while waiting:
        file, chain = waiting.pop()
        for module in imported(file):
            package = module.partition(".")[0]
            if package not in OURS:
                if package not in sys.stdlib_module_names:
                    found.setdefault(package, chain)
                continue
            for other in files_of(module):
                if other not in seen:
                    seen.add(other)
                    waiting.append((other, f"{chain} -> {other.name}"))
    return found


@pytest.mark.parametrize("path", COLLECTED, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_collected_imports_only_what_the_test_command_installs(path):
    surplus = {k: chain for k, chain in foreign(path).items() if k not in declared()}
    assert not surplus, f"import it in the function that needs it, after a skip: {surplus}"


def test_the_chain_of_imports_is_followed():
    """From a file that measures memory to psutil, which is not among the tests' packages."""
    chain = foreign(ROOT / "tests/benchmarks/torch_peer.py")
    assert chain["torch"] == "torch_peer.py" and "numpy" in chain
    assert "psutil" in foreign(ROOT / "tests/benchmarks/memory_watch.py")
    assert {"numpy", "pytest"} <= declared()
