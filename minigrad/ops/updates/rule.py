"""An update rule as a value: what an op is to a graph, a rule is to an optimizer.

This one is complete. An optimizer that names it (`class Lion(Optimizer): rule = lion`) does the
rest: groups, state to save and load, flat memory, float16, GPUs, and sharing among workers.

    class lion(Rule):
        # Chen et al., arXiv:2302.06675
        state = ("exp_avg",)

        def step(xp, p, g, m, *, lr, betas, weight_decay):
            ahead = betas[0] * m + (1 - betas[0]) * g
            p = p * (1 - lr * weight_decay) - lr * xp.sign(ahead)
            return p, betas[1] * m + (1 - betas[1]) * g

On a GPU a step is captured as a graph, and what changes from step to step has to lie there: "lr"
and "step" are arrays without axes, with which a rule computes as with numbers. It takes functions
from `xp`, not from `math` (and `xp.matmul`, as CuPy's `@` cannot be captured), and decides nothing
by values. One that does is run without a graph, and that is said; or it says `captured = False`.
One that needs a Python number (`range(step)`) is left to the host, and that is said as well.

`step` returns new arrays, or those that it was given, also if it has changed them in place; only
the gradient has to stay as it is.

A kernel does a rule's work faster on one kind of device. `rule.kernels["cpu"]` is a function

    kernel(p, g, *state, grad_scale=1.0, **settings) -> None

that changes `p` and the state in place and only reads `g`, which counts `grad_scale` times. All are
flat (n,), contiguous and of one dtype. That of captured steps, `rule.kernels["captured"]`, is given
"lr", "step" and `grad_scale` as float64 on the device, and `made`: if that is 0, nothing changes.
The textbook runs where there is no kernel, and everywhere with `minigrad.textbook()`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar


class Rule:
    """Base class of rules.

    Attributes:
        state: the names of the arrays that `step` takes after the gradient and returns after the
            parameter. If "step" is among them, steps are counted, and `step` gets the number of the
            present one, from 1, as the setting "step".
        elementwise: whether each element is updated by itself. The arrays can then be any stretch
            of flat memory. If not, `step` gets parameters of one shape, (n, *shape), with gradients
            and state likewise.
        captured: whether it can be part of a captured step.
        kernels: "cpu", "gpu" or "captured" -> what runs there in the textbook's place.

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
        if isinstance(cls.__dict__.get("step"), FunctionType):  # it has no `self`
            cls.step = staticmethod(cls.__dict__["step"])
        cls.name, cls.kernels = cls.__name__, {}
