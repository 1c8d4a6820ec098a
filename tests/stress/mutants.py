"""Tests the tests: puts a random sample of small faults into the engine.

    python -m tests.stress.mutants draw --number 200 --seed 0 --to mutants.json
    python -m tests.stress.mutants run mutants.json

`draw` takes the faults from cosmic-ray (`pip install cosmic-ray`), a tool that breaks Python code:
another operator, another comparison, a number off by one, a loop that never runs, a negated `if`.
First it draws a place in the engine, then one of the faults that are possible there. So a sum,
which has ten possible faults, is not drawn ten times as often as a comparison. It skips type
annotations, which are never computed, and the marks `*` and `/` between a function's arguments.

`run` needs only the tests' own packages. It copies the source, puts one fault into the copy, and
runs the tests of tests/minigrad that mirror the file; if none fails, it runs all others there,
until one fails. A fault is found if a test fails, or has not ended after the processor time of
`--limit`. Outcomes are written to the file at once, so that a run can be stopped and resumed;
`--again` repeats those that survived.

`mutants_record.json` beside this file has the results of the last sample, with a reason for each
fault that was not found. If a reason begins with "equal", the fault changes no value.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MUTATED = ("ops", "kernels/cpu", "optim", "autograd.py", "nn")
TESTS = "tests/minigrad"
NO_FAULT = -1  # the number of the run without a fault, which must succeed
NOT_RUN = "not run"
# Files whose tests have other names: parts of the paths of the tests to run first.
FIRST = {
    "minigrad/ops": ["ops/test_{name}", "ops/test_gradients"],
    "minigrad/ops/special": ["ops/test_special", "ops/test_relative_accuracy"],
    "minigrad/ops/elementwise": ["ops/test_relative_accuracy"],
    "minigrad/ops/activations": ["ops/test_relative_accuracy"],
    "minigrad/ops/trigonometry": ["ops/test_relative_accuracy"],
    "minigrad/ops/cumulative": ["functions/test_methods", "ops/test_gradients"],
    "minigrad/ops/linear_algebra": ["functions/test_methods", "ops/test_gradients"],
    "minigrad/ops/updates": ["optim/test_by_hand", "optim/test_torch"],
    "minigrad/kernels/cpu": ["kernels/test_cpu_{name}", "kernels/test_cpu_twice"],
    "minigrad/kernels": ["kernels/"],
    "minigrad/optim": ["optim/test_{name}", "optim/test_by_hand", "optim/"],
    "minigrad/nn": ["nn/test_{name}", "nn/", "ops/test_{name}"],
    "minigrad/autograd": ["test_autograd", "test_parts", "test_write_gradients"],
}


# Drawing


def sources() -> list[Path]:
    """The files that are mutated, relative to the root."""
    found: list[Path] = []
    for place in MUTATED:
        path = ROOT / "minigrad" / place
        found += [path] if path.suffix else sorted(path.rglob("*.py"))
    return [path.relative_to(ROOT) for path in found]


def never_computed(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The start and the end of each annotation, as (line, column)."""
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            part = getattr(node, field, None)
            if isinstance(part, ast.expr):
                yield (
                    (part.lineno, part.col_offset),
                    (part.end_lineno or 0, part.end_col_offset or 0),
                )


