"""What a newcomer may have meant: mends that are added to messages.

Looked up only once something has gone wrong, so they cost nothing elsewhere.
"""

from __future__ import annotations

from typing import Any

# Names that tensors have in PyTorch, and what to say here instead.
FROM_PYTORCH = {
    "view": ".reshape(shape)",
    "permute": ".transpose(axes)",
    "unsqueeze": "minigrad.expand_dims(x, axis)",
    "cuda": '.to("gpu")',
    "cpu": '.to("cpu")',
    "numel": ".size",
    "dim": ".ndim",
    "float": '.astype("float32")',
    "double": '.astype("float64")',
    "half": '.astype("float16")',
    "long": '.astype("int64")',
    "type": ".astype(dtype)",
    "clone": ".copy()",
    "requires_grad_": ".requires_grad = True",
    "zero_": ".data[...] = 0",
    "contiguous": "nothing: every op takes any layout",
}


def missing_attribute(name: str) -> str:
    """The message for an attribute that a tensor has not."""
    hint = FROM_PYTORCH.get(name)
    meant = f"; what PyTorch calls so is here {hint}" if hint else ""
    return f"'Tensor' object has no attribute {name!r}{meant}"


def shapes_that_do_not_fit(op: str, inputs: tuple[Any, ...]) -> str:
    """What must be so of the inputs' shapes, for ops of which much is asked; maybe ""."""
    shapes = [x.shape for x in inputs if x is not None]
    if op == "matmul" and all(shapes) and len(shapes) == 2:
        inner = shapes[1][-2 if len(shapes[1]) > 1 else -1]
        if shapes[0][-1] != inner:
            return (
                f": the last axis of the first ({shapes[0][-1]}) must be as long as the last but "
                f"one of the second ({inner}); .T or .mT turns a matrix"
            )
    return ""


def about_broadcasting(error: Exception) -> str:
    """The rule, where NumPy's message says that it is not kept."""
    if "broadcast" not in str(error):
        return ""
    return (
        ": sizes must be equal or 1, counted from the last axis; .reshape gives an axis of size 1"
    )
