"""`import minigrad` imports NumPy and little else.

`tests/benchmarks/importing.py` times it.
"""

import subprocess
import sys

LOADED = """
import sys, numpy
before = set(sys.modules)
import minigrad
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
print(*sorted(name for name in sys.modules if name.startswith("minigrad.")))
"""
# Modules that were once imported for a single function, and those that take most time to import.
HEAVY = {"asyncio", "email", "http", "multiprocessing", "pathlib", "random", "subprocess"}
HEAVY |= {"tempfile", "unittest", "urllib", "zipfile", "logging", "socket", "shutil"}


def test_it_imports_little() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packages, modules = (set(line.split()) for line in done.stdout.splitlines())
    assert not packages & HEAVY
    foreign = packages - set(sys.stdlib_module_names) - {"minigrad"}
    assert not foreign, "other packages are imported where they are needed"
    # Files and workers are imported at first use.
    late = ("minigrad.storage", "minigrad.parallel", "minigrad.serialization")
    assert not [name for name in modules if name.startswith(late)]
