"""Numbers of a training step that lie on the GPU: learning rate, step count, and whether to update.

A captured graph cannot take new arguments. As these numbers are read and advanced on the device,
each replay makes the next step. `order_step` computes the gradient's norm and writes the numbers of
the update ("orders"); the update of each optimizer reads them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.device import cupy
from minigrad.kernels.cuda.compile import Source, element_blocks, one_dtype, real_of, size_of
from minigrad.kernels.cuda.scratch import counters

SOURCE = Source("orders", "step_orders<{real}>", "average_ordered<{real}>")
THREADS = 256
MOST_PARTS = 256  # partial sums of a norm, few enough for one block to add up


class StepState:
    """What a training step reads and advances on the device.

    Args:
        groups: the number of parameter groups, each with its own learning rate.
        steps: the number of steps for which `rates` has learning rates.
        ring: the number of steps that `history` holds.

    Attributes:
        report: float64, the memory of `counters` and `history`: all that the host reads back.
        counters: (4,) int64: steps made, updates made, windows used, and 1 after a step that was
            not finite. While it is 1 nothing changes; the host sets it back to 0.
        history: (2, ring) float64, loss and gradient norm of step i in column i % ring.
        draw: (1,) uint32, the counter from which dropout masks are drawn.
        rates: (groups, steps) float64, learning rates.
        orders: (4 + groups,) float64, the numbers of the update: 1 if it is to be made, the factor
            of clipping, the decay of the weights' average, the number of the update from 1, and
            each group's learning rate.
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
    """Compute the gradient's norm and the numbers of the update, in one launch.

    If loss and norm are finite, the counters advance and `orders[0]` becomes 1. If not,
    `counters[3]` becomes 1, and no update is made until the host sets it back to 0.

    Args:
        grad: (N,) the flat gradient.
        loss: one number on the device, of the dtype of `grad`.
        max_norm: gradients are clipped to this norm.
        windows: the number of windows that the step has used.
        draws: by how much `draw` advances.
        loss_scale: a factor for the loss in the history.
        average_decay: the decay of the weights' average is min(average_decay, (1 + t)/(10 + t)).
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
    """average ← d·average + (1 - d)·param, in place, if the update is made; one launch.

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
