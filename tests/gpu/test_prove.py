"""Tests `tests.gpu.prove` itself, as far as possible without a GPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.workloads import Workload
from tests.gpu import prove
from tests.gpu.proving import kernels, machine, rehearsal, sanitizer, timing
from tests.gpu.proving.processes import ROOT, Section, run_sections, write_json
from tests.gpu.proving.pytest_runs import TestRun
from tests.gpu.proving.rivals import Rival, Rivals, spread, take_turns

FAKES = "tests.gpu.proving.fakes"
SMALL = Workload(2, 8, 8, 16, 1, 2, 11)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sections", "kernels,speed"], "no section speed: choose from kernels"),
        (["--minutes", "0"], "must be positive"),
        (["--minutes", "x"], "invalid float"),
    ],
)
def test_options_that_make_no_sense(arguments: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as error:
        prove.parse(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_options() -> None:
    every = [section.name for section in prove.SECTIONS]
    assert [s.name for s in prove.parse([]).sections] == every
    args = prove.parse(["--sections", "whole-job,kernels", "--minutes", "2.5"])
    assert [s.name for s in args.sections] == ["kernels", "whole job"] and args.minutes == 2.5
    assert prove.parse([]).minutes < 10
    assert args.out == ROOT / "tests/gpu/results"


def test_without_cupy_or_a_gpu_there_is_one_clear_error() -> None:
    code = "import sys; sys.modules['cupy'] = None; sys.argv = ['prove']\n"
    code += "from tests.gpu.prove import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == ""
    assert "There is nothing to prove on" in done.stderr and "Traceback" not in done.stderr
    assert 'pip install -e ".[cuda13]"' in done.stderr


def test_packages_that_are_missing_are_named(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(prove, "cupy", lambda: None)
    monkeypatch.setattr(machine, "NEEDED", ("numpy", "no-such-thing", "nor-this"))
    assert prove.main([]) == 2
    assert "no-such-thing, nor-this must be installed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_section_that_fails_or_hangs_costs_no_other(tmp_path: Path) -> None:
    names = {"fails": 1.0, "hangs": 0.01, "dies": 1.0, "finds": 1.0}
    sections = [Section(name, f"{FAKES}:{name}", share, name) for name, share in names.items()]
    records: dict[str, Any] = {}
    run_sections(sections, 30, tmp_path, lambda s, found: records.update({s.name: found}))
    assert {name: records[name]["status"] for name in names} == {
        "fails": "failed",
        "hangs": "out of time",
        "dies": "failed",
        "finds": "done",
    }
    assert records["fails"]["result"] == {"found": 2}
    assert "RuntimeError: no such luck" in records["fails"]["error"]
    assert records["finds"]["result"] == {"found": 1, "left": True, "toy": False}
    child = records["hangs"]["result"]["child"]
    assert records["hangs"]["result"]["found"] == 3 and not is_running(child)
    assert records["hangs"]["seconds"] < 20 and "result" not in records["dies"]


def is_running(pid: int) -> bool:
    """Whether a process is running. One that has ended may still be listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_json_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.slow
def test_rivals_that_fail_are_out_and_the_others_go_on() -> None:
    bad = ["fails", "dies", "hangs"]
    rivals = [Rival(name, f"{FAKES}:Steps", {"seconds": 0.01, "bad": name}) for name in bad]
    rivals += [Rival("no such thing", f"{FAKES}:NoSteps", {})]
    rivals += [Rival(name, f"{FAKES}:Steps", {"seconds": s}) for name, s in (("a", 0.02), ("b", 1))]
    with Rivals(rivals) as contest:
        assert contest.one("hangs", "turn", 1, seconds=8) is None
        times = take_turns(contest, [r.name for r in rivals], 2, 30, most=5)
        assert times == {"a": [0.02, 0.02], "b": [1, 1]} and contest.names == ["a", "b"]
        assert contest.all("turn", 1) == {"a": 0.02, "b": 1}
    assert "out of memory" in contest.out["fails"] and "NoSteps" in contest.out["no such thing"]
    assert contest.out["dies"] == "its process has ended"
    assert contest.out["hangs"] == "no answer in time"


def test_spread_is_in_milliseconds() -> None:
    assert spread([0.001, 0.002, 0.003]) == pytest.approx({"median": 2, "q1": 1, "q3": 3})
    assert spread([0.5]) == {"median": 500, "q1": 500, "q3": 500}


