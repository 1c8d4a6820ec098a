"""A pytest plugin for two runs of the tests: the second runs all that has not passed in the first.

The first run is the README's own command, in an environment with only what that command installs.
The second has everything (PyTorch, a browser, compilers) and the slow tests; running again what has
passed would take minutes and prove nothing. Both write what became of every test:

    PYTEST_PLUGINS=what_passed WHAT_PASSED=first.json python -m pytest
    WHAT_PASSED=second.json PASSED_BEFORE=first.json \
        python -m pytest -m "" -p what_passed -n 2
    python .ci/what_passed.py first.json second.json

The last line fails if a test has run in neither, unless the reason is one that no machine of
ours can do away with (`MAY_BE_SKIPPED`). It is the environment that says what to do, because the
README's command is run as it stands there. The second may be shared out among processes
(pytest-xdist), which all leave out the same tests; what became of the others, one process hears.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

MAY_BE_SKIPPED = {
    r"CuPy is not installed|could not import 'cupy": "needs an NVIDIA GPU",
    r"there is no nvcc|cublasLt.* is not here": "comes with the CUDA toolkit, several GB",
    r"could not import 'jax'": "JAX is measured against by hand; it is in no extra",
    r"this machine makes no network namespaces": "needs root, and a kernel that allows it",
}


class WhatPassed:
    """Keeps what became of every test, and leaves out those that have passed before."""

    def __init__(self, file: Path, before: set[str], writes: bool) -> None:
        self.file, self.before, self.writes = file, before, writes
        self.passed: list[str] = []
        self.skipped: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        out = [item for item in items if item.nodeid in self.before]
        if out:
            items[:] = [item for item in items if item.nodeid not in self.before]
            config.hook.pytest_deselected(items=out)

    def pytest_collectreport(self, report: Any) -> None:
        if report.skipped:  # a whole file
            self.skipped[report.nodeid] = reason(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.skipped:
            self.skipped[report.nodeid] = reason(report)
        elif report.when == "call" and report.passed:
            self.passed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if not self.writes:
            return
        record = {"passed": self.passed, "skipped": self.skipped}
        self.file.write_text(json.dumps(record, indent=1), encoding="utf-8")


def reason(report: Any) -> str:
    """What a skip says, without the place."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_configure(config: Any) -> None:
    # Tests that start pytest themselves shall not write to the same file.
    os.environ.pop("PYTEST_PLUGINS", None)
    before, writes = os.environ.get("PASSED_BEFORE"), not hasattr(config, "workerinput")
    passed = set(json.loads(Path(before).read_text("utf-8"))["passed"]) if before else set()
    config.pluginmanager.register(WhatPassed(Path(os.environ["WHAT_PASSED"]), passed, writes))


def main() -> int:
    """Says how many tests ran where, and which ran nowhere; 1 if one of these has no excuse."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--may-be-skipped", action="append", default=[], metavar="REASON")
    args = parser.parse_args()
    first, second = (json.loads(f.read_text("utf-8")) for f in (args.first, args.second))
    both = set(first["passed"]) & set(second["passed"])
    print(f"{len(first['passed'])} tests passed in the plain environment,", end=" ")
    print(f"{len(second['passed'])} others with everything installed.")
    if both or not first["passed"] or not second["passed"]:
        print(f"That cannot be right: {len(both)} tests ran in both.")
        return 1
    excuses = MAY_BE_SKIPPED | dict.fromkeys(args.may_be_skipped, "this machine could not get it")
    unexcused = 0
    for test, why in second["skipped"].items():
        excuse = next((excuses[known] for known in excuses if re.search(known, why)), None)
        unexcused += excuse is None
        print(f"  ran nowhere: {test}: {why} ({excuse or 'NO EXCUSE'})")
    if unexcused:
        print(f"{unexcused} tests ran in neither environment, and shall.")
    return min(unexcused, 1)


if __name__ == "__main__":
    raise SystemExit(main())
