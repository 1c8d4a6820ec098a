"""Array functions on tensors, under NumPy's names and those of the Array API standard.

This package is also an array namespace: a textbook op that runs with `xp = minigrad.functions`
works on tensors and is differentiated as it runs.

A function is in the file of its theme and in that file's `__all__`, which makes it public here and
in `minigrad`. `methods` lists the functions that are methods of tensors.
"""

# ruff: noqa: F403

from minigrad.functions import (
    activations,
    comparisons,
    creation,
    cumulative,
    data_types,
    elementwise,
    products,
    rearrange,
    reduce,
    rounding,
    shape,
    sorting,
    trigonometry,
)
from minigrad.functions import linalg as linalg
from minigrad.functions.activations import *
from minigrad.functions.comparisons import *
from minigrad.functions.creation import *
from minigrad.functions.cumulative import *
from minigrad.functions.data_types import *
from minigrad.functions.elementwise import *
from minigrad.functions.linalg import norm as norm
from minigrad.functions.products import *
from minigrad.functions.rearrange import *
from minigrad.functions.reduce import *
from minigrad.functions.rounding import *
from minigrad.functions.shape import *
from minigrad.functions.sorting import *
from minigrad.functions.trigonometry import *
from minigrad.hints import explain_arguments

# mypy cannot add up lists, and takes what the stars above bring for public where it sees none.
# Other type checkers can, but know no `sort`.
MYPY = False
if not MYPY:
    __all__ = ["linalg", "norm"]
    __all__ += activations.__all__
    __all__ += comparisons.__all__
    __all__ += creation.__all__
    __all__ += cumulative.__all__
    __all__ += data_types.__all__
    __all__ += elementwise.__all__
    __all__ += products.__all__
    __all__ += rearrange.__all__
    __all__ += reduce.__all__
    __all__ += rounding.__all__
    __all__ += shape.__all__
    __all__ += sorting.__all__
    __all__ += trigonometry.__all__
    globals()["__all__"].sort()
    explain_arguments(vars(linalg), linalg.__all__, linalg.__name__)
    explain_arguments(globals(), __all__, __name__)

# At the end because the methods are the functions above.
from minigrad.functions.methods import add_to  # noqa: E402
from minigrad.tensor import Tensor  # noqa: E402

add_to(Tensor)