def possible(path: Path) -> dict[tuple[Any, ...], list[tuple[str, int]]]:
    """The possible faults of a file by place: (operator of cosmic-ray, its occurrence)."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    code = (ROOT / path).read_text(encoding="utf-8")
    nodes = list(ast_nodes(get_ast(code)))
    annotations = list(never_computed(ast.parse(code)))
    places: dict[tuple[Any, ...], list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(plugins.operator_names()):
        kind = plugins.get_operator(name)
        if kind.arguments():
            continue
        positions = ((node, p) for node in nodes for p in kind().mutation_positions(node))
        for occurrence, (node, (start, stop)) in enumerate(positions):
            marker = node.type == "operator" and node.parent.type in ("param", "parameters")
            if not marker and not any(a <= start and stop <= b for a, b in annotations):
                places[start, stop].append((name, occurrence))
    return places


def mutated(path: Path, operator: str, occurrence: int) -> dict[str, Any]:
    """One fault: the lines of a file that change, and the new lines."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    code = (ROOT / path).read_text(encoding="utf-8")
    after = mutate_code(code, plugins.get_operator(operator)(), occurrence)
    old, new = code.splitlines(), after.splitlines()
    first = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    last = 0
    while last < min(len(old), len(new)) - first and old[-1 - last] == new[-1 - last]:
        last += 1
    return {
        "file": path.as_posix(),
        "line": first + 1,
        "fault": operator.removeprefix("core/"),
        "before": old[first : len(old) - last],
        "after": new[first : len(new) - last],
    }


def draw(number: int, seed: int) -> list[dict[str, Any]]:
    """A sample of different faults; all can be compiled."""
    chance = random.Random(seed)
    places = [(path, at, choice) for path in sources() for at, choice in possible(path).items()]
    sample: list[dict[str, Any]] = []
    for path, _, choice in chance.sample(places, len(places)):
        fault = mutated(path, *chance.choice(choice))
        if any("@staticmethod" in line for line in fault["before"]):
            continue  # in a class without instances this decorator changes nothing
        try:
            compile(with_fault(fault), fault["file"], "exec")
        except SyntaxError:
            continue
        sample.append(fault)
        if len(sample) == number:
            break
    return sample


def with_fault(fault: dict[str, Any], root: Path = ROOT) -> str:
    """The source of a file with a fault in it.

    Raises:
        ValueError: the file has changed since the fault was drawn.
    """
    lines = (root / fault["file"]).read_text(encoding="utf-8").splitlines()
    first, before = fault["line"] - 1, fault["before"]
    if lines[first : first + len(before)] != before:
        places = [i for i in range(len(lines)) if lines[i : i + len(before)] == before]
        if len(places) != 1 or not before:
            raise ValueError(f"{fault['file']}:{fault['line']} has changed: draw anew")
        [first] = places
    lines[first : first + len(before)] = fault["after"]
    return "\n".join(lines) + "\n"


# Running


def selections(path: str, tests: list[str]) -> list[list[str]]:
    """The test files for a mutated file: first those that mirror it, then all others."""
    stem, first = path.removesuffix(".py"), []
    place = Path(stem)
    for key in (stem, *(str(parent) for parent in place.parents)):
        for part in FIRST.get(key, ()):
            wanted = f"{TESTS}/{part.format(name=place.name)}"
            first += [test for test in tests if test.startswith(wanted) and test not in first]
    rest = [test for test in tests if test not in first]
    return [part for part in (first, rest) if part]


def test_files() -> list[str]:
    """All test files of tests/minigrad; the slow ones and those that only read files come last."""
    found = [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / TESTS).rglob("test_*.py"))]
    late = ("storage/", "parallel/")
    return sorted(found, key=lambda name: any(part in name for part in late))


def run_tests(folder: Path, files: list[str], limit: float, report: Path) -> None:
    """Run tests until one fails, in a separate process whose exit status is pytest's."""
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
    os.chdir(folder)
    sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    with report.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
        options += [
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]  # already imported, see `work`
        os._exit(pytest.main([*options, f"--rootdir={folder}", *files]))


def outcome(folder: Path, files: list[str], limit: float) -> str:
    """The name of the test that failed, or "" if all tests pass."""
    report = folder / "report.txt"
    context = multiprocessing.get_context("fork")
    process = context.Process(target=run_tests, args=(folder, files, limit, report))
    process.start()
    process.join()
    if process.exitcode == 0:
        return ""
    if process.exitcode and process.exitcode < 0:
        return f"signal {-process.exitcode}, after {limit:g} s of processor time or a crash"
    text = report.read_text(encoding="utf-8", errors="replace").splitlines()
    named = [line for line in text if line.startswith(("FAILED", "ERROR"))]
    if process.exitcode not in (1, 2) and not named:
        named = text[-3:]
    return (named or text[-1:])[0][:160]


