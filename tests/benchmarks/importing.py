"""Times how long `import minigrad` takes beyond the import of NumPy.

    python -m tests.benchmarks.importing [--rounds 20]

Processes with and without it alternate. The fastest of each counts, because other work of the
machine makes a process slower, never faster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

PROGRAMS = {"numpy": "import numpy", "minigrad": "import numpy, minigrad"}


def fastest(rounds: int) -> dict[str, float]:
    """The shortest time from starting a process to its end, for each program, in seconds."""
    best = dict.fromkeys(PROGRAMS, float("inf"))
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    best = fastest(parser.parse_args().rounds)
    beyond = best["minigrad"] - best["numpy"]
    print(f"import numpy {best['numpy']:.3f} s, import minigrad {beyond:.3f} s more")


if __name__ == "__main__":
    main()
