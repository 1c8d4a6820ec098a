"""Training steps on a GPU that need nothing from the host. It only launches them.

The tokens, the order of an epoch's windows, the learning rates, all counters and the last losses
lie on the device. A step gathers its batch, computes loss and gradient, clips the gradient, updates
the weights and counts, without any transfer. So a step can be captured as one CUDA graph
(`minigrad.parallel.capture`), one for each shape of its batches. The host reads results back once
in many steps (`look`).

The update is made by the optimizer's `step`, which reads its numbers from arrays on the device
(`Orders`).

If a loss or gradient is not finite, that step and all later ones change nothing, until the host has
read it back: weights and counters stay as they were before that step.

If several processes share each step, it consists of two graphs. Between them the host sums loss and
gradient over all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minigrad.autograd import add_gradients, write_gradients
from minigrad.device import device_of
from minigrad.kernels.cuda import Namespace, orders
from minigrad.kernels.cuda.compile import compiling_ahead
from minigrad.optim import Orders, counting
from minigrad.optim.flat import FlatParameters
from minigrad.optim.optimizer import Optimizer
from minigrad.parallel.capture import Captured
from minigrad.state import first_order
from minigrad.tensor import Tensor
from tinyalpaca.training import windows

DeviceLoss = Callable[[Any, Any, Any, int], Tensor]
Share = Callable[[int], slice]


# Errors of rules that need Python numbers: `range(step)`, `table[step]`, `{...}.get(lr)`.
NO_NUMBER = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)


class NeedsHost(ValueError):
    """The optimizer's step cannot compute with arrays instead of numbers."""


class Progress(NamedTuple):
    """The results that the host reads back.

    Attributes:
        step: the number of steps made.
        halted: True if the step after them was not finite.
        losses, norms: those of the last steps, at index `step % len`, also of the step that was not
            finite.
    """

    step: int
    halted: bool
    losses: list[float]
    norms: list[float]

    def of(self, step: int) -> tuple[float, float]:
        """Loss and gradient norm of a step; steps are counted from 0."""
        return self.losses[step % len(self.losses)], self.norms[step % len(self.norms)]