def work(
    numbers: Any, faults: list[dict[str, Any]], limit: float, quick: bool, answers: Any
) -> None:
    """Put faults into a separate copy of the source and run tests."""
    import hypothesis  # noqa: F401 - what each test process would import again
    import numpy  # noqa: F401
    import pytest  # noqa: F401

    tests = test_files()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("minigrad", "tests", "tinyalpaca", "examples", "pyproject.toml", "README.md"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        for number in iter(numbers.get, None):
            began, found = time.perf_counter(), ""
            if number == NO_FAULT:
                answers.put((number, outcome(folder, tests, 10 * limit), 0.0))
                continue
            fault = faults[number]
            file = folder / fault["file"]
            whole = file.read_bytes()
            try:
                file.write_text(with_fault(fault, folder), encoding="utf-8")
                os.utime(file, (number, number))  # a time that no compiled file has
                for files in selections(fault["file"], tests)[: 1 if quick else None]:
                    found = found or outcome(folder, files, limit)
            except ValueError as error:
                found = f"{NOT_RUN}: {error}"
            file.write_bytes(whole)
            os.utime(file, (1e9 + number, 1e9 + number))
            answers.put((number, found, time.perf_counter() - began))


def run(path: Path, jobs: int, limit: float, again: bool, quick: bool) -> int:
    """Run the faults without an outcome; returns the number that was not found."""
    record = json.loads(path.read_text(encoding="utf-8"))
    faults = record["mutants"]
    waiting = [
        i for i, f in enumerate(faults) if "found_by" not in f or (again and not f["found_by"])
    ]
    numbers: Any = multiprocessing.Queue()
    answers: Any = multiprocessing.Queue()
    for number in [*waiting, NO_FAULT, *[None] * jobs]:
        numbers.put(number)
    workers = [
        multiprocessing.Process(target=work, args=(numbers, faults, limit, quick, answers))
        for _ in range(jobs)
    ]
    for worker in workers:
        worker.start()
    for _ in range(1 + len(waiting)):
        number, found, seconds = answers.get()
        if number == NO_FAULT:
            if found:
                raise SystemExit(f"all this means nothing: without a fault too there is {found}")
            print("without a fault all tests pass", flush=True)
            continue
        if found.startswith(NOT_RUN):
            print(found)
            continue
        faults[number]["found_by"] = found
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        fault = faults[number]
        print(f"{number:3d} {seconds:5.0f} s  {fault['file']}:{fault['line']} {fault['fault']}")
        print(f"      {' '.join(line.strip() for line in fault['after'])}"[:100])
        print(f"      {found or 'SURVIVES'}", flush=True)
    for worker in workers:
        worker.join()
    done = [fault for fault in faults if "found_by" in fault]
    survivors = [fault for fault in done if not fault["found_by"]]
    print(f"{len(done) - len(survivors)} of {len(done)} found")
    for file, count in Counter(fault["file"] for fault in survivors).items():
        print(f"  {count} survive in {file}")
    return len(survivors)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw")
    drawing.add_argument("--number", type=int, default=200)
    drawing.add_argument("--seed", type=int, default=0)
    drawing.add_argument("--to", type=Path, required=True)
    running = commands.add_parser("run")
    running.add_argument("file", type=Path)
    running.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    running.add_argument("--limit", type=float, default=300, help="seconds of processor time")
    running.add_argument("--again", action="store_true")
    running.add_argument("--quick", action="store_true", help="only the tests that mirror the file")
    args = parser.parse_args(argv)
    if args.command == "run":
        run(args.file, args.jobs, args.limit, args.again, args.quick)
        return 0
    record = {"seed": args.seed, "mutants": draw(args.number, args.seed)}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    args.to.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
