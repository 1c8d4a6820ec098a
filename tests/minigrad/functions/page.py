"""Writes `minigrad/functions/README.md`, which compares our functions with NumPy, PyTorch and the
Array API standard.

    python -m tests.minigrad.functions.page

needs PyTorch. `test_page.py` checks that the page is up to date.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import Tensor, functions
from tests.minigrad.functions.standard import FUNCTIONS, NOT_OFFERED
from tests.minigrad.functions.test_registry import WITHOUT_DERIVATIVE
from tests.minigrad.ops.cases import CASES

PAGE = Path(functions.__file__).parent / "README.md"
THEMES = {
    "New tensors": functions.creation,
    "Dtypes": functions.data_types,
    "Arithmetic, exponentials, choices": functions.elementwise,
    "Trigonometry": functions.trigonometry,
    "Activations": functions.activations,
    "Rounding, signs, remainders": functions.rounding,
    "Comparisons and bits": functions.comparisons,
    "Reductions": functions.reduce,
    "Running sums and products": functions.cumulative,
    "Order, search, sets": functions.sorting,
    "Shapes": functions.shape,
    "Repeating, turning, cutting out": functions.rearrange,
    "Products": functions.products,
    "`minigrad.linalg`": functions.linalg,
}
# Our names -> PyTorch's, where they differ.
TORCHS = {
    "astype": "Tensor.to",
    "concatenate": "concatenate",
    "copy": "clone",
    "cumulative_prod": "cumprod",
    "cumulative_sum": "cumsum",
    "expand_dims": "unsqueeze",
    "gelu": "nn.functional.gelu",
    "getitem": "Tensor.__getitem__",
    "linspace": "linspace",
    "logsigmoid": "nn.functional.logsigmoid",
    "matrix_transpose": "Tensor.mT",
    "normal_cdf": "special.ndtr",
    "pad": "nn.functional.pad",
    "permute_dims": "permute",
    "repeat": "repeat_interleave",
    "silu": "nn.functional.silu",
    "softplus": "nn.functional.softplus",
    "stop_gradient": "Tensor.detach",
    "take_along_axis": "take_along_dim",
    "to_device": "Tensor.to",
    "tile": "tile",
    "transpose": "permute",
    "unstack": "unbind",
    "bitwise_invert": "bitwise_not",
    "isdtype": "",
}
INTRODUCTION = """\
# Array functions

This page is made by `python -m tests.minigrad.functions.page` and held up to date by a test.

All functions are in `minigrad` under NumPy's names and those of the [Array API
standard](https://data-apis.org/array-api/2024.12), which NumPy, PyTorch, JAX and others share.
"method" is whether `x.name(...)` is there too. "gradient": proved to the second derivative (yes),
or flat, or of booleans and integers, so that there is none (no). The other columns say under which
name NumPy, PyTorch and the standard have it.

The standard's public tests, data-apis/array-api-tests, are not kept here;
`tests/minigrad/functions` holds to the same rules. They take complex dtypes for granted: run them
with `ARRAY_API_TESTS_SKIP_DTYPES=complex64,complex128`, let `widest_complex_dtype` in their
`dtype_helpers.py` be any dtype, and let the tested module have a `conj` (such as `positive`). What
is offered passes; what fails are complex cases and the names below.

## Not offered of the standard

Complex numbers, so there are no complex dtypes. Of its functions:

"""


def rows(theirs: dict[str, str]) -> str:
    """The tables, with PyTorch's names from `theirs`."""
    proved = {case.public for case in CASES}
    standard = {line.partition("(")[0] for line in FUNCTIONS}
    text = ""
    for title, theme in THEMES.items():
        prefix = "linalg." if theme is functions.linalg else ""
        text += f"\n## {title}\n\n| function | method | gradient | NumPy | PyTorch | standard |\n"
        text += "|---|---|---|---|---|---|\n"
        for name in theme.__all__:
            full = prefix + name
            space = np.linalg if prefix else np
            cells = (
                f"`{full}`",
                "yes" if is_method(full) else "",
                gradient(full, proved),
                f"`{full}`" if hasattr(space, name) else "",
                f"`{theirs[full]}`" if theirs.get(full) else "",
                "yes" if full in standard else "",
            )
            text += f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |")
    return text


def is_method(name: str) -> bool:
    if name.startswith("linalg."):  # where NumPy has a method with the same meaning
        return vars(Tensor).get(name.removeprefix("linalg.")) is getattr(mg.linalg, name[7:])
    return hasattr(Tensor, name)


def gradient(name: str, proved: set[str]) -> str:
    if name in proved:
        return "yes"
    return "no" if name in WITHOUT_DERIVATIVE else ""


def torchs_names() -> dict[str, str]:
    """PyTorch's name for each function, "" if it has none."""
    torch = importlib.import_module("torch")
    found = {}
    for theme in THEMES.values():
        prefix = "linalg." if theme is functions.linalg else ""
        for name in theme.__all__:
            wanted = TORCHS.get(name, prefix + name)
            space: Any = torch
            for part in wanted.split("."):
                space = getattr(space, part, None) if part else None
            found[prefix + name] = wanted if space is not None else ""
    return found


def names_on_the_page() -> dict[str, str]:
    """PyTorch's names as the page lists them, so that it can be made without PyTorch."""
    cells = [line.split("|") for line in PAGE.read_text("utf-8").splitlines() if "| `" in line]
    return {row[1].strip(" `"): row[5].strip(" `") for row in cells if len(row) == 8}


def page(theirs: dict[str, str]) -> str:
    left_out = "".join(f"- `{name}`: {why}\n" for name, why in NOT_OFFERED.items())
    return INTRODUCTION + left_out + rows(theirs)


if __name__ == "__main__":
    PAGE.write_text(page(torchs_names()), "utf-8")
