"""The functions of NumPy that the stand-in for CuPy has. A test checks that each exists in CuPy."""

# These return a view of their argument, so no kernel runs.
VIEWS = frozenset(
    {
        "broadcast_to",
        "expand_dims",
        "moveaxis",
        "ravel",
        "reshape",
        "squeeze",
        "swapaxes",
        "transpose",
    }
)
# These call cuBLAS, which CuPy refuses while a stream captures.
CUBLAS = frozenset({"dot", "einsum", "matmul", "tensordot"})
# fmt: off
NAMES = VIEWS | CUBLAS | {
    "abs", "absolute", "add", "all", "any", "arange", "argmax", "argsort", "ascontiguousarray",
    "clip", "concatenate", "copy", "cos", "cumsum", "divide", "empty", "empty_like", "equal",
    "exp", "expm1", "eye", "full", "full_like", "greater", "greater_equal", "isfinite", "isnan",
    "less", "less_equal", "log", "log1p", "logical_and", "logical_not", "max", "maximum", "mean",
    "min", "minimum", "multiply", "negative", "nonzero", "not_equal", "ones", "ones_like", "pad",
    "power", "sign", "sin", "sqrt", "square", "stack", "subtract", "sum", "take", "tanh", "tril",
    "triu", "true_divide", "var", "where", "zeros", "zeros_like",
    "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "argmin",
    "bitwise_and", "bitwise_or", "bitwise_xor", "ceil", "cosh", "cumprod", "flip", "floor",
    "floor_divide", "hypot", "invert", "isinf", "left_shift", "log10", "log2", "logaddexp",
    "logical_or", "logical_xor", "nextafter", "prod", "remainder", "right_shift", "rint", "round",
    "searchsorted", "shape", "signbit", "sinh", "tan", "trunc", "unique",
}
LINALG = {"cholesky", "det", "inv", "slogdet", "solve", "svd"}
# fmt: on
