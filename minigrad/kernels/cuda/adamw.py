"""The norm of all gradients and AdamW, over flat arrays. Twin of `minigrad.ops.updates.adamw`.

    m ← β₁m + (1-β₁)g         v ← β₂v + (1-β₂)g²
    p ← p·(1 - lr·λ) - rate·m/(√v + ε√(1-β₂ᵗ)),     rate = lr·√(1-β₂ᵗ)/(1-β₁ᵗ)

The norm stays on the device, and what clipping multiplies the gradient by goes from there to the
update: a clipped step is three launches, and the host waits for none of them.

There are two ways to say what a step is. `grad_norm` and `adamw_step` are told by the host. With
`order_step` and `adamw_step_ordered` the device decides: learning rate, step count and what becomes
of a gradient that is not finite follow from arrays that lie there, so that a captured graph makes
the next step at each replay.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, element_blocks, one_dtype, real_of, size_of
from minigrad.kernels.cuda.scratch import counters

SOURCE = Source(
    "adamw",
    "squares_partial<{real}>",
    "squares_finish",
    "step_orders<{real}>",
    "adamw_update<{real}>",
    "adamw_update_ordered<{real}>",
)
THREADS = 256
MOST_PARTS = 256  # of a norm, so that one block can add them up


def grad_norm(flat: Any, max_norm: float = inf) -> Any:
    """(2,) in float64 on the device: √Σ flat², and the factor min(1, max_norm/(norm + 1e-6)).

    Args:
        flat: C-contiguous, any shape. Squares are summed in double precision, in a fixed order.
        max_norm: what the norm is to be limited to.
    """
    partial, result = _squares(flat), cupy().empty(2, np.float64)
    limit = np.float64(max_norm)
    SOURCE.launch("squares_finish", (1,), (THREADS,), partial, result, partial.size, limit)
    return result


def _squares(flat: Any) -> Any:
    """Partial sums of flat², in double precision."""
    partial = cupy().empty(_parts(flat), np.float64)
    SOURCE.launch(
        f"squares_partial<{real_of(flat.dtype)}>",
        (partial.size,),
        (THREADS,),
        *(flat, partial, size_of(flat)),
        dtype=flat.dtype,
    )
    return partial


def _parts(flat: Any) -> int:
    return max(1, min(element_blocks(flat.size), MOST_PARTS))


def adamw_step(
    param: Any,
    grad: Any,
    m: Any,
    v: Any,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float | Any,
    step: int,
    grad_scale: Any = 1.0,
) -> None:
    """One step, in place on `param`, `m` and `v` (all C-contiguous, of one dtype and size).

    Args:
        lr: the learning rate.
        weight_decay: λ, one for all elements or an array of each element's.
        step: t, which counts from 1.
        grad_scale: what the gradient is multiplied by: a number, or one float64 on the device;
            `grad_norm(...)[1:]` clips.
    """
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    per_element = not isinstance(weight_decay, (int, float))
    decays = weight_decay if per_element else None
    dtype = one_dtype("adamw", param, grad, m, v, decays)
    if isinstance(grad_scale, (int, float)):
        grad_scale = None if grad_scale == 1 else cupy().full((), grad_scale, np.float64)
    root = sqrt(1 - beta2**step)
    rate, root_eps = lr * root / (1 - beta1**step), eps * root
    numbers = (lr, beta1, beta2, 1 - beta1, 1 - beta2, 0.0 if per_element else weight_decay)
    SOURCE.launch(
        f"adamw_update<{real_of(dtype)}>",
        (element_blocks(param.size),),
        (THREADS,),
        *(param, grad, m, v, grad_scale, decays, size_of(param)),
        *[float(number) for number in (*numbers, rate, root_eps)],
        dtype=dtype,
    )


class StepState:
    """What a training step reads and advances on the device.

    Args:
        groups: parameter groups, each with a learning rate of its own.
        steps: how many steps `rates` has a learning rate for.
        ring: how many steps `history` remembers.

    Attributes:
        report: float64, the memory of `counters` and `history`: all that a host looks at.
        counters: (4,) int64: steps made, AdamW's updates made, windows taken, 1 if a step was not
            finite: from then on nothing changes, until the host sets it to 0.
        history: (2, ring) float64, loss and gradient norm of step i in column i % ring.
        draw: (1,) uint32, what dropout masks are drawn from.
        rates: (groups, steps) float64, learning rates.
        orders: float64, what `order_step` tells `adamw_step_ordered`.
    """

    def __init__(self, groups: int, steps: int, ring: int) -> None:
        xp = cupy()
        self.report = xp.zeros(4 + 2 * ring, np.float64)
        self.counters = self.report[:4].view(np.int64)
        self.history = self.report[4:].reshape(2, ring)
        self.draw = xp.zeros(1, np.uint32)
        self.rates = xp.zeros((groups, steps), np.float64)
        self.orders = xp.zeros(3 + 3 * groups, np.float64)

    @property
    def arrays(self) -> list[Any]:
        """All that a step changes."""
        return [self.counters, self.history, self.draw, self.orders]


def order_step(
    grad: Any,
    loss: Any,
    state: StepState,
    *,
    max_norm: float,
    betas: tuple[float, float],
    eps: float,
    windows: int,
    draws: int = 1,
    loss_scale: float = 1.0,
    average_decay: float = 0.0,
) -> None:
    """Measure the gradient and decide what the update does, in one launch.

    If the loss and the norm are finite, the counters advance and the update is ordered. If not,
    nothing changes any more until the host has looked: `counters[3]` is 1 then.

    Args:
        grad: (N,) the flat gradient.
        loss: one number on the device, of the dtype of `grad`.
        max_norm: gradients are clipped to this norm.
        betas, eps: AdamW's, the same in all groups.
        windows: how many windows the step has taken.
        draws: by how much `draw` advances.
        loss_scale: multiplies the loss in the history.
        average_decay: of the average of the weights: d = min(average_decay, (1 + t)/(10 + t)).
    """
    xp, parts = cupy(), _parts(grad)
    groups, steps = state.rates.shape
    numbers = [np.float64(n) for n in (loss_scale, max_norm, *betas, eps, average_decay)]
    SOURCE.launch(
        f"step_orders<{real_of(grad.dtype)}>",
        (parts,),
        (THREADS,),
        *(grad, xp.empty(parts, np.float64), counters(1), loss),
        *(state.counters, state.draw, state.history, state.rates, state.orders),
        *(size_of(grad), state.history.shape[1], groups, steps, windows, draws, *numbers),
        dtype=one_dtype("order_step", grad, loss),
    )


def adamw_step_ordered(
    param: Any,
    grad: Any,
    m: Any,
    v: Any,
    state: StepState,
    *,
    group: int,
    betas: tuple[float, float],
    weight_decay: float,
    average: Any = None,
) -> None:
    """The step that `order_step` has ordered, in place, for one group; one launch.

    Args:
        param, grad, m, v: the group's share of the flat arrays, C-contiguous.
        average: a ← d·a + (1 - d)·p after the update, or None.
    """
    dtype = one_dtype("adamw", param, grad, m, v, average)
    numbers = (*betas, 1 - betas[0], 1 - betas[1], weight_decay)
    SOURCE.launch(
        f"adamw_update_ordered<{real_of(dtype)}>",
        (element_blocks(param.size),),
        (THREADS,),
        *(param, grad, m, v, average, state.orders, size_of(param), group),
        *[float(number) for number in numbers],
        dtype=dtype,
    )
