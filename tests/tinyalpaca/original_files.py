"""The published weights and vocabulary of the original.

They are not part of this project. They are searched in the folder that the variable
TINYALPACA_ORIGINAL names, or in `../shared/original` beside the checkout.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADS = 4  # the weights do not show this number
PROMPT = "ROMEO:"
# The greedy continuation by the original.
CONTINUATION = (
    "\nI am a counterfeit of tribunes: and I cannot speak\n"
    "I am content to bed. What, is't can you?\n\nPOLIXENES:\n"
)


def original_files() -> tuple[Path, Path]:
    """Weights and vocabulary; the test is skipped where they are missing."""
    folder = Path(os.environ.get("TINYALPACA_ORIGINAL") or ROOT.parent / "shared" / "original")
    files = folder / "tinyalpaca.pth", folder / "training_vocab.json"
    if not all(file.is_file() for file in files):
        pytest.skip(f"the original's weights are not here: no {' and '.join(map(str, files))}")
    return files
