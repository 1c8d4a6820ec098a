"""The examples in docstrings run."""

import inspect
import textwrap

import numpy as np

from minigrad import optim
from minigrad.ops.updates import rule
from tests.minigrad.optim.problem import parameters, run


def examples(text: str | None) -> str:
    """The classes that are indented in a docstring."""
    lines = inspect.cleandoc(text or "").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    class "))
    found = []
    for line in lines[start:]:
        if line and not line.startswith("    "):
            break
        found.append(line)
    return textwrap.dedent("\n".join(found))


def test_lion() -> None:
    names: dict[str, object] = {"Rule": optim.Rule, "Optimizer": optim.Optimizer}
    exec(examples(rule.__doc__), names)
    exec(examples(optim.Optimizer.__doc__), names)
    params = parameters()
    before = [p.numpy().copy() for p in params]
    optimizer = names["Lion"](params, lr=0.25)  # type: ignore[operator]
    run(optimizer, params, range(1))
    moved = [np.abs(p.numpy() - b) for p, b in zip(params, before, strict=True)]
    assert all(np.isin(m.round(12), [0.0, 0.25]).all() for m in moved)
    assert set(optimizer.state[params[0]]) == {"exp_avg"}
