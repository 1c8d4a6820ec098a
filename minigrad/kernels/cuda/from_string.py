"""A GPU kernel for an element-wise op of your own, from CUDA C++ in strings.

    class smooth_step(Op):
        def forward(xp, x): ...
        def backward(xp, dy, x, needs): ...

    cuda_kernel(
        smooth_step,
        forward="y = x * x * (3 - 2 * x);",
        backward="dx = dy * 6 * x * (1 - x);",
    )

The strings are C++ statements for one element. Inputs and options have the names of the parameters
of the op's `forward`. The result is `y`, its gradient `dy`, and the gradient of an input `x` is
`dx`. All have the type `real`, which is float or double; only options that are ints are ints.
Inputs are broadcast. The statements may use the functions of `prelude.cuh`.

For an op that is not element-wise, write whole kernels, `Source(name, templates, code=...)`, and a
module that launches them, like the modules of this package.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, dense, element_blocks, real_of, size_of
from minigrad.kernels.cuda.support import of_floats
from minigrad.op import Op, kernel

CODE = """
template <typename real{types}> __global__ void {name}({parameters}, size_t size) {{
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += size_t(gridDim.x) * blockDim.x) {{
    {read}
    {statements}
    {write}
  }}
}}
"""


def cuda_kernel(op: type[Op], *, forward: str, backward: str) -> None:
    """Register a GPU kernel for an element-wise op; see the module's docstring.

    It is compiled when it first runs. `minigrad.check_kernel(op, *arrays, backend="gpu")` compares
    it with the op.

    Args:
        op: its arrays and options must have names.
        forward: statements that set `y`.
        backward: statements that set the gradient of each input.

    Raises:
        TypeError: `op` is not an op, takes `*arrays`, or has an array called `y`, `i` or `size`.
    """
    kernel(op, "gpu")(_ElementwisePair(op, forward, backward))


class _ElementwisePair:
    def __init__(self, op: type[Op], forward: str, backward: str) -> None:
        parameters = list(inspect.signature(op.forward).parameters.values())[1:]
        inputs = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        # Option -> its default. An option without a default is given in every call.
        self._options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        if len(inputs) + len(self._options) != len(parameters) or not inputs:
            raise TypeError(f"cuda_kernel: the arrays of {op.name!r} must have names")
        if {"y", "i", "size"} & {*inputs, *self._options}:
            raise TypeError(f'cuda_kernel: {op.name!r} may not call an array "y", "i" or "size"')
        gradients = [f"d{name}" for name in inputs]
        code = self._function("forward", inputs, ["y"], forward)
        code += self._function("backward", ["dy", *inputs], gradients, backward)
        self._inputs = inputs
        self._code, self._name = code, op.name
        self._sources: dict[str, Source] = {}

    def _function(self, name: str, inputs: list[str], outputs: list[str], statements: str) -> str:
        arrays = [f"const real* __restrict__ {x}_" for x in inputs]
        arrays += [f"real* __restrict__ {y}_" for y in outputs]
        options = [f"type_{x} {x}" for x in self._options]
        return CODE.format(
            name=name,
            types="".join(f", typename type_{x}" for x in self._options),
            parameters=", ".join(arrays + options),
            read=" ".join(f"[[maybe_unused]] const real {x} = {x}_[i];" for x in inputs)
            + "".join(f" real {y} = 0;" for y in outputs),
            statements=statements,
            write="\n    ".join(f"if ({y}_) {y}_[i] = {y};" for y in outputs),
        )

    def supports(self, *arrays: Any, **options: Any) -> str | None:
        if any(array is None for array in arrays) or len(arrays) != len(self._inputs):
            return "an input is left out"
        if not all(isinstance(value, (int, float)) for value in options.values()):
            return "an option is no number"
        return of_floats(*arrays)

    def forward(self, *arrays: Any, **options: Any) -> tuple[Any, Any]:
        xp, shape = cupy(), np.broadcast_shapes(*(array.shape for array in arrays))
        inputs = tuple(dense(xp.broadcast_to(x, shape)) for x in arrays)
        y = xp.empty(shape, inputs[0].dtype)
        self._launch("forward", (*inputs, y), y, options)
        return y, inputs

    def backward(self, dy: Any, inputs: Any, needs: Any, **options: Any) -> tuple[Any, ...]:
        dy, xp = dense(dy), cupy()
        gradients = [xp.empty(dy.shape, dy.dtype) if needed else None for needed in needs]
        self._launch("backward", (dy, *inputs, *gradients), dy, options)
        return tuple(gradients)

    def _launch(self, name: str, arrays: tuple[Any, ...], like: Any, options: Any) -> None:
        values = [options.get(name, value) for name, value in self._options.items()]
        types = "".join(", {real}" if isinstance(v, float) else ", int" for v in values)
        if types not in self._sources:
            templates = [f"{part}<{{real}}{types}>" for part in ("forward", "backward")]
            self._sources[types] = Source(self._name, *templates, code=self._code)
        expression = f"{name}<{{real}}{types}>".format(real=real_of(like.dtype))
        self._sources[types].launch(
            expression,
            (element_blocks(like.size),),
            (256,),
            *(*arrays, *values, size_of(like)),
            dtype=like.dtype,
        )
