"""The sampling of small faults: what it changes, which tests it runs, and its record."""

import json

import pytest

from tests.stress import mutants

RECORD = mutants.ROOT / "tests/stress/mutants_record.json"


def fault(tmp_path, before, after, line=2):
    (tmp_path / "minigrad").mkdir(exist_ok=True)
    (tmp_path / "minigrad/a.py").write_text("x = 1\ny = 2\nz = 3\n", encoding="utf-8")
    return {"file": "minigrad/a.py", "line": line, "before": before, "after": after}


def test_a_fault_replaces_its_lines_where_they_are_now(tmp_path):
    changed = fault(tmp_path, ["y = 2"], ["y = 3", "y += 1"])
    assert mutants.with_fault(changed, tmp_path) == "x = 1\ny = 3\ny += 1\nz = 3\n"
    assert mutants.with_fault({**changed, "line": 1}, tmp_path) == "x = 1\ny = 3\ny += 1\nz = 3\n"
    with pytest.raises(ValueError, match=r"minigrad/a\.py:2 has changed: draw anew"):
        mutants.with_fault(fault(tmp_path, ["y = 4"], ["y = 3"]), tmp_path)


def test_every_test_runs_once_those_of_the_file_first():
    tests = mutants.test_files()
    assert len(tests) == len(set(tests)) > 50
    for source in mutants.sources():
        first, *rest = mutants.selections(source.as_posix(), tests)
        assert first and sorted(first + [test for part in rest for test in part]) == sorted(tests)
    first, _ = mutants.selections("minigrad/ops/special.py", tests)
    assert first[0].endswith("ops/test_special.py")


def test_annotations_are_no_place_for_a_fault():
    code = "def f(a: int | None = 1) -> float | None:\n    b: int | str = 2\n    return b | a\n"
    spans = list(mutants.never_computed(mutants.ast.parse(code)))
    lines = code.splitlines()
    found = {lines[a[0] - 1][a[1] : b[1]] for a, b in spans}
    assert found == {"int | None", "float | None", "int | str"}


def test_the_record_gives_a_reason_for_every_survivor():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["found"] + len(record["survivors"]) == record["faults"]
    reasons = [survivor["reason"] for survivor in record["survivors"]]
    assert all(len(reason) > 20 for reason in reasons)
    equal = sum(reason.startswith("equal") for reason in reasons)  # a fault that changes no value
    assert record["found"] >= 0.95 * (record["faults"] - equal)
