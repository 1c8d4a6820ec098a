"""The failures in the record of a proof. A missed target is no failure: it depends on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Record = dict[str, Any]


def faults_in(record: Record) -> list[str]:
    """One line for each failure."""
    found = []
    for name, section in record["sections"].items():
        if section["status"] != "done" and name != "compiling":  # which only saves time
            found.append(f"{name}: {section['status']}")
        result = section.get("result") or {}
        found += [f"{name}: {fault}" for fault in _of_tests(result)]
        found += [f"{name}: {fault}" for fault in _of_tools(result)]
        found += [f"{name}: {fault}" for fault in _of_steps(result)]
        found += [f"{name}: {c}" for c, v in result.get("checks", {}).items() if not v["ok"]]
        found += [f"{name}: {p}" for p, v in result.items() if isinstance(v, dict) and "error" in v]
    return found


def _of_tests(result: Record) -> Iterator[str]:
    for what in ("not run", "files not run"):
        if number := result.get("counts", {}).get(what):
            yield f"{number} {what}"
    for failure in result.get("failures", []):
        yield failure["test"]


def _of_tools(result: Record) -> Iterator[str]:
    for name in ("memcheck", "racecheck"):
        if name in result:
            findings = result[name]["findings"]
            if findings is None:
                yield f"{name} has not come to its end"
            elif findings:
                yield f"{name}, {findings} findings"
            yield from (f"{name}, {fault}" for fault in _of_tests(result[name]))


def _of_steps(result: Record) -> Iterator[str]:
    """Where minigrad failed, or ran without a graph, a kernel or a library. PyTorch may do so."""
    for name, workload in result.get("steps", {}).items():
        for who in workload.get("out", {}):
            if who.startswith("minigrad"):
                yield f"{name}, {who} was out"
        for precision, found in workload["precisions"].items():
            for who in found.get("not timed", {}):
                yield f"{name}, {precision}, {who}: another first loss"
            for who, facts in found.get("contenders", {}).items():
                for why in facts.get("why not", []):
                    yield f"{name}, {precision}, {who}: {why}"
