"""What a step of training is told by arrays on a GPU: learning rate, step count, and what becomes
of a gradient that is not finite. So a captured graph makes the next step at each replay.

`order_step` measures the gradient and writes orders; the update of each rule follows them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, element_blocks, one_dtype, real_of, size_of
from minigrad.kernels.cuda.scratch import counters

SOURCE = Source("orders", "step_orders<{real}>", "average_ordered<{real}>")
THREADS = 256
MOST_PARTS = 256  # of a norm, so that one block can add them up


class StepState:
    """What a training step reads and advances on the device.

    Args:
        groups: parameter groups, each with a learning rate of its own.
        steps: how many steps `rates` has a learning rate for.
        ring: how many steps `history` remembers.

    Attributes:
        report: float64, the memory of `counters` and `history`: all that a host looks at.
        counters: (4,) int64: steps made, the optimizer's updates made, windows taken, 1 if a step
            was not finite: from then on nothing changes, until the host sets it to 0.
        history: (2, ring) float64, loss and gradient norm of step i in column i % ring.
        draw: (1,) uint32, what dropout masks are drawn from.
        rates: (groups, steps) float64, learning rates.
        orders: float64, what `order_step` tells the update: 1 if it is to be made, what clipping
            multiplies gradients by, the decay of the average of the weights, the number of the
            update from 1, and each group's learning rate.
    """

    def __init__(self, groups: int, steps: int, ring: int) -> None:
        xp = cupy()
        self.report: Any = xp.zeros(4 + 2 * ring, np.float64)
        self.counters: Any = self.report[:4].view(np.int64)
        self.history: Any = self.report[4:].reshape(2, ring)
        self.draw: Any = xp.zeros(1, np.uint32)
        self.rates: Any = xp.zeros((groups, steps), np.float64)
        self.orders: Any = xp.zeros(4 + groups, np.float64)

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
        windows: how many windows the step has taken.
        draws: by how much `draw` advances.
        loss_scale: multiplies the loss in the history.
        average_decay: of the average of the weights: d = min(average_decay, (1 + t)/(10 + t)).
    """
    xp, parts = cupy(), max(1, min(element_blocks(grad.size), MOST_PARTS))
    groups, steps = state.rates.shape
    numbers = [np.float64(n) for n in (loss_scale, max_norm, average_decay)]
    SOURCE.launch(
        f"step_orders<{real_of(grad.dtype)}>",
        (parts,),
        (THREADS,),
        *(grad, xp.empty(parts, np.float64), counters(1), loss),
        *(state.counters, state.draw, state.history, state.rates, state.orders),
        *(size_of(grad), state.history.shape[1], groups, steps, windows, draws, *numbers),
        dtype=one_dtype("order_step", grad, loss),
    )


def average_ordered(average: Any, param: Any, state: StepState) -> None:
    """average ← d·average + (1 - d)·param, if an update was ordered: in place, by one launch.

    Args:
        average, param: (N,) of one dtype.
    """
    dtype = one_dtype("average_ordered", average, param)
    SOURCE.launch(
        f"average_ordered<{real_of(dtype)}>",
        (element_blocks(param.size),),
        (THREADS,),
        *(param, average, state.orders, size_of(param)),
        dtype=dtype,
    )
