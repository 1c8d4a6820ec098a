"""An explicit random generator. There is no global random state: pass a generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.device import CPU, Device
from minigrad.kernels.cuda.dropout import keep_mask
from minigrad.state import STATE
from minigrad.tensor import Tensor


class Generator:
    """Random tensors from a seed (NumPy's PCG64).

    Numbers are drawn on the CPU and moved, so a seed gives the same tensors on every device.

    Args:
        seed: a non-negative integer.
        device: where the tensors are put.

    Raises:
        TypeError, ValueError: the seed is something else.
    """

    def __init__(self, seed: int, device: Device | str = CPU) -> None:
        try:
            if seed is None:
                raise TypeError  # NumPy would take random numbers that cannot be drawn again
            self._own = np.random.default_rng(seed)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"Generator: the seed must be a non-negative integer, not {seed!r}"
            ) from None
        self.device: Device = Device(device)

    if not TYPE_CHECKING:  # otherwise checkers would accept every name

        def __getattr__(self, name: str) -> Any:  # asked only for what there is not
            hint = {"randn": "; it is .normal(shape)", "rand": "; it is .uniform(shape)"}.get(name)
            if hasattr(np.random.Generator, name) and not name.startswith("_"):
                hint = f"; NumPy's, which gives arrays, is .numpy.{name}"
            message = f"'Generator' object has no attribute {name!r}{hint or ''}"
            raise AttributeError(message, name=name, obj=self)

    @property
    def numpy(self) -> np.random.Generator:
        """The NumPy generator that gives the numbers."""
        return STATE.draws.get((self, "generator"), self._own)

    @contextmanager
    def seeded(self, *key: int) -> Iterator[None]:
        """Context manager: in this thread, use a generator that depends only on `key`.

        If the random numbers of a training step depend on its number, and not on what was drawn
        before, the step can be repeated, resumed and shared among workers.
        """
        with _for_a_while((self, "generator"), np.random.default_rng(key)):
            yield

    @contextmanager
    def seeded_on_device(self, seed: int, step: Any, ahead: int = 0) -> Iterator[None]:
        """Context manager: in this thread, `bernoulli` draws on a GPU, from these numbers only.

        The result depends on the value of `step` when the kernels run. So a captured graph draws
        new numbers at each replay. (Other distributions are drawn as before.)

        Args:
            seed: 0 to 2⁶⁴ - 1.
            step: (1,) uint32 on the device.
            ahead: is added to the step.
        """
        with _for_a_while((self, "on device"), _DeviceDraws(seed, step, ahead)):
            yield

    @contextmanager
    def without_drawing(self) -> Iterator[None]:
        """Context manager: in this thread, `normal` and `uniform` give zeros, without any work.

        For a model whose weights are loaded next: drawing 124 million of them takes seconds.
        """
        with _for_a_while((self, "zeros"), True):
            yield

    def normal(
        self, shape: int | Sequence[int], mean: float = 0.0, std: float = 1.0, dtype: Any = None
    ) -> Tensor:
        """Normal distribution with the given mean and standard deviation; float32 by default.

        Raises:
            TypeError: the shape does not come first, as one number or tuple.
            ValueError: the standard deviation is negative.
        """
        _require_shape_first("normal", shape, mean=mean, std=std)
        if (self, "zeros") in STATE.draws:
            return self._tensor(np.zeros(shape, dtype or np.float32), dtype or np.float32)
        return self._tensor(self.numpy.normal(mean, std, shape), dtype or np.float32)

    def uniform(
        self, shape: int | Sequence[int], low: float = 0.0, high: float = 1.0, dtype: Any = None
    ) -> Tensor:
        """Uniform distribution over [low, high); float32 by default.

        Raises:
            TypeError: the shape does not come first, as one number or tuple.
            ValueError: low is above high.
        """
        _require_shape_first("uniform", shape, low=low, high=high)
        if np.any(np.greater(low, high)):
            raise ValueError(f"uniform: low ({low}) is above high ({high})")
        if (self, "zeros") in STATE.draws:
            return self._tensor(np.zeros(shape, dtype or np.float32), dtype or np.float32)
        return self._tensor(self.numpy.uniform(low, high, shape), dtype or np.float32)

    def integers(self, low: int, high: int, shape: int | Sequence[int]) -> Tensor:
        """Integers in [low, high), int64."""
        return self._tensor(self.numpy.integers(low, high, shape), np.int64)

    def bernoulli(self, shape: int | Sequence[int], p: float) -> Tensor:
        """Booleans, True with probability p.

        Raises:
            TypeError: the shape does not come first, as one number or tuple.
            ValueError: p is not in [0, 1].
        """
        _require_shape_first("bernoulli", shape, p=p)
        if not 0 <= p <= 1:
            raise ValueError(f"bernoulli: p is a probability, from 0 to 1, not {p}")
        on_device = STATE.draws.get((self, "on device"))
        if on_device is not None:
            return Tensor.wrap(on_device.bernoulli(shape, p))
        return self._tensor(self.numpy.random(shape, dtype=np.float32) < p, np.bool_)

    def permutation(self, n: int) -> Tensor:
        """The numbers 0 to n-1 in random order."""
        return self._tensor(self.numpy.permutation(n), np.int64)

    def state_dict(self) -> dict[str, Any]:
        """The state, as plain numbers and strings that JSON can hold."""
        return dict(self.numpy.bit_generator.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        self.numpy.bit_generator.state = dict(state)

    def _tensor(self, values: Any, dtype: Any) -> Tensor:
        return Tensor.wrap(self.device.asarray(np.asarray(values, dtype=dtype)))


def _require_shape_first(name: str, shape: Any, **numbers: Any) -> None:
    """Raise TypeError for NumPy's order of arguments, which would give other numbers.

    NumPy's `normal(0, 1, (2, 3))` would be no number at all.
    """
    sizes = list(shape) if isinstance(shape, Iterable) else [shape]
    swapped: list[Any] = [size for size in sizes if isinstance(size, float)]
    if not isinstance(shape, Iterable):
        swapped += [number for number in numbers.values() if isinstance(number, (tuple, list))]
    if swapped:
        raise TypeError(
            f"{name}: the shape comes first, then {' and '.join(numbers)}, as in "
            f"{name}((2, 3), {', '.join(f'{k}=...' for k in numbers)})"
        )


@contextmanager
def _for_a_while(key: Any, value: Any) -> Iterator[None]:
    draws = STATE.draws
    before = draws.get(key)
    draws[key] = value
    try:
        yield
    finally:
        if before is None:
            del draws[key]
        else:
            draws[key] = before


class _DeviceDraws:
    """Masks by Philox, each from a stream of its own, numbered in the order of the calls."""

    def __init__(self, seed: int, step: Any, ahead: int) -> None:
        self.seed, self.step, self.ahead, self.drawn = seed, step, ahead, 0

    def bernoulli(self, shape: int | Sequence[int], p: float) -> Any:
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        numbers = {"seed": self.seed, "step": self.step, "ahead": self.ahead}
        self.drawn += 1
        return keep_mask(sizes, 1 - p, **numbers, stream=self.drawn)
