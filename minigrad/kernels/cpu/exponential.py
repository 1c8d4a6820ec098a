"""e^x by the faster of NumPy's two exponentials.

Where the processor has AVX-512, NumPy's `exp2` of float32 takes less than half the time of its
`exp` (0.21 against 0.45 ns an element on Zen 4) and is the more exact of the two. Elsewhere `exp2`
has no vector code and is much slower. e^x = 2^(x·log₂e), and a kernel that scales x anyway gets
that factor for free.
"""

from functools import lru_cache
from math import e, log2

import numpy as np
from numpy.lib.introspect import opt_func_info


@lru_cache
def exponential(dtype: np.dtype) -> tuple[np.ufunc, float]:
    """A function and a factor such that function(x·factor) is e^x for x of this dtype."""
    # On processors for which NumPy has one code only, it lists none.
    codes = opt_func_info(func_name="^exp2$", signature=dtype.name).get("exp2", {})
    vectorised = any(not code["current"].startswith("baseline") for code in codes.values())
    return (np.exp2, log2(e)) if dtype == np.float32 and vectorised else (np.exp, 1.0)
