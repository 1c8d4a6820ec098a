"""The notebook has its outputs, and it runs from top to bottom."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "examples/tour.ipynb"


def test_its_outputs_are_there_and_were_made_from_top_to_bottom() -> None:
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert len(outputs) >= 8
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert TOUR.stat().st_size < 200_000


@pytest.mark.slow
def test_it_runs() -> None:
    for needed in ("nbclient", "ipykernel", "sklearn"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    # In another process, where warnings of Jupyter are not errors.

    program = (
        "import nbformat, sys; from nbclient import NotebookClient\n"
        "nb = nbformat.read(sys.argv[1], 4); NotebookClient(nb, timeout=600).execute()\n"
        "text = [''.join(o.get('text', '')) for c in nb.cells for o in c.get('outputs', [])]\n"
        "print('\\n'.join(text))"
    )
    environment = {**os.environ, "PYTHONPATH": str(TOUR.parents[1]), "JUPYTER_PLATFORM_DIRS": "1"}
    command = [sys.executable, "-c", program, str(TOUR)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "of the test pictures are named rightly" in done.stdout
    assert "gradcheck: input 0 of shape (7,)" in done.stdout
    assert "that Jack built." in done.stdout