def test_ours_and_pytorch_compute_the_same_first_loss(gpu: Any) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from tests.gpu.proving.our_steps import OurSteps
    from tests.gpu.proving.torch_steps import TorchSteps

    theirs = TorchSteps(tuple(SMALL), "eager", device="cpu")
    for graph in (True, False):
        ours = OurSteps(tuple(SMALL), graph)
        facts = {"minigrad, graph": ours.prepare("fp32"), "peer": theirs.prepare("fp32")}
        assert timing.different(facts, 1e-6) == {}
        assert facts["minigrad, graph"]["graphs"] == graph
        assert ours.turn(3) > 0 and theirs.turn(2) > 0
    with pytest.raises(ValueError, match="there is no mode 'fast'"):
        TorchSteps(tuple(SMALL), "fast", device="cpu")


def test_a_loss_that_differs_is_not_timed() -> None:
    facts = {"minigrad, graph": {"loss": 5.0}, "a": {"loss": 5.0001}, "b": {"loss": 5.1}}
    assert list(timing.different(facts, 1e-3)) == ["b"]
    assert timing.different({"a": {"loss": 1.0}}, 1e-3) == {}


def test_ratios() -> None:
    medians = {"minigrad, graph": 0.5, "PyTorch, eager": 3.0, "PyTorch, graph": 1.0}
    found = timing.ratios(medians)
    assert found == {"best of PyTorch": "PyTorch, graph", "times the best": 2, "times eager": 6}
    assert timing.ratios({"PyTorch, eager": 3.0}) == timing.ratios({"minigrad, graph": 1.0}) == {}


