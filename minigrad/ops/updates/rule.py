"""The base class of update rules. A rule says how an optimizer changes a parameter.

The rule below is complete. An optimizer that names it (`class Lion(Optimizer): rule = lion`) does
the rest: groups, saved state, flat memory, float16, GPUs, and dividing the work among workers.

    class lion(Rule):
        # Chen et al., arXiv:2302.06675
        state = ("exp_avg",)

        def step(xp, p, g, m, *, lr, betas, weight_decay):
            ahead = betas[0] * m + (1 - betas[0]) * g
            p = p * (1 - lr * weight_decay) - lr * xp.sign(ahead)
            return p, betas[1] * m + (1 - betas[1]) * g

On a GPU a step is captured as a graph. Numbers that change from step to step, "lr" and "step", are
then arrays without axes on the GPU; a rule computes with them as with numbers. A rule for captured
steps calls functions of `xp`, not of `math`. It calls `xp.matmul`, because CuPy's `@` cannot be
captured. It has no `if` on values of arrays, and it needs no Python number, as `range(step)` does.
If a rule cannot be captured, a warning says so and its steps run without a graph. With
`captured = False` no capture is tried.

`step` returns new arrays or the arrays that it was given, which it may have changed in place. It
must not change the gradient.

A kernel is a faster version of a rule for one kind of device. `rule.kernels["cpu"]` is a function

    kernel(p, g, *state, grad_scale=1.0, **settings) -> None

It changes `p` and the state in place. It only reads `g` and multiplies it by `grad_scale`. All
arrays are flat (n,), contiguous and of one dtype. `rule.kernels["captured"]` is the kernel of
captured steps: it gets "lr", "step" and `grad_scale` as float64 on the device, and `made`; if that
is 0 it changes nothing. The textbook runs where there is no kernel, and everywhere with
`minigrad.textbook()`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar


class Rule:
    """Base class of rules.

    Attributes:
        state: the names of the arrays that `step` takes after the gradient and returns after the
            parameter. With "step" among them steps are counted, and the setting "step" is the
            number of the current one, from 1.
        elementwise: whether each element is updated independently. Then the arrays may be any slice
            of flat memory. If not, `step` gets several parameters of one shape, (n, *shape), with
            gradients and state of the same shape.
        captured: whether the rule can be part of a captured step.
        kernels: "cpu", "gpu" or "captured" -> the kernel that runs there instead of the textbook.

    Raises:
        TypeError: (when it is defined) there is no `step`.
    """

    name: ClassVar[str]
    state: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[bool] = True
    captured: ClassVar[bool] = True
    kernels: ClassVar[dict[str, Callable[..., None]]]
    step: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls) -> None:
        if not hasattr(cls, "step"):
            raise TypeError(f"the rule {cls.__name__!r} has no step; see minigrad.ops.updates")
        if isinstance(cls.__dict__.get("step"), FunctionType):  # `step` has no `self`
            cls.step = staticmethod(cls.__dict__["step"])
        cls.name, cls.kernels = cls.__name__, {}