class DeviceSteps:
    """Makes an optimizer's steps on windows of a token stream.

    Args:
        flat: the parameters on a GPU, in the optimizer's order.
        optimizer: its state is moved to flat arrays. Step counts and learning rates stay on the
            host; `set_position` and `rates` copy them to the device. If another setting has been
            changed, the first launch after a `look` makes new graphs.
        loss: a function of x, y (B, T), the array `draw` of dropout masks and a number to add to
            it, which returns the *sum* of the losses. It must not read values back.
        tokens: (N,) integers.
        time: T, the predictions of a window.
        windows: the largest number of windows in an epoch.
        rates: (groups, steps) the learning rate of each group and step.
        ring: how many steps may be launched between two calls of `look`.
        max_norm: gradients are clipped to this norm.
        average: (P,) the average of the weights to update, or None.
        average_decay: see `minigrad.kernels.cuda.orders.order_step`.
        graph: whether steps are captured; otherwise the same kernels are launched one by one.
        share: the slice of a batch's rows that this process computes, by the number of rows; by
            default all rows.
        between: is called between gradient and update. It replaces the summed loss (1,), its
            argument, and `flat.grad` by the sums over all processes. None for a single process.

    Raises:
        ValueError: `counting.why_not` has a reason why the optimizer's steps cannot be captured;
            from `launch`: `why_not` has one.
    """

    flat: FlatParameters

    def __init__(
        self,
        flat: FlatParameters,
        optimizer: Optimizer,
        loss: DeviceLoss,
        *,
        tokens: np.ndarray,
        time: int,
        windows: int,
        rates: np.ndarray,
        ring: int,
        max_norm: float,
        average: Any = None,
        average_decay: float = 0.0,
        graph: bool = True,
        share: Share = slice,
        between: Callable[[Any], None] | None = None,
    ) -> None:
        reason = counting.why_not(optimizer)
        if reason:
            raise ValueError(reason)
        self.flat, self._loss, self._time = flat, loss, time
        self._device = device_of(flat.array)
        self._max_norm, self._graph = max_norm, graph
        self._share, self._between = share, between
        self._average, self._average_decay = average, average_decay
        if optimizer.flat is not flat or counting.why_stale(optimizer):
            optimizer.flatten(flat)
            stale = counting.why_stale(optimizer)
            if stale:
                raise ValueError(stale)
        self._optimizer, self._sections = optimizer, optimizer.sections
        with self._device.in_use():
            self.state: orders.StepState = orders.StepState(len(rates), rates.shape[1], ring)
            made, self._grad_scale, _, step, *numbers = [order for order in self.state.orders]
            self._orders = Orders(Namespace(), made, step, numbers)
            self._tokens = self._device.asarray(np.ascontiguousarray(tokens, np.int32))
            self._starts = self._device.xp.zeros(windows, np.int64)
            self._summed = self._device.xp.zeros(1, flat.array.dtype)
        self._steps: dict[tuple[int, ...], Captured] = {}
        self._updates: dict[tuple[int, ...], Captured] = {}
        self._scales: dict[float, Any] = {}
        self._settings: Any = counting.settings_now(optimizer)
        self._compared = True  # whether settings were compared since the last `look`
        self.set_rates(rates)

    def set_rates(self, rates: np.ndarray) -> None:
        """Set the learning rates (groups, steps)."""
        with self._device.in_use():
            self.state.rates[...] = self._device.asarray(np.asarray(rates, np.float64))

    def set_windows(self, starts: np.ndarray) -> None:
        """Set where the windows of the next steps begin, (M,), in this order."""
        with self._device.in_use():
            places = self._starts[: len(starts)]
            places[...] = self._device.asarray(np.ascontiguousarray(starts, np.int64))

    def set_position(self, step: int, *, updates: int, draw: int) -> None:
        """Set the counters for the next step, which takes the first of the windows; end a halt.

        Args:
            step: the number of the next step, from 0: an index into `rates`.
            updates: the number of updates that the optimizer has made.
            draw: the counter from which its dropout masks are drawn.
        """
        counters = np.array([step, updates, 0, 0], np.int64)
        with self._device.in_use():
            self.state.counters[...] = self._device.asarray(counters)
            self.state.draw[...] = self._device.asarray(np.array([draw % 2**32], np.uint32))
            for array in self._averages() if updates == 0 else ():
                array[...] = 0

    def compile(self, rows: Sequence[int]) -> None:
        """Compile all kernels of a step in parallel, unless the compiler's cache has them.

        The step's Python code runs without launching kernels. It only changes arrays that the next
        step overwrites.

        Raises:
            NeedsHost: the rule of a group cannot compute with arrays instead of numbers.
        """
        with self._device.in_use(), compiling_ahead():
            self.state.orders[...] = 1  # numbers that any rule can compute with
            self.state.orders[:1] = 0  # CuPy's own kernels do run: they must change no weight
            self._step(tuple(rows))

    def launch(self, rows: Sequence[int]) -> None:
        """Launch a step whose batches have so many windows each.

        Does not wait for the GPU, unless processes share the step.
        """
        if not self._compared:
            reason = self.why_not()
            if reason:
                raise ValueError(reason)
            self.forget_others()
        key = tuple(rows)
        of = f"of {' + '.join(map(str, key))} sequences"
        if key not in self._steps and self._between is None:
            self._steps[key] = Captured(
                partial(self._step, key),
                self._changing(),
                label=f"training step {of}",
                enabled=self._graph,
            )
        elif key not in self._steps:
            self._steps[key] = Captured(
                partial(self._leave_gradients, key),
                [self.flat.grad, self._summed],
                label=f"gradient {of}",
                enabled=self._graph,
            )
            self._updates[key] = Captured(
                partial(self._update_from, key),
                self._changing(),
                label=f"update {of}",
                enabled=self._graph,
            )
        with self._device.in_use():
            self._steps[key]()
            if self._between is not None:
                self._between(self._summed)
                self._updates[key]()

    def why_not(self) -> str | None:
        """Why no more steps can be made here, with any settings, or None."""
        optimizer = self._optimizer
        if optimizer.flat is not self.flat or optimizer.sections is not self._sections:
            return f"the memory of {type(optimizer).__name__} was laid out anew"
        return counting.why_stale(optimizer)

    def forget_others(self) -> bool:
        """Delete all graphs if settings have changed since they were made; returns whether so."""
        settings, self._compared = counting.settings_now(self._optimizer), True
        if settings == self._settings:
            return False
        self._steps, self._updates, self._settings = {}, {}, settings
        return True

    def look(self) -> Progress:
        """Wait for the launched steps and read their results back, by one transfer."""
        report = self.state.report.get()
        self._compared = False  # the caller may change settings from here on
        counters = report[:4].view(np.int64)
        losses, norms = report[4:].reshape(2, -1).tolist()
        return Progress(int(counters[0]), bool(counters[3]), losses, norms)

    @property
    def graphs(self) -> int:
        """The number of graphs, one or two for each shape of steps."""
        every = (*self._steps.values(), *self._updates.values())
        return sum(step.graph is not None for step in every)

    @property
    def graph_bytes(self) -> int:
        """The memory that graphs hold, in bytes."""
        return sum(s.pool_bytes for s in (*self._steps.values(), *self._updates.values()))

    def _changing(self) -> list[Any]:
        arrays = [self.flat.array, *self.state.arrays]
        arrays += self._averages()
        return arrays if self._average is None else [*arrays, self._average]

    def _averages(self) -> list[Any]:
        return [array for section in self._sections for array in section.state.values()]

    def _step(self, rows: tuple[int, ...]) -> None:
        """The step that is launched or captured. It reads no values back."""
        self._update(self._gradients(rows), rows)

    def _leave_gradients(self, rows: tuple[int, ...]) -> None:
        """The first half of a shared step: gradients, and the loss in an array of its own."""
        self._summed[...] = self._gradients(rows)

    def _update_from(self, rows: tuple[int, ...]) -> None:
        """The second half of a shared step: the update."""
        self._update(self._summed, rows)

    def _gradients(self, rows: tuple[int, ...]) -> Any:
        """Write this process's gradient of a step to `flat.grad`; returns its summed loss."""
        places, first, total = self.flat.views(self.flat.grad), 0, None
        scale = 1 / (sum(rows) * self._time)
        for number, count in enumerate(rows):
            mine = self._share(count)
            if mine.stop == (mine.start or 0):  # there are more processes than rows
                first += count
                continue
            x, y = windows.gather(
                self._tokens,
                self._starts,
                self.state.counters[2:3],
                first=first + (mine.start or 0),
                rows=mine.stop - (mine.start or 0),
                time=self._time,
            )
            with first_order():
                loss = self._loss(x, y, self.state.draw, number)
            into = write_gradients if total is None else add_gradients
            total = loss.array if total is None else total + loss.array
            into(loss, self.flat.parameters, places, scale=self._on_device(scale))
            first += count
        if total is None:
            self.flat.grad[...] = 0
        return 0.0 if total is None else total

    def _on_device(self, scale: float) -> Any:
        """A number as an array on the device, made at the first call."""
        if scale not in self._scales:
            self._scales[scale] = self._device.number(scale, self.flat.array.dtype)
        return self._scales[scale]

    def _update(self, loss: Any, rows: tuple[int, ...]) -> None:
        orders.order_step(
            self.flat.grad,
            loss,
            self.state,
            loss_scale=1 / (sum(rows) * self._time),
            max_norm=self._max_norm,
            windows=sum(rows),
            draws=len(rows),
            average_decay=self._average_decay,
        )
        try:
            self._optimizer.step(self._grad_scale, self._orders)
        except NO_NUMBER as error:
            raise NeedsHost(
                f"a step of {type(self._optimizer).__name__} fails with arrays on the GPU in the "
                f"place of numbers ({type(error).__name__}: {error})"
            ) from error
        if self._average is not None:
            orders.average_ordered(self._average, self.flat.array, self.state)
