"""The published weights and vocabulary of the original.

They are not part of this project: they are looked for in the folder that the variable
TINYALPACA_ORIGINAL names, or beside the checkout in `../shared/original`.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADS = 4  # which leave no trace in the weights
PROMPT = "ROMEO:"
# What the original writes after it, without chance.
CONTINUATION = (
    "\nI am a counterfeit of tribunes: and I cannot speak\n"
    "I am content to bed. What, is't can you?\n\nPOLIXENES:\n"
)


def original_files() -> tuple[Path, Path]:
    """Weights and vocabulary; the test is skipped where they are not to be had."""
    folder = Path(os.environ.get("TINYALPACA_ORIGINAL") or ROOT.parent / "shared" / "original")
    files = folder / "tinyalpaca.pth", folder / "training_vocab.json"
    if not all(file.is_file() for file in files):
        pytest.skip(f"the original's weights are not here: no {' and '.join(map(str, files))}")
    return files