def test_the_name_of_a_device_is_a_file_name() -> None:
    assert machine.file_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert machine.dotted(lambda: 13000) == "13.0" and machine.dotted(lambda: 12090) == "12.9"
    assert machine.dotted(lambda: 1 // 0) is None


def test_every_file_of_tests_is_run_or_left_out_on_purpose() -> None:
    files = {path.stem for path in Path(prove.__file__).parent.glob("test_*.py")}
    run = {path.stem for path in kernels.files_of_tests()}
    assert files >= kernels.LEFT_OUT | kernels.TOY
    assert run == files - kernels.LEFT_OUT


@pytest.mark.slow
def test_the_sanitizer_has_tests_that_exist() -> None:
    """Test names depend on parameters, which may change. Here they are collected, not run."""
    found = sanitizer.chosen(sanitizer.collected())
    assert [wanted for wanted, test in zip(sanitizer.TESTS, found, strict=True) if not test] == []
    assert len(set(found)) == len(found)


def test_what_the_sanitizer_says_is_understood(tmp_path: Path) -> None:
    output = tmp_path / "log"
    output.write_text(
        "= x\n========= COMPUTE-SANITIZER\n1 passed\n========= ERROR SUMMARY: 3 errors"
    )
    found = sanitizer.findings("memcheck", output)
    assert found == {"findings": 3, "first lines": ["ERROR SUMMARY: 3 errors"]}
    output.write_text("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)")
    assert sanitizer.findings("racecheck", output)["findings"] == 0
    output.write_text("========= Error: Device not supported")
    assert sanitizer.findings("racecheck", output) == {
        "findings": None,
        "first lines": ["Error: Device not supported"],
    }


BAD_TESTS = """
import os, time
def test_passes(): pass
def test_fails(): assert 1 == 2
def test_breaks_the_device(): raise RuntimeError("cudaErrorIllegalAddress: a kernel is wrong")
def test_comes_after_it(): pass
def test_ends_the_process(): os._exit(5)
def test_hangs(): time.sleep(60)
def test_is_last(): pass
"""


@pytest.mark.slow
def test_a_run_of_tests_survives_its_tests(tmp_path: Path) -> None:
    path = tmp_path / "test_bad.py"
    path.write_text(BAD_TESTS)
    run = TestRun(
        [str(path), "--rootdir", str(tmp_path), "-c", os.devnull],
        tmp_path / "record.jsonl",
        patience=2,
    )
    summary = run.run(time.monotonic() + 600).summary()
    assert summary["counts"] == {"passed": 3, "failed": 4, "not run": 0}
    whys = [failure["why"] for failure in summary["failures"]]
    assert "assert 1 == 2" in whys[0] and "cudaErrorIllegalAddress" in whys[1]
    assert whys[2:] == ["the process ended in it", "it hung"]


def test_a_run_that_does_not_begin_is_a_failure(tmp_path: Path) -> None:
    run = TestRun([str(tmp_path / "nothing.py")], tmp_path / "record.jsonl")
    summary = run.run(time.monotonic() + 600).summary()
    assert summary["counts"]["failed"] == 1 and "not found" in summary["failures"][0]["why"]


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "a-stand-in.json").read_text(encoding="utf-8"))


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The facts about the machine; sections are replaced by ones that do nothing."""
    found = {"device": "a stand-in", "date": "today", "CuPy": "14.2", "sources": "abc"}
    monkeypatch.setattr(prove, "cupy", lambda: None)
    monkeypatch.setattr(machine, "facts", lambda: dict(found))
    monkeypatch.setattr(prove, "faults_in", lambda record: [])
    monkeypatch.setattr(prove, "markdown", lambda record: "")

    def run(args: Any, folder: Path, tell: Any) -> None:
        for section in args.sections:
            tell(section, {"status": "done", "seconds": 1.0, "result": {"found": section.name}})

    monkeypatch.setattr(prove, "run", run)
    return found


def test_three_calls_make_one_record(tmp_path: Path, facts: dict[str, Any]) -> None:
    assert {name for names in prove.CALLS for name in names} == {s.name for s in prove.SECTIONS}
    facts["date"] = "tomorrow"
    for names in prove.CALLS:
        sections = ",".join(names).replace(" ", "-")
        assert prove.main(["--out", str(tmp_path), "--sections", sections]) == 0
    assert {name: s["result"]["found"] for name, s in record_of(tmp_path)["sections"].items()} == {
        s.name: s.name for s in prove.SECTIONS
    }


@pytest.mark.parametrize("what", ["CuPy", "sources", "no record"])
def test_other_versions_begin_a_new_record(
    tmp_path: Path, facts: dict[str, Any], capsys: Any, what: str
) -> None:
    assert prove.main(["--out", str(tmp_path), "--sections", "kernels"]) == 0
    if what == "no record":
        (tmp_path / "a-stand-in.json").write_text("{")
    else:
        facts[what] = "another"
    assert prove.main(["--out", str(tmp_path), "--sections", "sanitizer"]) == 0
    assert list(record_of(tmp_path)["sections"]) == ["sanitizer"]
    told = capsys.readouterr().out
    assert ("is no record" if what == "no record" else f"a-stand-in.json: {what} differ") in told


@pytest.mark.slow
def test_what_a_call_has_found_is_there_when_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.gpu.proving.processes.LOOK", 0.2)
    seen: list[dict[str, Any]] = []
    section = Section("hangs", f"{FAKES}:hangs", 1.0)
    run_sections([section], 3, tmp_path, lambda s, found: seen.append(found))
    *before, last = seen  # on a busy machine the first read may come after the section has begun
    assert {found["status"] for found in before} == {"cut off"} and last["status"] == "out of time"
    assert before[-1]["result"]["found"] == 3


@pytest.mark.slow
def test_a_rehearsal_of_all_calls(tmp_path: Path, libraries: Any) -> None:
    """With the stand-in as CuPy in every process, and sizes that take seconds.

    The time limits are those of real calls, which are ended after ten minutes.
    """
    variables = {**os.environ, **rehearsal.install(tmp_path, libraries.folder)}
    variables.pop("MINIGRAD_REAL_GPU", None)
    for names in prove.CALLS:
        command = [sys.executable, "-m", "tests.gpu.prove", "--toy"]
        command += ["--sections", ",".join(names).replace(" ", "-")]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "out")],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    record = record_of(tmp_path / "out")
    assert {name: section["status"] for name, section in record["sections"].items()} == {
        name: "done" for name in [*(s.name for s in prove.SECTIONS), "compiling"]
    }
    results = {name: section["result"] for name, section in record["sections"].items()}
    assert results["kernels"]["counts"]["passed"] > 10
    assert all(check["ok"] for check in results["equality"]["checks"].values())
    assert len(results["equality"]["checks"]) == 9
    assert list(results["sanitizer"]) == ["left out"]
    assert results["whole job"]["main job"]["cold"]["best validation"] > 0
    assert results["whole job"]["text"]["of batches"]["2"]["tokens a second"] > 0
    contenders = results["timing"]["steps"]["toy"]["precisions"]["fp32"]["contenders"]
    assert set(timing.OURS) <= set(contenders)
    assert (tmp_path / "out/a-stand-in.md").read_text(encoding="utf-8") in done.stdout
