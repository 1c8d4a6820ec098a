"""Runs test files as processes, several at once; restarts one after a test that crashed or hung."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.gpu.proving.processes import ROOT, environment
from tests.gpu.proving.recorder import lines_of
from tests.gpu.real_gpu import IN_PART

MOST_RESTARTS = 5
NAP = 0.05  # seconds
COMMAND = (
    *("-m", "pytest", "-q", "-p", "tests.gpu.proving.recorder", "-p", "no:cacheprovider"),
    *("--no-header", "--tb=short", "-m", ""),  # slow tests too: a GPU is faster than the stand-in
)


class TestRun:
    """The tests of one file on the GPU.

    Args:
        what: arguments of pytest: a file, or some of its tests.
        record: the file that the plugin writes; the output goes to a file beside it.
        before: a command that is put before the Python command, such as a tool that checks it.
        patience: the process is ended if no test begins or ends for so many seconds, or for ten
            times as many before the first test.
        extra: additional environment variables.
    """

    __test__ = False  # so that pytest does not collect this class

    def __init__(
        self,
        what: Sequence[str],
        record: Path,
        *,
        before: Sequence[str] = (),
        patience: float = 60,
        extra: dict[str, str] | None = None,
    ) -> None:
        self.record, self.patience = record, patience
        self.output = record.with_suffix(".log")
        self.command = [*before, sys.executable, *COMMAND, *what]
        self.environment = environment(
            MINIGRAD_REAL_GPU="1",
            MINIGRAD_TEST_RECORD=str(record),
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
            **(extra or {}),
        )
        self.hung: set[str] = set()
        self.status: int | None = None

    def run(self, deadline: float) -> TestRun:
        """Run all tests, in as many processes as needed, until `time.monotonic()` is `deadline`."""
        for _ in range(1 + MOST_RESTARTS):
            self._once(deadline)
            if not self.left() or time.monotonic() >= deadline or not self._results():
                break
        return self

    def _once(self, deadline: float) -> None:
        with open(self.output, "a", encoding="utf-8") as output:
            process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            before = size = self._size()
            waited = 0.0  # the sum of naps, so that time in which the machine slept does not count
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    if self._size() != size:
                        size, waited = self._size(), 0.0
                    if waited > self.patience * (10 if size == before else 1):
                        self.hung.add(self._last())
                        break
                    time.sleep(NAP)
                    waited += NAP
            finally:
                if process.poll() is None:
                    process.kill()
                self.status = process.wait()

    def _results(self) -> dict[str, tuple[str, str]]:
        """The last outcome of each test, and its reason."""
        found = {}
        for line in lines_of(self.record):
            if "test" in line:
                found[line["test"]] = (line["outcome"], line.get("why", ""))
        return found

    def _size(self) -> int:
        return self.record.stat().st_size if self.record.exists() else 0

    def _last(self) -> str:
        """The test that began last."""
        return next((test for test in reversed(self._results())), "")

    def collected(self) -> list[str]:
        """All tests of the file."""
        return next(
            (line["collected"] for line in lines_of(self.record) if "collected" in line), []
        )

    def left(self) -> list[str]:
        """The tests that have not begun."""
        known = self._results()
        return [test for test in self.collected() if test not in known]

    def launched(self) -> set[str]:
        """The kernels that ran."""
        return {name for line in lines_of(self.record) for name in line.get("launched", ())}

    def summary(self) -> dict[str, Any]:
        """The numbers of passed, failed and skipped tests, and the failures with their reasons."""
        counts: Counter[str] = Counter()
        failures, reasons = [], Counter[str]()
        for test, (outcome, why) in self._results().items():
            if outcome == "begun":
                outcome = "failed"
                why = "it hung" if test in self.hung else "the process ended in it"
            if outcome == "skipped" and IN_PART in why:
                outcome = "passed in part"
            if outcome == "failed":
                failures.append({"test": test, "why": why[-600:]})
            if outcome == "skipped":
                reasons[why.removeprefix("Skipped: ")] += 1
            counts[outcome] += 1
        counts["not run"] = len(self.left())
        if not self._results():
            text = self.output.read_text(encoding="utf-8", errors="replace")
            failures.append({"test": " ".join(self.command[-1:]), "why": text[-600:]})
            counts["failed"] += 1
        return {
            "counts": dict(counts),
            "failures": failures,
            "skipped": dict(reasons),
            "status": self.status,
        }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
