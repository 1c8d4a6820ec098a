"""`.ci/what_passed.py`: every test is run exactly once, or skipped with a reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / ".ci"
pytestmark = pytest.mark.skipif(not CI.is_dir(), reason="an sdist has no .ci")

TESTS = """
import pytest
from pathlib import Path

def needs(name):
    if not Path(name).exists():
        pytest.skip(f"there is no {name}")

def test_plain(): pass
def test_wants_torch(): needs("torch")
def test_wants_gpu(): pytest.importorskip("cupy", reason="CuPy is not installed")
def test_starts_pytest():
    import os
    assert "PYTEST_PLUGINS" not in os.environ
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.parametrize("x", [1, 2])
def test_of(x): pass
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "test_one.py").write_text(TESTS, encoding="utf-8")
    settings = '[pytest]\nmarkers = slow: slow\naddopts = -m "not slow"\n'
    (tmp_path / "pytest.ini").write_text(settings, encoding="utf-8")
    return tmp_path


def run(folder, out, *options, before=None, plugins="what_passed"):
    environment = {**os.environ, "PYTHONPATH": str(CI), "PYTEST_PLUGINS": plugins}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment |= {"WHAT_PASSED": out} | ({"PASSED_BEFORE": before} if before else {})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    record = json.loads((folder / out).read_text(encoding="utf-8"))
    return {test.partition("::")[2] for test in record["passed"]}, record["skipped"]


def compare(folder, *options):
    command = [sys.executable, CI / "what_passed.py", "first.json", "second.json", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_second_run_is_of_what_has_not_passed(folder):
    passed, skipped = run(folder, "first.json")
    assert passed == {"test_plain", "test_starts_pytest", "test_of[1]", "test_of[2]"}
    assert skipped["test_one.py::test_wants_torch"] == "there is no torch"
    (folder / "torch").touch()
    passed, skipped = run(folder, "second.json", "-m", "", before="first.json")
    assert passed == {"test_wants_torch", "test_slow"}
    assert skipped == {"test_one.py::test_wants_gpu": "CuPy is not installed"}
    code, said = compare(folder)
    assert code == 0 and "test_wants_gpu: CuPy is not installed (needs an NVIDIA GPU)" in said


def test_what_has_run_nowhere_fails_unless_it_is_excused(folder):
    whole = 'import pytest\npytest.skip("no such machine", allow_module_level=True)\n'
    (folder / "test_two.py").write_text(whole, encoding="utf-8")
    run(folder, "first.json")
    run(folder, "second.json", "-m", "", before="first.json")
    code, said = compare(folder)
    assert code == 1 and "2 tests ran in neither" in said
    assert "test_wants_torch: there is no torch (NO EXCUSE)" in said
    assert "test_two.py: no such machine (NO EXCUSE)" in said
    assert compare(folder, "--may-be-skipped", "no such", "--may-be-skipped", "no torch")[0] == 0


def test_records_that_cannot_be_right_fail(folder):
    run(folder, "first.json")
    run(folder, "second.json")
    code, said = compare(folder)
    assert code == 1 and "4 tests ran in both" in said


def test_the_second_run_may_be_shared_out_among_processes(folder):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    run(folder, "first.json")
    (folder / "torch").touch()
    options = ("-m", "", "-p", "what_passed", "-p", "xdist", "-n", "2")
    passed, skipped = run(folder, "second.json", *options, before="first.json", plugins="")
    assert passed == {"test_wants_torch", "test_slow"}
    assert skipped == {"test_one.py::test_wants_gpu": "CuPy is not installed"}
