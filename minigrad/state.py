"""The state of the engine in this thread, and the switches that change it."""

from __future__ import annotations

import threading
from typing import Any, overload

from minigrad.device import CPU, Device
from minigrad.settings import Function, Named, Setting, decorator_or_block


class State(threading.local):
    """The state of a thread. Class attributes are each thread's initial values."""

    grad_enabled = True
    textbook = False
    detect_nan = False
    keep_inputs = True
    modules: tuple[Any, ...] = ()  # the nn.Modules that are running, outermost first
    device: Device = CPU  # of new tensors that name none
    precision: str | None = None  # of products on a GPU; None is what holds for all threads
    library: str | None = None  # that computes them; likewise
    compiling: Any = None  # called with kernels instead of launching them, or None
    threads = 1  # that a kernel on the CPU may use (see `minigrad.kernels.cpu.threads`)
    blas_users = 0  # blocks of this thread that hold BLAS to one thread

    def __init__(self) -> None:
        self.draws: dict[Any, Any] = {}  # random generator -> what it draws from in a block
        self.buffers: dict[Any, Any] = {}  # workspace of CPU kernels
        self.blas_before: list[Any] = []  # what to restore when its last block ends


STATE = State()


def setting(**changes: Any) -> Setting:
    """Attributes of `STATE` for a while, in this thread."""
    return Setting(STATE, **changes)


@overload
def no_grad() -> Setting: ...
@overload
def no_grad(function: Function) -> Function: ...
@Named
def no_grad(function: Any = None) -> Any:
    """Context manager and decorator: ops in this thread record nothing.

    `with no_grad():`, `@no_grad()` and `@no_grad`; see `minigrad.settings`, also for the next ones.
    """
    return decorator_or_block(setting(grad_enabled=False), function)


@overload
def enable_grad() -> Setting: ...
@overload
def enable_grad(function: Function) -> Function: ...
@Named
def enable_grad(function: Any = None) -> Any:
    """Context manager and decorator: ops record again inside a `no_grad` block."""
    return decorator_or_block(setting(grad_enabled=True), function)


@overload
def textbook() -> Setting: ...
@overload
def textbook(function: Function) -> Function: ...
@Named
def textbook(function: Any = None) -> Any:
    """Context manager and decorator: every op runs its textbook, no kernel is used."""
    return decorator_or_block(setting(textbook=True), function)


@overload
def detect_nan() -> Setting: ...
@overload
def detect_nan(function: Function) -> Function: ...
@Named
def detect_nan(function: Any = None) -> Any:
    """Context manager and decorator: raise `NonFiniteError` at the first NaN or Inf.

    The error names the op, its shapes, the module, and whether it was in the forward or the
    backward pass. Each op's result is checked, so a pass takes about twice its time. The backward
    pass must run inside the block as well.
    """
    return decorator_or_block(setting(detect_nan=True), function)


@overload
def first_order() -> Setting: ...
@overload
def first_order(function: Function) -> Function: ...
@Named
def first_order(function: Any = None) -> Any:
    """Context manager and decorator: graphs keep fewer arrays, but allow first derivatives only.

    Usually a node keeps the tensors that its op has read, because `create_graph=True` runs the op
    again. Inside this block, intermediates that no op has saved for backward are freed at once.
    """
    return decorator_or_block(setting(keep_inputs=False), function)


__all__ = [
    "STATE",
    "detect_nan",
    "enable_grad",
    "first_order",
    "no_grad",
    "setting",
    "textbook",
]
