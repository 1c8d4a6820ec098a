"""The docstring that follows one batch through the files is right."""

import re
import sys
from pathlib import Path

import numpy as np

import tinyalpaca.training as page
from minigrad import Generator, Tensor
from tests.tinyalpaca.runs import MODEL, TRAINING
from tinyalpaca import Data, ModelConfig, TinyAlpaca, TrainConfig
from tinyalpaca.training.steps import HostSteps
from tinyalpaca.training.task import make_task

ROOT = Path(__file__).parents[2]
HERE = Path(page.__file__).parent


def named(text: str) -> list[Path]:
    """The files and folders named in a text; names without a folder are beside the page."""
    names = re.findall(r"`([\w/]+(?:\.py|/))`", text)
    return [ROOT / n if "/" in n.rstrip("/") else HERE / n for n in names]


def test_the_files_that_the_page_names_exist():
    files = named(page.__doc__)
    assert len(set(files)) > 12
    assert [str(file) for file in files if not file.exists()] == []


def test_a_batch_meets_these_files_and_no_others():
    """A file meets the batch if one of its functions gets or returns it or a part of it."""
    steps = re.findall(r"^\d\. (.*?)(?=^\d\. |^$)", page.__doc__, re.M | re.S)
    numbered = [named(step)[0] for step in steps]
    assert len(set(numbered)) == len(numbered) <= 6 and numbered[0].name == "loop.py"

    tokens = np.random.default_rng(0).integers(0, 11, 400)
    config = TrainConfig(**TRAINING)
    model = TinyAlpaca(ModelConfig(**MODEL, vocab_size=11), Generator(0))
    task = make_task(model, Data(tokens, tokens[:50], 50), config)
    state = task.start()
    x, y = task.first_batch()
    rows = {row.tobytes() for row in [*x, *y]}

    def has_met(value) -> bool:
        if isinstance(value, (tuple, list)):
            return any(has_met(part) for part in value)
        array = value.array if isinstance(value, Tensor) else value
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype != x.dtype:
            return False
        return array.shape[1:] == x.shape[1:] and array[0].tobytes() in rows

    met = set()

    def look(frame, event, value):
        file = Path(frame.f_code.co_filename)
        if event in ("call", "return") and file.is_relative_to(ROOT / "tinyalpaca"):
            values = frame.f_locals.values() if event == "call" else [value]
            if has_met(list(values)):
                met.add(file)

    sys.setprofile(look)
    try:
        (result,) = HostSteps(task).run(state)
    finally:
        sys.setprofile(None)
    task.engine.close()
    assert result.finite and result.tokens == x.size
    assert met == set(numbered[1:])
