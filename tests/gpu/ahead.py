"""Compiles kernels for the CPU in a separate process while the first tests run.

python -m tests.gpu.ahead FOLDER
"""

import sys
from pathlib import Path

from tests.gpu.shim.build import Library
from tests.gpu.sources import SOURCES


def main(folder: Path) -> None:
    """Compile all kernels. One that fails is left to its own test, which shows the error."""
    for kernels in reversed(SOURCES):  # the first ones are compiled by the first tests
        Library(kernels.text(), kernels.expressions(), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
