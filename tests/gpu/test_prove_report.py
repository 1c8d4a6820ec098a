"""The tables of a proof, and what counts as a fault in it, tested with made-up figures."""

from typing import Any

from tests.benchmarks.workloads import WORKLOADS
from tests.gpu.proving import report
from tests.gpu.proving.faults import faults_in


def made_up() -> dict[str, Any]:
    """A record with every kind of entry."""
    ms = {"median": 0.4, "q1": 0.39, "q3": 0.45}
    ours = {
        "loss": 5.4,
        "graphs": 1,
        "why not": ["no kernel for it"],
        "ms": ms,
        "rounds": 11,
        "MB": {"held": 900.0},
    }
    peer = {"loss": 5.4, "ms": {**ms, "median": 1.0}, "rounds": 11, "MB": None}
    tf32 = {"contenders": {"minigrad, graph": ours, "PyTorch, graph": peer}}
    tf32["not timed"] = {"PyTorch, compiled": "its first loss is 5"}
    tf32 |= {"times the best": 2.5, "best of PyTorch": "PyTorch, graph"}
    steps = {"sizes": WORKLOADS["seed"]._asdict(), "out": {}}
    steps["out"] = {"PyTorch, eager": "no answer in time", "minigrad, eager": "out of memory"}
    steps["precisions"] = {"tf32": tf32, "bf16": {"left out": "no time was left"}}
    job = {"wall": 4.2, "epochs": 1.1, "best validation": 1.867}
    tool = {"findings": 0, "counts": {"passed": 3}, "failures": [], "first lines": []}
    results: dict[str, Any] = {
        "kernels": {
            "counts": {"failed": 1, "not run": 4, "passed": 700},
            "failures": [{"test": "test_x.py::test_y", "why": "first\nE  off by 1"}],
            "kernels launched": 70,
            "kernels never launched": ["gemm_fma<float>"],
        },
        "equality": {"checks": {"eager = graph": {"ok": False, "largest difference": 0.25}}},
        "sanitizer": {"memcheck": {**tool, "findings": None}, "racecheck": {**tool, "findings": 2}},
        "timing": {"PyTorch": "takes part", "steps": {"seed": steps}},
        "whole job": {"main job": {"cold": job, "warm": {**job, "wall": 1.6}}, "text": {}},
    }
    results["whole job"]["first step"] = {"error": "RuntimeError: no"}
    sections = {
        name: {"title": "", "status": "done", "seconds": 3.0, "result": result}
        for name, result in results.items()
    }
    sections["timing"] |= {"status": "out of time", "error": "the end of the output"}
    return {"machine": {"device": "NVIDIA H100"}, "sections": sections}


def test_the_tables_have_what_was_found() -> None:
    text = report.markdown(made_up())
    for line in (
        "| seed step, TF32     | at most 0.5 ms                    | 0.400 ms | met          |",
        "| seed step, TF32     | at least 2x the best of PyTorch   | 2.50x    | met          |",
        "| seed step, TF32     | at least 4x PyTorch eager         |          | not measured |",
        "| ten epochs, warm    | at most 1.5 s                     | 1.60 s   | missed       |",
        "- FAILED `test_x.py::test_y`: E  off by 1",
        "| eager = graph | NO    | largest difference 0.25 |",
        "| tf32 | PyTorch, graph  | 1.000     | 0.390 to 0.450 | 2.50x   |",
        "- bf16: no time was left",
        "- PyTorch, eager was out: no answer in time",
        "out of time in 3 s",
        "the end of the output",
        "| racecheck | 2          | 3 passed |",
        "| 10 epochs, cold | 4.20 s        | 1.10 s     | 1.8670          |",
        "- first step failed:",
    ):
        assert line in text


def test_faults_decide_about_the_status() -> None:
    assert faults_in(made_up()) == [
        "kernels: 4 not run",
        "kernels: test_x.py::test_y",
        "equality: eager = graph",
        "sanitizer: memcheck has not come to its end",
        "sanitizer: racecheck, 2 findings",
        "timing: out of time",
        "timing: seed, minigrad, eager was out",
        "timing: seed, tf32, PyTorch, compiled: another first loss",
        "timing: seed, tf32, minigrad, graph: no kernel for it",
        "whole job: first step",
    ]
