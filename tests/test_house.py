"""The structure of the source: which packages import which, and which names are used across files.

It is read from the source: imports for type checkers and inside functions count like all others. A
part is a module or a package directly under `minigrad` or `tinyalpaca`.
"""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

# From the ground up: a part imports only from parts before it. Parts joined by "+" form a cycle,
# because the operators of tensors are functions.
MINIGRAD = """
    errors version constants storage serialization installing hints
    device announce settings dtypes state blas
    op ops precision kernels
    describe graph interchange paths places engine backward_pass autograd
    tensor+functions
    functional random gradcheck check_kernel
    nn optim parallel
"""
TINYALPACA = """
    console settings config presets versions chat
    parameter_names rotation block_end key_values model lora text_files
    tokenizer data
    evaluation
    runs converting generation
    training
    play
    commands cli __main__
"""


def parts(floors: str, package: str) -> dict[str, int]:
    """The position of each part, from the ground up; parts of a cycle have the same position."""
    names = floors.split()
    return {f"{package}.{n}": i for i, name in enumerate(names) for n in name.split("+")}


OPERATORS = {"minigrad.tensor", "minigrad.functions"}
ORDER = parts(MINIGRAD, "minigrad") | {"minigrad": 100}
ORDER |= {name: 200 + i for name, i in parts(TINYALPACA, "tinyalpaca").items()}
ORDER |= {"tinyalpaca": 300}


@cache
def modules() -> dict[str, Path]:
    """Every module of both packages, by its dotted name."""
    found = {}
    for package in ("minigrad", "tinyalpaca"):
        for path in sorted((ROOT / package).rglob("*.py")):
            names = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


