"""A pytest plugin that records each test as it begins and ends, so that a kill loses no result.

The file (`MINIGRAD_TEST_RECORD`) has one JSON object per line. Tests that are already in it are
skipped, so that after a crash a new run continues after the test that crashed. The run ends after
an error that leaves CUDA unusable in the process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import real_gpu

FATAL = (
    *("cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorMisalignedAddress"),
    *("cudaErrorIllegalInstruction", "cudaErrorHardwareStackError", "cudaErrorAssert"),
    *("CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_LAUNCH_FAILED", "CUDA_ERROR_MISALIGNED_ADDRESS"),
)


class Recorder:
    """Appends to the file; knows the current test."""

    def __init__(self, path: Path) -> None:
        self.path, self.session = path, None
        self.outcome, self.why = "passed", ""

    def write(self, **line: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @pytest.hookimpl
    def pytest_sessionstart(self, session: Any) -> None:
        self.session = session

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        self.write(collected=[item.nodeid for item in items])
        known = {line["test"] for line in lines_of(self.path) if "test" in line}
        items[:] = [item for item in items if item.nodeid not in known]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.write(test=report.nodeid, outcome="failed", why=str(report.longrepr)[-1500:])

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self.outcome, self.why = "passed", ""
        self.write(test=nodeid, outcome="begun")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.outcome, self.why = "failed", str(report.longrepr)
        elif report.skipped and self.outcome == "passed":
            self.outcome, self.why = "skipped", report.longrepr[2]

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        self.write(test=nodeid, outcome=self.outcome, why=self.why[-1500:])
        if self.session is not None and any(name in self.why for name in FATAL):
            self.session.shouldstop = "CUDA does nothing more in this process"

    def pytest_sessionfinish(self) -> None:
        self.write(launched=sorted(real_gpu.launched))


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of the file; a line that was cut off by a kill is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("MINIGRAD_TEST_RECORD")
    if path:
        config.pluginmanager.register(Recorder(Path(path)), "minigrad-recorder")