@cache
def nodes_of(module: str) -> list[ast.AST]:
    """The nodes that these tests read: imports, definitions, names, attributes and constants."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    kinds += (ast.Name, ast.Attribute, ast.Constant)
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def module_named(name: str) -> str | None:
    """The module that has a dotted name, None if it is not one of ours."""
    names = name.split(".")
    while names and ".".join(names) not in modules():
        names.pop()
    return ".".join(names) or None


@cache
def imported(module: str) -> list[tuple[str, int]]:
    """Our modules that a module imports, with line numbers."""
    result = []
    for node in nodes_of(module):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            found = module_named(name)
            if found is not None and found != module:
                result.append((found, node.lineno))
    return result


def part_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components with several nodes (Tarjan, 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for target in sorted(arrows.get(node, ())):
            if target not in number:
                visit(target)
            if target in stack:
                lowest[node] = min(lowest[node], lowest[target])
        if lowest[node] == number[node]:
            place = stack.index(node)
            group = set(stack[place:])
            del stack[place:]
            if len(group) > 1:
                found.append(group)

    for node in sorted(arrows):
        if node not in number:
            visit(node)
    return found


def test_circles_are_found() -> None:
    arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"e"}, "f": {"a", "g"}}
    arrows["g"] = {"f"}
    assert circles(arrows) == [{"a", "b", "c"}, {"f", "g"}]


def test_imports_of_every_kind_are_seen() -> None:
    assert ("minigrad.graph", 20) in [(name, 20) for name, _ in imported("minigrad.tensor")]
    assert module_named("minigrad.functions.exp") == "minigrad.functions"
    assert module_named("numpy.linalg") is None


def test_files_do_not_import_each_other_in_a_circle() -> None:
    """Except for `tensor` and `functions`: operators are functions, and functions take tensors."""

    def node(module: str) -> str:
        return "tensor and functions" if part_of(module) in OPERATORS else module

    arrows: dict[str, set[str]] = {}
    for module in modules():
        targets = {node(target) for target, _ in imported(module)}
        arrows.setdefault(node(module), set()).update(targets - {node(module)})
    found = circles(arrows)
    assert not found, "\n".join(" - ".join(sorted(group)) for group in found)


def test_arrows_point_down() -> None:
    missing = {part_of(module) for module in modules()} - set(ORDER)
    assert not missing, f"{sorted(missing)}: say in this file where they stand"
    wrong: dict[tuple[str, str], list[str]] = {}
    for module in modules():
        for target, line in imported(module):
            a, b = part_of(module), part_of(target)
            if a != b and ORDER[b] >= ORDER[a] and not {a, b} <= OPERATORS:
                wrong.setdefault((a, b), []).append(f"{modules()[module].name}:{line}")
    assert not wrong, "\n".join(f"{a} -> {b}: {', '.join(p)}" for (a, b), p in wrong.items())


def test_parts_of_a_training_do_not_know_the_whole() -> None:
    """run -> loop -> steps -> task, hooks -> state; only the run imports the loop."""
    training = "tinyalpaca.training."

    def importers(name: str) -> set[str]:
        return {
            module.removeprefix(training)
            for module in modules()
            if any(target == training + name for target, _ in imported(module))
        }

    assert importers("loop") == {"run"}
    assert importers("run") == {"job", "told"}
    assert importers("steps") == {"loop", "gpu_steps", "run"}
    assert importers("gpu_steps") == {"run", "told"}
    hooks = [module for module in modules() if module.startswith(training + "hooks")]
    assert len(hooks) > 10
    for module in hooks:
        known = {target.removeprefix(training) for target, _ in imported(module)}
        assert not known & {"loop", "steps", "gpu_steps", "task", "run", "job", "told"}, module
    assert not imported(training + "state")  # a plain value that needs no other module


def test_the_engine_knows_no_model() -> None:
    """minigrad does not import tinyalpaca, and names neither it nor its command line options."""
    for module, path in modules().items():
        if module.startswith("minigrad"):
            text = path.read_text(encoding="utf-8")
            assert "alpaca" not in text.lower(), path
            assert not re.search(r"--[a-z][a-z-]+ ?(?!std)", text.replace("--std=c++17", "")), path


def test_a_thread_has_one_state() -> None:
    """Only `minigrad.state` has data of threads."""
    for module, path in modules().items():
        calls = [n for n in nodes_of(module) if isinstance(n, ast.Attribute) and n.attr == "local"]
        assert not calls or module == "minigrad.state", path


def test_files_are_written_and_read_through_one_door() -> None:
    """Other packages use only the public functions of `minigrad.storage`."""
    for module in modules():
        if not module.startswith("minigrad.storage"):
            past = [t for t, _ in imported(module) if t.startswith("minigrad.storage.")]
            assert not past, f"{module} imports {past}"


# Names that are not public, with the reason why they are used.
NOT_PUBLIC = {
    "minigrad.kernels.cuda.compile": "the model's own CUDA C++ is compiled as the engine's is",
    "minigrad.kernels.cuda": "a captured step is told by kernels that ask no host",
    "minigrad.kernels.cuda.changes": "the same numbers as on the host, in one launch",
}


def test_minigrad_is_used_through_public_names() -> None:
    """Public names are those in the `__all__` of a package or module, or in `minigrad` itself."""
    used, wrong = set(), []
    for module in modules():
        imports = [n for n in nodes_of(module) if isinstance(n, ast.ImportFrom)]
        for node in imports if module.startswith("tinyalpaca") else ():
            source = node.module or ""
            if source.split(".")[0] != "minigrad" or source in NOT_PUBLIC:
                used.add(source)
                continue
            face = importlib.import_module(".".join(source.split(".")[:2]))
            engine = importlib.import_module("minigrad")
            public = {*getattr(face, "__all__", ()), *vars(engine)}
            wrong += [f"{source}.{a.name} ({module})" for a in node.names if a.name not in public]
        plain = [a.name for n in nodes_of(module) if isinstance(n, ast.Import) for a in n.names]
        wrong += [name for name in plain if name.startswith("minigrad.") and "alpaca" in module]
    assert not wrong, "\n".join(wrong)
    assert set(NOT_PUBLIC) <= used  # all of them are still used


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


@cache
def defined(module: str) -> set[str]:
    """The private names that a file assigns or defines, with attributes."""
    found = set()
    for node in nodes_of(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # names in __slots__ or for setattr
    return {name for name in found if private(name)}


def test_private_names_do_not_cross_files() -> None:
    """Neither by import nor as an attribute, also for a class that another file subclasses."""
    everywhere = set().union(*(defined(module) for module in modules()))
    crossing = []
    for module, path in modules().items():
        here = defined(module)
        for node in nodes_of(module):
            if isinstance(node, ast.ImportFrom):
                taken = [a.name for a in node.names if private(a.name)]
                if module_named(node.module or "") is None:
                    continue
            elif isinstance(node, ast.Attribute) and private(node.attr):
                taken = [node.attr] if node.attr in everywhere - here else []
            else:
                continue
            crossing += [f"{path.name}:{node.lineno} {name}" for name in taken]
    assert not crossing, "\n".join(crossing)
